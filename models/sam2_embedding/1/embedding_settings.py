"""The parameters in sam2_embedding's config.pbtxt, checked when the model is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from embedding_cache import CacheLimits
from embedding_service import ServiceLimits
from encode_queue import EncodeLimits
from model_parameters import Parameters, read_whole_numbers
from tenants import TenantLimits

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
    "tenant_cache_percent": 1,
    "tenant_pending_percent": 1,
    "max_tenants": 1,
}


@dataclass(frozen=True)
class EmbeddingSettings:
    """The limits of all requests together, and of the tenants behind them."""

    max_requests_in_flight: int
    # What a tenant may have of these, and of all that waits to be encoded.
    tenant_pending_percent: int
    max_concurrent_encodes: int
    tenants: TenantLimits


def parse_settings(parameters: Parameters) -> EmbeddingSettings:
    """Reads the `parameters` of the model configuration as Triton hands them over, as JSON.

    Raises:
        InvalidSettingError: naming the first parameter that is missing, unknown or out of range.
    """
    values = read_whole_numbers("sam2_embedding", parameters, LEAST_VALUES)
    return EmbeddingSettings(
        max_requests_in_flight=values["max_requests_in_flight"],
        tenant_pending_percent=values["tenant_pending_percent"],
        max_concurrent_encodes=values["max_concurrent_encodes"],
        tenants=TenantLimits(
            budget_bytes=values["cache_budget_bytes"],
            cache_percent=values["tenant_cache_percent"],
            max_tenants=values["max_tenants"],
            cache=CacheLimits(
                idle_seconds=values["cache_idle_seconds"],
                max_names_per_image=values["max_names_per_image"],
            ),
            service=ServiceLimits(
                max_image_bytes=values["max_image_bytes"],
                max_image_id_bytes=values["max_image_id_bytes"],
            ),
            encodes=EncodeLimits(
                max_concurrent_encodes=values["max_concurrent_encodes"],
                max_pending_encodes=values["max_pending_encodes"],
                max_pending_image_bytes=values["max_pending_image_bytes"],
                tenant_percent=values["tenant_pending_percent"],
            ),
        ),
    )
