"""Who imports whom: no two files that import each other, no room above that a lower one needs."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Where a first-party import is looked for, as PYTHONPATH and the package say.
SOURCES = {"": ("export",), "client": ("triton_sam2", "front"), "docker": None}
# From the bottom up: a room imports itself and rooms before it.
CLIENT_ROOMS = (
    "_errors",
    "_extras",
    "_transports",
    "_inputs",
    "_results",
    "_calls",
    "_clients",
    "sam2_api",
    "cli",
)


def modules() -> dict[str, Path]:
    """Dotted names of all first-party modules but the models' (each stands in a process of its own)."""
    found = {}
    for base, packages in SOURCES.items():
        root = ROOT / base
        names = packages or [path.parent.name for path in root.glob("*/__init__.py")]
        names = (
            names if packages else [*names, *(p.parent.name for p in root.glob("*/__main__.py"))]
        )
        for package in set(names):
            for path in (root / package).rglob("*.py"):
                parts = path.relative_to(root).with_suffix("").parts
                found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(path: Path) -> set[str]:
    """First-party modules that a file names in an import, wherever in it; for types as well."""
    named = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            named.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            named.add(node.module)
            named.update(f"{node.module}.{alias.name}" for alias in node.names)
    return named & MODULES.keys()


def test_there_is_something_to_look_at():
    assert {"triton_sam2", "export.repository", "sam2_server.cli", "deploy.steps"} <= MODULES.keys()
    assert "triton_sam2._errors" in imports(MODULES["triton_sam2._results.saving"])


def test_no_files_import_each_other():
    graph = {name: imports(path) - {name} for name, path in MODULES.items()}
    # A package's front (its __init__) gathers what lies in it; what lies in it never asks the front.
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" ► ".join(error.args[1]))


def test_the_client_needs_nothing_but_itself():
    for name, path in MODULES.items():
        if name.split(".")[0] == "triton_sam2":
            strangers = {other for other in imports(path) if other.split(".")[0] != "triton_sam2"}
            assert not strangers, f"{name} imports {strangers}"
    for example in (ROOT / "client/examples").rglob("*.py"):
        strangers = {other for other in imports(example) if other.split(".")[0] != "triton_sam2"}
        assert not strangers, f"{example.name} imports {strangers}"


def test_the_front_stands_on_the_client_alone():
    above = {name for name in MODULES if name.split(".")[0] == "front"}
    assert "front.service" in above
    for name, path in MODULES.items():
        # The deployment makes the gateway's keys of the file that the front reads.
        named = imports(path) - ({"front.api_keys"} if name.startswith("deploy.") else set())
        others = {other.split(".")[0] for other in named}
        if name in above:
            assert others <= {"front", "triton_sam2"}, name
        else:
            assert "front" not in others, name


def test_the_exporter_and_the_server_stand_apart():
    for name, path in MODULES.items():
        top = name.split(".")[0]
        others = {other.split(".")[0] for other in imports(path)}
        if top == "sam2_server":
            assert others <= {"sam2_server"}, name
        if top == "export":
            assert others <= {"export", "triton_sam2"}, name


def test_the_clients_rooms_build_on_those_below():
    order = {room: floor for floor, room in enumerate(CLIENT_ROOMS)}
    for name, path in MODULES.items():
        parts = name.split(".")
        if parts[0] != "triton_sam2" or len(parts) == 1:
            continue
        assert parts[1] in order, f"{name}: a room that CLIENT_ROOMS does not know"
        for other in imports(path):
            room = other.split(".")[1] if "." in other else None
            assert room is not None, f"{name} imports the public front"
            assert order[room] <= order[parts[1]], f"{name} imports {other}"
