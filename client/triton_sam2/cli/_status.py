"""`triton-sam2 status`."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from triton_sam2._calls.arguments import Settings
from triton_sam2.cli._connection import (
    Connection,
    HeaderOption,
    JsonOption,
    TimeoutOption,
    TlsOption,
    UrlOption,
    print_json,
)
from triton_sam2.cli._exit_codes import EXIT_UNAVAILABLE
from triton_sam2.cli._server_status import ServerStatus, read_status, usual_metrics_url


def status(
    *,
    metrics_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Triton's metrics. Default: port 8002 of the host, if the server is on 8000 or 8001.",
        ),
    ] = None,
    as_json: JsonOption = False,
    url: UrlOption = None,
    timeout: TimeoutOption = 10.0,
    header: HeaderOption = None,
    tls: TlsOption = None,
) -> None:
    """Show the server, its models and its cache. Exits with 3 while it is not ready to serve.

    Example: `triton-sam2 status --url gpu-box:8001`
    """
    connection = Connection(url, timeout, header, tls)
    files = connection.tls_files()
    settings = Settings.read(
        url,
        timeout,
        None,
        connection.headers(),
        (files.get("ca_file"), files.get("cert_file"), files.get("key_file")),
    )
    answer = read_status(settings, metrics_url or usual_metrics_url(settings.endpoint))
    if as_json:
        print_json(answer.as_dict())
    else:
        _print_tables(answer)
    if not (answer.is_ready and all(answer.models.values())):
        raise typer.Exit(EXIT_UNAVAILABLE)


def _print_tables(answer: ServerStatus) -> None:
    console = Console()
    ready = "ready" if answer.is_ready else "NOT READY"
    console.print(f"{answer.url}: Triton {answer.version}, {ready}", highlight=False)
    models = Table("model", "state", "inferences")
    for name, is_ready in answer.models.items():
        count = "" if answer.inferences is None else str(answer.inferences.get(name, 0))
        models.add_row(name, "ready" if is_ready else "NOT READY", count)
    console.print(models)
    if answer.cache is None:
        console.print("No figures of the cache: say where the metrics are (see --metrics-url).")
        return
    cache = Table("cache", "figure", caption=f"from {answer.metrics_url}")
    for name, value in answer.cache.items():
        cache.add_row(name.replace("_", " "), f"{value:,.0f}")
    console.print(cache)
