"""What a running server says and costs: its cache's metrics, its memory, its shared memory."""

from __future__ import annotations

import re
import urllib.request
from pathlib import Path

import psutil

from tests.running_server import RunningServer


def cache_metrics(server: RunningServer) -> dict[str, float]:
    """The embedding cache's own metrics, by name without the prefix, of all tenants together."""
    figures: dict[str, float] = {}
    for of_one in tenants_metrics(server).values():
        for name, value in of_one.items():
            figures[name] = figures.get(name, 0.0) + value
    return figures


def tenants_metrics(server: RunningServer) -> dict[str, dict[str, float]]:
    """The same by tenant; "" is who calls without one."""
    with urllib.request.urlopen(server.metrics_url, timeout=60) as answer:
        text = answer.read().decode()
    figures: dict[str, dict[str, float]] = {}
    pattern = r"^sam2_embedding_cache_(\w+?)(?:{(?:[^}]*tenant=\"([^\"]*)\")?[^}]*})? (\S+)$"
    for name, tenant, value in re.findall(pattern, text, re.M):
        figures.setdefault(tenant, {})[name] = float(value)
    return figures


def processes(server: RunningServer) -> list[psutil.Process]:
    """tritonserver and the processes of its Python models."""
    root = psutil.Process(server.server_pid)
    return [root, *root.children(recursive=True)]


def resident_bytes(server: RunningServer) -> int:
    """Memory of all the server's processes; shared memory counts once for each that maps it."""
    return sum(process.memory_info().rss for process in processes(server))


def shared_memory_bytes(server: RunningServer) -> int:
    """Bytes in /dev/shm that are this server's."""
    prefix = server.state["shm_prefix"]
    return sum(path.stat().st_blocks * 512 for path in Path("/dev/shm").glob(f"{prefix}*"))
