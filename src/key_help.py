# SPDX-License-Identifier: Apache-2.0
"""What --help adds to a door's own flags: the config's keys, without MindSpore."""

from collections.abc import Sequence


def key_help(words: Sequence[str]) -> str:
    """The keys by group, with a model's own and its values where --model or --config_path names one.

    Raises:
        UserError: there is no such model or file.
    """
    from .common.cli import parser
    from .model_utils.config import describe, load_config
    from .zoo import config_class_of

    flags = parser("", add_help=False)
    flags.add_argument("--model", default="")
    flags.add_argument("--config_path")
    named, _ = flags.parse_known_args(list(words))
    model = {"model": named.model} if named.model else {}
    return describe(load_config(model, config_class_of=config_class_of, config_path=named.config_path))
