"""HTTP to the server beside us. Never through a proxy: that of an office knows nothing of our loopback."""

import urllib.request


def get(url: str, timeout_seconds: float) -> bytes:
    """The body of a good answer; raises OSError or http.client.HTTPException for anything else."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=timeout_seconds) as response:
        return bytes(response.read())
