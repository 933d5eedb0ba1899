"""Who a request is from: a tenant, the launcher, another model; by its parameters.

The front sets `sam2_tenant` and lets no client set it. Who reaches Triton itself may say any tenant's name:
there, nobody tells callers apart. What is for the inside alone needs a secret, which the launcher makes for
each server process and hands down in the environment.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass

from tenant_shares import NO_TENANT

TENANT_PARAMETER = "sam2_tenant"
SECRET_PARAMETER = "sam2_inner_secret"  # noqa: S105 - the parameter's name
SECRET_VARIABLE = "SAM2_INNER_SECRET"  # noqa: S105 - the variable's name
# Tenants of the inside, the launcher's probe for one.
INNER_PREFIX = ":"
MAX_TENANT_BYTES = 64


class InvalidCallerError(ValueError):
    """The request's parameters name no tenant that it can be from."""


@dataclass(frozen=True)
class Caller:
    """A request's tenant, and whether it came from the inside."""

    tenant: str = NO_TENANT
    is_inner: bool = False


class Callers:
    """Reads callers off requests' parameters, and tells other models who is calling."""

    def __init__(self, secret: str) -> None:
        """`secret` is "" where there was no launcher: then nobody is known to call from the inside."""
        self._secret = secret

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Callers:
        return cls(environment.get(SECRET_VARIABLE, ""))

    @property
    def knows_inner_calls(self) -> bool:
        """Whether inner calls can be told from others."""
        return bool(self._secret)

    def read(self, parameters: str) -> Caller:
        """The caller by a request's parameters, as JSON.

        Raises:
            InvalidCallerError: a name that is none, or one of the inside's own without its secret.
        """
        values = json.loads(parameters) if parameters else {}
        tenant = values.get(TENANT_PARAMETER, NO_TENANT)
        if not isinstance(tenant, str) or len(tenant.encode()) > MAX_TENANT_BYTES:
            raise InvalidCallerError(
                f"{TENANT_PARAMETER}: expected text of at most {MAX_TENANT_BYTES} bytes, got"
                f" {str(tenant)[:80]!r}"
            )
        secret = values.get(SECRET_PARAMETER)
        is_inner = (
            bool(self._secret)
            and isinstance(secret, str)
            and hmac.compare_digest(secret.encode(), self._secret.encode())
        )
        if tenant.startswith(INNER_PREFIX) and not is_inner:
            raise InvalidCallerError(
                f"{TENANT_PARAMETER}: expected a name that does not begin with {INNER_PREFIX!r}"
            )
        return Caller(tenant, is_inner)

    def inner_parameters(self, tenant: str = NO_TENANT) -> dict[str, str]:
        """The parameters of a call from one model to another, on behalf of a tenant."""
        found = {TENANT_PARAMETER: tenant} if tenant else {}
        return found | ({SECRET_PARAMETER: self._secret} if self._secret else {})
