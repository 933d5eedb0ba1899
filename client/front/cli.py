"""The command line: one worker, or several that share the ports."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from front.api_keys import ApiKeysError, read_api_keys
from front.server import serve
from front.settings import FrontSettings, Network
from front.tools.settings import TOOL_NAMES, ToolSettingsError, read_tool_settings
from front.workers import supervise

DEFAULTS = FrontSettings()


def main(
    *,
    triton: Annotated[
        str, typer.Option(help="Triton's gRPC address, HOST:PORT.")
    ] = DEFAULTS.triton,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = DEFAULTS.host,
    http_port: Annotated[
        int, typer.Option(help="HTTP: /v1 (REST) and /v2 (inference protocol).")
    ] = (DEFAULTS.http_port),
    grpc_port: Annotated[int, typer.Option(help="gRPC.")] = DEFAULTS.grpc_port,
    metrics_port: Annotated[
        int, typer.Option(help="Prometheus metrics; worker N listens on this port + N.")
    ] = DEFAULTS.metrics_port,
    api_keys: Annotated[
        Path | None,
        typer.Option(
            help="File with lines NAME KEY [TENANT]. Without it there are no keys.", exists=True
        ),
    ] = None,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(
            help="Origin whose pages may call from a browser; may be given several times."
        ),
    ] = None,
    keyless_port: Annotated[
        int | None,
        typer.Option(
            help="gRPC without API keys, for sam2.1_large_encoder alone (Paintera cannot send any). "
            "Off unless given; needs --keyless-from."
        ),
    ] = None,
    keyless_from: Annotated[
        list[str] | None,
        typer.Option(help="Network (192.168.7.0/24) or address that may use it; several times."),
    ] = None,
    workers: Annotated[
        int, typer.Option(help="Processes that share the ports.", min=1, max=64)
    ] = 1,
    requests_per_second: Annotated[
        float, typer.Option(help="For each API key; messages of streams count.", min=0.1)
    ] = DEFAULTS.limits.requests_per_second,
    burst: Annotated[
        int, typer.Option(help="Requests that a key may send at once after a pause.", min=1)
    ] = (DEFAULTS.limits.burst),
    tools: Annotated[
        str,
        typer.Option(help=f"Annotation tools to serve, with commas: {', '.join(TOOL_NAMES)}."),
    ] = "",
    label_studio_url: Annotated[
        str | None,
        typer.Option(
            help="The Label Studio whose images are fetched; its token is read from the environment variable"
            " LABEL_STUDIO_API_KEY."
        ),
    ] = None,
    image_host: Annotated[
        list[str] | None,
        typer.Option(
            help="HOST[:PORT] with public addresses that images may be fetched from; may be given several"
            " times."
        ),
    ] = None,
    private_image_host: Annotated[
        list[str] | None,
        typer.Option(help="The same for a host in a private network or on this machine."),
    ] = None,
) -> None:
    """A front for the SAM 2 server: reads messages before Triton does, knows its callers, speaks REST."""
    try:
        if api_keys is not None:
            read_api_keys(api_keys.read_text("utf-8"))
    except (ApiKeysError, OSError, UnicodeDecodeError) as error:
        Console(stderr=True).print(
            f"[red]error:[/] --api-keys {api_keys}: {error}", highlight=False
        )
        raise typer.Exit(2) from error
    keyless_networks = _networks(keyless_port, keyless_from or [])
    try:
        tool_settings = read_tool_settings(
            tools,
            label_studio_url,
            os.environ.get("LABEL_STUDIO_API_KEY"),
            image_host or (),
            private_image_host or (),
        )
    except ToolSettingsError as error:
        Console(stderr=True).print(f"[red]error:[/] {error}", highlight=False)
        raise typer.Exit(2) from error
    # Each worker keeps its own count of a key's requests, and the kernel deals connections out evenly.
    limits = replace(
        DEFAULTS.limits,
        requests_per_second=requests_per_second / workers,
        burst=max(1, burst // workers),
    )
    settings = replace(
        DEFAULTS,
        triton=triton,
        host=host.strip("[]"),
        http_port=http_port,
        grpc_port=grpc_port,
        metrics_port=metrics_port,
        api_keys_file=api_keys,
        cors_origins=tuple(cors_origin or ()),
        keyless_port=keyless_port,
        keyless_networks=keyless_networks,
        limits=limits,
        tools=tool_settings,
    )
    if workers == 1:
        asyncio.run(serve(settings, is_shared=False))
    else:
        raise typer.Exit(supervise(settings, workers, os.getpid()))


def _networks(port: int | None, given: list[str]) -> tuple[Network, ...]:
    """The networks that need no key; without any, or with a wrong one, the front does not start."""
    try:
        if (port is None) != (not given):
            raise ValueError("expected with --keyless-from and the other way round, or neither")
        return tuple(ip_network(each) for each in given)
    except ValueError as error:
        Console(stderr=True).print(f"[red]error:[/] --keyless-port: {error}", highlight=False)
        raise typer.Exit(2) from error


def run() -> None:
    """Entry point."""
    typer.run(main)
