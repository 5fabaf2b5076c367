# SPDX-License-Identifier: Apache-2.0
"""A folder in which the commands of the pages work: every name in them stands for something small."""

import argparse
import contextlib
import glob
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from unittest import mock

import mindspore as ms
import numpy as np
from PIL import Image

from src.data.binary import CIFAR10, read_set
from src.model_utils import device_adapter
from src.parallel.launch import main as launch
from src.zoo import create_network
from tests.helpers.checkpoints import save_checkpoint
from tests.helpers.commands import ROOT, Command
from tests.helpers.doors import call_python
from tests.helpers.smaller import as_words, smaller, smaller_network

# Where programs have read their command line and their config, and begin with what takes long.
WORK = (
    "src.model_utils.device_adapter._is_available",
    "src.experiments.processes.work_off",
    "src.data.prepare.commands.prepare_cifar",
    "src.data.prepare.commands.prepare_imagenet",
    "src.data.prepare.commands.prepare_shapes",
    "src.model_utils.moxing_adapter._moxing_file",
    "src.deploy.lite._package",
    "src.doctor.examine.examine",
)
RUNS = {  # beside that of resnet9
    "bireal": {"model": "birealnet18", "block_units": [1, 1, 1, 1], "widths": [4, 4, 8, 8]},
    "multigrain": {"model": "multigrain_resnet18", "block_units": [1, 1, 1, 1], "widths": [4, 4, 8, 8]},
}
PICTURES = {  # folders of how many pictures
    120: ("PICTURES",),
    24: ("path/to/images", "other/images", "photos", "holidays", "TINY", "VAL", "DATA", "FOLDER"),
    4: ("folder", "more", "DOWNLOADS"),
}
FILES = {
    "CONFIG": "configs/resnet9/cifar10.yaml",
    "CHECKPOINT": "runs/resnet9",
    "MODEL": "runs/resnet9/resnet9_mindir",
    "resnet9_mindir": "runs/resnet9/resnet9_mindir",
    "model.packed": "runs/bireal/birealnet18_packed/model.packed",
    "model.onnx": "runs/resnet9/resnet9_onnx/model.onnx",
    "runs/multigrain/multigrain_resnet50_onnx": "runs/resnet9/resnet9_onnx",
}
# By a word of a command, what makes it small.
FEWER = {
    "mindrecord": ["--shards", "2"],
    "src.tools.make_copies": ["--limit", "6"],
    "src.tools.reestimate_bn": ["--batches", "2"],
    "--eval_image_size": ["--eval_image_size", "48"],
}
# Words of a command that say which run it is about.
ABOUT = {"bireal": ("bireal", "PACKED", "other/images"), "multigrain": ("multigrain",)}
# In place of an interpreter: it writes down the words that a script starts it with.
INTERPRETER = """#!/bin/sh
case "$2" in
  *mindspore_lite*) exit 1 ;;
  *version_info*) echo 3.11; exit ;;
esac
printf '%s\\n' "$@" > "$0.words"
"""


class Reached(Exception):
    """A program has come to its work."""


# Commands whose output of another page, for another network, is in the way.
_REPLACES = {"--index", "src.tools.make_copies"}


