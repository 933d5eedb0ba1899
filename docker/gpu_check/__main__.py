"""`just gpu-check SIZE`: CUDA and TensorRT against FP32 on a GPU machine, in one go."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from deploy.errors import DeployError
from deploy.gpu_profile import PROVIDERS, GpuSettings, apply_to_repository
from rich.console import Console
from rich.table import Table

from gpu_check.measure import Speed, answers, differences, measure, wrong_masks
from gpu_check.servers import ROOT, build_image, contained, launched

CHECKABLE = (*PROVIDERS, "cpu")


def main(
    size: Annotated[str, typer.Argument(help="tiny, small, base_plus, large, or demo.")],
    *,
    provider: Annotated[
        list[str] | None, typer.Option(help="cuda, tensorrt; cpu tries the check itself.")
    ] = None,
    image: Annotated[
        list[Path] | None, typer.Option(exists=True, help="Photographs to try; repeat for more.")
    ] = None,
    native: Annotated[
        bool, typer.Option("--native", help="Run tritonserver here, not in a container.")
    ] = False,
    seconds: Annotated[float, typer.Option(min=1, help="Of each throughput measurement.")] = 10,
    start_timeout: Annotated[float, typer.Option(min=1, help="Engines included.")] = 3600,
    work_dir: Annotated[Path, typer.Option(help="Repositories, engines, results.")] = ROOT
    / ".gpu-check",
) -> None:
    """Load both providers, compare their masks with FP32, print speeds; fail on a wrong mask."""
    chosen = provider or list(PROVIDERS)
    if unknown := set(chosen) - set(CHECKABLE):
        raise typer.BadParameter(f"--provider: expected {', '.join(CHECKABLE)}; got {unknown}")
    images = image or [ROOT / "client/examples/images/coins.png"]
    console = Console(width=120)
    problems: list[str] = []
    speeds: dict[str, Speed] = {}
    try:
        work_dir.mkdir(exist_ok=True)
        (work_dir / ".gitignore").write_text("*\n")
        for precision in ("fp32", "fp16"):
            _export(size, precision, work_dir / precision)
        if not native and set(chosen) - {"cpu"}:
            build_image()
        console.rule("FP32 on the CPU: the masks to compare with")
        with launched(work_dir / "fp32", work_dir / "fp32-state", start_timeout) as url:
            reference = answers(url, images)
        for name in chosen:
            console.rule(f"FP16, {name}")
            with _candidate(name, work_dir, start_timeout, native=native) as url:
                rows = differences(reference, answers(url, images))
                problems += [f"{name}: {problem}" for problem in wrong_masks(rows)]
                console.print(_masks_table(rows))
                speeds[name] = measure(url, images[0], seconds)
            if name == "tensorrt" and not list((work_dir / "engines").rglob("*.engine")):
                problems.append("tensorrt: no engine was built, so TensorRT computed nothing")
    except DeployError as error:
        console.print(f"[red]error:[/] {error}", highlight=False)
        raise typer.Exit(1) from error
    console.print(_speeds_table(speeds))
    results = {name: asdict(speed) for name, speed in speeds.items()}
    (work_dir / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    for problem in problems:
        console.print(f"[red]WRONG[/] {problem}", highlight=False)
    if problems:
        raise typer.Exit(1)
    console.print(f"All masks of {', '.join(chosen)} agree with FP32.")


@contextmanager
def _candidate(name: str, work_dir: Path, start_timeout: float, *, native: bool) -> Iterator[str]:
    repository, engines = work_dir / name, work_dir / "engines"
    shutil.rmtree(repository, ignore_errors=True)
    shutil.copytree(work_dir / "fp16", repository)
    engines.mkdir(exist_ok=True)
    if os.getuid() == 0:
        os.chown(engines, 10001, 10001)
    if name == "cpu":
        with launched(repository, work_dir / "cpu-state", start_timeout) as url:
            yield url
        return
    engine_dir = str(engines.resolve()) if native else "/var/cache/sam2"
    apply_to_repository(
        repository,
        GpuSettings(provider="tensorrt" if name == "tensorrt" else "cuda", engine_dir=engine_dir),
    )
    if native:
        with launched(repository, work_dir / f"{name}-state", start_timeout) as url:
            yield url
    else:
        with contained(repository, engines, start_timeout) as url:
            yield url


def _export(size: str, precision: str, target: Path) -> None:
    if (target / "sam2/config.pbtxt").is_file():
        return  # from an earlier check; remove the directory to export anew
    if size == "demo":
        words = ["--checkpoint", "export/demo_model/weights"]
    else:
        _python("export.download", size)
        words = ["--size", size]
    # What is compared are masks on images.
    words += ["--no-video", "--precision", precision]
    _python("export", *words, "--output-dir", str(target.resolve()))


def _python(module: str, *words: str) -> None:
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'docker'}"}
    done = subprocess.run(
        [sys.executable, "-m", module, *words], cwd=ROOT, env=environment, check=False
    )
    if done.returncode != 0:
        raise DeployError(f"python -m {module} ended with {done.returncode}, see above")


def _masks_table(rows: list[tuple[str, float, float]]) -> Table:
    table = Table("prompt", "worst mask IoU with FP32", "largest score difference")
    for name, iou, difference in rows:
        table.add_row(name, f"{iou:.4f}", f"{difference:.4f}")
    return table


def _speeds_table(speeds: dict[str, Speed]) -> Table:
    table = Table(
        "provider",
        "new image, ms",
        "click, ms",
        "click 95 %, ms",
        "clicks/s, 8 clients",
        "images/s, 8 clients",
    )
    for name, speed in speeds.items():
        table.add_row(name, *(f"{value:.1f}" for value in vars(speed).values()))
    return table


if __name__ == "__main__":
    typer.run(main)
