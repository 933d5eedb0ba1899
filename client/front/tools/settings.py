"""What can be set about the adapters for annotation tools, with its default and its reason."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

TOOL_NAMES = ("label_studio", "cvat", "x_anylabeling", "qupath", "roboflow")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_HOST_AND_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:/@\[\]?#]+)(?::(\d{1,5}))?")


class ToolSettingsError(ValueError):
    """An option for tools that cannot be used; the message names it, what was expected and what came."""


@dataclass(frozen=True)
class ImageHost:
    """A host that images may be fetched from, by name or address."""

    name: str
    # None: the port that belongs to the URL's scheme.
    port: int | None = None
    # Whether its addresses may lie in a private network or on this machine.
    is_private: bool = False


@dataclass(frozen=True)
class ToolLimits:
    """What one request of a tool may cost beyond the front's own limits; each refusal names the limit."""

    # Bytes of a fetched image: what sam2_preprocess takes (max_image_bytes).
    max_fetched_bytes: int = 67_108_864
    # The whole of a fetch, redirects and name look-ups with it.
    fetch_timeout_s: float = 20.0
    max_redirects: int = 3
    fetches_at_once: int = 8
    # A project's labelling configuration is kilobytes.
    max_label_config_bytes: int = 1_000_000
    # Objects of one request: the server's own limit on elements is tighter for large images.
    max_objects: int = 64
    # Pixels of the boxes of all masks of an image, unpacked one by one: some 10 ns each of one thread.
    max_generated_pixels: int = 2_000_000_000
    # Edges of pixels that all exact outlines of an answer have together: 100 bytes each while they are found.
    max_outline_edges: int = 2_000_000
    # Cells of masks that travel unpacked: as rows of 0 and 1 in JSON, two bytes each, or as logits, four.
    max_mask_cells: int = 30_000_000


@dataclass(frozen=True)
class ToolSettings:
    """Which tools are served, and what they may reach."""

    names: tuple[str, ...] = ()
    # Scheme, host and port of the one Label Studio, where its token goes and nowhere else.
    label_studio_url: str | None = None
    # A legacy token or a personal access token.
    label_studio_token: str | None = field(default=None, repr=False)
    image_hosts: tuple[ImageHost, ...] = ()
    limits: ToolLimits = field(default_factory=ToolLimits)


def read_tool_settings(
    tools: str,
    label_studio_url: str | None,
    label_studio_token: str | None,
    image_hosts: Sequence[str],
    private_image_hosts: Sequence[str],
) -> ToolSettings:
    """The settings from the command line's texts.

    Raises:
        ToolSettingsError: naming the option.
    """
    names = tuple(dict.fromkeys(name.strip() for name in tools.split(",") if name.strip()))
    unknown = [name for name in names if name not in TOOL_NAMES]
    if unknown:
        raise ToolSettingsError(
            f"--tools: expected any of {', '.join(TOOL_NAMES)}, got {unknown[0]!r}"
        )
    hosts = [read_image_host("--image-host", text, is_private=False) for text in image_hosts]
    hosts += [read_image_host("--private-image-host", text, True) for text in private_image_hosts]
    if label_studio_url is not None:
        hosts.append(_label_studio_host(label_studio_url))
        label_studio_url = label_studio_url.rstrip("/")
    return ToolSettings(names, label_studio_url, label_studio_token, tuple(hosts))


def read_image_host(option: str, text: str, is_private: bool) -> ImageHost:
    """`HOST` or `HOST:PORT`; an IPv6 address in brackets."""
    match = _HOST_AND_PORT.fullmatch(text)
    port = int(match[2]) if match and match[2] else None
    if match is None or (port is not None and not 0 < port < 65_536):
        raise ToolSettingsError(f"{option}: expected HOST or HOST:PORT, got {text!r}")
    return ImageHost(match[1].strip("[]").lower(), port, is_private)


def _label_studio_host(url: str) -> ImageHost:
    parts = urlsplit(url)
    try:
        port = parts.port or _DEFAULT_PORTS[parts.scheme]
        is_plain = not (parts.username or parts.password or parts.query or parts.fragment)
    except (KeyError, ValueError):
        is_plain = False
    if not is_plain or not parts.hostname:
        raise ToolSettingsError(
            f"--label-studio-url: expected http(s)://HOST[:PORT][/PATH], got {url!r}"
        )
    # It is the operator's own word that this is where Label Studio stands: often in a private network.
    return ImageHost(parts.hostname.lower(), port, is_private=True)
