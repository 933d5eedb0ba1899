"""Reading tritonserver's log: what people should see of it, and what it says about loading."""

import re
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

# Said by every Triton without a GPU, and without meaning for us.
HARMLESS = re.compile(
    r"CudaDriverHelper has not been initialized"
    r"|pinned system memory"
    r"|unable to create stream"
    r"|Failed to initialize NVML"
    r"|DCGM unable to start"
    r"|CUDA memory pool disabled"
    r"|failed to load all models$"
)
RECORD = re.compile(
    r"^(?P<level>[IWEF])\d{4} [\d:.]+ \d+ (?P<place>\S+\.cc:\d+)\] \"?(?P<text>.*?)\"?$"
)
LOADING = re.compile(r"loading: (?P<model>\S+?):\d+$")
LOADED = re.compile(r"successfully loaded '(?P<model>[^']+)'")
FAILED = re.compile(r"failed to load '(?P<model>[^']+)' version \d+: (?P<reason>.*)$")
# What processes say at their end past Triton's log: C++ exceptions, shells, Python, the kernel.
LAST_WORDS = re.compile(
    r"terminate called|what\(\):|^\S*sh: |Traceback \(|^\w+(\.\w+)*(Error|Exception)\b|Segmentation fault"
    r"|Aborted|Killed|error while loading shared libraries"
)
LAST_WORDS_LINES = 6
REASON_LINES = 12


@dataclass
class LoadProgress:
    """Which models Triton has begun and finished loading."""

    begun: set[str] = field(default_factory=set)
    loaded: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def loading(self) -> list[str]:
        return sorted(self.begun - self.loaded - set(self.failed))


class ServerLog:
    """Follows the log file from where it now ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = path.stat().st_size if path.exists() else 0
        self._partial = ""
        self.reset()

    def reset(self) -> None:
        """Forget what an earlier run of the server said."""
        self.progress = LoadProgress()
        self.problems: list[str] = []
        self.last_words: deque[str] = deque(maxlen=LAST_WORDS_LINES)

    def new_lines(self) -> list[str]:
        """The complete lines written since the last call."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return []  # a disk so full that there is none
        self._offset += len(data)
        *lines, self._partial = (self._partial + data.decode(errors="replace")).split("\n")
        for line in lines:
            self._follow(line)
        return lines

    def _follow(self, line: str) -> None:
        record = RECORD.match(line)
        if record is None:
            if line.startswith("error: ") and not HARMLESS.search(line):
                self.problems.append(line)
            elif LAST_WORDS.search(line):
                self.last_words.append(line.strip())
            return
        text = record["text"]
        if match := LOADING.search(text):
            self.progress.begun.add(match["model"])
        elif match := LOADED.search(text):
            self.progress.loaded.add(match["model"])
        elif match := FAILED.search(text):
            self.progress.failed[match["model"]] = readable(match["reason"])
        elif record["level"] in "EF" and not HARMLESS.search(text):
            self.problems.append(readable(text))

    def failure(self) -> str:
        """Triton's own words on why it did not start, without the rest of the log."""
        reasons = [f"{model}: {reason}" for model, reason in self.progress.failed.items()]
        if not reasons:
            reasons = [*self.problems[-3:], *dict.fromkeys(self.last_words)]
        return "\n".join(reasons) or "It left no error message."


def readable(text: str) -> str:
    """A logged message with its line breaks restored, and long tracebacks cut."""
    lines = text.replace("\\n", "\n").replace("\\'", "'").replace('\\"', '"').strip().split("\n")
    lines = [line for line in lines if line.strip() and "<frozen importlib" not in line]
    if len(lines) > REASON_LINES:
        lines = [*lines[:REASON_LINES], "…"]
    return "\n".join(lines)


def for_people(line: str) -> str | None:
    """A log line as the console shows it, or None where it is of no use there."""
    record = RECORD.match(line)
    if record is None or record["level"] == "I" or HARMLESS.search(line):
        return None
    return f"triton: {readable(record['text'])}"
