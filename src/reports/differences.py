# SPDX-License-Identifier: Apache-2.0
"""In which keys configs differ: one from its defaults, or several from each other."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..evaluation.drawing import shortened
from ..model_utils.config import as_yaml
from ..model_utils.keys import Keys

_LETTERS = 120  # of a value


class Differing(NamedTuple):
    """One key: its values as YAML, None where a config has no such key, and its meaning."""

    name: str
    values: tuple[str | None, ...]
    meaning: str


def from_defaults(config: Keys) -> list[Differing]:
    """The keys whose values are not the defaults of the config's model, with value and default.

    Those of the host, such as paths, are left out.
    """
    config_class = type(config)
    default, portable = config_class(model=config.model), config.portable()
    return [
        Differing(name, (as_text(value), as_text(getattr(default, name))), meaning_of(config_class, name))
        for name in portable
        if (value := getattr(config, name)) != getattr(default, name)
    ]


def between(values: Sequence[Mapping[str, Any]], *, meanings: Mapping[str, str]) -> list[Differing]:
    """The keys in which several mappings differ, in the order in which they first come.

    Args:
        values: what each of those compared has by key.
        meanings: by key.
    """
    names = dict.fromkeys(name for one in values for name in one)
    return [
        Differing(
            name,
            _apart([as_yaml(one[name]) if name in one else None for one in values]),
            meanings.get(name, ""),
        )
        for name in names
        if any(name not in one or one[name] != values[0].get(name) for one in values)
    ]


def _apart(texts: Sequence[str | None]) -> tuple[str | None, ...]:
    """Texts cut where they are long, unless some that differ would then look the same."""
    cut = tuple(text and shortened(text, _LETTERS) for text in texts)
    return cut if len(set(cut)) == len(set(texts)) else tuple(texts)


def meaning_of(config_class: type[Keys], name: str) -> str:
    """What a key means, with its unit."""
    field = config_class.model_fields[name]
    unit = field.json_schema_extra["unit"]
    return f"{field.description} [{unit}]" if unit else field.description


def as_text(value: Any) -> str:
    """A value as it stands in a config file, cut where it is long."""
    return shortened(as_yaml(value), _LETTERS)
