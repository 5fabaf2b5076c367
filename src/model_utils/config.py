# SPDX-License-Identifier: Apache-2.0
"""YAML and command line -> one frozen, typed config; every mistake is one line that names the key.

    overrides = parse_overrides(["--data_path", "data", "--lr", "0.2"])
    config = load_config(overrides, config_class_of=..., config_path="configs/resnet9/cifar10.yaml")

Later ones win: the shared defaults, the model's own, what was edited in default_config.yaml, the recipe's
file, the command line.
"""

import difflib
import itertools
import math
import re
import textwrap
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from ..common.errors import UserError
from ..common.files import relative_to
from .keys import Keys, groups_of, own_keys

DEFAULTS = Path(__file__).parents[2] / "default_config.yaml"


class _Loader(yaml.SafeLoader):
    """`yaml.safe_load`, but 1e-3 is a number: YAML 1.1 takes it for text without a point."""

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        """Refuses a key that stands twice, before `<<` adds those of other mappings."""
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for name, _ in node.value:
            line = name.start_mark.line + 1
            if not isinstance(name, yaml.ScalarNode):
                continue
            if name.value in lines:
                raise yaml.YAMLError(
                    f"{name.value} stands twice, in lines {lines[name.value]} and {line}; leave one of them"
                )
            lines[name.value] = line
        return node


class _Dumper(yaml.SafeDumper):
    """`yaml.safe_dump`, but quotes the text 1e-3, which `_Loader` would take for a number."""


for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
        list("-+.0123456789"),
    )


