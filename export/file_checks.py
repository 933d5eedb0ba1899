"""What a file is, by its bytes. Needs no PyTorch."""

import hashlib
from collections.abc import Callable
from pathlib import Path


def describe_wrong_file(head: bytes) -> str | None:
    """What a file that is no checkpoint is, judged by its first bytes; None where nothing is wrong."""
    start = head.lstrip()[:64].lower()
    if not head:
        return "is empty"
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "is a web page (a download that ended on an error or login page)"
    if start.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the file it points to (run `git lfs pull`)"
    return None


def sha256_of_files(paths: list[Path], progress: Callable[[int], None] = lambda _: None) -> str:
    """Hex sha256 over the contents of the files, one after another.

    Args:
        paths: the files.
        progress: called with the number of bytes read since its last call.
    """
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
                progress(len(chunk))
    return digest.hexdigest()
