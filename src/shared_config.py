# SPDX-License-Identifier: Apache-2.0
"""The keys that all models share: the sum of the groups, each of which stands beside the code that reads it.

`python -m src.shared_config` prints the text of default_config.yaml.
"""

from typing import Any

from pydantic import model_validator

from .data.keys import DataKeys
from .model_utils.keys import refusal
from .model_utils.modelarts.keys import CloudKeys
from .model_utils.run_keys import RunKeys
from .optim.keys import OptimizerKeys, ScheduleKeys
from .training.keys import LoopKeys, StepKeys

# Facts of the machine that a run is on; a checkpoint has none of them.
HOST_KEYS = (
    "data_path", "output_path", "run_name", "device_target", "pretrained_path", *CloudKeys.model_fields
)  # fmt: skip


class SharedConfig(CloudKeys, LoopKeys, StepKeys, OptimizerKeys, ScheduleKeys, DataKeys, RunKeys):
    """Every shared key. A model's config adds its own, and defaults of its own for shared ones (DEFAULTS)."""

    @model_validator(mode="after")
    def _factors_can_be_captured(self) -> "SharedConfig":
        if self.optimizer == "thor":
            if self.dataset_sink:
                allowed = "false with optimizer thor, whose step changes between updates"
                raise refusal("dataset_sink", True, allowed)
            if self.freeze_epochs:
                allowed = "[] with optimizer thor, which trains all layers to the end"
                raise refusal("freeze_epochs", self.freeze_epochs, allowed)
        return self

    def portable(self) -> dict[str, Any]:
        """The keys without those of the host, as plain values: what a checkpoint holds."""
        return self.model_dump(mode="json", exclude=set(HOST_KEYS))


if __name__ == "__main__":
    from .model_utils.config import default_yaml

    print(default_yaml(SharedConfig), end="")
