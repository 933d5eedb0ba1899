"""The client's README does what it says: its Python runs, its commands and options exist."""

import re
import shlex
from pathlib import Path

import pytest
from triton_sam2.cli._commands import commands
from typer.main import get_command

from tests.client.fake_servers import grpc_server
from tests.client.fakes import FakeSam, png_of

README = (Path(__file__).parents[2] / "client" / "README.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("index", range(len(SNIPPETS)))
def test_its_python_runs(index, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for shade, name in enumerate(("photo.jpg", "cat.jpg", "dog.jpg")):
        (tmp_path / name).write_bytes(png_of(40, 60, shade))
    with grpc_server(FakeSam()) as (address, _):
        monkeypatch.setenv("TRITON_URL", address)
        exec(compile(SNIPPETS[index], f"snippet {index}", "exec"), {"__name__": "readme"})


def test_there_is_python_in_it():
    assert len(SNIPPETS) >= 5


@pytest.mark.parametrize("line", re.findall(r"^triton-sam2 .*$", README, re.MULTILINE))
def test_its_commands_parse(line):
    _, name, *arguments = shlex.split(line.partition("#")[0])
    command = get_command(commands).commands[name]
    command.make_context(name, arguments)
