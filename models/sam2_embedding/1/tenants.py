"""Each tenant's images apart from all others'; in common are the budget and the queue before the encoder.

Pure bookkeeping for one thread, but for the encodes that are handed on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cache_budget import CacheBudget
from embedding_cache import CacheLimits, EmbeddingCache, ImageEmbedding
from embedding_service import EmbeddingService, ServiceLimits
from encode_queue import Encode, EncodeLimits, EncodeQueue
from tenant_shares import NO_TENANT


class TooManyTenantsError(RuntimeError):
    """More tenants have images than the server tells apart."""


@dataclass(frozen=True)
class TenantLimits:
    """All limits: of what is in common, of each tenant's cache and service, and of tenants."""

    budget_bytes: int
    cache_percent: int
    max_tenants: int
    cache: CacheLimits
    service: ServiceLimits
    encodes: EncodeLimits


@dataclass
class _Tenant:
    service: EmbeddingService
    last_used: float


class Tenants:
    """Tenants by name. One who has nothing here is let go after a while, as an image is."""

    def __init__(self, limits: TenantLimits, encode: Encode, now: Callable[[], float]) -> None:
        self._limits = limits
        self._now = now
        self._budget = CacheBudget(limits.budget_bytes, limits.cache_percent)
        self._queue = EncodeQueue(encode, limits.encodes)
        self._tenants: dict[str, _Tenant] = {}
        # There from the start, with all of its figures.
        self.service_of(NO_TENANT)

    def services(self) -> Iterator[tuple[str, EmbeddingService]]:
        """All tenants' names and services."""
        return ((name, tenant.service) for name, tenant in self._tenants.items())

    def service_of(self, name: str) -> EmbeddingService:
        """A tenant's service; one who was not known has an empty one.

        Raises:
            TooManyTenantsError: as many are known as may be, and each of them has images here.
        """
        tenant = self._tenants.get(name)
        if tenant is None:
            if len(self._tenants) > self._limits.max_tenants:
                self._let_go_longest_unused()
            cache = EmbeddingCache(self._limits.cache, self._now, self._budget, name)
            service = EmbeddingService(cache, self._queue, self._limits.service)
            tenant = self._tenants[name] = _Tenant(service, self._now())
        tenant.last_used = self._now()
        return tenant.service

    def any_of(self, fingerprint: int) -> ImageEmbedding | None:
        """Some embedding that the weights of this fingerprint made, if any is kept."""
        found = (tenant.service.cache.any_of(fingerprint) for tenant in self._tenants.values())
        return next((embedding for embedding in found if embedding is not None), None)

    def retire(self, fingerprint: int) -> None:
        """Drops every tenant's images that the weights of this fingerprint encoded."""
        for tenant in self._tenants.values():
            tenant.service.cache.retire(fingerprint)

    def keep_house(self) -> None:
        """Drops images that nobody asked for in time, and tenants who have none and do not come."""
        now = self._now()
        for name, tenant in list(self._tenants.items()):
            tenant.service.cache.expire()
            if self._is_empty(name) and now - tenant.last_used > self._limits.cache.idle_seconds:
                self._let_go(name)

    def _is_empty(self, name: str) -> bool:
        service = self._tenants[name].service
        return name != NO_TENANT and not len(service.cache) and not service.pending_encodes

    def _let_go_longest_unused(self) -> None:
        empty = filter(self._is_empty, self._tenants)
        name = min(empty, key=lambda one: self._tenants[one].last_used, default=None)
        if name is None:
            raise TooManyTenantsError(
                f"sam2_tenant: {self._limits.max_tenants} tenants have images here already (max_tenants);"
                " try again in a moment"
            )
        self._let_go(name)

    def _let_go(self, name: str) -> None:
        self._budget.leave(self._tenants.pop(name).service.cache)
