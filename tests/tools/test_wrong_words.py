# SPDX-License-Identifier: Apache-2.0
"""Every tool refuses a wrong command line in one line, with code 2, and writes nothing."""

import pytest

from src.multigrain import choose_p, whiten
from src.tools import ablate, ascend_check, find_lr, make_copies, reestimate_bn, report, summary
from tests.helpers.doors import ROOT, call_main, error_of

RESNET9 = ["--config_path", "configs/resnet9/quickstart.yaml"]
NONE = ["--checkpoint_path", "none.ckpt"]
WHITEN = [*NONE, "--images", "nowhere"]
LARGE = ["resnet9", "--widths", "[2, 3, 4, 5]", "--train_crop", "resize"]
# DIR is a folder that holds nothing but the empty folder `empty`.
COPIES, NEW = ["DIR/empty", "DIR/copies"], ["--output", "DIR/new.ckpt"]


@pytest.mark.parametrize(
    ("tool", "words", "message"),
    [
        (ablate, [], "the following arguments are required: CONFIG; see --help"),
        (ablate, ["none.yaml"], "config_path: none.yaml cannot be read"),
        (ablate, [RESNET9[1], "--seeds", "0"], "seeds: 0 given, allowed: a whole number >= 1"),
        (ablate, [RESNET9[1], "--seed", "3"], "seed: given, but each run has its own; leave it out"),
        (ablate, [RESNET9[1], "--jobs", "0"], "jobs: 0 given, allowed: a whole number from 1 to "),
        (
            ablate,
            [RESNET9[1], "--baseline", "x"],
            "baseline: x given, allowed: previous, or one of quickstart",
        ),
        (
            ablate,
            [RESNET9[1], RESNET9[1]],
            f"{RESNET9[1]}: {ROOT / RESNET9[1]} has the name quickstart too; rename",
        ),
        (ablate, [RESNET9[1], "--views", "five"], "tta: 'five' given, allowed: one of none, flip, six"),
        (
            ablate,
            [RESNET9[1], "--views", "six:x"],
            "views: six:x given, allowed: kinds of tta, as six, or six:",
        ),
        (ablate, [RESNET9[1], "--epoch", "3"], "epoch: 3 given, but there is no such key"),
        (ascend_check, [], "the following arguments are required: CONFIG; see --help"),
        (ascend_check, ["none.yaml"], "config_path: none.yaml cannot be read"),
        (ascend_check, [RESNET9[1], "--cards", "0"], "cards: 0 given, allowed: a whole number >= 1"),
        (ascend_check, [RESNET9[1], "--batch", "3"], "batch: 3 given, but there is no such key"),
        (choose_p, [*NONE, "--p", "3,x"], "p: 3,x given, allowed: numbers above 0 and max, with commas"),
        (choose_p, [*NONE, "--p", "0"], "p: 0 given, allowed: numbers above 0"),
        (choose_p, [*NONE, "--p", "nan"], "p: nan given, allowed: numbers above 0"),
        (choose_p, [*NONE, "--split", "val"], "argument --split: invalid choice: 'val'"),
        (choose_p, NONE, "checkpoint none.ckpt does not exist"),
        (find_lr, [], "the following arguments are required: CONFIG; see --help"),
        (find_lr, [RESNET9[1], RESNET9[1]], f"{RESNET9[1]}: given behind {RESNET9[1]}, allowed: one recipe"),
        (find_lr, [RESNET9[1], "--lr_min", "0"], "lr_max: 2 given with lr_min 0, allowed: rates above 0"),
        (find_lr, [RESNET9[1], "--train_steps", "9"], "train_steps: 9 given, allowed: --epochs, also a part"),
        (make_copies, [*COPIES, "--seed", "-1"], "seed: -1 given, allowed: a whole number >= 0"),
        (make_copies, [*COPIES, "--limit", "0"], "limit: 0 given, allowed: a whole number >= 1"),
        (make_copies, [*COPIES, "--kinds", "mirror"], "argument --kinds: invalid choice: 'mirror'"),
        (make_copies, COPIES, "DIR/empty: no image in this folder"),
        (reestimate_bn, [*NONE, "--output", "new.npz"], "output: new.npz given, allowed: a name that ends"),
        (reestimate_bn, [*NONE, *NEW, "--batches", "0"], "batches: 0 given, allowed: a whole number >= 1"),
        (reestimate_bn, [*NONE, *NEW], "checkpoint none.ckpt does not exist"),
        (reestimate_bn, NONE, "the following arguments are required: --output; see --help"),
        (report, [], "the following arguments are required: RUN; see --help"),
        (
            report,
            ["DIR/empty"],
            "DIR/empty is not the folder of a run, it holds no config.yaml; give a run's",
        ),
        (
            report,
            ["DIR/empty", "--output", "x.png"],
            "output: x.png given, allowed: a name that ends in .html",
        ),
        (report, ["DIR/none", "DIR/empty"], "DIR/none is not the folder of a run, it holds no config.yaml"),
        (summary, ["resnet8"], "model: 'resnet8' given, but there is no such model; the nearest known model"),
        (summary, ["resnet9", "--batch", "3"], "batch: 3 given, but there is no such key"),
        (summary, ["resnet9", "--batch_size", "0"], "batch_size: 0 given, allowed: a whole number >= 1"),
        (summary, ["resnet9", "--num_classes", "0"], "num_classes: 0 given, allowed: a number > 0"),
        (summary, ["resnet9", "--card_memory", "nan"], "card_memory: nan given, allowed: a number > 0"),
        (summary, ["resnet9", "--depth", "x"], "argument --depth: invalid int value: 'x'; see --help"),
        (summary, [*LARGE, "--image_size", "7"], "image_size: 7 given, allowed: at least 8"),
        (summary, ["--config_path", "none.yaml"], "config_path: none.yaml cannot be read"),
        (whiten, [*WHITEN, "--output", "new.npz"], "output: new.npz given, allowed: a name that ends"),
        (whiten, [*WHITEN, *NEW, "--regularisation", "-1"], "regularisation: -1 given, allowed: a number >="),
        (whiten, [*WHITEN, *NEW, "--regularisation", "x"], "argument --regularisation: invalid float value"),
        (whiten, [*WHITEN, *NEW], "nowhere: no such image file or folder"),
        (whiten, WHITEN, "the following arguments are required: --output; see --help"),
    ],
)
def test_a_wrong_call_is_one_line_and_2(tmp_path, tool, words, message):
    (tmp_path / "empty").mkdir()
    ended = call_main(tool.main, *(word.replace("DIR", str(tmp_path)) for word in words))
    assert error_of(ended).startswith(f"error: {message.replace('DIR', str(tmp_path))}")
    assert ended.stdout == "" and ended.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.rglob("*")] == ["empty"]
