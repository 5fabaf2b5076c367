# SPDX-License-Identifier: Apache-2.0
"""Every key is typed and ranged; every mistake is one line that names the key."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from src.common.errors import UserError
from src.model_utils.config import as_yaml, check, dump, load_config, parse_overrides, parse_value
from src.model_utils.device_adapter import DEVICE_TARGETS
from src.resnet9.config import ResNet9Config
from src.zoo import config_class_of


def _load(config_path=None, *, words=(), model="resnet9", **overrides):
    given = {"model": model, **parse_overrides(words), **overrides}
    return load_config(given, config_class_of=config_class_of, config_path=config_path)


def _complaint(**overrides) -> str:
    with pytest.raises(UserError) as caught:
        _load(**overrides)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


# --- layers


def test_later_layers_win(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("lr: 0.3\nseed: 3\n")
    config = _load(path, seed=4)
    assert (config.lr, config.seed, config.batch_size) == (0.3, 4, 512)


def test_a_base_takes_the_place_of_the_default_file():
    config = load_config(
        {"seed": 4}, config_class_of=config_class_of, base={"model": "resnet9", "lr": 0.25, "seed": 1}
    )
    assert (config.lr, config.seed) == (0.25, 4)


def test_a_config_is_frozen():
    with pytest.raises(ValidationError):
        _load().lr = 1.0


# --- command line and YAML values


def test_both_spellings_of_an_override_and_yaml_values():
    words = ["--lr", "1e-3", "--seed=2", "--flip", "none", "--lr_values=[0.1, 1e-4]"]
    config = _load(words=words)
    assert (config.lr, config.seed, config.flip, config.lr_values) == (1e-3, 2, "none", (0.1, 1e-4))
    assert parse_overrides(["--clip_norm", "-1"])["clip_norm"].read("clip_norm", None) == -1
    assert parse_overrides([]) == {}


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["lr", "0.1"], "'lr' given where a --key is expected"),
        (["--lr", "0.1", "0.2"], "'0.2' given where a --key is expected"),
        (["--lr"], "write --lr VALUE"),
        (["--lr", "--seed", "1"], "write --lr VALUE"),
    ],
)
def test_words_that_are_no_key_and_value(words, part):
    with pytest.raises(UserError, match=part):
        _load(words=words)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E3", 1000.0),
        ("-2.5e+2", -250.0),
        (".5e1", 5.0),
        ("1.e1", 10.0),
        ("12", 12),
        ("true", True),
        ("null", None),
        ("1e-3x", "1e-3x"),
        ("e-3", "e-3"),
        ("[[", "[["),
        ("2026-13-01", "2026-13-01"),
        ("0x_", "0x_"),
        ("!!python/object:os.system", "!!python/object:os.system"),
    ],
)
def test_values_are_yaml_and_what_is_none_is_text(text, value):
    parsed = parse_value(text)
    assert parsed == value and type(parsed) is type(value)


# --- one key that is wrong


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("lr", "0.1", "a number > 0"),
        ("lr", True, "a number > 0"),
        ("lr", 0, "a number > 0"),
        ("lr", -0.1, "a number > 0"),
        ("lr", [0.1], "a number > 0"),
        ("lr", None, "a number > 0"),
        ("lr", float("inf"), "a number > 0"),
        ("lr", float("nan"), "a number > 0"),
        ("label_smoothing", 1.0, "a number >= 0 and < 1"),
        ("batch_size", 1.0, "a whole number >= 1"),
        ("batch_size", 0, "a whole number >= 1"),
        ("batch_size", "8", "a whole number >= 1"),
        ("batch_size", True, "a whole number >= 1"),
        ("crop_pad", 32, "a whole number >= 0 and <= 31"),
        ("seed", 2**32, "a whole number >= 0 and <= 4,000,000,000"),
        ("sync_bn", 1, "true or false"),
        ("sync_bn", "yes", "true or false"),
        ("run_name", 5, "text, in quotes"),
        ("flip", "sometimes", "one of none, random, alternating"),
        ("flip", None, "one of none, random, alternating"),
        ("optimizer", ["sgd"], "one of sgd, adam, adamw, rmsprop"),
        ("device_target", "TPU", "one of auto, Ascend, GPU, CPU"),
        ("lr_schedule", "onecycle", "one of constant, one_cycle, piecewise"),
        ("image_mean", 5, "a list of 3 numbers"),
        ("image_mean", [1, 2], "a list of 3 numbers"),
        ("image_mean", [1, 2, 3, 4], "a list of 3 numbers"),
        ("image_mean", "1, 2, 3", "a list of 3 numbers"),
        ("lr_values", 0.1, "a list of numbers"),
        ("widths", [64, 128, 256], "a list of 4 whole numbers > 0"),
        ("activation", "swish", "one of relu, celu, gelu"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(key, value, rule):
    message = _complaint(**{key: value})
    assert message.startswith(f"{key}: {value!r}")
    assert f"given, allowed: {rule}" in message


@pytest.mark.parametrize(
    ("key", "value", "entry"),
    [
        ("image_mean", ["1", 2, 3], "'1' (entry 1)"),
        ("image_mean", [1, True, 3], "True (entry 2)"),
        ("image_std", [1, 2, float("nan")], "nan (entry 3)"),
        ("widths", [64, 128, 256, -1], "-1 (entry 4)"),
        ("widths", [64, 128.0, 256, 512], "128.0 (entry 2)"),
        ("lr_epochs", [0, None], "None (entry 2)"),
    ],
)
def test_a_wrong_entry_of_a_list_is_named(key, value, entry):
    assert _complaint(**{key: value}).startswith(f"{key}: {entry} given, allowed: a list of ")


def test_a_whole_number_is_a_number_but_a_number_is_not_whole():
    config = _load(epochs=30, image_mean=[1, 2, 3])
    assert type(config.epochs) is float and config.image_mean == (1.0, 2.0, 3.0)


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("learning_rate", "lr"),
        ("batchsize", "batch_size"),
        ("Batch_Size", "batch_size"),
        ("optimiser", "optimizer"),
        ("width", "widths"),
        ("celu_alfa", "celu_alpha"),
    ],
)
def test_an_unknown_key_names_the_nearest(key, nearest):
    message = _complaint(**{key: 1})
    assert message == f"{key}: 1 given, but there is no such key; the nearest known key is {nearest}"


def test_several_mistakes_are_counted():
    assert _complaint(lr=-1, seed=-1, flip="x").endswith("(and 2 more)")


def test_keys_must_be_text(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("1: 2\n")
    with pytest.raises(UserError, match="keys must be text"):
        _load(path)


# --- keys that do not fit together


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"autoaugment": "imagenet", "randaugment_layers": 2}, "autoaugment: 'imagenet'"),
        ({"colour_jitter": [0.4, -0.1, 0, 0]}, "colour_jitter: [0.4, -0.1, 0.0, 0.0]"),
        ({"colour_jitter": [0.4, 0.4, 0.4, 0.6]}, "colour_jitter: [0.4, 0.4, 0.4, 0.6]"),
        ({"colour_jitter": [0.4, 0, 0, 0]}, "colour_jitter: [0.4, 0.0, 0.0, 0.0] given, allowed: only with"),
        ({"lighting": 0.1}, "lighting: 0.1 given, allowed: only with train_crop resize or random_resized"),
        ({"random_erasing": 0.1}, "random_erasing: 0.1"),
        ({"resize_size": 40}, "resize_size: 40 given, allowed: only with train_crop resize"),
        (
            {"crop_area": [0.3, 1]},
            "crop_area: [0.3, 1.0] given, allowed: only with train_crop random_resized",
        ),
        (
            {"crop_ratio": [1, 1]},
            "crop_ratio: [1.0, 1.0] given, allowed: only with train_crop random_resized",
        ),
        ({"train_crop": "resize", "crop_area": [0.3, 1]}, "crop_area: [0.3, 1.0]"),
        (
            {"train_crop": "resize", "contrast_jitter": 0.1},
            "contrast_jitter: 0.1 given, allowed: only with train_crop pad",
        ),
        ({"train_crop": "resize", "crop_pad": 2}, "crop_pad: 2 given, allowed: only with train_crop pad"),
        ({"train_crop": "random_resized", "resize_size": 40}, "resize_size: 40"),
        ({"lr_schedule": "piecewise"}, "lr_values: 0 rates"),
        ({"lr_schedule": "piecewise", "lr_epochs": [0], "lr_values": [1]}, "lr_values: 1 rates"),
        ({"lr_schedule": "piecewise", "lr_epochs": [0, 5, 9], "lr_values": [1, 0]}, "lr_values: 2 rates"),
        ({"lr_schedule": "multi_step"}, "lr_milestones: []"),
        (
            {"lr_schedule": "thor", "lr_zero_epoch": 5, "epochs": 6},
            "lr_zero_epoch: 5 given, allowed: 0, or epochs (6) and more",
        ),
        ({"optimizer": "thor", "dataset_sink": True}, "dataset_sink: True given, allowed: false with"),
        ({"optimizer": "thor", "freeze_epochs": [2]}, "freeze_epochs: [2.0] given, allowed: [] with"),
        ({"cooldown_epochs": 2}, "cooldown_epochs: 2 given, allowed: 0 with lr_schedule one_cycle"),
        ({"image_std": [1, 0, 1]}, "image_std: [1.0, 0.0, 1.0]"),
        ({"run_name": ".."}, "run_name: "),
        ({"run_name": "a/../../b"}, "run_name: "),
        ({"run_name": "/tmp/b"}, "run_name: "),
        ({"run_name": "."}, "run_name: "),
        ({"image_std": [1, 2, -3]}, "image_std: [1.0, 2.0, -3.0]"),
    ],
)
def test_keys_that_contradict_each_other(keys, named):
    message = _complaint(**keys)
    assert message.startswith(named) and "allowed: " in message


@pytest.mark.parametrize(
    "keys",
    [
        {"mixup_alpha": 0.2, "cutmix_alpha": 1, "label_smoothing": 0.1},
        {"train_crop": "resize", "colour_jitter": [2, 0, 0, 0.5], "lighting": 1, "crop_percentage": 0.1},
        {"autoaugment": "imagenet"},
        {"crop_percentage": 0.9, "eval_image_size": 48, "eval_crop": "squash", "interpolation": "bicubic"},
        {"epochs": 4, "warmup_epochs": 5},
        {"lr_schedule": "step", "epochs": 4},
        {"train_steps": 10, "epochs": 1},
        {"lr_schedule": "piecewise", "lr_epochs": [0, 24], "lr_values": [0.4, 0]},
        {"lr_schedule": "multi_step", "lr_milestones": [10]},
        {"lr_schedule": "exponential", "epochs": 6, "cooldown_epochs": 2},
        {"lr_schedule": "cosine", "train_steps": 10, "epochs": 1, "cooldown_epochs": 2},
        {"lr_schedule": "thor", "lr_zero_epoch": 5, "epochs": 5},
        {"lr_schedule": "linear", "lr_zero_epoch": 5, "epochs": 6},
    ],
)
def test_keys_that_fit_together(keys):
    _load(**keys)


# --- model and file


@pytest.mark.parametrize(
    ("model", "part"),
    [
        ("resnet8", "'resnet8' given, but there is no such model; the nearest known model is resnet9"),
        ("mixer", "'mixer' given, but there is no such model; known are "),
        (9, "9 given, allowed: the name of a model"),
        (None, "None given, allowed: the name of a model"),
        (["resnet9"], "given, allowed: the name of a model"),
    ],
)
def test_an_unknown_model(model, part):
    message = _complaint(model=model)
    assert message.startswith("model: ") and part in message


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"- lr\n- 0.4\n", "holds no keys"),
        (b"just text\n", "holds no keys"),
        (b"0.4\n", "holds no keys"),
        (b"lr: [0.4\nseed: 1\n", "is not YAML"),
        (b"lr: 0.4\n\tseed: 1\n", "is not YAML"),
        (b"run_name: 2026-13-01\n", "is not YAML"),
        (b"lr: \xff\xfe\n", "is not YAML"),
        (b"lr: !!python/object/apply:os.getcwd []\n", "is not YAML"),
    ],
)
def test_a_file_that_is_no_mapping(tmp_path, content, part):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=part) as caught:
        _load(path)
    assert len(str(caught.value).splitlines()) == 1 and str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["missing.yaml", "."])
def test_a_file_that_cannot_be_read(tmp_path, name):
    with pytest.raises(UserError, match=r"cannot be read \(.*\); give an existing file") as caught:
        _load(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


def test_an_empty_file_changes_nothing(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("# nothing yet\n")
    assert _load(path) == _load()


# --- what is printed reads back


_NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
_POSITIVE = st.floats(min_value=0, exclude_min=True, allow_infinity=False)
_GREYS = _NUMBERS.filter(lambda value: not 0 < value < 1)
_CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "run_name": st.text(),
        "data_path": st.from_regex(r"[-+.\d ]{0,3}[eE][-+]?\d{1,2}|[ \w:,#'\"\[\]{}%&*!|>@`-]{0,120}"),
        "seed": st.integers(0, 4_000_000_000),
        "lr": _POSITIVE,
        "optimizer_eps": _POSITIVE,
        "image_mean": st.tuples(_GREYS, _GREYS, _GREYS),
        "lr_milestones": st.lists(_NUMBERS, max_size=4),
        "widths": st.lists(st.integers(1, 10**12), min_size=4, max_size=4),
        "sync_bn": st.booleans(),
        "device_target": st.sampled_from(DEVICE_TARGETS),
    },
)


@settings(max_examples=150, deadline=None)
@given(_CHANGES)
def test_a_dumped_config_reads_back_equal(changes):
    config = check(changes, ResNet9Config)
    text = dump(config)
    assert len(text.split("\n")) == len(ResNet9Config.model_fields) + 1
    assert check(parse_value(text), ResNet9Config) == config


@pytest.mark.parametrize(
    "text", ["", "1e3", "2e-5", "12", "true", "null", "a\nb", "a: b", "# no", "é", " ", "word " * 40, "\x85"]
)
def test_a_text_stays_a_text_on_one_line(text):
    line = as_yaml(text)
    assert "\n" not in line
    assert parse_value(line) == text


def test_a_dumped_config_reads_back_from_a_file(tmp_path):
    config = _load(widths=[8, 16, 16, 32], lr=1e-5, run_name="1e5")
    path = tmp_path / "config.yaml"
    path.write_text(dump(config))
    assert _load(path) == config
