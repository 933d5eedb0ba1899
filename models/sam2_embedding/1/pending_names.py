"""Names that were given to images whose encodes are under way, and what becomes of them.

Pure bookkeeping for one thread: it knows digests and names, neither encodes nor the cache.
"""

from __future__ import annotations


class PendingNames:
    """For each name, the images that claim it and are not encoded yet, in the order in which they came.

    The latest claim is what the name stands for meanwhile. If that image turns out to be broken, the name
    falls back to the claim before it, and at last to whatever image it stood for before all of them.
    """

    def __init__(self) -> None:
        self._claims: dict[str, list[str]] = {}  # digests, the latest last, each once

    def __len__(self) -> int:
        return len(self._claims)

    def latest(self, name: str) -> str | None:
        """The digest of the image that the name stands for; None where nobody claims it."""
        claims = self._claims.get(name)
        return claims[-1] if claims else None

    def claim(self, name: str, digest: str) -> None:
        """This image came under the name, later than all others so far."""
        claims = self._claims.setdefault(name, [])
        if digest in claims:
            claims.remove(digest)
        claims.append(digest)

    def settle(self, name: str) -> None:
        """An image that needs no encode came under the name: whoever waits for it came earlier."""
        self._claims.pop(name, None)

    def granted(self, digest: str) -> list[str]:
        """The image is sound: the names it takes. Claims before its own are void, later ones stay."""
        return self._end(digest, void_earlier=True)

    def failed(self, digest: str) -> None:
        """The image is broken: its claims are as if they had never been."""
        self._end(digest, void_earlier=False)

    def _end(self, digest: str, *, void_earlier: bool) -> list[str]:
        names = [name for name, claims in self._claims.items() if digest in claims]
        for name in names:
            claims = self._claims[name]
            place = claims.index(digest)
            del claims[0 if void_earlier else place : place + 1]
            if not claims:
                del self._claims[name]
        return names
