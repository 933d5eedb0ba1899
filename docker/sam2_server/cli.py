"""The command line: serve, stop, status, probe, load."""

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import IO, Annotated, cast

import typer
from rich.console import Console

from sam2_server import control
from sam2_server.addresses import without_brackets
from sam2_server.detach import serve_detached
from sam2_server.errors import CrashError, LauncherError
from sam2_server.loading import load_models
from sam2_server.output import ForgivingOutput
from sam2_server.ports import Ports
from sam2_server.probe import Asker
from sam2_server.probe import probe as ask
from sam2_server.process import ServerOptions
from sam2_server.serving import prepare, read_admin_key
from sam2_server.state import StateDir
from sam2_server.supervisor import SupervisorOptions

EXIT_FAILED = 1
EXIT_CRASHED = 3

app = typer.Typer(
    help="Serve SAM 2.1 with a local Triton server.", no_args_is_help=True, add_completion=False
)
StateDirOption = Annotated[
    Path, typer.Option("--state-dir", help="Where process ids, ports and logs are kept.")
]
DEFAULT_STATE_DIR = Path(".run")


@app.command()
def serve(
    *,
    model_repository: Annotated[Path, typer.Option(help="The models to serve.")] = Path(
        "model_repository"
    ),
    host: Annotated[
        str, typer.Option(help="Address to listen on, IPv4 or IPv6; 0.0.0.0 is everybody.")
    ] = "127.0.0.1",
    http_port: Annotated[int, typer.Option(min=0, max=65535, help="0 chooses a free one.")] = 8000,
    grpc_port: Annotated[int, typer.Option(min=0, max=65535, help="0 chooses a free one.")] = 8001,
    metrics_port: Annotated[
        int, typer.Option(min=0, max=65535, help="0 chooses a free one.")
    ] = 8002,
    state_dir: StateDirOption = DEFAULT_STATE_DIR,
    ready_file: Annotated[
        Path | None, typer.Option(help="A JSON file that exists while the server is ready.")
    ] = None,
    shm_mb: Annotated[
        int, typer.Option(min=1, help="First shared memory of each model process, in MB.")
    ] = 64,
    shm_growth_mb: Annotated[
        int, typer.Option(min=1, help="What it grows by at a time, in MB.")
    ] = 64,
    explicit_models: Annotated[
        bool,
        typer.Option("--explicit-models", help="Let clients reload models while the server runs."),
    ] = False,
    admin_key_file: Annotated[
        Path | None,
        typer.Option(help="Close the administrative calls behind the key in this file."),
    ] = None,
    supervise: Annotated[
        bool, typer.Option(help="Restart the server after a crash of it or of one of its models.")
    ] = True,
    probe: Annotated[bool, typer.Option(help="Test the server by inferences of its own.")] = True,
    probe_interval: Annotated[float, typer.Option(min=1, help="Seconds between probes.")] = 30,
    probe_timeout: Annotated[float, typer.Option(min=1, help="Seconds a probe may take.")] = 20,
    start_timeout: Annotated[
        float, typer.Option(min=1, help="Seconds until it must be ready.")
    ] = 600,
    detach: Annotated[
        bool, typer.Option("--detach", help="Return once it is ready; `stop` ends it.")
    ] = False,
    full_log: Annotated[
        bool, typer.Option("--full-log", help="Print all of Triton's log, not its problems alone.")
    ] = False,
    log_verbose: Annotated[int, typer.Option(min=0, help="Triton's verbosity.")] = 0,
    triton_arguments: Annotated[
        list[str] | None, typer.Argument(help="Further options for tritonserver, after --.")
    ] = None,
) -> None:
    """Start the server and keep it running until Ctrl-C or SIGTERM."""
    console = Console(soft_wrap=True, file=cast(IO[str], ForgivingOutput(sys.stdout)))
    directory = StateDir(state_dir.resolve())
    try:
        if detach:
            serve_detached(directory, sys.argv[1:], console)
            return
        supervision = SupervisorOptions(
            supervise=supervise,
            probe=probe,
            start_timeout_seconds=start_timeout,
            probe_interval_seconds=probe_interval,
            probe_timeout_seconds=probe_timeout,
            full_log=full_log,
            ready_file=ready_file,
        )
        server = ServerOptions(
            model_repository=model_repository.resolve(),
            host=without_brackets(host),
            ports=Ports(http_port, grpc_port, metrics_port),
            shm_mb=shm_mb,
            shm_growth_mb=shm_growth_mb,
            log_verbose=log_verbose,
            explicit_models=explicit_models,
            admin_key=read_admin_key(admin_key_file),
            extra_arguments=tuple(triton_arguments or ()),
        )
        directory.lock()
        prepare(directory, server, supervision, console).run()
    except LauncherError as error:
        raise _explained(error) from error


