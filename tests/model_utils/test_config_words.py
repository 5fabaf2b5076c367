# SPDX-License-Identifier: Apache-2.0
"""Where a value comes from, and what the words of a command line mean."""

import pytest

from src.common.errors import UserError
from src.model_utils import config as module
from src.model_utils.config import DEFAULTS, default_yaml, dump, load_config, parse_overrides, read_yaml
from src.shared_config import SharedConfig
from src.zoo import config_class_of, create_recipe, list_models


def _load(*words, config_path=None, model="bit_r50x1", flags=()):
    given = {"model": model, **parse_overrides(words)}
    return load_config(given, config_class_of=config_class_of, config_path=config_path, flags=flags)


def _complaint(*words, **how) -> str:
    with pytest.raises(UserError) as caught:
        _load(*words, **how)
    return str(caught.value)


# --- layers


@pytest.fixture
def edited(tmp_path, monkeypatch):
    """edited(lr=0.2): default_config.yaml with another line."""
    path = tmp_path / "default_config.yaml"
    monkeypatch.setattr(module, "DEFAULTS", path)

    def edit(**keys):
        changed = default_yaml(SharedConfig)
        for name, value in keys.items():
            (line,) = (line for line in changed.splitlines() if line.startswith(f"{name}: "))
            changed = changed.replace(line, f"{name}: {value}")
        path.write_text(changed)

    return edit


@pytest.mark.parametrize("model", list_models())
def test_a_value_edited_in_the_default_file_reaches_every_model(edited, model):
    """Old behaviour: it was passed over for each key that the model has a default of its own for."""
    edited(lr=0.2, eval_batch_size=77, momentum=0.8)
    config = _load(model=model)
    assert (config.lr, config.eval_batch_size, config.momentum) == (0.2, 77, 0.8)
    assert _load("--lr", "0.3", model=model).lr == 0.3


def test_a_recipe_comes_after_an_edited_value(edited, tmp_path):
    edited(lr=0.2, image_std="[60, 60, 60]", sync_bn="true")
    (tmp_path / "recipe.yaml").write_text("model: bit_r50x1\nlr: 0.4\n")
    config = load_config({}, config_class_of=config_class_of, config_path=tmp_path / "recipe.yaml")
    assert (config.lr, config.image_std, config.sync_bn, config.weight_decay) == (0.4, (60, 60, 60), True, 0)


def test_a_wrong_edited_value_is_refused(edited):
    edited(ema_decay="false")
    with pytest.raises(UserError, match="ema_decay: False given, allowed: a number >= 0 and < 1"):
        _load()


def test_an_unedited_default_file_changes_nothing(edited):
    edited()
    for model in list_models():
        assert _load(model=model) == config_class_of(model)(model=model)
    assert DEFAULTS.read_text() == default_yaml(SharedConfig)


# --- a text key takes the word as it stands


@pytest.mark.parametrize(
    "text", ["001", "2026_11_28", "2026-11-28", "no", "1e3", "null", "~", "[1", "a: b", "# x", ""]
)
def test_a_text_is_taken_as_it_stands(text):
    """Old behaviour: 001 was the number 1, no was false, and what follows a # was cut off."""
    assert _load("--run_name", text).run_name == _load(f"--run_name={text}").run_name == text


def test_a_folder_with_spaces_and_a_hash():
    assert _load("--data_path", "/data/set #2").data_path == "/data/set #2"


def test_a_choice_is_a_text_too():
    assert "flip: 'no' given, allowed: one of none, random" in _complaint("--flip", "no")
    assert _load("--flip", "none").flip == "none"


def test_other_keys_are_read_as_yaml():
    config = _load("--lr", "1e-3", "--colour_jitter=[0.4,0.3,0.2,0.1]", "--sync_bn", "true")
    assert (config.lr, config.colour_jitter, config.sync_bn) == (1e-3, (0.4, 0.3, 0.2, 0.1), True)
    assert _load("--pooling_exponent", "max", model="multigrain_resnet50").pooling_exponent == "max"


@pytest.mark.parametrize("switch", ["hyper_rule", "recompute", "sync_bn"])
def test_a_yes_or_no_key_alone_is_yes(switch):
    """Old behaviour: of a model's own keys, "hyper_rule: no value given"."""
    assert getattr(_load(f"--{switch}"), switch) is True
    assert getattr(_load(f"--{switch}", "--seed", "1"), switch) is True
    assert getattr(_load(f"--{switch}", "false"), switch) is False


