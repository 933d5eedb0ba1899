"""The compose file: against the Compose specification, and what it must never say."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.running_server import ROOT

COMPOSE = ROOT / "docker/compose.yaml"
SERVERS = ("cpu", "gpu", "wheel")
CONFIGS = sorted((ROOT / "models").glob("*/config.pbtxt"))


def interpolated() -> str:
    """The file with every variable at its default."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", COMPOSE.read_text())


def opened() -> dict[str, Any]:
    """What is added where there is no gateway."""
    text = (ROOT / "docker/compose.open.yaml").read_text()
    return yaml.safe_load(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text))


def test_paintera_has_a_port_of_loopback_where_it_was_asked_for(compose: dict[str, Any]) -> None:
    text = (ROOT / "docker/compose.paintera.yaml").read_text()
    added = yaml.safe_load(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text))
    assert added == {"services": {"gateway": {"ports": ["127.0.0.1:8001:8001"]}}}
    assert compose["services"]["gateway"]["ports"] == ["127.0.0.1:8443:8443"]
    assert "keyless" not in interpolated()


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load(interpolated())


def test_it_follows_the_compose_specification() -> None:
    compose_spec = pytest.importorskip(
        "compose_spec",
        reason="the specification's parser is not installed: pip install compose-spec",
    )
    options = compose_spec.PyOptions()
    options.apply_merge = True
    parsed = options.from_yaml(interpolated())
    parsed.validate()
    assert set(parsed.service_names()) == {
        *SERVERS,
        "front",
        "gateway",
        "prometheus",
        "grafana",
        "jaeger",
    }
    with pytest.raises(ValueError, match="shm_sise"):
        options.from_yaml(
            interpolated()
            .replace("    shm_size:", "    shm_sise:")
            .replace("  shm_size:", "  shm_sise:")
        )


def test_no_service_starts_unasked(compose: dict[str, Any]) -> None:
    assert all(service["profiles"] for service in compose["services"].values())


def test_everything_listens_on_loopback_by_default(compose: dict[str, Any]) -> None:
    services = [*compose["services"].values(), *opened()["services"].values()]
    ports = [port for service in services for port in service.get("ports", ())]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports), ports


def test_triton_is_open_only_where_no_gateway_stands_before_it(compose: dict[str, Any]) -> None:
    published = {name for name, service in compose["services"].items() if "ports" in service}
    assert published == {"gateway", "prometheus", "grafana", "jaeger"}
    assert set(opened()["services"]) == set(SERVERS)
    for service in opened()["services"].values():
        assert [port.rpartition(":")[2] for port in service["ports"]] == ["8000", "8001", "8002"]


def test_the_gateway_reaches_the_front_and_the_front_alone_reaches_triton(
    compose: dict[str, Any],
) -> None:
    services = compose["services"]
    assert services["gateway"]["networks"] == ["edge"]
    assert services["front"]["networks"] == ["edge", "inner"]
    assert services["front"]["read_only"] is True
    assert services["front"]["secrets"] == ["api_keys"]
    assert "--triton sam2:8001" in services["front"]["command"]
    assert "--api-keys /run/secrets/api_keys" in services["front"]["command"]


def test_no_service_has_privileges(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "privileged" not in service, name
        assert service["restart"] == "unless-stopped", name
        assert not any("docker.sock" in volume for volume in service.get("volumes", ())), name


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_is_closed_and_read_only(compose: dict[str, Any], name: str) -> None:
    service = compose["services"][name]
    assert "--admin-key-file /run/secrets/admin_key" in service["command"]
    assert service["secrets"] == ["admin_key"]
    assert service["read_only"] is True
    models = [volume for volume in service["volumes"] if ":/models" in volume]
    assert len(models) == 1
    assert models[0].endswith(":ro")
    assert service["networks"]["inner"]["aliases"] == ["sam2"]


def limit(model: str, parameter: str) -> int:
    text = (ROOT / "models" / model / "config.pbtxt").read_text()
    found = re.search(rf'key: "{parameter}" +value: {{ string_value: "(\d+)" }}', text)
    assert found, parameter
    return int(found[1])


@pytest.mark.parametrize("name", SERVERS)
def test_shared_memory_has_room_for_what_the_limits_allow(
    compose: dict[str, Any], name: str
) -> None:
    [gigabytes] = re.findall(r"^(\d+)gb$", compose["services"][name]["shm_size"])
    instances = re.findall(r"count: (\d+)", "".join(map(Path.read_text, CONFIGS)))
    at_the_start = sum(map(int, instances)) * (64 << 20)  # --shm-mb
    answers = 2 * limit("sam2_postprocess", "max_output_bytes")  # one in each process
    waiting = limit("sam2_decoder", "max_waiting_bytes") + limit("sam2_decoder", "max_heavy_bytes")
    images = limit("sam2_embedding", "max_pending_image_bytes")
    assert at_the_start + answers + waiting + images <= int(gigabytes) << 30


def test_the_gpu_is_reserved(compose: dict[str, Any]) -> None:
    [device] = compose["services"]["gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
    for name in ("cpu", "wheel"):
        assert "deploy" not in compose["services"][name]


def test_processors_run_the_same_image_as_gpus(compose: dict[str, Any]) -> None:
    cpu, gpu, wheel = (compose["services"][name] for name in SERVERS)
    assert cpu["image"] == gpu["image"] != wheel["image"]
    assert cpu["build"] == gpu["build"]
    assert (cpu["build"]["target"], wheel["build"]["target"]) == ("triton", "wheel")


def test_images_are_pinned(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        _, _, tag = service["image"].partition(":")
        assert tag, name
        assert tag != "latest", name


def test_secrets_are_files_of_the_deployment(compose: dict[str, Any]) -> None:
    assert set(compose["secrets"]) == {"admin_key", "api_keys", "grafana_password"}
    for secret in compose["secrets"].values():
        assert secret["file"].startswith("../.deploy/secrets/")
    text = COMPOSE.read_text()
    assert not re.search(r"(?i)(password|secret|key|token)\w*:\s*[\"']?[A-Za-z0-9+]{16,}", text)
