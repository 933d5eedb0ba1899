"""`python -m deploy`: up, down, logs, reload. Called by the recipes of the same purpose."""

import os
import shutil
from dataclasses import replace
from enum import Enum
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated

import typer

from deploy import steps
from deploy.errors import DeployError
from deploy.files import DeployDir, Deployment
from deploy.reload import check_interchangeable, reload_models

app = typer.Typer(help="Deploy SAM 2.1 in containers.", no_args_is_help=True, add_completion=False)
DirectoryOption = Annotated[
    Path, typer.Option("--directory", help="Models, keys and certificates of the deployment.")
]
CheckpointOption = Annotated[
    str | None,
    typer.Option(
        help="Weights of your own: Meta's .pt file, a Hugging Face directory or id. Default: Meta's."
    ),
]
DEFAULT_DIRECTORY = steps.ROOT / ".deploy"


class Size(str, Enum):
    """Meta's sizes, and the small model in the box, which needs no download."""

    tiny = "tiny"
    small = "small"
    base_plus = "base_plus"
    large = "large"
    demo = "demo"


@app.command()
def up(
    *,
    size: Size,
    checkpoint: CheckpointOption = None,
    image_size: Annotated[
        int | None,
        typer.Option(help="Edge of the square the model sees. Default: the checkpoint's own."),
    ] = None,
    no_video: Annotated[
        bool, typer.Option("--no-video", help="Images alone: no models for tracking through video.")
    ] = False,
    gpu: Annotated[
        bool | None, typer.Option("--gpu/--cpu", help="Default: a GPU where there is one.")
    ] = None,
    wheel: Annotated[
        bool,
        typer.Option(
            "--wheel",
            help="For development: the PyPI wheel's old Triton on processors, a tenth of the download.",
        ),
    ] = False,
    tensorrt: Annotated[
        bool, typer.Option("--tensorrt", help="TensorRT instead of CUDA; builds engines first.")
    ] = False,
    secure: Annotated[
        bool,
        typer.Option(
            "--secure", help="TLS, API keys, every message read; Triton itself is closed."
        ),
    ] = False,
    tls_host: Annotated[
        list[str] | None, typer.Option(help="A name or address of the gateway; repeat for more.")
    ] = None,
    paintera_from: Annotated[
        list[str] | None,
        typer.Option(
            help="With --secure, large: network or address whose Painteras need no API key; repeatable."
        ),
    ] = None,
    monitoring: Annotated[
        bool, typer.Option("--monitoring", help="Prometheus and Grafana.")
    ] = False,
    tracing: Annotated[
        bool, typer.Option("--tracing", help="OpenTelemetry traces to a Jaeger beside it.")
    ] = False,
    wait: Annotated[float, typer.Option(min=1, help="Seconds until the first answer.")] = 1800,
    directory: DirectoryOption = DEFAULT_DIRECTORY,
) -> None:
    """Download, export, build, start, wait for a real answer, print the URLs."""
    _refuse_weights_for_demo(size, checkpoint, image_size)
    if wheel and (gpu or tensorrt):
        raise typer.BadParameter("--wheel runs on processors alone", param_hint="--wheel")
    use_gpu = not wheel and (steps.has_nvidia_gpu() if gpu is None else gpu)
    if tensorrt and not use_gpu:
        raise typer.BadParameter("--tensorrt needs a GPU; leave out --cpu", param_hint="--tensorrt")
    server = "wheel" if wheel else "gpu" if use_gpu else "cpu"
    paintera = _networks(paintera_from or [], secure=secure, size=size, image_size=image_size)
    options = {
        "secure": secure,
        "monitoring": monitoring,
        "tracing": tracing,
        steps.PAINTERA: bool(paintera),
    }
    deployment = Deployment(
        size=size.value,
        provider=("tensorrt" if tensorrt else "cuda") if use_gpu else None,
        profiles=[server, *(name for name, on in options.items() if on)],
        tls_hosts=tls_host or ["localhost", "127.0.0.1"],
        image_size=image_size,
        paintera_from=paintera,
        video=not no_video,
    )
    deploy_dir = DeployDir(directory)
    try:
        steps.find_compose()  # before the long part, not after it
        deploy_dir.prepare(deployment)
        steps.stage_repository(deploy_dir, deployment, checkpoint)
        deploy_dir.swap_in_staged()
        # A container that runs already keeps its models in memory: always a new one.
        steps.compose(
            deploy_dir, deployment.profiles, "up", "--detach", "--build", "--force-recreate"
        )
        urls = steps.urls(deployment)
        if secure:
            steps.wait_inside(deploy_dir, deployment, wait, typer.echo)
        else:
            steps.wait_for_answer(urls["gRPC"], wait, typer.echo)
    except DeployError as error:
        raise _explained(error) from error
    for name, url in urls.items():
        typer.echo(f"{name:>10}  {url}")
    secrets = deploy_dir.path / "secrets"
    typer.echo(f"\nAdministrative key: {secrets / 'admin_key'}")
    if secure:
        typer.echo(f"API keys: {secrets / 'api_keys'}; authority: {directory / 'gateway/ca.pem'}")
    if monitoring:
        typer.echo(f"Grafana: admin, password in {secrets / 'grafana_password'}")


