"""Other weights into a running server, without a moment in which nobody answers."""

from collections.abc import Callable

from tritonclient import grpc
from tritonclient.utils import InferenceServerException

from sam2_server.errors import LauncherError
from sam2_server.probe import GRPC_CHANNEL_ARGUMENTS
from sam2_server.process import ADMIN_KEY_HEADER

# The encoder first, then what makes pixels of the type that it takes, then the decoder that fits it, then
# the cache, which starts anew: old ids get NOT_FOUND and clients send the image again, which is better than
# a mask from other weights.
# The video graphs, where there are any, follow: until the last one is in, they refuse one another's features
# by their fingerprints, and sessions of the old weights end.
VIDEO_ORDER = (
    "sam2_mask_prompt",
    "sam2_video_decoder",
    "sam2_memory_encoder",
    "sam2_memory_attention_wide",  # only beside a TensorRT engine (docker/deploy/gpu_profile.py)
    "sam2_memory_attention",
)
# For decoders in clients, where there are any: until it is here, it refuses the new encoder's features.
CLIENT_ORDER = ("sam2_client_features",)
OPTIONAL = (*CLIENT_ORDER, *VIDEO_ORDER)
ORDER = ("sam2_encoder", "sam2_preprocess", "sam2_decoder", "sam2_embedding", *OPTIONAL)
LOAD_SECONDS = 3600.0  # TensorRT builds engines while the old ones serve


class LoadError(LauncherError):
    """A model was not loaded; Triton goes on serving the old one of it."""


def load_models(address: str, admin_key: str, report: Callable[[str], None]) -> None:
    """Load each model anew through the closed administrative call; the old one serves meanwhile.

    Raises:
        LoadError: naming the model.
    """
    headers = {f"triton-grpc-protocol-{ADMIN_KEY_HEADER}": admin_key}
    with grpc.InferenceServerClient(address, channel_args=GRPC_CHANNEL_ARGUMENTS) as client:
        found = {model.name for model in client.get_model_repository_index(headers=headers).models}
        for model in ORDER:
            if model in OPTIONAL and model not in found:
                continue
            report(f"loading {model}")
            try:
                client.load_model(model, headers=headers, client_timeout=LOAD_SECONDS)
            except InferenceServerException as error:
                raise LoadError(
                    f"{model} was not loaded: {error.message()}", "The old one serves on."
                ) from error
