"""The parameters in sam2_embedding's config.pbtxt, checked when the model is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from embedding_cache import CacheLimits
from embedding_service import ServiceLimits
from model_parameters import Parameters, read_whole_numbers

# Every parameter and the least value that makes sense.
LEAST_VALUES = {
    "max_requests_in_flight": 1,
    "cache_budget_bytes": 0,
    "cache_idle_seconds": 1,
    "max_names_per_image": 1,
    "max_image_bytes": 1,
    "max_image_id_bytes": 71,  # "sha256:" and 64 hex digits: the ids that the server itself gives
    "max_concurrent_encodes": 1,
    "max_pending_encodes": 1,
    "max_pending_image_bytes": 1,
}


@dataclass(frozen=True)
class EmbeddingSettings:
    """The limits of the cache, of the service in front of it and of all requests together."""

    max_requests_in_flight: int
    cache: CacheLimits
    service: ServiceLimits


def parse_settings(parameters: Parameters) -> EmbeddingSettings:
    """Reads the `parameters` of the model configuration as Triton hands them over, as JSON.

    Raises:
        InvalidSettingError: naming the first parameter that is missing, unknown or out of range.
    """
    values = read_whole_numbers("sam2_embedding", parameters, LEAST_VALUES)
    return EmbeddingSettings(
        max_requests_in_flight=values["max_requests_in_flight"],
        cache=CacheLimits(
            budget_bytes=values["cache_budget_bytes"],
            idle_seconds=values["cache_idle_seconds"],
            max_names_per_image=values["max_names_per_image"],
        ),
        service=ServiceLimits(
            max_image_bytes=values["max_image_bytes"],
            max_image_id_bytes=values["max_image_id_bytes"],
            max_concurrent_encodes=values["max_concurrent_encodes"],
            max_pending_encodes=values["max_pending_encodes"],
            max_pending_image_bytes=values["max_pending_image_bytes"],
        ),
    )
