# SPDX-License-Identifier: Apache-2.0
"""Which command a run needs next, and which edited recipes are refused."""

import pytest

from src.common.errors import UserError
from src.experiments.plan import arms_of
from tests.experiments.fake_runs import fake_run

WORDS = ("--data_path", "images", "--epochs", "3")


def test_a_run_is_begun_continued_evaluated_and_left_alone(arms):
    (arm,) = arms(WORDS, ["flip"], one={"lr": 0.2})
    run = arm.run(2)
    assert str(run) == "one seed 2" and not arm.finished()
    place = ["--output_path", str(arm.folder), "--run_name", "seed_2"]
    assert run.next_words() == ["train.py", "--config_path", str(arm.path), *WORDS, *place, "--seed", "2"]
    run.folder.mkdir(parents=True)  # of a kill before the run had its config
    assert run.next_words()[1] == "--config_path"
    (run.folder / "config.yaml").write_text("")
    assert run.next_words() == ["train.py", "--resume", str(run.folder), "--data_path", "images"]
    (run.folder / "summary.json").write_text("{}")
    last = str(run.folder / "checkpoints" / "last.ckpt")
    evaluate = ["eval.py", "--checkpoint_path", last, "--data_path", "images"]
    assert run.next_words() == [*evaluate, "--tta", "flip", "--tta_share", "1"]
    with pytest.raises(UserError, match="printed no figures"):
        run.keep_answer("nothing\n")
    run.keep_answer('a table\n{"top1": 61.5}\n[MindSpore] a warning\n')
    assert run.next_words() is None
    assert [finished.seed for finished in arm.finished()] == [2]


def test_finished_runs_beyond_those_asked_for_count(arms):
    (arm,) = arms(one={})
    for seed in (10, 0, 2):
        fake_run(arm.run(seed).folder)
    (arm.folder / "seed_x").mkdir()
    arm.run(1).folder.mkdir()
    assert [run.seed for run in arm.finished()] == [0, 2, 10]


def test_an_edited_recipe_is_refused_in_one_line(arms):
    (arm,) = arms(one={"lr": 0.2, "widths": "[2, 3, 4, 5]"})
    arm.check()
    arm.begin()
    for same in ({"lr": 0.2, "widths": "[2, 3, 4, 5]"}, {"lr": "2e-1", "widths": "[2, 3, 4, 5]", "seed": 7}):
        arms(one=same)[0].check()
    (elsewhere,) = arms(
        ["--data_path", "moved", "--output_path", "x"], one={"lr": 0.2, "widths": "[2, 3, 4, 5]"}
    )
    elsewhere.check()
    with pytest.raises(UserError, match=r"lr: 0.3 given for one, and 0.2 when the runs in .*out/one began; "):
        arms(one={"lr": 0.3, "widths": "[2, 3, 4, 5]"})[0].check()
    with pytest.raises(UserError, match=r"widths: \[2, 3, 4, 6\] given for one, and \[2, 3, 4, 5\] when"):
        arms(one={"lr": 0.2, "widths": "[2, 3, 4, 6]"})[0].check()
    with pytest.raises(UserError, match=r"pretrained_path: .*other\.npz given for one, and '' when"):
        arms(["--pretrained_path", "other.npz"], one={"lr": 0.2, "widths": "[2, 3, 4, 5]"})[0].check()
    with pytest.raises(UserError, match=r"epochs: 3.0 given for one, and 24.0 when"):
        arms(WORDS, one={"lr": 0.2, "widths": "[2, 3, 4, 5]"})[0].check()


def test_a_key_that_is_newer_than_the_runs_has_its_default_in_them(arms):
    (arm,) = arms(one={"cutout": 4})
    arm.begin()
    file = arm.folder / "recipe.yaml"
    file.write_text(
        "".join(line for line in file.open() if not line.startswith(("cutout", "mixup", "head_scale")))
    )
    with pytest.raises(UserError, match="cutout: 4 given for one, and 0 when"):
        arm.check()
    arms(one={})[0].check()


def test_two_recipes_of_one_name_are_refused(arms, tmp_path):
    (arm,) = arms(one={})
    with pytest.raises(UserError, match="has the name one too; rename one of them"):
        arms_of([str(arm.path), "other/one.yaml"], lambda path: arm.config, output=tmp_path)
