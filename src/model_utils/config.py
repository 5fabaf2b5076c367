"""YAML and command line -> one frozen, typed config; every mistake is one line that names the key.

    overrides = parse_overrides(["--data_path", "data", "--lr", "0.2"])
    config = load_config(overrides, config_class_of=..., config_path="configs/resnet9/cifar10.yaml")

Later ones win: the defaults of the config class, default_config.yaml, the recipe's file, the command line.
`python -m src.model_utils.config` prints the text of default_config.yaml.
"""

import difflib
import itertools
import math
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from ..common.errors import UserError
from ..shared_config import GROUPS, SharedConfig

DEFAULTS = Path(__file__).parents[2] / "default_config.yaml"

_SWITCHES = {name for name, field in SharedConfig.model_fields.items() if field.annotation is bool}


class _Loader(yaml.SafeLoader):
    """`yaml.safe_load`, but 1e-3 is a number: YAML 1.1 takes it for text without a point."""


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
            f"config_path: {path} cannot be read ({error.strerror}); give an existing YAML file"
        ) from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: no UTF-8, or a date such as 2026-13-01
        raise UserError(f"config_path: {path} is not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(values, dict | None):
        raise UserError(f"config_path: {path} holds no keys; lines like 'lr: 0.4' are expected")
    return values or {}


def parse_overrides(arguments: Sequence[str]) -> dict[str, Any]:
    """`--key value` and `--key=value` to a mapping; values are YAML. A shared yes-or-no key alone means true.

    Raises:
        UserError: a word is no `--key`, or a key has no value.
    """
    values = {}
    words = list(arguments)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            raise UserError(f"{word!r} given where a --key is expected; see --help")
        name, equals, text = word[2:].partition("=")
        if not equals:
            if words and not words[0].startswith("--"):
                text = words.pop(0)
            elif name in _SWITCHES:
                text = "true"
            else:
                raise UserError(f"{name}: no value given; write --{name} VALUE")
        values[name] = parse_value(text)
    return values


def load_config(
    overrides: Mapping[str, Any],
    *,
    config_class_of: Callable[[str], type[SharedConfig]],
    config_path: str | Path | None = None,
    base: Mapping[str, Any] | None = None,
) -> SharedConfig:
    """Merges the layers and checks the result.

    Args:
        overrides: the command line's keys.
        config_class_of: model name -> its config class; raises UserError for a model it does not know.
        config_path: the recipe's file.
        base: keys of an earlier run, in place of default_config.yaml.

    Raises:
        UserError: one line with the key, what was given, what is allowed, and the nearest known key.
    """
    defaults = dict(read_yaml(DEFAULTS) if base is None else base)
    given = {**(read_yaml(config_path) if config_path else {}), **overrides}
    model = given.get("model", defaults.get("model", "resnet9"))
    if not isinstance(model, str):
        raise UserError(f"model: {model!r} given, allowed: the name of a model")
    config_class = config_class_of(model)
    if base is None:  # a model's own defaults come before those of all models
        shared, own = SharedConfig.model_fields, config_class.model_fields
        defaults = {
            name: value
            for name, value in defaults.items()
            if name not in shared or own[name].default == shared[name].default
        }
    return check({**defaults, **given}, config_class)


def check(values: Mapping[str, Any], config_class: type[SharedConfig]) -> SharedConfig:
    """`values` as a config of that class. Raises UserError as `load_config` does."""
    try:
        return config_class(**values)
    except ValidationError as error:
        problems = [_explain(problem, config_class) for problem in error.errors()]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise UserError(problems[0] + more) from error
    except TypeError as error:
        raise UserError(f"keys must be text: {error}") from error


def _explain(problem: Mapping[str, Any], config_class: type[SharedConfig]) -> str:
    if problem["type"] == "value_error":
        return str(problem["ctx"]["error"])
    name = str(problem["loc"][0])
    if problem["type"] == "extra_forbidden":
        return (
            f"{name}: {problem['input']!r} given, but there is no such key; "
            f"the nearest known key is {_nearest(name, config_class)}"
        )
    given = problem["input"]
    where = (
        f" (entry {problem['loc'][1] + 1})"
        if len(problem["loc"]) > 1 and isinstance(problem["loc"][1], int)
        else ""
    )
    return f"{name}: {given!r}{where} given, allowed: {allowed(config_class.model_fields[name])}"


def _nearest(name: str, config_class: type[SharedConfig]) -> str:
    """The key whose name, or two words of whose meaning, are most like `name` (learning_rate: lr)."""

    def likeness(key: str) -> float:
        words = re.findall(r"\w+", config_class.model_fields[key].description)
        texts = [key, *("_".join(pair) for pair in itertools.pairwise(words))]
        return max(difflib.SequenceMatcher(None, name, text).ratio() for text in texts)

    return max(config_class.model_fields, key=likeness)


def allowed(field: FieldInfo) -> str:
    """The type and range of a key in words."""
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    limits = [
        f"{sign} {getattr(limit, name):g}"
        for limit in field.metadata
        for name, sign in signs.items()
        if getattr(limit, name, None) is not None
    ]
    return " ".join([_type_in_words(field.annotation), " and ".join(limits)]).strip()


def _type_in_words(kind: Any) -> str:
    if typing.get_origin(kind) is Literal:
        values = typing.get_args(kind)
        return "one of " + ", ".join(map(str, values)) if len(values) > 1 else values[0]
    if typing.get_origin(kind) is typing.Union:
        return " or ".join(map(_type_in_words, typing.get_args(kind)))
    if typing.get_origin(kind) is tuple:
        inner = typing.get_args(kind)
        count = "a list of" if inner[-1] is ... else f"a list of {len(inner)}"
        return f"{count} {'whole numbers > 0' if 'int' in str(inner[0]) else 'numbers'}, as [1, 2, 3]"
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    return words[kind]


def as_yaml(value: Any) -> str:
    """One value as it stands in a YAML file, on one line."""
    if isinstance(value, tuple | list):
        return "[" + ", ".join(as_yaml(v) for v in value) + "]"
    style = '"' if isinstance(value, str) and not value.isprintable() else None
    return yaml.dump(value, Dumper=_Dumper, default_style=style, width=math.inf).split("\n")[0]


def describe(config: SharedConfig) -> str:
    """The keys of a config for --help, in groups: name, type and range, value, unit, meaning."""
    config_class = type(config)
    shared = [(group.__doc__.split("\n")[0], list(group.__annotations__)) for group in GROUPS]
    own = [name for name in config_class.model_fields if name not in SharedConfig.model_fields]
    lines = []
    for title, names in [(f"Keys of {config.model}.", own), *shared]:
        lines += ["", title] if names else []
        for name in names:
            field = config_class.model_fields[name]
            unit = field.json_schema_extra["unit"]
            lines.append(f"  --{name} {as_yaml(getattr(config, name))}{f' [{unit}]' if unit else ''}")
            lines.append(f"        {field.description} ({allowed(field)})")
    return "\n".join(lines[1:])


def dump(config: SharedConfig) -> str:
    """All keys as YAML text that `load_config` reads back to an equal config."""
    return "".join(f"{name}: {as_yaml(getattr(config, name))}\n" for name in type(config).model_fields)


def default_yaml() -> str:
    """The text of default_config.yaml: every shared key with its meaning, unit and default."""
    lines = [
        "# Every shared key with its default. A recipe in configs/ and --key value on the command line come",
        "# after it. Written by python -m src.model_utils.config from src/shared_config.py.",
    ]
    for group in GROUPS:
        lines += ["", f"# {group.__doc__.splitlines()[0]}"]
        for name in group.__annotations__:
            field = group.model_fields[name]
            unit = field.json_schema_extra["unit"]
            comment = f"# {field.description}{f' [{unit}]' if unit else ''}; {allowed(field)}"
            lines.append(f"{name + ': ' + as_yaml(field.default):<40}{comment}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(default_yaml(), end="")
