# SPDX-License-Identifier: Apache-2.0
"""The recipes at CPU scale differ from what they are compared with in the keys that they are about alone."""

from pathlib import Path

import pytest

from src.model_utils.config import load_config
from src.zoo import config_class_of

CPU = Path(__file__).parents[2] / "configs" / "resnet9" / "cpu"
BASE = "ladder/01_dawnbench"
PATHS = {str(path.relative_to(CPU).with_suffix("")): path for path in sorted(CPU.rglob("*.yaml"))}
LADDER = {
    "02_pool_before_norm": "pool_before_norm",
    "03_label_smoothing": "label_smoothing",
    "04_celu": "activation",
    "05_ghost_batch_norm": "ghost_batch lr",
    "06_fixed_scale": "norm_scale celu_alpha head_scale bias_lr_multiplier",
    "07_whitening": "input_whitening",
    "08_higher_rate": "lr cutout",
    "09_ema": "ema_decay lr_end",
    "10_flip_views": "cutout tta",
}
OTHERS = {
    "rates/one_cycle_192": "batch_size lr_base_batch lr",
    "rates/halving": "lr_schedule lr_every warmup_epochs",
    "rates/constant": "lr_schedule lr warmup_epochs",
    "rates/triangular2": "lr_schedule lr_every warmup_epochs",
    "single/celu": "activation",
    "single/without_cutout": "cutout",
    "single/batch_512": "batch_size lr_scale_rule",
    "single/whitening_airbench": "input_whitening",
    "single/dirac": "dirac_init",
    "single/alternating_flip": "flip",
    "single/crop_2": "crop_pad",
    "single/jitter": "brightness_jitter contrast_jitter",
    "single/ema": "ema_decay",
    "single/lookahead": "ema_decay ema_every lookahead",
    "single/freezing": "freeze_epochs",
    "single/decoupled": "lr lr_base_batch lr_scale_rule momentum weight_decay decoupled_decay",
    "single/muon": "optimizer muon_lr",
}
NETWORKS = {
    f"networks/{name}": "model lr head_scale" for name in ("resnet56", "vgg11", "vgg13", "vgg16", "vgg19")
}
OPTIMIZERS = {  # beside optimizers/sgd_resnet20
    "optimizers/thor_resnet20": "lr optimizer thor_lr thor_every thor_damping thor_damping_decay"
    " thor_balanced",
    "optimizers/muon_resnet20": "lr optimizer muon_lr",
}
WHOLE = ("networks/cifarnet", "networks/cifarnet_muon")  # recipes of others in full


@pytest.fixture(scope="module")
def configs():
    return {
        name: load_config({}, config_class_of=config_class_of, config_path=path).portable()
        for name, path in PATHS.items()
    }


def _differing(one, other):
    """The keys that both have, with other values."""
    return {name for name in one.keys() & other.keys() if one[name] != other[name]}


def test_every_recipe_is_in_the_tables_and_has_a_name_of_its_own():
    rungs = [f"ladder/{name}" for name in LADDER]
    assert set(PATHS) == {BASE, *rungs, *OTHERS, *NETWORKS, *WHOLE, *OPTIMIZERS, "optimizers/sgd_resnet20"}
    assert len({path.stem for path in PATHS.values()}) == len(PATHS)


def test_each_rung_adds_its_trick_to_the_one_below(configs):
    below = BASE
    for name, keys in LADDER.items():
        assert _differing(configs[below], configs[f"ladder/{name}"]) == set(keys.split()), name
        below = f"ladder/{name}"


def test_the_others_differ_from_the_first_rung_in_what_they_are_about(configs):
    for name, keys in {**OTHERS, **NETWORKS}.items():
        assert _differing(configs[BASE], configs[name]) == set(keys.split()), name


def test_an_optimizer_differs_from_sgd_in_its_own_keys(configs):
    for name, keys in OPTIMIZERS.items():
        assert _differing(configs["optimizers/sgd_resnet20"], configs[name]) == set(keys.split()), name


def test_whole_recipes_see_the_same_images_as_often(configs):
    for name in WHOLE:
        for key in ("batch_size", "epochs", "examples_per_class", "few_shot_seed", "train_steps"):
            assert configs[name][key] == configs[BASE][key], name
