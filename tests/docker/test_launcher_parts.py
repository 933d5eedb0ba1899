"""The launcher's small parts, without a server."""

import errno
import os
import stat
from pathlib import Path
from typing import TextIO, cast

import pytest
from sam2_server import addresses, plain_paths
from sam2_server.backoff import GOOD_SECONDS, BackOff
from sam2_server.errors import LauncherError
from sam2_server.output import ForgivingOutput
from sam2_server.probe import Asker, ProbeResult, probe_image
from sam2_server.server_log import ServerLog
from stop_notice import STOPPING_VARIABLE, ServerStoppingError, StopNotice


def test_pauses_grow_to_five_seconds_and_begin_anew_after_a_good_minute() -> None:
    back_off = BackOff()
    assert [back_off.pause_seconds(1.0) for _ in range(7)] == [0, 1, 2, 4, 5, 5, 5]
    assert back_off.pause_seconds(GOOD_SECONDS) == 0
    assert back_off.pause_seconds(0.0) == 1


@pytest.mark.parametrize(
    ("host", "http", "grpc", "url"),
    [
        ("127.0.0.1", "127.0.0.1", "127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "0.0.0.0", "0.0.0.0", "127.0.0.1"),
        ("::1", "ipv6:::1", "[::1]", "[::1]"),
        ("::", "ipv6:::", "[::]", "[::1]"),
        ("localhost", "localhost", "localhost", "localhost"),
    ],
)
def test_an_address_in_everybodys_spelling(host: str, http: str, grpc: str, url: str) -> None:
    assert addresses.triton_http(host) == http
    assert addresses.triton_grpc(host) == grpc
    assert addresses.in_url(host) == url


def test_brackets_are_for_urls() -> None:
    assert addresses.without_brackets("[::1]") == "::1"
    assert addresses.without_brackets("::1") == "::1"


@pytest.mark.parametrize("path", ["/a b", "/größe", "/a;b", "/$HOME", "/a(1)", "/it's", "/a&b", ""])
def test_paths_that_triton_cannot_work_in(path: str) -> None:
    assert not plain_paths.is_plain(Path(path) if path else Path("/ "))


def test_a_private_directory_is_plain_ours_alone_and_removed_with_its_links_only(
    tmp_path: Path,
) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").touch()
    directory = plain_paths.make_private_directory([Path("/no/such"), tmp_path])
    assert plain_paths.is_plain(directory)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    (directory / "models").symlink_to(kept)
    plain_paths.remove_private_directory(directory)
    assert not directory.exists()
    assert (kept / "file").exists()
    with pytest.raises(ValueError, match="make_private_directory"):
        plain_paths.remove_private_directory(kept)


def test_nowhere_to_put_files_says_what_to_do(tmp_path: Path) -> None:
    blank = tmp_path / "a b"
    blank.mkdir()
    with pytest.raises(LauncherError, match="TMPDIR"):
        plain_paths.make_private_directory([blank])


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_words_for_a_full_disk_are_dropped(number: int) -> None:
    output = ForgivingOutput(cast(TextIO, _Failing(number)))
    assert output.write("text") == 4
    output.flush()


def test_a_reader_that_left_is_noticed() -> None:
    with pytest.raises(BrokenPipeError):
        ForgivingOutput(cast(TextIO, _Failing(errno.EPIPE))).write("text")


class _Failing:
    encoding = "utf-8"

    def __init__(self, number: int) -> None:
        self._number = number

    def write(self, _text: str) -> int:
        raise OSError(self._number, os.strerror(self._number))

    def flush(self) -> None:
        raise OSError(self._number, os.strerror(self._number))


def test_last_words_count_as_a_reason(tmp_path: Path) -> None:
    file = tmp_path / "log"
    log = ServerLog(file)
    file.write_text(
        "+-------+\n| Model |\nbash: /a/my: No such file or directory\n"
        "terminate called after throwing an instance of 'boost::interprocess::lock_exception'\n"
        "  what():  boost::interprocess::lock_exception\n"
    )
    log.new_lines()
    assert log.failure().splitlines() == [
        "bash: /a/my: No such file or directory",
        "terminate called after throwing an instance of 'boost::interprocess::lock_exception'",
        "what():  boost::interprocess::lock_exception",
    ]


def test_a_log_that_could_not_be_made_is_empty(tmp_path: Path) -> None:
    assert ServerLog(tmp_path / "nothing").new_lines() == []


def test_askers_have_names_and_images_of_their_own() -> None:
    one, two = Asker.new(), Asker.new()
    assert one.image_id != two.image_id
    assert one.image_id.startswith("sam2-health-probe-")
    assert probe_image(one.token) == probe_image(one.token) != probe_image(two.token)


def test_which_process_is_stuck() -> None:
    message = "in ensemble 'sam2', Stub process 'score_0_1' is not healthy."
    assert ProbeResult(False, message).stuck_instance == "score_0_1"
    assert ProbeResult(False, "queue full").stuck_instance is None


def test_the_notice_of_a_stop(tmp_path: Path) -> None:
    file = tmp_path / "stopping"
    notice = StopNotice.from_environment({STOPPING_VARIABLE: str(file)})
    notice.check()
    StopNotice.from_environment({}).check()
    file.touch()
    with pytest.raises(ServerStoppingError, match="try again"):
        notice.check()
