"""What stands for Meta's network: a connection to a server that has it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, TypeAlias

from triton_sam2._clients.blocking import SAM2TritonClient
from triton_sam2._errors import InvalidInputError, NotOverServerError

_LOG = logging.getLogger("triton_sam2")
# Everything in an image takes longer than a click; the server ends it before (sam2_automask: max_seconds).
TIMEOUT_S = 120.0
_CONNECTION = ("url", "timeout", "retry", "headers", "ca_file", "cert_file", "key_file")
_NETWORK = ("device", "mode", "hydra_overrides_extra", "apply_postprocessing")


class ServerModel:
    """Stands where Meta's code has the network: a client of the server that holds it.

    Args:
        client: whose connection to use; close it when done, or leave that to the end of the program.
    """

    def __init__(self, client: SAM2TritonClient) -> None:
        self.client = client

    @property
    def device(self) -> str:
        """Where results are: "cpu", as `torch.as_tensor(..., device=predictor.device)` takes it."""
        return "cpu"

    def to(self, *_args: Any, **_kwargs: Any) -> ServerModel:
        """Itself: on which device the network is, the server decided when it started."""
        return self

    def cpu(self) -> ServerModel:
        """Itself, as `to`."""
        return self

    def cuda(self, _device: Any = None) -> ServerModel:
        """Itself, as `to`."""
        return self

    def eval(self) -> ServerModel:
        """Itself: the server's network is always in this mode."""
        return self

    def train(self, mode: bool = True) -> ServerModel:
        """Raises NotOverServerError: nothing is trained over a server."""
        if mode:
            raise not_over_server("training")
        return self

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"{name}: the network stays in the server at {self.__dict__['client'].url}, and has no parts here"
        )


ModelLike: TypeAlias = ServerModel | SAM2TritonClient | str | None
"""What takes the network's place: a ServerModel, a client, a URL, or None for TRITON_URL."""


def server_model(model: ModelLike) -> ServerModel:
    """The ServerModel for whatever stands for the network."""
    if isinstance(model, ServerModel):
        return model
    if isinstance(model, SAM2TritonClient):
        return ServerModel(model)
    if model is None or isinstance(model, str):
        return ServerModel(SAM2TritonClient(model, timeout=TIMEOUT_S))
    raise InvalidInputError(
        "model: expected what build_sam2 of triton_sam2.sam2_api gives, a SAM2TritonClient, a server's URL "
        f"or None, got {type(model).__name__}: a network of this process is not what the server computes with"
    )


def check_arguments(mode: str, connection: Mapping[str, Any]) -> None:
    """Raise for another mode than "eval", and for what is no argument of a client."""
    unknown = [name for name in connection if name not in _CONNECTION]
    if unknown:
        raise InvalidInputError(f"{unknown[0]}: expected any of {', '.join(_CONNECTION)}")
    if mode != "eval":
        raise not_over_server(f"mode={mode!r}")


def log_ignored(config_file: str | None, ckpt_path: str | None, device: Any, url: str) -> None:
    """Say which names of weights were given and not opened."""
    if config_file is not None or ckpt_path is not None:
        _LOG.info(
            "%s, %s on %s: computed with whatever the server at %s has loaded",
            *(config_file, ckpt_path, device, url),
        )


def for_the_model(kwargs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arguments of a `from_pretrained`: those of the model, and those of its user."""
    of_the_model = {k: v for k, v in kwargs.items() if k in (*_CONNECTION, *_NETWORK)}
    return of_the_model, {k: v for k, v in kwargs.items() if k not in of_the_model}


def not_over_server(what: str) -> NotOverServerError:
    """The error for what needs the network itself."""
    return NotOverServerError(
        f"{what}: needs the network itself, which stays in the server; use Meta's package for this"
    )
