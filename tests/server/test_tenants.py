"""Tenants as Triton itself is told of them, and what is for the inside alone, on a real server with the
launcher's own probe: whoever may call Triton may say any tenant's name, but nothing of the inside's."""

import json
from collections.abc import Iterator

import numpy as np
import pytest
from sam2_server.probe import PROBE_TENANT, Asker, probe

from tests.patience import PATIENCE_SECONDS, wait_until
from tests.photographs import photograph
from tests.raw_client import RawClient, RefusedError, bytes_tensor, click
from tests.running_server import RunningServer
from tests.server_figures import cache_metrics, tenants_metrics

pytestmark = pytest.mark.server

COINS = photograph("coins.png")
WARM = ["cached_image_id", "original_hw"]
EMBEDDINGS = ["image_embed", "encoder_fingerprint", "cached_image_id"]


@pytest.fixture(scope="module")
def own_server(demo_repository, tmp_path_factory) -> Iterator[RunningServer]:
    directory = tmp_path_factory.mktemp("tenants")
    with RunningServer(demo_repository, directory, "--probe-interval", "1") as server:
        yield server


@pytest.fixture(params=["grpc", "http"])
def as_tenant(request, own_server):
    """A function that calls as a tenant."""
    client = RawClient(own_server, request.param)

    def call(tenant, model="sam2", outputs=None, parameters=None, **tensors):
        named = {"sam2_tenant": tenant} | (parameters or {})
        return client.infer(model, outputs, request_parameters=named, **tensors)

    return call


def test_anothers_image_is_not_there(as_tenant):
    name = bytes_tensor(b"page-1")
    first = as_tenant("alice", image=bytes_tensor(COINS), image_id=name, **click(109, 199))
    content = as_tenant("alice", outputs=WARM, image=bytes_tensor(COINS))["cached_image_id"]
    for image_id in (name, content):
        for model, tensors in (("sam2", click(109, 199)), ("sam2_automask", {})):
            with pytest.raises(RefusedError, match="NOT_FOUND: .*send the image again"):
                as_tenant("bob", model, image_id=image_id, **tensors)
        for more in ({}, {"forget": np.array([True])}):
            with pytest.raises(RefusedError, match="NOT_FOUND"):
                as_tenant("bob", "sam2_embedding", WARM, image_id=image_id, **more)
            with pytest.raises(RefusedError, match="NOT_FOUND"):
                as_tenant("", "sam2_embedding", WARM, image_id=image_id, **more)
    again = as_tenant("alice", image_id=name, **click(109, 199))
    np.testing.assert_array_equal(again["masks"], first["masks"])
    generated = as_tenant("alice", "sam2_automask", ["original_hw"], image_id=content)
    np.testing.assert_array_equal(generated["original_hw"], first["original_hw"])


def test_anothers_session_is_not_there(as_tenant):
    def step(tenant, command, **tensors):
        names = {"session_id": bytes_tensor(b"clip"), "command": bytes_tensor(command)}
        return as_tenant(tenant, "sam2_video", ["object_ids"], **names, **tensors)

    try:
        step("alice", b"start")
        with pytest.raises(RefusedError, match="session_id: expected a session that was started"):
            step("bob", b"close")
        step("bob", b"start")
        step("bob", b"close")
        step("alice", b"status")
    finally:
        step("alice", b"close")


@pytest.mark.parametrize("secret", [None, "", "0" * 64])
def test_nobody_retires_weights(as_tenant, secret):
    held = as_tenant("alice", "sam2_embedding", EMBEDDINGS, image=bytes_tensor(COINS))
    parameters = {} if secret is None else {"sam2_inner_secret": secret}
    with pytest.raises(RefusedError, match="INVALID_ARGUMENT: .*retired_fingerprint"):
        as_tenant(
            "bob",
            "sam2_embedding",
            WARM,
            parameters,
            retired_fingerprint=held["encoder_fingerprint"],
        )
    as_tenant("alice", image_id=held["cached_image_id"], **click(109, 199))


