"""Which modules of `models/shared` a model needs: what it imports, and what those import in turn."""

import ast
import shutil
from pathlib import Path

from export.errors import RepositoryError

SHARED_DIR = "shared"


def put_shared_modules_beside(model_dir: Path, shared_dir: Path) -> None:
    """Copy into a model's version folder every shared module that its own modules need.

    Raises:
        RepositoryError: the model has a module of that name itself.
    """
    for module in needed_modules(model_dir, shared_dir):
        target = model_dir / module.name
        if target.exists():
            raise RepositoryError(
                f"{module.name} lies in {model_dir.parent.name} and in {shared_dir.name}; which is meant?"
            )
        shutil.copyfile(module, target)


def needed_modules(model_dir: Path, shared_dir: Path) -> list[Path]:
    """The shared modules that the Python files of a version folder import, directly or through each other."""
    shared = {path.stem: path for path in shared_dir.glob("*.py")}
    found: dict[str, Path] = {}
    unread = sorted(model_dir.glob("*.py"))
    while unread:
        for name in sorted(_imported_names(unread.pop()) & shared.keys() - found.keys()):
            found[name] = shared[name]
            unread.append(shared[name])
    return [found[name] for name in sorted(found)]


def _imported_names(source: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(source.read_bytes(), source.name)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    return names
