"""Who calls: API keys, the tenants that they belong to, and how much each key may ask for."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from front.api_keys import read_api_keys
from front.refusals import Refusal, unavailable
from front.settings import Limits

# In metrics and logs; a name that no key can have.
KEYLESS = "(no key)"


@dataclass
class Caller:
    """One API key's holder."""

    name: str
    # None: the server has no keys, and all its callers are one.
    tenant: str | None
    tokens: float = 0.0
    refilled_at: float = 0.0
    at_once: int = 0
    streams: int = 0


class Callers:
    """Recognises callers and counts what they ask for. Belongs to one event loop."""

    def __init__(
        self,
        keys_file: Path | None,
        limits: Limits,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = limits
        self._clock = clock
        self._anonymous = None if keys_file else Caller("", None)
        # Whoever comes without a key where that is allowed: all together they have what one key has.
        self.keyless = Caller(KEYLESS, None, float(limits.burst), clock())
        self._by_digest: dict[bytes, Caller] = {}
        if keys_file is not None:
            for key in read_api_keys(keys_file.read_text("utf-8")):
                caller = Caller(key.name, key.tenant, float(limits.burst), clock())
                self._by_digest[_digest(key.key)] = caller

    def recognise(self, headers: Mapping[str, str]) -> Caller:
        """The caller by `authorization: Bearer KEY` or `x-api-key: KEY` (names in lower case).

        Raises:
            Refusal: UNAUTHENTICATED.
        """
        if self._anonymous is not None:
            return self._anonymous
        key = headers.get("x-api-key") or _bearer(headers.get("authorization", ""))
        # Looked up by a hash of the key, so that time tells nothing about the keys that there are.
        caller = self._by_digest.get(_digest(key))
        if caller is None:
            raise Refusal(
                grpc.StatusCode.UNAUTHENTICATED,
                "send an API key: Authorization: Bearer KEY, or X-API-Key: KEY",
            )
        return caller

    @contextmanager
    def admit(self, caller: Caller) -> Iterator[None]:
        """Counts one request of a caller, for as long as it is under way; in a stream, each message is one.

        Raises:
            Refusal: UNAVAILABLE (429) above the key's rate or its requests at once.
        """
        if caller is not self._anonymous:
            self._take_token(caller)
            if caller.at_once >= self._limits.requests_at_once_per_key:
                raise unavailable(
                    f"at most {self._limits.requests_at_once_per_key} requests at once for an API key"
                    " (requests_at_once_per_key); try again later",
                    429,
                )
        caller.at_once += 1
        try:
            yield
        finally:
            caller.at_once -= 1

    @contextmanager
    def admit_stream(self, caller: Caller) -> Iterator[None]:
        """Counts one stream of a caller while it is open; its messages are admitted one by one.

        Raises:
            Refusal: UNAVAILABLE above the key's streams at once.
        """
        most = self._limits.streams_at_once_per_key
        if caller is not self._anonymous and caller.streams >= most:
            raise unavailable(
                f"at most {most} open streams for an API key (streams_at_once_per_key); close one first",
                429,
            )
        caller.streams += 1
        try:
            yield
        finally:
            caller.streams -= 1

    def _take_token(self, caller: Caller) -> None:
        now = self._clock()
        earned = (now - caller.refilled_at) * self._limits.requests_per_second
        caller.tokens = min(float(self._limits.burst), caller.tokens + earned)
        caller.refilled_at = now
        if caller.tokens < 1:
            raise unavailable(
                f"at most {self._limits.requests_per_second:g} requests a second for an API key"
                " (requests_per_second); try again later",
                429,
            )
        caller.tokens -= 1


def _bearer(value: str) -> str:
    scheme, _, token = value.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
