"""Pages of another origin through the gateway: the front says which may call; a key is needed as ever."""

from pathlib import Path

from tests.docker.deploy.gateways import (
    ALICE,
    INFER,
    gateway_settings,
    needs_nginx,
    running_gateway,
)
from tests.front.conftest import written_keys
from tests.running_front import RunningFront

PAGE = "https://page.example"
ALLOW = "access-control-allow-origin"


@needs_nginx
def test_the_origins_of_the_front_may_call_with_a_key(tmp_path: Path) -> None:
    keys = written_keys(tmp_path, f"alice {ALICE}\n")
    # Nothing here gets as far as a server behind it.
    options = ("--api-keys", keys, "--cors-origin", PAGE)
    with RunningFront("127.0.0.1:1", tmp_path / "front", *options) as front:
        settings = gateway_settings(tmp_path, front.http_url, front.grpc_url)
        with running_gateway(settings) as gateway:
            for path in (
                INFER,
                "/v1/segment",
                "/v1/everything",
                "/v1/images",
                "/v1/images/é/x",
                "/v1/videos",
                "/v1/videos/x/track",
                "/v1/videos",
                "/v1/videos/x/track",
            ):
                asked = {
                    "origin": PAGE,
                    "access_control_request_method": "POST",
                    "access_control_request_headers": "x-api-key",
                }
                answer = gateway.http("OPTIONS", path, bytes(10_000), **asked)
                assert (answer.status, answer.headers[ALLOW]) == (200, PAGE)
                assert "x-api-key" in answer.headers["access-control-allow-headers"].lower()
                stranger = gateway.http(
                    "OPTIONS", path, **(asked | {"origin": "https://x.example"})
                )
                assert stranger.status == 400
                assert ALLOW not in stranger.headers
            form = {"content_type": "application/x-www-form-urlencoded", "origin": PAGE}
            assert gateway.http("POST", "/v1/segment", b"", **form).status == 401
            answer = gateway.http("POST", "/v1/segment", b"", x_api_key=ALICE, **form)
            assert (answer.status, answer.headers[ALLOW]) == (400, PAGE)
            # What no page calls is asked for a key, whatever the question.
            for path in ("/v2/repository/index", "/docs", "/v2/models/sam2_decoder/infer"):
                assert gateway.http("OPTIONS", path, **asked).status == 401
