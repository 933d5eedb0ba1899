"""Alerts and dashboard name only what a real server exports."""

import json
import re
import subprocess
import urllib.request
from collections.abc import Iterator

import pytest
import yaml
from sam2_server.probe import probe

from tests.patience import wait_until
from tests.raw_client import RawClient, RefusedError, bytes_tensor
from tests.running_server import ROOT, RunningServer
from tests.tools import needs

MONITORING = ROOT / "docker/monitoring"
DASHBOARD = MONITORING / "grafana/dashboards/sam2.json"
# Triton exports these where there is a GPU; this machine may have none.
GPU_METRICS = {"nv_gpu_utilization", "nv_gpu_memory_used_bytes", "nv_gpu_memory_total_bytes"}
# Prometheus's own, of every target.
PROMETHEUS_METRICS = {"up"}


def alert_queries() -> Iterator[str]:
    for group in yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["expr"]


def dashboard_queries() -> Iterator[str]:
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel["targets"]:
            yield target["expr"]


def metric_names(query: str) -> set[str]:
    without_labels = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\b(by|on|without)\s*\([^)]*\)", " ", query)
    words = set(re.findall(r"[a-z_][a-z0-9_]+(?!\w*\s*\()\b", without_labels))
    return words - {"and", "by", "on", "sum"}


def test_the_names_in_a_query_are_found() -> None:
    assert metric_names(
        'sum by (le, model) (rate(nv_x{model="a"}[5m])) > 2 and on (b) up == 1'
    ) == {
        "nv_x",
        "up",
    }
    assert metric_names("sum without (tenant) (rate(nv_x[5m]))") == {"nv_x"}


def metrics_of(server: RunningServer) -> set[str]:
    with urllib.request.urlopen(server.metrics_url, timeout=60) as response:
        text = response.read().decode()
    return set(re.findall(r"^([a-zA-Z_:][\w:]*)[{ ]", text, re.MULTILINE))


@pytest.mark.server
def test_alerts_and_dashboard_name_metrics_that_exist(server: RunningServer) -> None:
    assert probe(f"grpc://{server.grpc_url}", 60).healthy
    # Steps are counted by command and status, from the first one on.
    with pytest.raises(RefusedError, match="start it again"):
        RawClient(server, "grpc").infer(
            "sam2_video", session_id=bytes_tensor(b"nobody"), command=bytes_tensor(b"status")
        )
    wait_until(lambda: "sam2_video_steps_total" in metrics_of(server), "the step's count")
    exported = metrics_of(server)
    used = {
        name for query in (*alert_queries(), *dashboard_queries()) for name in metric_names(query)
    }
    assert len(used) > 20
    assert used - exported - GPU_METRICS - PROMETHEUS_METRICS == set()
    # A histogram's metrics come in three parts; the rules use its buckets.
    assert "sam2_embedding_cache_encode_seconds_bucket" in used


@pytest.mark.server
def test_every_model_that_a_query_names_is_served(server: RunningServer) -> None:
    named = {
        model
        for query in (*alert_queries(), *dashboard_queries())
        for model in re.findall(r'model="([^"]*)"', query)
    }
    assert named
    assert named <= {path.parent.name for path in server.repository.glob("*/config.pbtxt")}


def test_every_alert_says_what_to_do() -> None:
    for group in yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]:
        for rule in group["rules"]:
            assert set(rule["annotations"]) == {"summary", "action"}, rule["alert"]
            assert rule["labels"]["severity"] in {"warning", "critical"}
            assert rule["for"]


def test_grafana_finds_what_it_is_provisioned_with() -> None:
    compose = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())
    mounts = dict(
        volume.split(":")[:2][::-1] for volume in compose["services"]["grafana"]["volumes"]
    )
    provisioning = MONITORING / "grafana/provisioning"
    [provider] = yaml.safe_load((provisioning / "dashboards/sam2.yml").read_text())["providers"]
    assert (ROOT / "docker" / mounts[provider["options"]["path"]] / "sam2.json").samefile(DASHBOARD)
    [source] = yaml.safe_load((provisioning / "datasources/prometheus.yml").read_text())[
        "datasources"
    ]
    uids = {panel["datasource"]["uid"] for panel in json.loads(DASHBOARD.read_text())["panels"]}
    assert uids == {source["uid"]}


@needs("promtool")
def test_promtool_accepts_rules_and_configuration() -> None:
    for command in (
        ["check", "rules", "alerts.yml"],
        ["check", "config", "prometheus.yml"],
    ):
        done = subprocess.run(
            ["promtool", *command], cwd=MONITORING, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


@needs("promtool")
def test_promql_of_the_dashboard_parses(tmp_path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": query.replace("$__rate_interval", "5m")}
        for number, query in enumerate(dashboard_queries())
    ]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = subprocess.run(
        ["promtool", "check", "rules", file], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
