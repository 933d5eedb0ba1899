"""Everything that users can see is explained."""

import importlib
import inspect
import pkgutil

import pytest
import triton_sam2
from triton_sam2.cli._commands import commands
from typer.main import get_command

MODULES = [
    importlib.import_module(module.name)
    for module in pkgutil.walk_packages(triton_sam2.__path__, "triton_sam2.")
]


def members(owner):
    """Public functions, classes, methods and properties that a module or class defines itself."""
    for name, value in vars(owner).items():
        plain = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        is_code = inspect.isclass(plain) or inspect.isroutine(plain) or isinstance(plain, property)
        if not name.startswith("_") and is_code:
            yield name, plain


def undocumented(owner, path):
    for name, value in members(owner):
        if inspect.ismodule(owner) and value.__module__ != owner.__name__:
            continue
        target = value.fget if isinstance(value, property) else value
        if not inspect.getdoc(target) or (inspect.isclass(value) and not value.__doc__):
            yield f"{path}.{name}"
        if inspect.isclass(value):
            yield from undocumented(value, f"{path}.{name}")


@pytest.mark.parametrize("module", [triton_sam2, *MODULES], ids=lambda module: module.__name__)
def test_every_public_name_has_a_docstring(module):
    assert module.__doc__
    assert list(undocumented(module, module.__name__)) == []


def test_the_package_exports_what_it_imports():
    imported = {
        name
        for name, value in vars(triton_sam2).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert set(triton_sam2.__all__) == imported
    assert len(triton_sam2.__all__) == len(imported)


def test_the_error_tree_in_the_docs_is_the_real_one():
    from triton_sam2 import _errors

    lines = [line.strip(" │├└─") for line in _errors.__doc__.splitlines()]
    documented = {
        line.split()[0] for line in lines if line.split() and line.split()[0].endswith("Error")
    }
    real = {name for name, value in members(_errors)}
    assert documented == real
    assert real <= set(triton_sam2.__all__)
    for name, value in members(_errors):
        assert issubclass(value, _errors.TritonSam2Error), name


@pytest.mark.parametrize("name", sorted(get_command(commands).commands))
def test_every_command_has_an_example_and_every_option_help(name):
    command = get_command(commands).commands[name]
    assert f"triton-sam2 {name}" in command.help
    for parameter in command.params:
        assert getattr(parameter, "help", None), parameter.name
