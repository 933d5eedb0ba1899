"""Paths that Triton's Python backend can work with, for any path that people have.

It hands the stub's command line to a shell unquoted, and the stub takes paths for ASCII: a blank, a bracket
or an umlaut in one of them, and no model loads. Such paths get a plain one in a private temporary directory.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from sam2_server.errors import LauncherError

PLAIN = re.compile(r"[A-Za-z0-9_./+@%,:=-]+")
PREFIX = "sam2-server-"


def is_plain(path: Path) -> bool:
    return PLAIN.fullmatch(str(path)) is not None


def make_private_directory(candidates: Sequence[Path] | None = None) -> Path:
    """A new directory of this user alone with a plain path, on a file system that runs programs."""
    if candidates is None:
        candidates = [Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")]  # noqa: S108 - mkdtemp below
    for parent in candidates:
        if is_plain(parent) and os.access(parent, os.W_OK) and not _is_noexec(parent):
            return Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    raise LauncherError(
        "Triton's Python backend cannot work in paths with blanks, letters beyond ASCII or signs that a "
        "shell reads, and there is no other directory to put its files: none of "
        f"{', '.join(map(str, candidates))} has a plain path, can be written to and may run programs.",
        "Set TMPDIR to such a directory, or give a plain --state-dir and --model-repository.",
    )


def remove_private_directory(path: Path) -> None:
    """Remove what `make_private_directory` made; links in it are removed, not followed."""
    if not path.name.startswith(PREFIX):
        raise ValueError(f"expected a directory made by make_private_directory, got {path}")
    shutil.rmtree(path, ignore_errors=True)


def _is_noexec(path: Path) -> bool:
    return bool(os.statvfs(path).f_flag & os.ST_NOEXEC)