@app.command()
def stop(state_dir: StateDirOption = DEFAULT_STATE_DIR) -> None:
    """Stop the server of a state directory, or what a killed one has left."""
    try:
        typer.echo(control.stop(StateDir(state_dir.resolve())))
    except LauncherError as error:
        raise _explained(error) from error


@app.command()
def status(
    state_dir: StateDirOption = DEFAULT_STATE_DIR,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Say what runs where; the exit code is 0 only if it is ready."""
    state = control.running_state(StateDir(state_dir.resolve()))
    ready = state is not None and state.status == "ready" and control.answers(state)
    if as_json:
        fields = asdict(state) if state is not None else {"status": "stopped"}
        typer.echo(json.dumps(fields | {"ready": ready}, indent=2))
    elif state is None:
        typer.echo("No server is running.")
    else:
        typer.echo(
            f"{state.status}{'' if ready else ', not answering'}: {state.model_repository}\n"
            f"HTTP {state.urls['http']}  gRPC {state.urls['grpc']}  metrics {state.urls['metrics']}\n"
            f"launcher pid {state.launcher.pid}, restarts {state.restarts}, log {state.log_file}"
        )
        if state.last_crash:
            typer.echo(f"last crash: {state.last_crash}")
    raise typer.Exit(0 if ready else EXIT_FAILED)


@app.command()
def probe(
    url: Annotated[
        str | None,
        typer.Option(help="grpc://HOST:PORT or http://HOST:PORT; default: the running server's."),
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds the answer may take.")] = 20,
    fresh: Annotated[
        bool,
        typer.Option(
            "--fresh",
            help="Ask about an image that has to be encoded, not the one that the launcher asks about; "
            "always so with --url.",
        ),
    ] = False,
    state_dir: StateDirOption = DEFAULT_STATE_DIR,
) -> None:
    """Ask for one mask of a tiny image; the exit code is 0 only if it comes in time.

    Never through a proxy.
    """
    asker = None
    if url is None:
        state = control.running_state(StateDir(state_dir.resolve()))
        if state is None:
            typer.echo(f"No server is running in {state_dir}; name one with --url.", err=True)
            raise typer.Exit(EXIT_FAILED)
        url = state.urls["probe"]
        asker = Asker(state.probe_token, state.inner_secret)
    started = time.monotonic()
    result = ask(url, timeout, asker, fresh=fresh)
    typer.echo(f"{result.message} ({time.monotonic() - started:.2f} s)", err=not result.healthy)
    raise typer.Exit(0 if result.healthy else EXIT_FAILED)


@app.command()
def load(
    *,
    admin_key_file: Annotated[Path, typer.Option(exists=True, help="As given to `serve`.")],
    state_dir: StateDirOption = DEFAULT_STATE_DIR,
) -> None:
    """Have the running server load the repository's weights anew; it answers all the while."""
    state = control.running_state(StateDir(state_dir.resolve()))
    if state is None:
        typer.echo(f"No server is running in {state_dir}.", err=True)
        raise typer.Exit(EXIT_FAILED)
    try:
        admin_key = read_admin_key(admin_key_file) or ""
        load_models(state.urls["grpc"].rpartition("/")[2], admin_key, typer.echo)
    except LauncherError as error:
        raise _explained(error) from error


def _explained(error: LauncherError) -> typer.Exit:
    console = Console(stderr=True, soft_wrap=True)
    console.print(f"[red]{type(error).__name__.removesuffix('Error')}:[/red] ", end="")
    console.print(error.problem, markup=False, highlight=False)
    console.print(error.remedy, markup=False, highlight=False)
    return typer.Exit(EXIT_CRASHED if isinstance(error, CrashError) else EXIT_FAILED)
