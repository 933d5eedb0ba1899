"""The commands of `triton-sam2`."""

import typer

from triton_sam2.cli._batch import batch
from triton_sam2.cli._cache import forget, warm
from triton_sam2.cli._everything import everything
from triton_sam2.cli._segment import segment
from triton_sam2.cli._status import status
from triton_sam2.cli._track import track

commands = typer.Typer(
    name="triton-sam2",
    help="Segment Anything 2.1 on a Triton server: images and prompts in, masks out.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 error, 2 invalid input, 3 no server, 4 unknown image or session.",
)
for command in (segment, everything, batch, track, status, warm, forget):
    commands.command()(command)
