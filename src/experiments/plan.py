# SPDX-License-Identifier: Apache-2.0
"""The runs of an ablation: a folder for each recipe, in it one for each seed, and how far each is.

OUTPUT/RECIPE/recipe.yaml        the config that the name stands for, without seed and keys of the host
OUTPUT/RECIPE/seed_0             a run of train.py
OUTPUT/RECIPE/seed_0/views       what eval.py said of its last checkpoint, a file for each kind of views
OUTPUT/RECIPE/seed_0.log         what the commands for it printed
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..common.errors import UserError
from ..common.files import write_json, write_text, writing
from ..model_utils.config import as_yaml, load_config, parse_overrides, read_yaml
from ..model_utils.keys import Keys, default_of

_SEED = "seed"
_RESUMED_WITH = "data_path"  # the key that a run which goes on may need anew


@dataclass(frozen=True)
class Arm:
    """One recipe.

    Attributes:
        name: of its file, without the suffix.
        path: of its file.
        config: what it means, with the keys that all arms are given.
        words: these keys as they stand on the command line.
        folder: of its runs.
        views: kinds of test-time views beside its own, in which its runs are evaluated.
    """

    name: str
    path: Path
    config: Keys
    words: tuple[str, ...]
    folder: Path
    views: tuple[str, ...] = ()

    def run(self, seed: int) -> "Run":
        return Run(self, seed, self.folder / f"seed_{seed}")

    def finished(self) -> list["Run"]:
        """The runs that are complete, by seed; there may be more than a call asks for."""
        seeds = [path.name.removeprefix("seed_") for path in self.folder.glob("seed_*")]
        runs = [self.run(int(seed)) for seed in seeds if seed.isdecimal()]
        return sorted((run for run in runs if run.is_trained), key=lambda run: run.seed)

    def check(self) -> None:
        """Refuses a recipe that is no longer what its runs were begun with.

        Raises:
            UserError: the key that differs.
        """
        path = self.folder / "recipe.yaml"
        if not path.is_file():
            return
        begun = read_yaml(path)
        for name, value in self._meaning().items():
            before = _plain(begun.get(name, default_of(type(self.config), name)))
            if value != before:
                raise UserError(
                    f"{name}: {as_yaml(value)} given for {self.name}, and {as_yaml(before)} when the runs in "
                    f"{self.folder} began; restore it, choose another --output_path, or remove that folder"
                )

    def begin(self) -> None:
        """Writes down what the name stands for, before its first run."""
        path = self.folder / "recipe.yaml"
        if not path.is_file():
            lines = (f"{name}: {as_yaml(value)}\n" for name, value in self._meaning().items())
            write_text(path, "".join(lines))

    def _meaning(self) -> dict[str, Any]:
        keys = self.config.portable() | {"pretrained_path": self.config.pretrained_path}
        return {name: value for name, value in keys.items() if name != _SEED}


def _plain(value: Any) -> Any:
    """As `portable` has it."""
    return list(value) if isinstance(value, tuple) else value


def arms_of(
    paths: Sequence[str],
    load: Callable[[str], Keys],
    *,
    output: Path,
    words: Sequence[str] = (),
    views: Sequence[str] = (),
) -> list[Arm]:
    """The arms of recipe files, in their order.

    Args:
        paths: YAML files, each of another name.
        load: from a path to its config, with the keys of `words`.
        output: folder of all arms.
        words: `--key value ...` for all arms.
        views: kinds of test-time views to evaluate in, see `keys_of_views`.

    Raises:
        UserError: two files have one name, or as `load`.
    """
    arms: dict[str, Arm] = {}
    for path in paths:
        name = Path(path).stem
        if name in arms:
            raise UserError(f"{path}: {arms[name].path} has the name {name} too; rename one of them")
        config = load(path)
        others = tuple(kind for kind in dict.fromkeys(views) if kind not in (views_of(config), "none"))
        arms[name] = Arm(name, Path(path).absolute(), config, tuple(words), output / name, others)
    return list(arms.values())


def views_of(config: Keys) -> str:
    """The kind of test-time views that a config evaluates in: none, flip, six ..., or six:0.25."""
    return config.tta if config.tta_share == 1 else f"{config.tta}:{config.tta_share:g}"


def keys_of_views(kind: str) -> tuple[str, float]:
    """The keys tta and tta_share of a kind of views: `six:0.25` is six of the least confident quarter.

    Raises:
        UserError: what stands behind the colon is no number.
    """
    tta, _, share = kind.partition(":")
    try:
        return tta, float(share or 1)
    except ValueError as error:
        raise UserError(f"views: {kind} given, allowed: kinds of tta, as six, or six:0.25") from error


@dataclass(frozen=True)
class Run:
    """One training of an arm."""

    arm: Arm
    seed: int
    folder: Path

    def __str__(self) -> str:
        return f"{self.arm.name} seed {self.seed}"

    @property
    def config(self) -> Keys:
        """What it was begun with, whatever its recipe has become, and the keys that its data decide."""
        base = read_yaml(self.folder / "config.yaml")
        return load_config({}, config_class_of=lambda model: type(self.arm.config), base=base, others=True)

    @property
    def is_trained(self) -> bool:
        return (self.folder / "summary.json").is_file()

    @property
    def log(self) -> Path:
        return self.folder.with_suffix(".log")

    def views_file(self, kind: str) -> Path:
        return self.folder / "views" / f"{kind.replace(':', '_')}.json"

    def next_words(self) -> list[str] | None:
        """The command that takes this run a step further: train, continue, evaluate; None: it is complete."""
        given = parse_overrides(self.arm.words)
        data = [f"--{_RESUMED_WITH}", given[_RESUMED_WITH].text] if _RESUMED_WITH in given else []
        if not (self.folder / "config.yaml").is_file():
            place = ["--output_path", str(self.folder.parent), "--run_name", self.folder.name]
            keys = [*self.arm.words, *place, f"--{_SEED}", str(self.seed)]
            return ["train.py", "--config_path", str(self.arm.path), *keys]
        if not self.is_trained:
            return ["train.py", "--resume", str(self.folder), *data]
        for kind in self.arm.views:
            if not self.views_file(kind).is_file():
                last = str(self.folder / "checkpoints" / "last.ckpt")
                tta, share = keys_of_views(kind)
                return [
                    "eval.py",
                    "--checkpoint_path",
                    last,
                    *data,
                    "--tta",
                    tta,
                    "--tta_share",
                    f"{share:g}",
                ]
        return None

    def keep_answer(self, output: str) -> None:
        """Takes what eval.py printed, after `next_words` asked for it.

        Raises:
            UserError: there are no figures in it, or they cannot be written.
        """
        kind = next(kind for kind in self.arm.views if not self.views_file(kind).is_file())
        file = self.views_file(kind)
        answers = [line for line in output.splitlines() if line.startswith("{")]
        if not answers:
            raise UserError(f"eval.py printed no figures; {self.log} has what it printed")
        with writing(file):
            file.parent.mkdir(exist_ok=True)
        write_json(file, {"views": kind, **json.loads(answers[-1])})
