"""A task's image: in the task itself, in Label Studio (with its token), or on a configured host."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Mapping
from urllib.parse import quote, urlsplit

from front.refusals import Refusal, invalid
from front.tools.encoded_images import decode_image
from front.tools.fields import a_text
from front.tools.image_fetching import ImageFetcher
from front.tools.image_hosts import Target, read_target
from front.tools.settings import ToolSettings

# Files of other storages: Label Studio gives a URL for one that it has signed.
_CLOUD_SCHEMES = ("s3:", "gs:", "azure-blob:")
# An access token lives for minutes; it is renewed before it can end on the way.
_ACCESS_TOKEN_SECONDS = 120.0
_LONGEST_DATA_URI = 100_000_000


class LabelStudioImages:
    """Fetches images of tasks."""

    def __init__(
        self,
        settings: ToolSettings,
        fetcher: ImageFetcher,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = settings.label_studio_url
        self._token = settings.label_studio_token
        self._fetcher = fetcher
        self._clock = clock
        self._origin = None
        if self._url is not None:
            self._origin = read_target("--label-studio-url", self._url, settings.image_hosts).origin
        self._access: tuple[float, str] | None = None

    async def image(
        self, field: str, value: object, task_id: object, hold: Callable[[int], None]
    ) -> bytes:
        """The bytes of the image that a task's field names."""
        text = a_text(field, value, longest=_LONGEST_DATA_URI)
        if text.startswith("data:"):
            return decode_image(field, text)
        return await self._fetcher.fetch(
            field, self._absolute(field, text, task_id), hold, self._headers
        )

    def _absolute(self, field: str, text: str, task_id: object) -> str:
        if text.startswith(_CLOUD_SCHEMES):
            if (
                isinstance(task_id, bool)
                or not isinstance(task_id, int | str)
                or not str(task_id).isalnum()
            ):
                raise invalid(f"tasks[0].id: expected the task's number, got {str(task_id)[:40]!r}")
            return f"{self._label_studio(field)}/tasks/{task_id}/presign/?fileuri={quote(text, safe='')}"
        if urlsplit(text[:4096]).scheme:
            return text
        path = text if text.startswith("/") else f"/{text}"
        if path.startswith("//"):
            raise invalid(f"{field}: expected a URL or a path, got {text[:60]!r}")
        # Old tasks name uploaded files without the folder that they are served from.
        if path.startswith("/upload/"):
            path = f"/data{path}"
        return self._label_studio(field) + path

    def _label_studio(self, field: str) -> str:
        if self._url is None:
            raise invalid(
                f"{field}: an image that Label Studio itself keeps needs --label-studio-url, and"
                " LABEL_STUDIO_API_KEY in the front's environment"
            )
        return self._url

    async def _headers(self, target: Target) -> Mapping[str, str]:
        """The token, to Label Studio alone: not to where it redirects."""
        if self._token is None or target.origin != self._origin:
            return {}
        if not _is_personal(self._token):
            return {"Authorization": f"Token {self._token}"}
        return {"Authorization": f"Bearer {await self._access_token()}"}

    async def _access_token(self) -> str:
        """What a personal access token is exchanged for; kept while it is good."""
        now = self._clock()
        if self._access is None or now >= self._access[0]:
            body = json.dumps({"refresh": self._token}).encode()
            url = f"{self._url}/api/token/refresh"
            answer = await self._fetcher.post_json("LABEL_STUDIO_API_KEY", url, body)
            try:
                access = json.loads(answer)["access"]
            except (ValueError, KeyError, TypeError) as error:
                raise _no_access() from error
            # It becomes a header.
            if not isinstance(access, str) or not access.isascii() or not access.isprintable():
                raise _no_access()
            self._access = (now + _ACCESS_TOKEN_SECONDS, access)
        return self._access[1]


def _no_access() -> Refusal:
    return invalid("LABEL_STUDIO_API_KEY: Label Studio gave no access token for it")


def _is_personal(token: str) -> bool:
    """Whether a token is a personal one (a JWT, to be exchanged) and not a legacy one."""
    head = token.split(".", maxsplit=1)[0]
    try:
        padded = head + "=" * (-len(head) % 4)
        return token.count(".") == 2 and "alg" in json.loads(base64.urlsafe_b64decode(padded))
    except (ValueError, TypeError):
        return False
