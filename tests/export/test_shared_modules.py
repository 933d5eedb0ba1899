"""Shared modules stand beside each model that imports them, and nowhere else."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from export.errors import RepositoryError
from export.repository import MODELS_DIR
from export.shared_modules import needed_modules, put_shared_modules_beside

SHARED = MODELS_DIR / "shared"


def write(folder: Path, **modules: str) -> Path:
    folder.mkdir(parents=True)
    for name, source in modules.items():
        (folder / f"{name}.py").write_text(source)
    return folder


def test_what_is_imported_comes_along_directly_and_through_others(tmp_path: Path) -> None:
    shared = write(
        tmp_path / "shared",
        masks="from limits import LIMIT\n",
        limits="LIMIT = 1\n",
        images="import masks\n",
        unused="",
    )
    model = write(
        tmp_path / "model/1", model="def load():\n    import masks\n", helper="import json\n"
    )
    assert [path.stem for path in needed_modules(model, shared)] == ["limits", "masks"]
    put_shared_modules_beside(model, shared)
    assert {path.name for path in model.iterdir()} == {
        "model.py",
        "helper.py",
        "masks.py",
        "limits.py",
    }
    assert (model / "masks.py").read_bytes() == (shared / "masks.py").read_bytes()


def test_two_modules_of_one_name_are_refused(tmp_path: Path) -> None:
    shared = write(tmp_path / "shared", masks="")
    model = write(tmp_path / "model/1", model="import masks\n", masks="x = 1\n")
    with pytest.raises(RepositoryError, match="masks.py lies in model and in shared"):
        put_shared_modules_beside(model, shared)


def test_module_names_are_unique_across_models_and_shared() -> None:
    # Triton appends each version folder to sys.path; so do the tests, all of them at once.
    names = [
        path.name
        for path in MODELS_DIR.glob("*/**/*.py")
        if path.name != "model.py" and "__pycache__" not in path.parts
    ]
    assert len(names) == len(set(names)), sorted(name for name in names if names.count(name) > 1)


def test_every_shared_module_is_needed_by_a_model_and_none_needs_one() -> None:
    needed = {
        module.stem for model in MODELS_DIR.glob("*/1") for module in needed_modules(model, SHARED)
    }
    assert needed == {path.stem for path in SHARED.glob("*.py")}
    own = {path.stem for path in MODELS_DIR.glob("*/1/*.py")}
    for module in SHARED.glob("*.py"):
        imports = {
            node.module
            for node in ast.walk(ast.parse(module.read_text()))
            if isinstance(node, ast.ImportFrom)
        }
        assert not imports & own, module.name


def test_an_assembled_model_imports_nothing_from_outside_its_folder(tmp_path: Path) -> None:
    """As Triton does it: the version folder alone on the path."""
    for version in sorted(MODELS_DIR.glob("*/1")):
        folder = tmp_path / version.parent.name
        folder.mkdir()
        for path in version.glob("*.py"):
            (folder / path.name).write_bytes(path.read_bytes())
        put_shared_modules_beside(folder, SHARED)
        if not (folder / "model.py").is_file():
            continue
        script = (
            "import sys, types; sys.modules['triton_python_backend_utils'] = types.ModuleType('pb');"
            f" sys.path.insert(0, {str(folder)!r}); import model"
        )
        command = [sys.executable, "-I", "-c", script]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