@app.command()
def down(
    *,
    purge: Annotated[
        bool, typer.Option("--purge", help="Also remove volumes, models, keys and certificates.")
    ] = False,
    directory: DirectoryOption = DEFAULT_DIRECTORY,
) -> None:
    """Stop and remove the containers; what they need to start again stays."""
    deploy_dir = DeployDir(directory)
    try:
        deploy_dir.read()
        steps.compose(deploy_dir, steps.ALL_PROFILES, "down", *(["--volumes"] if purge else []))
    except DeployError as error:
        raise _explained(error) from error
    if purge:
        shutil.rmtree(deploy_dir.path)


@app.command()
def logs(
    services: Annotated[list[str] | None, typer.Argument(help="Default: all.")] = None,
    *,
    follow: Annotated[bool, typer.Option("--follow/--no-follow", "-f")] = True,
    directory: DirectoryOption = DEFAULT_DIRECTORY,
) -> None:
    """Show what the containers say."""
    deploy_dir = DeployDir(directory)
    try:
        profiles = deploy_dir.read().profiles
        steps.compose(
            deploy_dir, profiles, "logs", *(["--follow"] if follow else []), *(services or [])
        )
    except DeployError as error:
        raise _explained(error) from error
    except KeyboardInterrupt:
        return


@app.command()
def reload(
    *,
    size: Size,
    checkpoint: CheckpointOption = None,
    url: Annotated[
        str | None,
        typer.Option(
            help="HOST:PORT of Triton's gRPC; default: this machine's, or in the container."
        ),
    ] = None,
    directory: DirectoryOption = DEFAULT_DIRECTORY,
) -> None:
    """Put another size into the running server, which answers all the while."""
    _refuse_weights_for_demo(size, checkpoint, None)
    deploy_dir = DeployDir(directory)
    try:
        before = deploy_dir.read()
        after = replace(before, size=size.value)
        steps.stage_repository(deploy_dir, after, checkpoint)
        check_interchangeable(deploy_dir.repository, deploy_dir.staged)
        deploy_dir.swap_in_staged()
        try:
            _load(deploy_dir, after, url)
        except DeployError:
            typer.echo("It failed; going back to the models before.", err=True)
            deploy_dir.swap_in_staged()
            _load(deploy_dir, before, url)
            raise
        deploy_dir.prepare(after)
    except DeployError as error:
        raise _explained(error) from error
    typer.echo(f"Serving {size.value}. Images have to be sent again; clients do so by themselves.")


def _load(deploy_dir: DeployDir, deployment: Deployment, url: str | None) -> None:
    """Have the server load what lies in its repository now, and wait for an answer by it."""
    if url is None and "secure" in deployment.profiles:
        steps.reload_inside(deploy_dir, deployment)
        steps.wait_inside(deploy_dir, deployment, 120, typer.echo)
        return
    address = url or f"127.0.0.1:{os.environ.get('SAM2_GRPC_PORT', '8001')}"
    reload_models(address, deploy_dir.admin_key(), typer.echo)
    steps.wait_for_answer(f"grpc://{address}", 120, typer.echo)


def _refuse_weights_for_demo(size: Size, checkpoint: str | None, image_size: int | None) -> None:
    """The small model in the box comes as it is."""
    for option, value in {"--checkpoint": checkpoint, "--image-size": image_size}.items():
        if size is Size.demo and value is not None:
            raise typer.BadParameter("demo has weights and a size of its own", param_hint=option)


def _networks(given: list[str], *, secure: bool, size: Size, image_size: int | None) -> list[str]:
    """The networks of --paintera-from, each written out."""
    option = "--paintera-from"
    if given and not secure:
        message = "goes with --secure; without it, Triton's own port is open to whoever reaches it"
        raise typer.BadParameter(message, param_hint=option)
    if given and (size is not Size.large or image_size not in (None, 1024)):
        raise typer.BadParameter(
            "Paintera's decoder is for large at 1024 px, and there is nothing else to let it in to",
            param_hint=option,
        )
    try:
        return [str(ip_network(each)) for each in given]
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from error


def _explained(error: DeployError) -> typer.Exit:
    typer.echo(f"error: {error}", err=True)
    return typer.Exit(1)


if __name__ == "__main__":
    app()
