"""What a server says of itself, through its health calls and its metrics."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import tritonclient.grpc as triton
import urllib3
from tritonclient.utils import InferenceServerException

from triton_sam2._calls.arguments import Settings
from triton_sam2._errors import InvalidInputError
from triton_sam2._transports.grpc_blocking import channel_arguments, translate_error
from triton_sam2._transports.http_blocking import tls_arguments
from triton_sam2._transports.statuses import unreachable
from triton_sam2._transports.urls import Endpoint

MODELS = (
    "sam2",
    "sam2_embedding",
    "sam2_preprocess",
    "sam2_encoder",
    "sam2_prompt",
    "sam2_decoder",
    "sam2_postprocess",
    "sam2_automask",
)
METRICS_PORT = 8002
USUAL_PORTS = (8000, 8001)
CACHE_METRIC = "sam2_embedding_cache_"
_SAMPLE = re.compile(r"^(?P<name>\w+)(?:\{(?P<labels>[^}]*)\})? (?P<value>\S+)$")


@dataclass(frozen=True)
class ServerStatus:
    """Health of a server and its models; figures, and where they come from, are None where there are none."""

    url: str
    version: str
    is_ready: bool
    models: dict[str, bool]
    metrics_url: str | None
    cache: dict[str, float] | None
    inferences: dict[str, int] | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def usual_metrics_url(endpoint: Endpoint) -> str | None:
    """Where the metrics of a server on Triton's usual ports are.

    None for other ports: then another server may well be at home on port 8002.
    """
    if endpoint.port not in USUAL_PORTS or endpoint.path:
        return None
    return f"http://{replace(endpoint, port=METRICS_PORT).address}/metrics"


def read_status(settings: Settings, metrics_url: str | None) -> ServerStatus:
    """Ask a server; raises ServerUnreachableError when it does not answer at all."""
    ask = _ask_grpc if settings.endpoint.is_grpc else _ask_http
    version, is_ready, models = ask(settings)
    metrics = None if metrics_url is None else _read_metrics(metrics_url, settings.timeout_s)
    return ServerStatus(
        str(settings.endpoint),
        version,
        is_ready,
        models,
        None if metrics is None else metrics_url,
        None if metrics is None else cache_figures(metrics),
        None if metrics is None else inference_counts(metrics),
    )


def _ask_grpc(settings: Settings) -> tuple[str, bool, dict[str, bool]]:
    endpoint, credentials = settings.endpoint, settings.credentials
    options = {"headers": dict(credentials.headers), "client_timeout": settings.timeout_s}
    client = triton.InferenceServerClient(**channel_arguments(endpoint, credentials))
    try:
        metadata = client.get_server_metadata(**options)
        models = {name: bool(client.is_model_ready(name, **options)) for name in MODELS}
        return str(metadata.version), bool(client.is_server_ready(**options)), models
    except InferenceServerException as error:
        raise translate_error(error, endpoint) from error
    finally:
        client.close()


def _ask_http(settings: Settings) -> tuple[str, bool, dict[str, bool]]:
    endpoint = settings.endpoint
    tls = tls_arguments(endpoint, settings.credentials)
    with urllib3.PoolManager(retries=False, timeout=settings.timeout_s, **tls) as pool:

        def get(path: str) -> urllib3.BaseHTTPResponse:
            return pool.request(
                "GET", f"{endpoint}{path}", headers=dict(settings.credentials.headers)
            )

        try:
            metadata = json.loads(get("/v2").data)
            models = {name: get(f"/v2/models/{name}/ready").status == 200 for name in MODELS}
            return str(metadata["version"]), get("/v2/health/ready").status == 200, models
        except urllib3.exceptions.HTTPError as error:
            raise unreachable(endpoint, str(error).rpartition(": ")[2]) from error
        except (ValueError, KeyError, TypeError) as error:
            raise unreachable(endpoint, "the answer is not Triton's") from error


def _read_metrics(url: str, timeout_s: float) -> str | None:
    try:
        with urllib3.PoolManager(retries=False, timeout=timeout_s) as pool:
            response = pool.request("GET", url)
    except urllib3.exceptions.LocationValueError as error:
        raise InvalidInputError(
            f"--metrics-url: expected http://host:port/metrics, got {url!r}"
        ) from error
    except urllib3.exceptions.HTTPError:
        return None  # often not reachable from where clients are; the status says so
    text = response.data.decode(errors="replace")
    # Every Triton counts its inferences; whatever else answers there, its figures are not this server's.
    return text if response.status == 200 and "nv_inference_count" in text else None


def cache_figures(metrics: str) -> dict[str, float]:
    """The embedding cache's counters and gauges by their short names, of all tenants together."""
    figures: dict[str, float] = {}
    for name, labels, value in _samples(metrics):
        if (
            name.startswith(CACHE_METRIC)
            and "encode_seconds" not in name
            and labels.keys() <= {"tenant"}
        ):
            short = name.removeprefix(CACHE_METRIC).removesuffix("_total")
            figures[short] = figures.get(short, 0.0) + value
    return figures


def inference_counts(metrics: str) -> dict[str, int]:
    """How many inferences each model has executed."""
    return {
        labels["model"]: int(value)
        for name, labels, value in _samples(metrics)
        if name == "nv_inference_count" and "model" in labels
    }


def metric_values(metrics: str, name: str, model: str) -> float:
    """The sum of a metric's samples for one model."""
    return sum(
        value
        for sample, labels, value in _samples(metrics)
        if sample == name and labels.get("model") == model
    )


def _samples(metrics: str) -> list[tuple[str, Mapping[str, str], float]]:
    samples: list[tuple[str, Mapping[str, str], float]] = []
    for line in metrics.splitlines():
        match = _SAMPLE.match(line)
        if match:
            labels = dict(re.findall(r'(\w+)="([^"]*)"', match["labels"] or ""))
            samples.append((match["name"], labels, float(match["value"])))
    return samples
