"""The house rules that a program can check: who imports whom, who calls what, and how long files are."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
DOORS = sorted(ROOT.glob("*.py"))

# Who may import what, besides itself: the parts to its left. What trains, evaluates and deploys takes
# a recipe as an argument; a model package sees the seam (recipe) and what is below it, and no other model.
ORDER = (
    ("common",),
    ("model_utils",),
    ("layers", "data", "optim", "parallel"),
    ("checkpoint",),
    ("evaluation",),
    ("training", "deploy"),
    ("shared_config",),
    ("recipe",),
    ("analysis",),
    ("a model",),
    ("zoo",),
    ("key_help",),
    ("trained",),
    ("tools",),
)
LEVEL = {part: number for number, parts in enumerate(ORDER) for part in parts}


def _part(path: Path) -> str:
    """The package of src that a file belongs to, or its own name: src/data/loader.py -> data."""
    return path.relative_to(ROOT / "src").parts[0].removesuffix(".py")


PARTS = {_part(path) for path in SOURCES} - {"__init__"}
MODELS = PARTS - set(LEVEL)


def _imported(path: Path) -> set[str]:
    """The parts of src that a file imports, wherever in it the import stands."""
    parts = set()
    package = path.relative_to(ROOT).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            module = (node.module or "").split(".") if node.module else []
            if node.level:
                module = [*package[: len(package) - node.level + 1], *module]
            elif package[:1] == ("src",):
                assert module[0] != "src", f"{path}: imports inside src are relative"
            if module[0] == "src":
                parts |= {module[1]} if len(module) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            assert not any(alias.name.split(".")[0] == "src" for alias in node.names), f"{path}: import src"
    return parts


def _named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_the_parts_are_known():
    assert "resnet9" in MODELS
    assert set(LEVEL) <= PARTS | {"a model"}
    for model in MODELS:
        assert (ROOT / "src" / model / "network.py").is_file(), f"{model} is neither a model nor in ORDER"


@pytest.mark.parametrize("path", SOURCES, ids=_named)
def test_imports_run_one_way(path):
    level = LEVEL.get(_part(path), LEVEL["a model"])
    above = {part for part in _imported(path) - {_part(path)} if LEVEL.get(part, LEVEL["a model"]) >= level}
    assert above == set()


@pytest.mark.parametrize("path", DOORS, ids=_named)
def test_doors_are_short_and_name_no_model(path):
    assert not _imported(path) & MODELS
    assert len(path.read_text().splitlines()) < 60


@pytest.mark.parametrize("folder", ["src", "tests", "benchmarks"])
def test_no_file_is_long(folder):
    lengths = {_named(path): len(path.read_text().splitlines()) for path in (ROOT / folder).rglob("*.py")}
    assert lengths
    assert {name: length for name, length in lengths.items() if length > 400} == {}


# Their signatures and defaults are announced to change after MindSpore 2.9, or they are to be removed.
CHANGING = {"Dense", "GroupNorm", "LayerNorm", "SyncBatchNorm", "PReLU", "LeakyReLU"}
CHANGING |= {f"{kind}{n}d" for kind in ("Conv", "BatchNorm", "MaxPool", "AvgPool") for n in (1, 2, 3)}
REMOVED = {"Momentum", "SoftmaxCrossEntropyWithLogits", "AdamWeightDecay", "Lamb", "LARS"}


def _nn_calls(path: Path) -> list[ast.Call]:
    return [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and _is_of_nn(node.func)
    ]


def _nn_bases(path: Path) -> set[str]:
    """The classes of nn that a file's classes extend."""
    nodes = ast.walk(ast.parse(path.read_text()))
    bases = [base for node in nodes if isinstance(node, ast.ClassDef) for base in node.bases]
    return {base.attr for base in bases if _is_of_nn(base)}


def _is_of_nn(node: ast.expr) -> bool:
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "nn"


@pytest.mark.parametrize("path", SOURCES, ids=_named)
def test_changing_signatures_have_one_owner(path):
    calls = [call for call in _nn_calls(path) if call.func.attr in CHANGING | REMOVED]
    assert not any(call.func.attr in REMOVED for call in calls)
    if _part(path) == "layers":
        assert not any(call.args for call in calls), "positional arguments"
    else:
        assert [call.func.attr for call in calls] == []
        assert not _nn_bases(path) & CHANGING
    # A class that is imported by its own name would slip through.
    text = path.read_text()
    assert "from mindspore.nn import" not in text and "import mindspore.nn" not in text


def test_the_owner_calls_them():
    calls = {call.func.attr for path in SOURCES if _part(path) == "layers" for call in _nn_calls(path)}
    assert {"Conv2d", "Dense", "MaxPool2d"} <= calls
    assert any("BatchNorm2d" in _nn_bases(path) for path in SOURCES if _part(path) == "layers")


IMPORT_ALL = """
import importlib, sys, warnings
import mindspore
warnings.simplefilter("error")
for name in sys.argv[1:]:
    importlib.import_module(name)
from src.zoo import config_class_of, create_network, create_recipe, list_models
for name in list_models():
    recipe = create_recipe(config_class_of(name)(model=name))
    small = {"width_factor": 0.5} if hasattr(recipe.config, "width_factor") else {}
    recipe.optimizer(create_network(name, num_classes=2, **small), recipe.loss())
warnings.simplefilter("ignore")  # the framework's own exit handler would fail
"""


def test_nothing_deprecated_is_imported_or_built():
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in SOURCES
        if path.name not in ("__init__.py", "__main__.py")
    ]
    ended = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, *names],
        cwd=ROOT,
        env={**os.environ, "GLOG_v": "2"},  # the framework says some of it in its own log
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    assert "deprecated" not in ended.stdout + ended.stderr