class PageFolder:
    """`folder`, with the data, pictures and runs that the pages name.

    Args:
        folder: an empty one.
        data_path: a small data set of the CIFAR-10 layout.
        trained: a run on it, of resnet9.
        whole: every command is done to its end; otherwise trainings and most exports end where they would
            begin to compute.
    """

    def __init__(self, folder: Path, *, data_path: Path, trained: Path, whole: bool = False):
        self.folder, self.whole, self.exported, self.done = folder, whole, set(), set()
        for name in (
            "configs",
            "scripts",
            "src",
            "requirements.txt",
            *(one.name for one in ROOT.glob("*.py")),
        ):
            (folder / name).symlink_to(ROOT / name)
        shutil.copytree(data_path, folder / "data")
        self._draw_pictures(data_path)
        shutil.copytree(trained, folder / "runs" / "resnet9")
        for name in "ABC":
            shutil.copytree(trained, folder / "runs" / name)
        for name, keys in RUNS.items():
            keys = {**keys, "stem": "small", "image_size": 32, "data_path": str(folder / "VAL")}
            best = folder / "runs" / name / "checkpoints" / "best.ckpt"
            save_checkpoint(best, keys, class_names=("blue", "green", "grey", "red"))
            (best.parents[1] / "config.yaml").write_text(f"data_path: {folder / 'VAL'}\n")
        for name, path in FILES.items():
            (folder / name).symlink_to(folder / path)
        for name in ("val.txt", "imagenet_class_index.json", "BiT-M-R50x1-ILSVRC2012.npz", "resnet50.pth"):
            (folder / name).touch()
        weights = _small_network("bit_r50x1", num_classes=5).get_parameters()
        np.savez(folder / "weights.npz", **{one.name: one.asnumpy() for one in weights})
        self.interpreter = folder / "interpreter"
        self.interpreter.write_text(INTERPRETER)
        self.interpreter.chmod(0o755)

    def _draw_pictures(self, data_path: Path) -> None:
        """Class folders of images of the data set, and single files."""
        train = read_set(CIFAR10, data_path, "train")
        for count, names in PICTURES.items():
            classes = self.folder / f"{count}_pictures"
            for number, (pixels, label) in enumerate(zip(train.images[:count], train.labels)):
                path = classes / train.class_names[label] / f"{number:03d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.transpose(1, 2, 0)).save(path)
            for name in names:
                link = self.folder / name
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(classes)
        for name in ("photo.jpg", "cat.jpg", "query.jpg"):
            Image.open(path).save(self.folder / name)

    def do(self, command: Command) -> None:
        """Does a command as far as its kind says; once, for the same run.

        Raises:
            AssertionError: it does not end well, or is none that a page may have.
        """
        key = (command.text, command.code, command.kind, self._choose_run(command))
        if key in self.done and not _REPLACES & {*command.words}:
            return
        self.done.add(key)
        text, _, target = command.text.partition(" > ")
        variables, words = _apart(Command(command.page, command.line, text).words)
        with mock.patch.dict(os.environ, variables):
            if words[0] in ("wget", "pip"):
                assert command.mark == "needs a network", "say so: # needs a network"
                assert words[-1].startswith("https://") or (self.folder / words[-1]).exists()
            elif command.code:
                self._execute(command)
            elif command.kind == "help":
                self._ask_for_help(words)
            else:
                words = self._started_by(words) if words[0] == "bash" else words
                if words[:3] == ["python", "-m", "src.tools.launch"]:
                    words = ["python", *launch._flags().parse_args(words[3:]).door]
                assert words[0] == "python", f"{words[0]} is not known here"
                with contextlib.suppress(Reached):
                    output = self._python(words[1:], command.kind)
                    if target:
                        (self.folder / target).write_text(output)

    def _ask_for_help(self, words: Sequence[str]) -> None:
        subprocess.run([*words[:2], "--help"], cwd=self.folder, check=True, stdout=subprocess.DEVNULL)

    def _choose_run(self, command: Command) -> str:
        """`runs/RUN` is a run of the model that the page or the command is about."""
        text = f"{command.page} {command.text}"
        name = next((name for name, words in ABOUT.items() if any(w in text for w in words)), "resnet9")
        link = self.folder / "runs" / "RUN"
        link.unlink(missing_ok=True)
        link.symlink_to(self.folder / "runs" / name)
        return name

    def _started_by(self, words: Sequence[str]) -> list[str]:
        """What a script starts Python with."""
        environment = {**os.environ, "PYTHON": str(self.interpreter)}
        said = Path(f"{self.interpreter}.words")
        said.unlink(missing_ok=True)
        ended = subprocess.run(words, cwd=self.folder, env=environment, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
        return ["python", *said.read_text().splitlines()]

    def _python(self, words: Sequence[str], kind: str) -> str:
        words = [one for word in words for one in (self._matches(word) if "*" in word else [word])]
        with contextlib.ExitStack() as stack:
            stack.enter_context(_without_graphs())
            if kind == "checked" and "--help" not in words:
                for name in WORK:
                    stack.enter_context(mock.patch(name, side_effect=Reached))
                if words[1].startswith("benchmarks."):
                    stack.enter_context(mock.patch("argparse.ArgumentParser.parse_args", _parse_alone))
                ended = call_python(words, folder=self.folder)
                raise AssertionError(ended.stderr or "it did not come to its work")
            if _REPLACES & {*words}:
                for name in {"photos.index", "COPIES"} & {*words}:
                    shutil.rmtree(self.folder / name, ignore_errors=True)
            if not self.whole:
                stack.enter_context(self._cut_short(words))
            ended = call_python([*words, *_small(words)], folder=self.folder)
            assert ended.returncode == 0, ended.stderr
            return ended.stdout

    def _matches(self, pattern: str) -> list[str]:
        found = glob.glob(pattern, root_dir=self.folder)
        assert found, f"{pattern} matches nothing"
        return found

    @contextlib.contextmanager
    def _cut_short(self, words: Sequence[str]) -> Iterator[None]:
        """Trainings end before their first step, exports where their format was exported before."""
        kind = tuple(word for word in words if word in ("MINDIR", "ONNX", "PACKED", "int8"))
        again = "export.py" in words and kind in {*self.exported, ("ONNX", "int8")}
        self.exported.add(kind)
        with contextlib.ExitStack() as stack:
            stack.enter_context(mock.patch("src.training.trainer.Trainer.run", _untrained))
            if again:
                stack.enter_context(mock.patch("src.deploy.export.export_model", side_effect=Reached))
            yield

    def _execute(self, command: Command) -> None:
        """Runs a block of Python; of a marked one the imports."""
        code = command.code.replace("from quartet.", "from src.")
        if command.mark:
            code = "\n".join(re.findall(r"^from .*", code, re.MULTILINE))
        images = np.zeros((2, 3, 32, 32), np.float32)
        names = [str(self.folder / "photo.jpg")]
        given = {"nn": ms.nn, "x": ms.Tensor(images), "images": images, "names": names}
        small = mock.patch("src.zoo.create_network", _small_network)
        with small, _without_graphs(), contextlib.chdir(self.folder):
            exec(compile(code, f"{command.page}:{command.line}", "exec"), given)


def _apart(words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The variables before a command, and its words."""
    words, variables = list(words), {}
    while re.match(r"[A-Z_]+=", words[0]):
        name, _, value = words.pop(0).partition("=")
        variables[name] = value
    return variables, words


def _small(words: Sequence[str]) -> list[str]:
    """The words that make a command small."""
    if words[0] == "train.py" and "--config_path" in words:
        more = [] if "--epochs" in words else ["--train_steps", "1", "--warmup_epochs", "0"]
        return [*smaller(ROOT / words[words.index("--config_path") + 1]), *more]
    if words[:2] == ["-m", "src.tools.summary"]:
        return as_words(smaller_network(words[2]))
    for name, more in FEWER.items():
        if name in words:
            return more
    return []


def _small_network(name, **keys):
    return create_network(name, **keys, **smaller_network(name))


@contextlib.contextmanager
def _without_graphs() -> Iterator[None]:
    """Programs ask for graphs, which would be compiled for each command."""
    real = ms.set_context
    with device_adapter.without_graph(), mock.patch("mindspore.set_context") as changed:
        changed.side_effect = lambda **keys: real(**(keys | {"mode": ms.PYNATIVE_MODE}))
        yield


def _parse_alone(flags, arguments=None, _parse=argparse.ArgumentParser.parse_args):
    """In place of what reads a command line: the program comes no further."""
    _parse(flags, arguments)
    raise Reached


def _untrained(trainer, run_dir, **how):
    """In place of a training: its first checkpoint."""
    keys = trainer.config.model_dump()
    best = run_dir / "checkpoints" / "best.ckpt"
    save_checkpoint(best, keys, class_names=trainer.class_names, network=trainer.network)