def parse_value(text: str) -> Any:
    """A command-line value as YAML: 0.1, true, null, [1, 2], text."""
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError):  # ValueError: what looks like a date or number but is none
        return text


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The keys of a YAML file.

    Raises:
        UserError: there is no such file, or it is no mapping of keys to values.
    """
    try:
        values = yaml.load(Path(path).read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise UserError(
            f"config_path: {path} cannot be read ({error.strerror}){relative_to(path)}; give an existing file"
        ) from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: no UTF-8, or a date such as 2026-13-01
        raise UserError(f"config_path: {path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict | None):
        raise UserError(f"config_path: {path} holds no keys; lines like 'lr: 0.4' are expected")
    return values or {}


@dataclass(frozen=True)
class Word:
    """What a command line gives a key. The key's type says how it is read: as YAML, or, a text, as it stands.

    Attributes:
        text: the word; None where the key stands alone, as a yes-or-no key may.
    """

    text: str | None

    def __repr__(self) -> str:
        return "no value" if self.text is None else repr(parse_value(self.text))

    def read(self, name: str, field: FieldInfo | None) -> Any:
        """The value for the key `name` of that type; None: an unknown key.

        Raises:
            UserError: the key stands alone and is no yes-or-no key.
        """
        if self.text is None:
            if field is None or field.annotation is not bool:
                raise UserError(f"{name}: no value given; write --{name} VALUE")
            return True
        return self.text if field is not None and _is_text(field.annotation) else parse_value(self.text)


def _is_text(kind: Any) -> bool:
    return kind is str or (
        typing.get_origin(kind) is Literal
        and all(isinstance(choice, str) for choice in typing.get_args(kind))
    )


def parse_overrides(arguments: Sequence[str]) -> dict[str, Word]:
    """`--key value`, `--key=value` and `--switch` to a mapping for `load_config`.

    Raises:
        UserError: a word is no `--key`.
    """
    values = {}
    words = list(arguments)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            raise UserError(f"{word!r} given where a --key is expected; see --help")
        name, equals, text = word[2:].partition("=")
        if not equals:
            text = words.pop(0) if words and not words[0].startswith("--") else None
        values[name] = Word(text)
    return values


def load_config(
    overrides: Mapping[str, Any],
    *,
    config_class_of: Callable[[str], type[Keys]],
    config_path: str | Path | None = None,
    base: Mapping[str, Any] | None = None,
    flags: Iterable[str] = (),
    others: bool = False,
) -> Keys:
    """Merges the layers and checks the result.

    Args:
        overrides: the command line's keys, from `parse_overrides`, or values.
        config_class_of: model name -> its config class, "" -> that of the shared keys; raises UserError for a
            model it does not know.
        config_path: the recipe's file.
        base: keys of an earlier run, in place of default_config.yaml.
        flags: what else the command line may hold, to find the nearest name for an unknown key.
        others: keys that the class does not have are left out, not refused.

    Raises:
        UserError: one line with the key, what was given, what is allowed, and the nearest known key.
    """
    below = base
    if base is None:  # an installed package has no such file, and the same defaults
        below = read_yaml(DEFAULTS) if DEFAULTS.is_file() else {}
    recipe = read_yaml(config_path) if config_path else {}
    model = {**below, **recipe, **overrides}.get("model", "")
    model = model.text if isinstance(model, Word) else model
    if not isinstance(model, str):
        raise UserError(f"model: {model!r} given, allowed: the name of a model")
    config_class = config_class_of(model)
    fields = config_class.model_fields
    if others:
        below, recipe, overrides = (
            {name: value for name, value in layer.items() if name in fields}
            for layer in (below, recipe, overrides)
        )
    if base is None:
        below = {name: value for name, value in below.items() if _is_edited(value, fields.get(name))}
    given = {
        name: value.read(name, fields.get(name)) if isinstance(value, Word) else value
        for name, value in overrides.items()
    }
    return check({**below, **recipe, **given}, config_class, flags=flags)


def _is_edited(value: Any, field: FieldInfo | None) -> bool:
    """Whether a value of default_config.yaml is not the one that the file was made with.

    Somebody wrote it, so it comes before a model's own default.
    """
    value = tuple(value) if isinstance(value, list) else value
    return (
        field is None or value != field.default or isinstance(value, bool) != isinstance(field.default, bool)
    )


def check(values: Mapping[str, Any], config_class: type[Keys], *, flags: Iterable[str] = ()) -> Keys:
    """`values` as a config of that class. Raises UserError as `load_config` does."""
    try:
        return config_class(**values)
    except ValidationError as error:
        problems = [_explain(problem, config_class, flags) for problem in error.errors()]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise UserError(problems[0] + more) from error
    except TypeError as error:
        raise UserError(f"keys must be text: {error}") from error


def _explain(problem: Mapping[str, Any], config_class: type[Keys], flags: Iterable[str]) -> str:
    if problem["type"] == "value_error":
        return str(problem["ctx"]["error"])
    name = str(problem["loc"][0])
    if problem["type"] == "extra_forbidden":
        return (
            f"{name}: {problem['input']!r} given, but there is no such key; "
            f"the nearest known key is {_nearest(name, config_class, flags)}"
            + ("" if config_class.VARIANTS else "; no model is named, by --config_path or --model")
        )
    given = problem["input"]
    where = (
        f" (entry {problem['loc'][1] + 1})"
        if len(problem["loc"]) > 1 and isinstance(problem["loc"][1], int)
        else ""
    )
    field = config_class.model_fields[name]
    quotes = ", in quotes" if field.annotation is str else ""  # YAML takes 001 and 2026_11_28 for numbers
    return f"{name}: {given!r}{where} given, allowed: {allowed(field)}{quotes}"


def _nearest(name: str, config_class: type[Keys], flags: Iterable[str]) -> str:
    """The key or flag whose name, or two words of whose meaning, are most like `name` (learning_rate: lr)."""

    def likeness(known: str) -> float:
        field = config_class.model_fields.get(known)
        words = re.findall(r"\w+", field.description) if field else []
        texts = [known, *("_".join(pair) for pair in itertools.pairwise(words))]
        return max(difflib.SequenceMatcher(None, name, text).ratio() for text in texts)

    return max([*config_class.model_fields, *flags], key=likeness)


def allowed(field: FieldInfo) -> str:
    """The type and range of a key in words."""
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    limits = [
        f"{sign} {_number_in_words(getattr(limit, name))}"
        for limit in field.metadata
        for name, sign in signs.items()
        if getattr(limit, name, None) is not None
    ]
    return " ".join([_type_in_words(field.annotation), " and ".join(limits)]).strip()


def _number_in_words(number: float) -> str:
    return f"{number:,}" if isinstance(number, int) else f"{number:g}"


def _type_in_words(kind: Any) -> str:
    if typing.get_origin(kind) is Literal:
        values = typing.get_args(kind)
        return "one of " + ", ".join(map(str, values)) if len(values) > 1 else values[0]
    if typing.get_origin(kind) is typing.Union:
        return " or ".join(map(_type_in_words, typing.get_args(kind)))
    if typing.get_origin(kind) is tuple:
        inner = typing.get_args(kind)
        count = "a list of" if inner[-1] is ... else f"a list of {len(inner)}"
        example = list(range(1, 4 if inner[-1] is ... else len(inner) + 1))
        return f"{count} {'whole numbers > 0' if 'int' in str(inner[0]) else 'numbers'}, as {example}"
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    return words[kind]


def as_yaml(value: Any) -> str:
    """One value as it stands in a YAML file, on one line."""
    if isinstance(value, tuple | list):
        return "[" + ", ".join(as_yaml(v) for v in value) + "]"
    style = '"' if isinstance(value, str) and not value.isprintable() else None
    return yaml.dump(value, Dumper=_Dumper, default_style=style, width=math.inf).split("\n")[0]


def describe(config: Keys) -> str:
    """The keys of a config for --help, in groups: name, value and unit; then meaning, type and range.

    The model's own keys come first.
    """
    lines = []
    for group in sorted(groups_of(type(config)), key=lambda group: group is not type(config)):
        lines += ["", f"Keys of {config.model}." if group is type(config) else group.__doc__.splitlines()[0]]
        for name in own_keys(group):
            field = group.model_fields[name]
            lines.append(f"  --{name} {as_yaml(getattr(config, name))}{_unit(field)}")
            lines.append(f"        {field.description} ({allowed(field)})")
    return "\n".join(lines[1:])


def _unit(field: FieldInfo) -> str:
    unit = field.json_schema_extra["unit"]
    return f" [{unit}]" if unit else ""


def dump(config: Keys) -> str:
    """All keys as YAML text that `load_config` reads back to an equal config."""
    return "".join(f"{name}: {as_yaml(getattr(config, name))}\n" for name in type(config).model_fields)


def default_yaml(config_class: type[Keys]) -> str:
    """The text of default_config.yaml: every shared key with its meaning, unit and default."""
    lines = [
        "# Every shared key with its default. What comes later wins: the defaults here, a model's own",
        "# (src/MODEL/config.py), a value that you change here, a recipe in configs/, --key value.",
        "# Written by python -m src.shared_config > default_config.yaml.",
    ]
    for group in groups_of(config_class):
        lines += ["", f"# {group.__doc__.splitlines()[0]}"]
        for name in own_keys(group):
            field = group.model_fields[name]
            meaning, range_ = f"{field.description}{_unit(field)}", allowed(field)
            line = f"{name + ': ' + as_yaml(field.default):<39} # {meaning}; {range_}"
            if len(line) > 150:
                wrapped = [
                    textwrap.wrap(text, 108, break_on_hyphens=False) for text in (f"{meaning};", range_)
                ]
                lines += [f"# {part}" for parts in wrapped for part in parts]
                line = f"{name}: {as_yaml(field.default)}"
            lines.append(line)
    return "\n".join(lines) + "\n"
