"""`triton-sam2 track`: objects followed through a video."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from triton_sam2._errors import InvalidInputError, TritonSam2Error
from triton_sam2.cli._connection import (
    Connection,
    HeaderOption,
    JsonOption,
    TimeoutOption,
    TlsOption,
    UrlOption,
    print_json,
)
from triton_sam2.cli._outputs import write_bytes
from triton_sam2.cli._track_prompts import read_prompts
from triton_sam2.cli._track_results import (
    Journal,
    Outputs,
    journal_path,
    to_youtube_vis,
    write_movie,
)
from triton_sam2.cli._track_run import DIRECTIONS, FORWARD, RunOptions, TrackingRun


def track(
    video: Annotated[
        Path, typer.Argument(help="A video file, or a folder of pictures.", show_default=False)
    ],
    *,
    point: Annotated[
        list[str] | None,
        typer.Option(
            "--point",
            "-p",
            metavar="FRAME:OBJECT:X,Y[,LABEL]",
            help="A click; frames from 0, label 1 in, 0 out.",
        ),
    ] = None,
    box: Annotated[
        list[str] | None,
        typer.Option(
            "--box", "-b", metavar="FRAME:OBJECT:X0,Y0,X1,Y1", help="In pixels; one per object."
        ),
    ] = None,
    mask: Annotated[
        list[str] | None,
        typer.Option(
            "--mask", metavar="FRAME:OBJECT:FILE", help="A picture, not black where the object is."
        ),
    ] = None,
    output: Annotated[
        list[Path],
        typer.Option(
            "--output",
            "-o",
            help="A folder (masks: OBJECT/FRAME.png), .json (YouTube-VIS: RLE by frame), .mp4 (to look at).",
            show_default=False,
        ),
    ],
    direction: Annotated[
        str, typer.Option(help=f"{', '.join(DIRECTIONS)}; both: from the first prompt either way.")
    ] = FORWARD,
    most: Annotated[
        int | None, typer.Option("--frames", min=1, help="Frames to track, at most.")
    ] = None,
    session: Annotated[
        str | None,
        typer.Option(help="Go on with a session that the server holds, by its name; or begin it."),
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the session open at the end, for corrections.")
    ] = False,
    upload: Annotated[
        bool,
        typer.Option("--upload", help="Send the video file as a whole; the server decodes it."),
    ] = False,
    frame_format: Annotated[
        str, typer.Option(help="How decoded frames travel: png (exact) or jpeg (smaller).")
    ] = "png",
    no_overlap: Annotated[
        bool, typer.Option("--no-overlap", help="Give each pixel to one object at most.")
    ] = False,
    as_json: JsonOption = False,
    url: UrlOption = None,
    timeout: TimeoutOption = 120.0,
    header: HeaderOption = None,
    tls: TlsOption = None,
) -> None:
    """Track objects through a video.

    Interrupted, it says how to go on where it was. A server that restarts in between is waited for, and what
    was done there done again. The timeout is for each frame.

    Examples:

    `triton-sam2 track clip.mp4 --point 0:1:210,350 --point 0:1:250,220,0 -o masks/ -o seen.mp4`

    `triton-sam2 track frames/ --box 12:1:300,0,500,400 --box 12:2:10,20,90,80 --direction both -o out.json`

    A point or box belongs to an object (a number of yours) on a frame; objects may come in on later frames.
    """
    prompts = read_prompts(point or [], box or [], mask or [])
    if not prompts:
        raise InvalidInputError("give at least one --point, --box or --mask")
    if direction not in DIRECTIONS:
        raise InvalidInputError(
            f"--direction: expected one of {', '.join(DIRECTIONS)}, got {direction!r}"
        )
    if frame_format not in ("png", "jpeg"):
        raise InvalidInputError(f"--frame-format: expected png or jpeg, got {frame_format!r}")
    if not video.exists():
        raise InvalidInputError(f"video: no file or folder {video}")
    outputs = Outputs.read(output, video)
    options = {"non_overlap_masks": True} if no_overlap else {}
    wanted = RunOptions(
        video, prompts, direction, None if most is None else most - 1, upload, frame_format, options
    )
    journal = Journal(
        journal_path(output[0]), {"video": str(video.absolute()), "direction": direction}
    )
    with Connection(url, timeout, header, tls).video_client() as client:
        run = TrackingRun(client, wanted, outputs, journal)
        try:
            summary = _go(run, wanted, outputs, session, quiet=as_json)
        except (TritonSam2Error, KeyboardInterrupt):
            if run.state is not None and journal.frames:
                typer.echo(
                    f"{len(journal.frames)} frames are kept; to go on, add: --session {run.state.session_id}",
                    err=True,
                )
            raise
        if run.state is not None and not keep:
            client.close_state(run.state)
    journal.remove()
    _report(summary, as_json)


def _go(
    run: TrackingRun, wanted: RunOptions, outputs: Outputs, session: str | None, *, quiet: bool
) -> dict[str, Any]:
    state, word = run.open(session)
    if session is not None and not quiet:
        typer.echo(f"session {session}: {word}", err=True)
    num_frames = state.num_frames or 0
    plan = run.plan(num_frames)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    console = Console(stderr=True, quiet=quiet)
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as progress:
        total = sum(len(frames) for frames, _ in plan)
        task = progress.add_task("frames", total=total)
        for frames, reverse in plan:
            run.track(frames, reverse, lambda: progress.advance(task))
    tracked = run.frames
    entries = to_youtube_vis(tracked, wanted.video.name, num_frames)
    for path in outputs.documents:
        write_bytes(path, json.dumps(entries).encode())
    for path in outputs.movies:
        write_movie(path, wanted.video, tracked)
    written = [*outputs.folders, *outputs.documents, *outputs.movies]
    return {
        "session": state.session_id,
        "frames": len(tracked),
        "objects": [
            {
                "object": entry["object_id"],
                "frames": sum(one is not None for one in entry["segmentations"]),
                "predicted_iou": entry["score"],
            }
            for entry in entries
        ],
        "files": [str(path) for path in written],
    }


def _report(summary: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(summary)
        return
    for one in summary["objects"]:
        seen = f"in {one['frames']} of {summary['frames']} frames"
        typer.echo(f"object {one['object']}: {seen}, predicted IoU {one['predicted_iou']:.3f}")
    for path in summary["files"]:
        typer.echo(f"wrote {path}")
