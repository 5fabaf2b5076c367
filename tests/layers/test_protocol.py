# SPDX-License-Identifier: Apache-2.0
"""What the engine reads of a network by name is in the protocol, and the other way round."""

import ast
from pathlib import Path

from src.layers import protocol
from src.zoo import config_class_of, create_recipe, list_models

ROOT = Path(__file__).parents[2]
SOURCES = [path for path in (ROOT / "src").rglob("*.py") if path != Path(protocol.__file__)]
KINDS = (protocol.Network, protocol.Layer)


def members(kind: type) -> set[str]:
    return {name for name in vars(kind) if not name.startswith("_")} | set(kind.__annotations__)


def asked_for(path: Path) -> set[str]:
    """The names in getattr(x, "name" ...) and hasattr(x, "name") where x is called a network or a cell."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("getattr", "hasattr"):
            what, name = node.args[:2]
            if ast.unparse(what) in ("network", "cell") and isinstance(name, ast.Constant):
                names.add(name.value)
    return names


def test_what_is_asked_for_is_in_the_protocol():
    found = set().union(*map(asked_for, SOURCES))
    assert {"fold", "on_cpu", "translate_weights", "head_prefix", "keep_float32"} <= found
    of_mindspore = {"weight", "bias", "moving_variance"}
    assert found - of_mindspore <= members(protocol.Network) | members(protocol.Layer)


def test_what_is_in_the_protocol_is_read_and_explained():
    text = "".join(path.read_text() for path in SOURCES)
    classes = {n.name: n for n in ast.parse(Path(protocol.__file__).read_text()).body if hasattr(n, "body")}
    for kind in KINDS:
        assert all(name in text for name in members(kind))
        body = classes[kind.__name__].body
        for member, behind in zip(body, [*body[1:], None]):
            if isinstance(member, ast.AnnAssign):
                assert isinstance(behind, ast.Expr), f"{member.target.id} has no docstring"
            elif isinstance(member, ast.FunctionDef):
                assert ast.get_docstring(member)


def test_every_network_embeds_and_names_its_head():
    for name in list_models():
        network = create_recipe(config_class_of(name)(model=name)).network_class
        assert callable(network.embed) and network.head_prefix