def test_any_other_key_needs_a_value():
    assert _complaint("--lr", "--seed", "1") == "lr: no value given; write --lr VALUE"
    assert _complaint("--run_name") == "run_name: no value given; write --run_name VALUE"
    assert "nearest" in _complaint("--recomput", "x")


def test_a_misspelt_flag_of_the_door_is_found():
    assert _complaint("--confg_path", "x", flags=["config_path", "resume"]).endswith(
        "'x' given, but there is no such key; the nearest known key is config_path"
    )
    assert _complaint("--widths", "[1,2,3,4]", model="").endswith(
        "; no model is named, by --config_path or --model"
    )


# --- paths


@pytest.mark.parametrize("name", ["data_path", "output_path", "pretrained_path"])
def test_the_home_folder_is_written_as_a_tilde(name, monkeypatch, tmp_path):
    """Old behaviour: data_path ~/x was no folder, and output_path ~/x made a folder named ~."""
    monkeypatch.setenv("HOME", "/home/someone")
    file = tmp_path / "recipe.yaml"
    file.write_text(f"{name}: ~/x\n")
    assert getattr(_load(f"--{name}=~/x"), name) == "/home/someone/x"
    assert getattr(_load(config_path=file), name) == "/home/someone/x"


def test_what_is_read_is_absolute_in_a_runs_config(tmp_path, monkeypatch):
    """Old behaviour: eval.py and --resume from another working folder did not find the data."""
    monkeypatch.chdir(tmp_path)
    config = _load("--data_path", "there")
    assert config.data_path == str(tmp_path / "there") and f"data_path: {tmp_path}/there\n" in dump(config)
    assert _load().data_path == str(tmp_path / "data") and _load().output_path == "runs"
    assert _load().pretrained_path == ""
    run = tmp_path / "config.yaml"
    run.write_text(dump(config))
    monkeypatch.chdir("/")
    assert _load(config_path=run).data_path == str(tmp_path / "there")


def test_the_message_names_the_whole_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"^{tmp_path}/nowhere is not a folder"):
        create_recipe(_load("--data_path", "nowhere")).source("train")


# --- a key twice


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("lr: 1\nseed: 2\nlr: 3\n", "1 and 3"),
        ("a:\n  b: 1\n  b: 2\n", "2 and 3"),
        ("{lr: 1, seed: 2, lr: 3}\n", "1 and 1"),
        ("a: &a {x: 1}\nlr: 1\n<<: *a\n'lr': 2\n", "2 and 4"),
    ],
)
def test_a_key_twice_is_refused_with_both_lines(tmp_path, text, lines):
    """Old behaviour: the last one won."""
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=f"{path} is not YAML: (lr|b) stands twice, in lines {lines}; "):
        read_yaml(path)


def test_a_key_of_a_merged_mapping_may_be_overridden(tmp_path):
    """Old behaviour: refused where a mapping that merges another one is merged."""
    path = tmp_path / "recipe.yaml"
    path.write_text("base: &b {lr: 1}\nmine: &m\n  <<: *b\n  lr: 2\n<<: *m\nseed: 3\n")
    assert read_yaml(path) == {"base": {"lr": 1}, "mine": {"lr": 2}, "lr": 2, "seed": 3}


# --- pixels of 0..1


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--image_mean", "[0.485,0.456,0.406]"], "image_mean: [0.485, 0.456, 0.406]"),
        (["--image_std", "[0.229,0.224,0.225]"], "image_std: [0.229, 0.224, 0.225]"),
        (["--image_mean", "[0.485,0.456,0.406]", "--image_std", "[0.229,0.224,0.225]"], "image_std: [0.229"),
    ],
)
def test_means_of_pixels_in_0_to_1_are_refused(words, named):
    """Old behaviour: the network was trained on inputs up to 1,100, silently."""
    message = _complaint(*words)
    mended = [123.675, 116.28, 103.53] if "mean" in named else [58.395, 57.12, 57.375]
    assert message.startswith(named) and message.endswith(f"of pixels of 0..255: multiply by 255, {mended}")


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        ("[0,0,0]", "[255,255,255]"),
        ("[0,0,0]", "[1,1,1]"),
        ("[0.4,0.3,0.9]", "[6,5,9]"),
        ("[1,2,3]", "[0.5,1,2]"),
    ],
)
def test_small_means_that_can_be_are_taken(mean, std):
    _load("--image_mean", mean, "--image_std", std)
