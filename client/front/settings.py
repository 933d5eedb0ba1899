"""Everything about the front that can be set, with its default and its reason."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

from front.tools.settings import ToolSettings

Network = IPv4Network | IPv6Network


@dataclass(frozen=True)
class Limits:
    """What a caller may ask for; each refusal names the limit."""

    # One image of 64 MiB (sam2_preprocess: max_image_bytes) and its prompts.
    max_request_bytes: int = 80_000_000
    # Commas, brackets and braces in the JSON of a request, whatever its length (an image as base64 has none):
    # each value becomes an object of up to 100 bytes. An earlier mask in decimal figures has 65,536.
    max_json_values: int = 300_000
    # Fields of a gRPC message, and its bytes that are no long strings: two of them can be an object of 100.
    max_message_fields: int = 10_000
    max_message_small_bytes: int = 1_000_000
    # Numbers in the JSON of an answer: a bitmap of 2000 x 2000. Ask for binary data, rle or png beyond that.
    max_json_answer_elements: int = 4_000_000
    # Elements of one input tensor; the models' own limits are tighter, this one keeps arithmetic small.
    max_tensor_elements: int = 1 << 31
    # Elements of a BYTES tensor: mask formats are the only ones of more than one.
    max_strings: int = 64
    max_request_id_bytes: int = 512
    # Requests under way, and the bytes of their bodies, in one worker process.
    max_requests_at_once: int = 256
    max_bytes_at_once: int = 512_000_000
    # Requests of one gRPC stream that are computed at once; answers come in order.
    stream_window: int = 4
    # ... of a stream without a key, whose messages are pictures of 12.6 MB: the sender waits.
    keyless_stream_window: int = 1
    # Encoding on a busy CPU takes seconds; sam2_automask ends itself before (max_seconds).
    answer_timeout_s: float = 120.0
    # Between two pieces of a body.
    body_timeout_s: float = 10.0
    # For each API key.
    requests_per_second: float = 50.0
    burst: int = 100
    requests_at_once_per_key: int = 32
    # gRPC streams that are open, idle or not.
    streams_at_once_per_key: int = 32
    # Pixels (objects x candidates x height x width) that REST unpacks for png, polygons and overlay, and how
    # many such pictures are drawn at once; rle and the inference protocol unpack nothing.
    max_rendered_pixels: int = 200_000_000
    renderings_at_once: int = 2
    # The same for everything in an image, which is unpacked a mask at a time: this bounds time, not memory.
    max_unpacked_pixels: int = 2_000_000_000


@dataclass(frozen=True)
class FrontSettings:
    """Addresses, keys and limits."""

    triton: str = "127.0.0.1:8001"
    host: str = "127.0.0.1"
    http_port: int = 8080
    grpc_port: int = 8081
    metrics_port: int = 8082
    # `NAME KEY [TENANT]` a line; None: no keys, one tenant, as with Triton itself.
    api_keys_file: Path | None = None
    # Origins that a browser's page may come from; none: no CORS.
    cors_origins: tuple[str, ...] = ()
    # gRPC without a key, for one model and from these networks alone (front/keyless.py); None: no such port.
    keyless_port: int | None = None
    keyless_networks: tuple[Network, ...] = ()
    # How long requests under way may take once the front is asked to stop.
    stop_grace_s: float = 20.0
    limits: Limits = field(default_factory=Limits)
    # Annotation tools that are spoken to in their own contracts; none by default.
    tools: ToolSettings = field(default_factory=ToolSettings)
