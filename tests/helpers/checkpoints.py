# SPDX-License-Identifier: Apache-2.0
"""Checkpoints without a training."""

from pathlib import Path

import mindspore as ms
import numpy as np

from src.checkpoint.file import write_checkpoint
from src.model_utils.config import load_config
from src.zoo import config_class_of, create_recipe


def save_checkpoint(path: Path, keys: dict, *, class_names, arrays=None, network=None, step: int = 1) -> Path:
    """A checkpoint of a run with that config.

    It holds `arrays` (name -> array); or the parameters of `network`, by default the untrained one of the
    config.
    """
    config = load_config(keys, config_class_of=config_class_of)
    network = network or create_recipe(config).network(num_classes=len(class_names))
    if arrays is None:
        parameters = network.get_parameters()
    else:
        parameters = [ms.Parameter(ms.Tensor(np.asarray(a)), name=name) for name, a in arrays.items()]
    meta = {"config": config.model_dump(mode="json"), "class_names": list(class_names), "step": step}
    meta["network"] = [parameter.name for parameter in network.get_parameters()]
    write_checkpoint(path, parameters, meta)
    return path
