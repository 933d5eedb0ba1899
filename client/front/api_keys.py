"""The file of API keys, which the front goes by and the gateway's configuration is made of.

Needs nothing but Python: the deployment reads it without the front's packages.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

API_KEY = re.compile(r"[A-Za-z0-9_-]{32,128}")
NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


class ApiKeysError(ValueError):
    """Keys that cannot be used; the message says which and why, never the key."""


@dataclass(frozen=True)
class ApiKey:
    """A line of the keys' file; what it may hold breaks out of no configuration that it is written into."""

    name: str
    key: str = field(repr=False)
    tenant: str

    def __post_init__(self) -> None:
        for name in (self.name, self.tenant):
            if not NAME.fullmatch(name):
                raise ApiKeysError(f"expected names of {NAME.pattern}, got {name[:70]!r}")
        if not API_KEY.fullmatch(self.key):
            raise ApiKeysError(
                f"{self.name}: expected a key of {API_KEY.pattern}, got {len(self.key)} characters"
            )


def read_api_keys(text: str) -> list[ApiKey]:
    """Lines `NAME KEY [TENANT]`; without a tenant, a key is a tenant of its own, called as the key.

    Empty lines and # comments are skipped.

    Raises:
        ApiKeysError: naming the line.
    """
    keys: list[ApiKey] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split("#", 1)[0].split()
        if not words:
            continue
        if len(words) not in (2, 3):
            raise ApiKeysError(f"line {number}: expected NAME KEY [TENANT], got {len(words)} words")
        try:
            key = ApiKey(words[0], words[1], words[-1] if len(words) == 3 else words[0])
        except ApiKeysError as error:
            raise ApiKeysError(f"line {number}: {error}") from error
        if any(key.name == other.name or key.key == other.key for other in keys):
            raise ApiKeysError(f"line {number}: expected each name and each key once")
        keys.append(key)
    return keys
