# SPDX-License-Identifier: Apache-2.0
"""The house rules that a program can check: who imports whom, who calls what, and how long files are."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import licence
from tests.helpers.imports import ROOT, SOURCES, arrows, circle, imported, name_of, part_of

DOORS = sorted(ROOT.glob("*.py"))

# Who may import what, besides itself: the parts above it here. What trains, evaluates, deploys and analyses
# takes a recipe as an argument; a model package sees the seam (recipe) and the parts above that, and no other
# model.
ORDER = (
    ("common",),
    ("model_utils",),
    ("layers", "data", "parallel", "checkpoint"),
    ("optim",),
    ("evaluation",),
    ("reports",),
    ("training", "deploy", "retrieval"),
    ("analysis", "doctor", "experiments", "shared_config"),
    ("recipe",),
    ("a model",),
    ("zoo",),
    ("key_help",),
    ("trained",),
    ("embedders",),
    ("tools",),
)
LEVEL = {part: number for number, parts in enumerate(ORDER) for part in parts}
PARTS = {part_of(path) for path in SOURCES} - {""}
MODELS = PARTS - set(LEVEL)


def _level(part: str) -> int:
    return LEVEL.get(part, LEVEL["a model"])


def _is_command(path: Path) -> bool:
    """Whether people start it: a command of a model stands beside the shared ones, in tools."""
    return 'if __name__ == "__main__":' in path.read_text()


def _named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_the_parts_are_known():
    assert "resnet9" in MODELS
    assert set(LEVEL) == PARTS - MODELS | {"a model"}
    for model in MODELS:
        assert (ROOT / "src" / model / "network.py").is_file(), f"{model} is neither a model nor in ORDER"


@pytest.mark.parametrize("path", SOURCES, ids=_named)
def test_imports_inside_src_are_relative(path):
    for node in ast.walk(ast.parse(path.read_text())):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level:
            modules = [node.module]
        assert not {module.partition(".")[0] for module in modules} & {"src", "quartet"}


@pytest.mark.parametrize("path", SOURCES, ids=_named)
def test_imports_run_one_way(path):
    part = part_of(path)
    level = LEVEL["tools"] if part in MODELS and _is_command(path) else _level(part)
    others = {module.partition(".")[0] for module in imported(path)} - {part}
    assert {other for other in others if _level(other) >= level} == set()


def test_no_module_is_imported_while_it_imports():
    assert circle({name_of(path): imported(path, when_imported=True) for path in SOURCES}) == []


def test_a_circle_is_found():
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
    assert circle({"a": {"b"}, "b": {"c", "d"}, "c": set(), "d": {"b"}}) == ["b", "d"]


def test_the_arrows_between_packages_are_read():
    read = arrows()
    assert {"data", "layers", "training"} <= read["recipe"] and read["common"] == set()


SHARED = [path for path in SOURCES if _level(part_of(path)) < LEVEL["a model"]]


def _code(path: Path) -> str:
    """The names and texts of a file's code, without comments and docstrings, in lower case."""
    tree = ast.parse(path.read_text())
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    texts = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            texts.append(node.value)
        fields = (getattr(node, field, None) for field in ("id", "attr", "name", "arg", "module"))
        texts += [field for field in fields if isinstance(field, str)]
    return "\n".join(texts).lower()


def _models_in(path: Path) -> set[str]:
    names = MODELS - {"bit"} | {"bit_r", "bit."}  # a bit is also a bit
    code = _code(path)
    return {name for name in names if name in code}


@pytest.mark.parametrize("path", SHARED, ids=_named)
def test_shared_code_names_no_model(path):
    assert _models_in(path) == set()


def test_the_table_of_models_names_them():
    assert {"resnet9", "bireal", "multigrain"} <= _models_in(ROOT / "src" / "zoo.py")


@pytest.mark.parametrize("path", DOORS, ids=_named)
def test_doors_are_short_and_name_no_model(path):
    statements = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
    modules = {(node.module or "").removeprefix("src.").partition(".")[0] for node in statements}
    assert not modules & MODELS
    assert len(path.read_text().splitlines()) < 60


@pytest.mark.parametrize("folder", ["src", "tests", "benchmarks"])
def test_no_file_is_long(folder):
    lengths = {_named(path): len(path.read_text().splitlines()) for path in (ROOT / folder).rglob("*.py")}
    assert lengths
    assert {name: length for name, length in lengths.items() if length > 400} == {}


def test_every_code_file_begins_with_the_licence_line():
    """python -m tests.helpers.licence adds it."""
    files = licence.code_files()
    assert ROOT / "train.py" in files and ROOT / "scripts" / "test.sh" in files
    texts = {_named(path): path.read_text() for path in files}
    assert [name for name, text in texts.items() if licence.with_line(text) != text] == []


def test_the_licence_line_stands_below_a_shebang_and_once():
    for text in ("", "x = 1\n", '"""What."""\n', "#!/bin/sh\n", "#!/bin/sh\n# What.\n"):
        once = licence.with_line(text)
        assert licence.with_line(once) == once and once.count(licence.LINE) == 1
        assert once.startswith("#!") == text.startswith("#!")
        assert once.replace(licence.LINE, "") == text


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
    if part_of(path) == "layers":
        assert not any(call.args for call in calls), "positional arguments"
    else:
        assert [call.func.attr for call in calls] == []
        assert not _nn_bases(path) & CHANGING
    # A class that is imported by its own name would slip through.
    text = path.read_text()
    assert "from mindspore.nn import" not in text and "import mindspore.nn" not in text


def test_the_owner_calls_them():
    calls = {call.func.attr for path in SOURCES if part_of(path) == "layers" for call in _nn_calls(path)}
    bases = {base for path in SOURCES if part_of(path) == "layers" for base in _nn_bases(path)}
    assert {"Conv2d", "BatchNorm2d", "Dense", "MaxPool2d"} <= calls | bases


IMPORT_ALL = """
import importlib, sys, warnings
import mindspore
warnings.simplefilter("error")
for name in sys.argv[1:]:
    importlib.import_module(name)
from src.zoo import config_class_of, create_network, create_recipe, list_models
SMALL = {"block_units": (1, 1, 1, 1), "widths": (4, 4, 8, 8), "width_factor": ()}
for config_class, name in {config_class_of(name): name for name in list_models()}.items():
    fields = {key: field.default for key, field in config_class.model_fields.items() if key in SMALL}
    small = {key: 0.5 if key == "width_factor" else SMALL[key][: len(fields[key])] for key in fields}
    recipe = create_recipe(config_class(model=name, **small))
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
