"""What `just test-image` does to the built image, inside namespaces of its own (see docker/test-image.sh).

    python image_test.py ROOT_DIRECTORY WORK_DIRECTORY

A stand-in for a container engine: the image's own user, environment, entry point and command, its root
mounted read-only, its volumes writable, no capabilities, no new privileges, loopback as the only network.
"""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

START_SECONDS = 120
CALL_SECONDS = 60
STOP_SECONDS = 40
COMPILERS = ("cc", "gcc", "g++", "clang", "c++", "rustc", "nvcc")


class Box:
    """The image's root, mounted as an engine would, and commands in it."""

    def __init__(self, root: Path, config: dict[str, Any], models: Path) -> None:
        self.root = root
        self.config = config
        self.user, self.group = config["User"].split(":")
        self.environment = dict(entry.split("=", 1) for entry in config["Env"])
        # Here it is no process 1, as it is in a container.
        self.environment["TINI_SUBREAPER"] = "1"
        run = self._run_host
        run("mount", "--make-rprivate", "/")
        run("ip", "link", "set", "lo", "up")
        run("mount", "--bind", root, root)
        run("mount", "--bind", models, root / "models")
        run("mount", "-o", "remount,ro,bind", root / "models")
        run("mount", "-t", "proc", "proc", root / "proc")
        # Devices one by one: an engine gives no disks either.
        run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", root / "dev")
        for device in ("null", "zero", "random", "urandom"):
            (root / "dev" / device).touch()
            run("mount", "--bind", f"/dev/{device}", root / "dev" / device)
        (root / "dev/shm").mkdir()
        for name, options in {
            "dev/shm": "mode=1777,size=1g",
            "tmp": "mode=1777,noexec,nosuid",
            **{
                volume.strip("/"): f"mode=700,uid={self.user},gid={self.group}"
                for volume in config["Volumes"]
            },
        }.items():
            run("mount", "-t", "tmpfs", "-o", options, "tmpfs", root / name)
        run("mount", "-o", "remount,ro,bind", root)

    def command(self, *arguments: str) -> list[str]:
        return [
            *("chroot", str(self.root), "setpriv"),
            *("--reuid", self.user, "--regid", self.group, "--clear-groups"),
            *("--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"),
            *arguments,
        ]

    def run(self, *arguments: str, timeout: float = CALL_SECONDS) -> tuple[int, str]:
        """Exit code and output of a command in the box."""
        done = subprocess.run(
            self.command(*arguments),
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
        return done.returncode, done.stdout.strip()

    def start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self.command(*self.config["Entrypoint"], *self.config["Cmd"]), env=self.environment
        )

    @staticmethod
    def _run_host(*arguments: str | Path) -> None:
        subprocess.run([str(argument) for argument in arguments], check=True)


def main(root: Path, work: Path) -> None:
    config = json.loads((work / "image.json").read_text())["Docker"]["config"]
    box = Box(root, config, work / "models")
    size_mb = sum(file.lstat().st_size for file in root.rglob("*") if _counts(file, root)) / 1e6
    _say(f"image: {size_mb:.0f} MB unpacked, user {config['User']}")
    _expect("not root", box.user != "0", f"uid {box.user}")
    for compiler in COMPILERS:
        code, _ = box.run("sh", "-c", f"command -v {compiler}")
        _expect(f"no {compiler}", code != 0)
    for module in ("torch", "pip", "triton_sam2"):
        code, _ = box.run("python3", "-c", f"import {module}")
        _expect(f"no {module} in its Python", code != 0)
    for place in ("/", "/opt/sam2", "/models/repository", "/usr/bin"):
        code, said = box.run("sh", "-c", f"touch {place}/x")
        _expect(f"{place} cannot be written", code != 0, said)

    health = config["Healthcheck"]["Test"]
    _expect("the health check is a command", health[0] == "CMD")
    code, said = box.run(*health[1:])
    _expect("unhealthy before the start", code != 0, said)

    started = time.monotonic()
    server = box.start()
    try:
        while True:
            code, said = box.run(*health[1:])
            if code == 0:
                break
            if server.poll() is not None:
                raise SystemExit(f"FAILED: the container ended with exit code {server.returncode}")
            if time.monotonic() - started > START_SECONDS:
                raise SystemExit(f"FAILED: not healthy within {START_SECONDS} s ({said})")
            time.sleep(1)
        _say(f"healthy after {time.monotonic() - started:.1f} s: {said}")
        _check_processes(int(box.user))
        _check_real_call()
        # The probe's inference is in the metrics as well.
        code, said = box.run("python3", "-c", READ_METRICS)
        _expect("metrics", code == 0 and "sam2_embedding_cache_encodes_total" in said, said[-300:])
    finally:
        server.terminate()
        try:
            code = server.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
            code = -9
    _expect("stops on SIGTERM by itself", code == 0, f"exit code {code}")
    left = list((root / "dev/shm").iterdir())
    _expect("no shared memory left", not left, str(left))
    _say("All checks passed.")


READ_METRICS = (
    "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8002/metrics').read().decode())"
)


def _check_processes(user: int) -> None:
    ids = {}
    for status in Path("/proc").glob("[0-9]*/status"):
        text = status.read_text()
        fields = dict(re.findall(r"^(\w+):\t(.*)$", text, re.MULTILINE))
        if fields["Name"] in ("tini", "tritonserver", "triton_python_b"):
            ids[f"{fields['Name']} {status.parent.name}"] = fields
    _expect(
        "tini and Triton run",
        {key.split()[0] for key in ids} >= {"tini", "tritonserver"},
        str(list(ids)),
    )
    for name, fields in ids.items():
        unprivileged = (
            set(fields["Uid"].split()) == {str(user)}
            and int(fields["CapEff"], 16) == 0
            and fields["NoNewPrivs"] == "1"
        )
        if not unprivileged:
            raise SystemExit(f"FAILED: {name} has privileges ({fields})")
    _say(f"ok: {len(ids)} processes, all of uid {user}, no capabilities, no new privileges")


def _check_real_call() -> None:
    """The example photograph by the project's own client, from outside the box, over both protocols."""
    repository = Path(__file__).resolve().parents[2]
    sys.path.insert(0, str(repository / "client"))
    from triton_sam2 import SAM2TritonClient  # noqa: PLC0415 - found only now

    for url in ("grpc://127.0.0.1:8001", "http://127.0.0.1:8000"):
        started = time.monotonic()
        client = SAM2TritonClient(url)
        masks, iou = client.segment(
            str(repository / "client/examples/images/coins.png"), [[109, 199]], [1]
        )
        area = int((masks[0, 0] > 0).sum())
        _say(
            f"{url}: mask {masks.shape}, {area} pixels, IoU prediction {float(iou[0, 0]):.2f}, "
            f"{time.monotonic() - started:.2f} s"
        )
        # The clicked coin covers about 1,500 to 4,000 pixels of the photograph's 116,000.
        _expect("the mask is a coin", 800 < area < 6000, f"{area} pixels")


def _counts(file: Path, root: Path) -> bool:
    top = file.relative_to(root).parts[0]
    return (
        top not in ("proc", "dev", "models", "tmp") and not file.is_dir() and not file.is_symlink()
    )


def _expect(what: str, holds: bool, details: str = "") -> None:
    if not holds:
        raise SystemExit(f"FAILED: {what}{f' ({details})' if details else ''}")
    _say(f"ok: {what}")


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - a script that reports


if __name__ == "__main__":
    if os.geteuid() != 0:
        raise SystemExit("needs root; run docker/test-image.sh")
    main(Path(sys.argv[1]), Path(sys.argv[2]))
