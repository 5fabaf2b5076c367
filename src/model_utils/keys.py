# SPDX-License-Identifier: Apache-2.0
"""What a group of config keys is made of."""

import os
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, model_validator

Numbers = Annotated[tuple[float, ...], Field(strict=False)]
Counts = Annotated[tuple[Annotated[int, Field(gt=0)], ...], Field(strict=False)]


def key(default: Any, meaning: str, *, unit: str = "", **limits: Any) -> Any:
    """A config key; `limits` are pydantic's (gt, ge, lt, le, ...)."""
    return Field(default, description=meaning, json_schema_extra={"unit": unit}, **limits)


def refusal(name: str, value: Any, allowed: str) -> ValueError:
    """What a check of several keys raises, in the words of a check of one key."""
    if isinstance(value, tuple):
        shown = str(list(value))
    elif isinstance(value, float):
        shown = f"{value:g}"
    else:
        shown = repr(value)
    return ValueError(f"{name}: {shown} given, allowed: {allowed}")


class Keys(BaseModel):
    """A group of keys. Values are frozen, unknown keys refused, numbers finite and never made from a text.

    Attributes:
        DEFAULTS: values in place of the defaults of inherited keys. A model's config has such.
        VARIANTS: of a model's config, the models by name; for each the keys that its name gives a value.
    """

    DEFAULTS: ClassVar[Mapping[str, Any]] = {}
    VARIANTS: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=()
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        given = {**cls.DEFAULTS, **values}
        model = given.get("model")
        return {**(cls.VARIANTS.get(model, {}) if isinstance(model, str) else {}), **given}


def _exactly(number: int) -> Any:
    """The type of a list of so many whole numbers above 0."""

    def check(value: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        if len(value) != number:
            raise refusal(info.field_name, value, f"a list of {number} whole numbers > 0")
        return value

    return Annotated[Counts, AfterValidator(check)]


# One whole number for each of a network's stages.
ThreeCounts, FourCounts, FiveCounts = map(_exactly, (3, 4, 5))


def groups_of(config_class: type[Keys]) -> list[type[Keys]]:
    """The groups that a config class is the sum of, each with keys of its own, in the order of its keys."""
    classes = [base for base in reversed(config_class.__mro__) if issubclass(base, Keys)]
    return [base for base in classes if own_keys(base)]


def default_of(config_class: type[Keys], name: str) -> Any:
    """The default of a key: the class's own, or the one that it shares."""
    return config_class.DEFAULTS.get(name, config_class.model_fields[name].default)


def own_keys(group: type[Keys]) -> list[str]:
    """The keys that a class adds to those it inherits."""
    return [name for name in vars(group).get("__annotations__", ()) if name in group.model_fields]


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path)) if path else path


# Where a run reads: absolute, so that the run can go on from another working folder.
InputPath = Annotated[str, AfterValidator(_absolute), Field(validate_default=True)]
# Where a run writes: ~ is the home folder.
OutputPath = Annotated[str, AfterValidator(os.path.expanduser)]
