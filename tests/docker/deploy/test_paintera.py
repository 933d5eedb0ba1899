"""Paintera's streams through everything that may stand between: long-lived, silent for a minute, alive."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest
from deploy.gateway import GatewaySettings, render

from tests.docker.deploy.gateways import (
    ALICE,
    complaints,
    gateway_settings,
    needs_nginx,
    running_gateway,
    write_gateway,
)
from tests.paintera import MODEL, OUTPUTS, Lane, features_of, letterboxed
from tests.patience import wait_until
from tests.running_front import RunningFront
from tests.running_server import RunningServer

LANES, REQUESTS = 4, 20
# More than nginx's own 60 s, its default for each of the timeouts that have cut streams.
SILENCE_SECONDS = 62


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def pictures(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    return [letterboxed(rng.integers(0, 256, (40, 60, 3), np.uint8), 256) for _ in range(count)]


@pytest.fixture(scope="module")
def front_for_paintera(
    paintera_server: RunningServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningFront]:
    folder = tmp_path_factory.mktemp("front")
    (folder / "api_keys").write_text(f"alice {ALICE}\n")
    options = ("--api-keys", str(folder / "api_keys"), "--requests-per-second", "1000")
    options += ("--keyless-port", "0", "--keyless-from", "127.0.0.1", "--burst", "10000")
    with RunningFront(paintera_server.grpc_url, folder, *options) as running:
        yield running


def settings_for(
    front: RunningFront, directory: Path, *networks: str, **changes: object
) -> GatewaySettings:
    return replace(
        gateway_settings(directory, front.http_url, front.grpc_url),
        paintera_from=networks,
        paintera_listen=f"127.0.0.1:{free_port()}",
        upstream_keyless=f"127.0.0.1:{front.ports['keyless']}",
        **changes,
    )


@pytest.mark.server
@pytest.mark.slow
@needs_nginx
def test_four_streams_of_twenty_requests_and_a_silent_minute_whatever_stands_between(
    paintera_server: RunningServer, front_for_paintera: RunningFront, tmp_path: Path
) -> None:
    settings = settings_for(front_for_paintera, tmp_path, "127.0.0.1")
    with running_gateway(settings), ExitStack() as lanes:
        ways = {
            "directly": paintera_server.grpc_url,
            "through the front": f"127.0.0.1:{front_for_paintera.ports['keyless']}",
            "through gateway and front": settings.paintera_listen,
        }
        opened = {
            way: [lanes.enter_context(Lane(address)) for _ in range(LANES)]
            for way, address in ways.items()
        }
        expected: list[dict[str, np.ndarray]] = []
        for part in range(2):
            # Half a stream is 8 MB here, a hundred times what the gateway takes without a stream.
            images = pictures(REQUESTS // 2)
            if not expected:
                expected = [opened["directly"][0].encode(image) for image in images]
            for way, lanes_of_way in opened.items():
                assert all(lane.is_ready() for lane in lanes_of_way), way
                sent = [
                    (lane, lane.send(image), like)
                    for image, like in zip(images, expected, strict=True)
                    for lane in lanes_of_way
                ]
                for lane, request_id, like in sent:
                    response = lane.answer(request_id)
                    assert response.error_message == "", way
                    got = features_of(response.infer_response)
                    for name in OUTPUTS:
                        np.testing.assert_array_equal(got[name], like[name], err_msg=way)
            if part == 0:
                time.sleep(SILENCE_SECONDS)
        for way, lanes_of_way in opened.items():
            assert [lane.error for lane in lanes_of_way] == [None] * LANES, (
                f"{way}: a stream was cut"
            )


@pytest.mark.server
@needs_nginx
def test_a_silence_that_is_too_long_ends_a_stream_by_the_setting_that_says_so(
    front_for_paintera: RunningFront, tmp_path: Path
) -> None:
    settings = settings_for(front_for_paintera, tmp_path, "127.0.0.1", stream_timeout="1s")
    (picture,) = pictures(1)
    with running_gateway(settings), Lane(settings.paintera_listen) as lane:
        assert lane.encode(picture).keys() == set(OUTPUTS)
        wait_until(lambda: lane.error is not None, "nginx to end the stream")


@pytest.mark.server
@needs_nginx
def test_errors_come_with_their_id_and_other_models_not_at_all(
    front_for_paintera: RunningFront, tmp_path: Path
) -> None:
    settings = settings_for(front_for_paintera, tmp_path, "127.0.0.1")
    (picture,) = pictures(1)
    with running_gateway(settings) as gateway, Lane(settings.paintera_listen) as lane:
        for model, image, words in (
            (MODEL, 255 * picture, "image: expected numbers from 0 to 1"),
            ("sam2", picture, f"without an API key: expected {MODEL}"),
        ):
            request_id = lane.send(image, model)
            response = lane.answer(request_id)
            assert response.infer_response.id == request_id
            assert words in response.error_message
        for path in ("ModelInfer", "ModelMetadata", "RepositoryIndex", "ServerLive"):
            call = lane._channel.unary_unary(f"/inference.GRPCInferenceService/{path}")
            with pytest.raises(grpc.RpcError) as refused:
                call(b"", metadata=[("x-api-key", ALICE)], timeout=30)
            assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED, path
        # Lines are written after the answers; a stream's own comes with its end.
        wait_until(lambda: "/ServerLive" in gateway.log, "the gateway's log")


@pytest.mark.server
@needs_nginx
def test_other_addresses_are_refused_before_the_front_hears_of_them(
    front_for_paintera: RunningFront, tmp_path: Path
) -> None:
    settings = settings_for(front_for_paintera, tmp_path, "192.168.7.0/24", "10.1.2.3")
    before = front_for_paintera.output()
    with running_gateway(settings), Lane(settings.paintera_listen) as lane:
        for call in (lane.is_ready, lambda: lane.encode(pictures(1)[0])):
            with pytest.raises(grpc.RpcError) as refused:
                call()
            assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
            assert "without an API key" in refused.value.details()
    assert front_for_paintera.output() == before


@pytest.mark.server
@needs_nginx
def test_streams_of_one_address_are_counted(
    front_for_paintera: RunningFront, tmp_path: Path
) -> None:
    settings = settings_for(front_for_paintera, tmp_path, "127.0.0.1", paintera_streams_at_once=1)
    (picture,) = pictures(1)
    with (
        running_gateway(settings),
        Lane(settings.paintera_listen) as first,
        Lane(settings.paintera_listen) as second,
    ):
        first.encode(picture)
        with pytest.raises(grpc.RpcError) as refused:
            second.encode(picture)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert first.encode(picture).keys() == set(OUTPUTS)


@needs_nginx
def test_nginx_takes_the_configuration(tmp_path: Path) -> None:
    from deploy.gateway import make_certificates

    make_certificates(tmp_path, ["localhost"])
    settings = replace(
        gateway_settings(tmp_path, "127.0.0.1:1", "127.0.0.1:2"),
        paintera_from=("192.168.7.0/24", "2001:db8::/32"),
        paintera_listen=f"127.0.0.1:{free_port()}",
        upstream_keyless="127.0.0.1:3",
    )
    write_gateway(settings)
    assert complaints(settings) is None


def test_unless_it_is_asked_for_there_is_no_such_port() -> None:
    text = render(GatewaySettings())
    assert text.count("listen ") == 1
    assert "keyless" not in text
    asked = render(GatewaySettings(paintera_from=("192.168.7.0/24",)))
    assert asked.count("listen ") == 2
    assert "allow 192.168.7.0/24;\n        deny all;" in asked


@pytest.mark.parametrize("network", ["all", "192.168.7.9/24", "0.0.0.0/0; allow all", ""])
def test_what_is_no_network_does_not_reach_the_configuration(network: str) -> None:
    with pytest.raises(ValueError, match="does not appear|has host bits|Unexpected|Address"):
        render(GatewaySettings(paintera_from=(network,)))
