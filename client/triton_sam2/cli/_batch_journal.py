"""What a batch has done so far, so that it can be killed at any moment and resumed."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from triton_sam2._errors import InvalidInputError


class Journal:
    """One JSON line per finished image, beside the results file; its first line says for which batch."""

    def __init__(self, results_path: Path, batch_key: str) -> None:
        self.path = results_path.with_name(f"{results_path.name}.partial")
        self._first_line = {"batch": hashlib.sha256(batch_key.encode()).hexdigest()}
        self.entries: dict[str, list[dict[str, Any]]] = {}
        if self.path.exists():
            self._read()
        try:
            self._file = self.path.open("a", encoding="utf-8")
        except OSError as error:
            raise InvalidInputError(f"cannot write {self.path}: {error.strerror}") from error
        if self._file.tell() == 0:
            self._append(self._first_line)

    def add(self, name: str, entries: list[dict[str, Any]]) -> None:
        """Note an image's entries; they survive the process from here on."""
        self.entries[name] = entries
        self._append({"image": name, "entries": entries})

    def finish(self, results_path: Path, entries: list[dict[str, Any]]) -> None:
        """Write the results file in one step and remove the journal."""
        self.close()
        complete = results_path.with_name(f"{results_path.name}.complete")
        complete.write_text(json.dumps(entries))
        complete.replace(results_path)
        self.path.unlink()

    def close(self) -> None:
        """Close the file and leave it for a later run."""
        self._file.close()

    def _append(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def _read(self) -> None:
        content = self.path.read_bytes()
        # Whatever follows the last newline was being written when the process ended.
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            os.truncate(self.path, len(whole))
        lines = [json.loads(line) for line in whole.splitlines()]
        if lines and lines[0] != self._first_line:
            raise InvalidInputError(
                f"{self.path} is from another batch (other prompts or options); finish that one, or delete it"
            )
        self.entries = {line["image"]: line["entries"] for line in lines[1:]}
