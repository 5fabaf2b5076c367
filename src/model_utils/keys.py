"""What a group of config keys is made of."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


def key(default: Any, meaning: str, *, unit: str = "", **limits: Any) -> Any:
    """A config key; `limits` are pydantic's (gt, ge, lt, le, ...)."""
    return Field(default, description=meaning, json_schema_extra={"unit": unit}, **limits)


class Keys(BaseModel):
    """A group of keys. Values are frozen, unknown keys refused, numbers finite and never made from a text."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=()
    )
