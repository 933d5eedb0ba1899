"""What a batch has done so far, so that it can be killed at any moment and resumed."""

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from triton_sam2._errors import InvalidInputError, TritonSam2Error


def journal_path(results_path: Path) -> Path:
    """The journal beside a results file."""
    return results_path.with_name(f"{results_path.name}.partial")


def complete_path(results_path: Path) -> Path:
    """The results while they are being written."""
    return results_path.with_name(f"{results_path.name}.complete")


class Journal:
    """One JSON line per finished image, beside the results file; its first line says for which batch.

    An image is noted with its file's size and time: one that has changed since is done again.
    """

    def __init__(self, results_path: Path, batch_key: str) -> None:
        self.path = journal_path(results_path)
        self._first_line = {"batch": hashlib.sha256(batch_key.encode()).hexdigest()}
        self._lines: dict[str, dict[str, Any]] = {}
        try:
            # Unbuffered: a line is in the file, or it is not.
            self._file = self.path.open("a+b", buffering=0)
        except OSError as error:
            raise InvalidInputError(f"cannot write {self.path}: {error.strerror}") from error
        try:
            self._read()
            if self._file.seek(0, os.SEEK_END) == 0:
                self._append(self._first_line)
        except BaseException:
            self._file.close()
            raise

    def entries(self, name: str, file: Path | None) -> list[dict[str, Any]] | None:
        """What an image came to, unless it was never done or its file is another one now."""
        line = self._lines.get(name)
        if line is None or file is None or line["file"] != _identity(file):
            return None
        entries: list[dict[str, Any]] = line["entries"]
        return entries

    def add(self, name: str, identity: list[int], entries: list[dict[str, Any]]) -> None:
        """Note an image's entries; they survive the process from here on."""
        line = {"image": name, "file": identity, "entries": entries}
        self._append(line)
        self._lines[name] = line

    def finish(self, results_path: Path, entries: list[dict[str, Any]]) -> None:
        """Write the results file in one step and remove the journal."""
        complete = complete_path(results_path)
        try:
            complete.write_text(json.dumps(entries))
            complete.replace(results_path)
        except OSError as error:
            with contextlib.suppress(OSError):
                complete.unlink()
            raise TritonSam2Error(f"cannot write {results_path}: {error.strerror}") from error
        self.close()
        self.path.unlink()

    def close(self) -> None:
        """Close the file and leave it for a later run."""
        self._file.close()

    def _append(self, line: Mapping[str, Any]) -> None:
        """Write a line whole or not at all, also on a disk that is full."""
        content = memoryview((json.dumps(line) + "\n").encode())
        end = self._file.seek(0, os.SEEK_END)
        try:
            while content:
                content = content[self._file.write(content) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(end)
            raise TritonSam2Error(f"cannot write {self.path}: {error.strerror}") from error

    def _read(self) -> None:
        self._file.seek(0)
        content = self._file.read()
        lines, good = [], 0
        for text in content.splitlines(keepends=True):
            line = _parsed(text)
            if line is None:
                break
            lines.append(line)
            good += len(text)
        if content and (not lines or lines[0] != self._first_line):
            raise InvalidInputError(
                f"{self.path} is from another batch (other images, prompts or options); finish that one, or "
                "delete it"
            )
        # What follows was being written when the process ended, or is broken: those images are done again.
        self._file.truncate(good)
        self._lines = {line["image"]: line for line in lines[1:]}


def file_identity(file: Path) -> list[int]:
    """A file's size and time of change; raises InvalidInputError where there is none."""
    identity = _identity(file)
    if identity is None:
        raise InvalidInputError(f"image: cannot read {file}")
    return identity


def _identity(file: Path) -> list[int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def _parsed(text: bytes) -> dict[str, Any] | None:
    """A whole line of a journal; None for anything else."""
    if not text.endswith(b"\n"):
        return None
    try:
        line = json.loads(text)
    except ValueError:
        return None
    is_ours = isinstance(line, dict) and (
        "batch" in line or {"image", "file", "entries"} <= set(line)
    )
    return line if is_ours else None