def test_nor_by_way_of_another_model(as_tenant):
    """sam2_postprocess believes what it is told of the decoder; sam2_embedding asks the decoder itself."""
    held = as_tenant("alice", "sam2_embedding", EMBEDDINGS, image=bytes_tensor(COINS))
    side = 64  # S/4 of the small model
    with pytest.raises(RefusedError, match="NOT_FOUND"):
        as_tenant(
            "bob",
            "sam2_postprocess",
            plane_logits=np.zeros((1, 4, side, side), np.float32),
            plane_ious=np.zeros((1, 4), np.float32),
            fingerprint_matches=np.array([False]),
            encoder_fingerprint=held["encoder_fingerprint"],
            original_hw=np.array([30, 40], np.int32),
        )
    as_tenant("alice", image_id=held["cached_image_id"], **click(109, 199))


def test_the_probe_is_a_tenant_that_nobody_else_can_be(own_server, as_tenant):
    for secret in (None, "", "0" * 64):
        parameters = {} if secret is None else {"sam2_inner_secret": secret}
        for model in ("sam2", "sam2_automask", "sam2_video"):
            tensors = {"image": bytes_tensor(COINS), **click(109, 199)} if model == "sam2" else {}
            if model == "sam2_video":
                tensors = {
                    "session_id": bytes_tensor(b"clip"),
                    "command": bytes_tensor(b"start"),
                }
            with pytest.raises(
                RefusedError, match="INVALID_ARGUMENT: .*sam2_tenant: expected a name"
            ):
                as_tenant(PROBE_TENANT, model, None, parameters, **tensors)
    name = bytes_tensor(Asker(own_server.state["probe_token"]).image_id.encode())
    for tenant in ("", "bob"):
        with pytest.raises(RefusedError, match="NOT_FOUND"):
            as_tenant(tenant, image_id=name, **click(9, 9))
    before = tenants_metrics(own_server)[PROBE_TENANT]["hits_total"]
    wait_until(
        lambda: tenants_metrics(own_server)[PROBE_TENANT]["hits_total"] > before, "another probe"
    )
    assert tenants_metrics(own_server)[PROBE_TENANT]["names"] == 1


def test_the_state_file_with_the_secrets_is_its_owners(own_server):
    path = own_server.state_dir / "server.json"
    assert path.stat().st_mode & 0o777 == 0o600
    secret = own_server.state["inner_secret"]
    assert len(secret) == 64
    assert secret not in own_server.output()
    for log in own_server.state_dir.glob("*.log"):
        assert secret not in log.read_text()


def test_whoever_has_the_secret_asks_as_the_probe(own_server):
    asker = Asker("ours", own_server.state["inner_secret"])
    for url in (f"grpc://{own_server.grpc_url}", f"http://{own_server.http_url}"):
        assert probe(url, PATIENCE_SECONDS, asker).healthy
        assert probe(url, PATIENCE_SECONDS, asker, fresh=True).healthy
    for name, figures in tenants_metrics(own_server).items():
        assert name == PROBE_TENANT or not figures["names"] or name == "alice"


def test_figures_are_by_tenant(own_server, as_tenant):
    as_tenant("carol", outputs=["original_hw"], image=bytes_tensor(COINS))
    wait_until(
        lambda: tenants_metrics(own_server).get("carol", {}).get("entries") == 1, "carol's figures"
    )
    assert cache_metrics(own_server)["entries"] >= 2
    assert json.dumps(sorted(tenants_metrics(own_server))).count("carol") == 1
    as_tenant(
        "carol",
        "sam2_embedding",
        WARM,
        image_id=as_tenant("carol", outputs=WARM, image=bytes_tensor(COINS))["cached_image_id"],
        forget=np.array([True]),
    )


def test_a_name_that_is_too_long(as_tenant):
    with pytest.raises(
        RefusedError, match="INVALID_ARGUMENT: .*sam2_tenant: expected text of at most"
    ):
        as_tenant("x" * 65, image=bytes_tensor(COINS), **click(109, 199))
