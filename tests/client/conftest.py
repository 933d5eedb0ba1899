"""A fake server, and the command line run against it in this process."""

import sys

import pytest
from triton_sam2.cli import app

from tests.client.fake_servers import grpc_server
from tests.client.fakes import FakeSam


@pytest.fixture
def sam():
    return FakeSam()


@pytest.fixture
def run(sam, monkeypatch, capsys):
    """Runs the command: exit code, stdout, stderr."""
    with grpc_server(sam) as (address, _):
        monkeypatch.setenv("TRITON_URL", address)
        monkeypatch.setenv("COLUMNS", "100")

        def run(*arguments):
            monkeypatch.setattr(sys, "argv", ["triton-sam2", *map(str, arguments)])
            with pytest.raises(SystemExit) as stopped:
                app()
            output = capsys.readouterr()
            assert "Traceback" not in output.err
            return stopped.value.code or 0, output.out, output.err

        yield run
