"""What an export says, and refuses, about masks of cheaper arithmetic than FP32."""

from pathlib import Path

from rich.console import Console

from export.checkpoint import LoadedCheckpoint
from export.mask_agreement import (
    Agreement,
    Sessions,
    agreement_table,
    compare_masks,
    refuse_disagreement,
)
from export.onnx_export import GraphFiles
from export.onnx_files import DECODER_FILE, ENCODER_FILE
from export.openvino import OpenVinoSession
from export.sizes import image_size_of


def compare_bf16(checkpoint: LoadedCheckpoint, onnx_dir: Path, console: Console) -> None:
    """Compare the masks that OpenVINO computes in BF16 with those of ONNX Runtime in FP32.

    Raises:
        VerificationError: they agree too little.
    """
    files = GraphFiles(onnx_dir / ENCODER_FILE, onnx_dir / DECODER_FILE)
    with console.status("BF16: loading in OpenVINO") as status:
        agreements = compare_masks(
            Sessions.of(files),
            Sessions(*map(OpenVinoSession, files)),
            image_size_of(checkpoint.model.config),
            progress=status.update,
        )
    say_agreement(agreements, checkpoint, "BF16", console)


def say_agreement(
    agreements: list[Agreement], checkpoint: LoadedCheckpoint, what: str, console: Console
) -> None:
    """Print how masks agree, and refuse those that agree too little.

    An untrained model's masks are noise, which the least change turns: nothing to refuse.

    Raises:
        VerificationError: a trained model's masks agree too little.
    """
    title = f"{checkpoint.model_name}: masks of {what} against FP32"
    console.print(agreement_table(agreements, title))
    if not checkpoint.source_sha256:
        console.print("untrained weights: their masks are noise, and not held against the bound")
        return
    refuse_disagreement(agreements, what)
