"""The README names what exists and nothing else: models, tensors, parameters, recipes, metrics."""

import re
import subprocess

import pytest
from generator_parameters import NAMES as GENERATOR_PARAMETERS
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from tests.running_server import ROOT

README = (ROOT / "README.md").read_text()
DOCUMENTS = [
    ROOT / "README.md",
    *(ROOT / "client").glob("**/*.md"),
    *(ROOT / "docker").glob("*.md"),
]
CONFIGS = {
    path.parent.name: text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
    for path in (ROOT / "models").glob("*/config.pbtxt")
}
JUSTFILE = (ROOT / "justfile").read_text()
RECIPES = set(re.findall(r"^([a-z][a-z-]*)(?: [^:=\n]*)?:(?!=)", JUSTFILE, re.M)) - {"default"}


def test_every_model_and_its_parameters_are_explained():
    for name, config in CONFIGS.items():
        assert f"`{name}`" in README or name in README, name
        for parameter in config.parameters:
            assert f"`{parameter}`" in README, parameter


def test_every_public_tensor_is_explained_with_its_type():
    types = {"TYPE_STRING": "BYTES"}
    for tensor in [*CONFIGS["sam2"].input, *CONFIGS["sam2"].output]:
        kind = model_config_pb2.DataType.Name(tensor.data_type)
        expected = types.get(kind, kind.removeprefix("TYPE_"))
        assert re.search(rf"^\| `{tensor.name}` \| {expected} \[", README, re.M), tensor.name


def test_every_parameter_and_output_of_the_mask_generator_is_explained():
    section = README.split("## Everything in an image")[1].split("\n## ")[0]
    config = CONFIGS["sam2_automask"]
    for name in (*GENERATOR_PARAMETERS, *(t.name for t in [*config.input, *config.output])):
        assert f"`{name}`" in section, name


def test_defaults_in_the_table_are_the_configurations():
    units = {"GiB": 2**30, "MiB": 2**20, "million": 10**6}
    rows = re.findall(
        r"^\| (?:`(\w+)`)? ?\| `([\w:]+)` \| (?:(\d+(?:\.\d+)?) ?(GiB|MiB|million)?|(\S+)) \|",
        README,
        re.M,
    )
    stated, model = {}, ""
    for named, parameter, number, unit, text in rows:
        model = named or model
        stated[model, parameter] = float(number) * units.get(unit, 1) if number else text
    for model, config in CONFIGS.items():
        for name, parameter in config.parameters.items():
            # Said once where several models have it for the same reason.
            owners = {
                stated[key] for key in stated if key in ((model, name), ("sam2_preprocess", name))
            }
            value = parameter.string_value
            expected = float(value) if re.fullmatch(r"\d+(\.\d+)?", value) else value
            assert expected in owners, (model, name)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_recipe_a_document_names_exists(document):
    named = set(re.findall(r"`just ([a-z][a-z-]*)", document.read_text()))
    named |= set(re.findall(r"^(?:.*&& )?just ([a-z][a-z-]*)", document.read_text(), re.M))
    assert named <= RECIPES, named - RECIPES


def test_every_recipe_says_what_it_does():
    listing = subprocess.run(
        ["just", "--list"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    lines = [line.strip() for line in listing.stdout.splitlines()[1:] if line.strip()]
    groups = [line for line in lines if line.startswith("[")]
    recipes = [line for line in lines if not line.startswith("[")]
    assert lines[0] in groups, "a recipe without a group stands before all groups"
    assert len(recipes) == len(RECIPES)
    assert [line for line in recipes if "#" not in line] == []


def test_every_metric_is_named():
    files = ("sam2_embedding/1/cache_metrics.py", "sam2_automask/1/automask_metrics.py")
    source = "".join((ROOT / "models" / file).read_text() for file in files)
    names = re.findall(r'^    "(\w+)": "', source, re.M)
    assert len(names) > 10
    for name in names:
        assert re.search(rf"`{name}(_total)?`", README), name


def test_files_that_are_linked_exist():
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"
