"""What tests want besides Python packages: found, named where it is missing, installed by one recipe."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import tools
from tests.running_server import ROOT


def test_missing_tools_are_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name, path=None: None if name == "go" else "/bin/x")
    monkeypatch.setattr(tools, "HEADERS", (Path("/nowhere"),))
    assert tools.missing() == ["go", "curl/curl.h"]
    assert tools.missing("go", "node") == ["go"]
    with pytest.raises(pytest.skip.Exception) as skipped:
        tools.skip_without("go", "node", "curl/curl.h")
    assert str(skipped.value) == "missing: go, curl/curl.h (just test-tools)"


def test_the_last_line_counts_reasons_and_names_the_command() -> None:
    assert tools.skipped_line([]) == ""
    reasons = [tools.reason(["nginx"])] * 3 + [tools.reason(["nginx", "go"])]
    assert tools.skipped_line(reasons) == (
        "Skipped here: 4 tests. 4 want go, nginx: `just test-tools` installs them (Debian, Ubuntu)."
    )
    assert tools.skipped_line([*reasons, "runs in images"]) == (
        "Skipped here: 5 tests. 4 want go, nginx: `just test-tools` installs them (Debian, Ubuntu). "
        "1 otherwise: runs in images."
    )


def test_a_run_ends_with_that_line(tmp_path: Path) -> None:
    """By pytest itself, with the suite's own conftest."""
    test = tmp_path / "test_it.py"
    test.write_text(
        "from tests.tools import PACKAGES, needs, skip_without\n"
        "PACKAGES['sam2-no-such-program'] = 'none'\n"
        "@needs('sam2-no-such-program')\n"
        "def test_one(): raise AssertionError\n"
        "def test_two(): skip_without('sam2-no-such-program')\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.conftest", "--rootdir", ROOT, str(test)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-1] == (
        "Skipped here: 2 tests. 2 want sam2-no-such-program: "
        "`just test-tools` installs them (Debian, Ubuntu)."
    )


def test_nothing_is_installed_where_all_is_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tools, "missing", lambda *_: [])
    monkeypatch.setattr("subprocess.run", lambda *_, **__: pytest.fail("ran something"))
    assert tools.install() == 0
    assert "is here" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("there", "uid", "said"),
    [((), 0, "no apt-get here: install go"), (("apt-get",), 1000, "needs root")],
)
def test_without_apt_or_root_it_says_so(
    there: tuple[str, ...],
    uid: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(tools, "missing", lambda *_: ["go"])
    monkeypatch.setattr("shutil.which", lambda name, path=None: name if name in there else None)
    monkeypatch.setattr("os.geteuid", lambda: uid)
    monkeypatch.setattr("subprocess.run", lambda *_, **__: pytest.fail("ran something"))
    assert tools.install() == 1
    output = capsys.readouterr().out
    assert "apt-get install golang-go" in output
    assert said in output


def test_no_test_looks_for_a_program_by_itself() -> None:
    """Else the last line would not know the command that brings it."""
    for path in (ROOT / "tests").rglob("test_*.py"):
        if path.name != Path(__file__).name:
            assert not re.search(r"shutil\.which\(", path.read_text()), path
