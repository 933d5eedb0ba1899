"""Prompt files of `triton-sam2 batch`: JSON, CSV, or the boxes of a COCO annotation file."""

from pathlib import Path

from triton_sam2._errors import InvalidInputError
from triton_sam2.cli._batch_prompts import PromptFile, parse_json
from triton_sam2.cli._batch_tables import parse_table

_TABLES = (".csv", ".tsv", ".txt")


def read_prompt_file(path: Path, *, skip_crowds: bool = False) -> PromptFile:
    """Prompts by image name; raises InvalidInputError, naming the place, on anything else."""
    text = _read_text(path)
    is_table = path.suffix.lower() in _TABLES and not text.lstrip().startswith("{")
    prompts = parse_table(text, path) if is_table else parse_json(text, path, skip_crowds)
    for name, objects in prompts.items():
        for index, prompt in enumerate(objects):
            if prompt.is_empty:
                raise InvalidInputError(
                    f"--prompts: {path}: {name}: object {index + 1} has no prompt"
                )
    return prompts


def _read_text(path: Path) -> str:
    """A prompts file's text, UTF-8 or what Excel calls Unicode."""
    try:
        content = path.read_bytes()
        is_utf16 = content[:2] in (b"\xff\xfe", b"\xfe\xff")
        return content.decode("utf-16" if is_utf16 else "utf-8-sig")
    except OSError as error:
        raise InvalidInputError(f"--prompts: cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidInputError(
            f"--prompts: cannot read {path}: expected UTF-8, got {error}"
        ) from error
