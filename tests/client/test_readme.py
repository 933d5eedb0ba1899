"""The client's README does what it says: its Python runs, its commands and options exist."""

import hashlib
import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from triton_sam2 import SAM2TritonClient
from triton_sam2.cli._commands import commands
from typer.main import get_command

from tests import tools
from tests.client.fake_servers import grpc_server
from tests.client.fakes import FakeSam, png_of
from tests.client.video.movies import encoded

ROOT = Path(__file__).parents[2]
README = (ROOT / "client" / "README.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("index", range(len(SNIPPETS)))
def test_its_python_runs(index, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for shade, name in enumerate(("photo.jpg", "cat.jpg", "dog.jpg")):
        (tmp_path / name).write_bytes(png_of(40, 60, shade))
    (tmp_path / "clip.mp4").write_bytes(encoded(5))
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


@pytest.mark.server
@pytest.mark.parametrize("shell", ["sh", "dash", "bash", "busybox"])
def test_the_main_readmes_curl_block_runs_in_any_shell(server, shell):
    """Its octal escapes and `wc -c` are what POSIX knows; `\\x` and `stat -c` are not."""
    tools.skip_without(shell, "curl")
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (block,) = (block for block in blocks if "Inference-Header-Content-Length" in block)
    block = block.replace("localhost:8000", server.http_url)
    command = ["busybox", "sh"] if shell == "busybox" else [shell]
    done = subprocess.run(
        [*command, "-c", block], cwd=ROOT, capture_output=True, text=True, check=False
    )
    answer = json.loads(done.stdout)
    outputs = {output["name"]: output["data"] for output in answer["outputs"]}
    rle = json.loads(outputs["masks_rle"][0])
    content = (ROOT / "client/examples/images/coins.png").read_bytes()
    with SAM2TritonClient(server.grpc_url) as client:
        expected = client.segment(content, [[109, 199]], [1], formats="rle").rles[0][0]
    assert rle == expected
    assert outputs["cached_image_id"] == [f"sha256:{hashlib.sha256(content).hexdigest()}"]
