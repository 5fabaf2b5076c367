# SPDX-License-Identifier: Apache-2.0
"""What the names of files and folders say: pictures, splits, and what other programs leave behind."""

import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Literal

from PIL import Image

from ..common.errors import UserError

Kind = Literal["train", "val", "test"]

_SPLITS: dict[str, Kind] = {
    **dict.fromkeys(("train", "training", "trainset", "trainval", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "validating", "dev", "eval"), "val"),
    **dict.fromkeys(("valset", "evaluation", "holdout", "heldout"), "val"),
    **dict.fromkeys(("test", "testing", "testset", "tst"), "test"),
}
# Beside the name of a split, or alone where there are no classes: train_images, seg_test, test/images.
_GENERAL = re.compile(
    r"all|class(es)?|data(set)?|files?|folder|images?|imgs?|jpe?gs?|jpegimages|photos?|pictures?|png|seg|set|split|"
    r"unknown|unlabell?ed"
)
# Of NAS systems, macOS, Windows, file systems, Android, Python. Names in lower case.
_LEFTOVERS = frozenset(
    {"@eadir", "@recycle", "@recently-snapshot", "@sharebin", "@snapshot", "@tmp", "@transcode"}
    | {"@upload_cache", "#recycle", "#snapshot", "~snapshot", "network trash folder"}
    | {"__macosx", "icon\r", "temporary items", "thevolumesettingsfolder"}
    | {"$recycle.bin", "recycler", "$extend", "system volume information", "lost.dir", "_gsdata_"}
    | {"thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "lost+found", "found.000"}
    | {"__pycache__"}
)
# Formats that Pillow knows by name only, or that are videos, vector graphics and measurements.
_NO_PICTURES = frozenset({"BUFR", "EPS", "FLI", "GRIB", "HDF5", "IPTC", "MPEG", "PDF", "WMF"})
_BY_CONTENT = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "JPEG2000")
_TO_CONVERT = re.compile(r"\.(3fr|arw|avif|cr[23w]|dng|hei[cf]|hif|jxl|nef|orf|pef|raf|rw2|srw|svg)")
_WORDNET = re.compile(r"(n\d{8}) (.+)")  # an id of ImageNet's and a name
HEAD_BYTES = 16  # of a file, that say its format
LABEL_FILES = (
    "val_annotations.txt", "LOC_val_solution.csv", "val_labels.txt", "val_labels.csv", "test_labels.txt",
    "test_labels.csv", "val.txt", "val.csv", "labels.txt", "labels.csv", "annotations.txt",
    "annotations.csv",
)  # fmt: skip


class ClassNames:
    """Finds the label that a name means: accents as NFC, in another case where that means one class only.

    Of `n01440764 tench` the id of ImageNet or the name alone will do. What means two classes is none, as
    `crane` is among ImageNet's.

    Attributes:
        names: by label.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        meant: dict[str, set[int]] = {}
        for label, name in enumerate(map(nfc, names)):
            parts = _WORDNET.fullmatch(name)
            for form in (name, *(parts.groups() if parts else ())):
                meant.setdefault(form, set()).add(label)
        folded: dict[str, set[int]] = {}
        for form, labels in meant.items():
            folded.setdefault(form.casefold(), set()).update(labels)
        self._exact, self._folded = (
            {form: min(labels) for form, labels in forms.items() if len(labels) == 1}
            for forms in (meant, folded)
        )

    def label(self, name: str) -> int | None:
        """None where it is no class."""
        return self._exact.get(nfc(name), self._folded.get(nfc(name).casefold()))


def nfc(name: str) -> str:
    """The name with each accented letter as one character, as macOS does not write it."""
    return unicodedata.normalize("NFC", name)


def split_of(name: str) -> Kind | None:
    """The split that a folder's name means, in any case and with general words or a number beside it."""
    return _SPLITS.get("".join(word for word in _words(name) if not _GENERAL.fullmatch(word)))


def split_folders(root: str | os.PathLike, folders: Sequence[str]) -> dict[Kind, str]:
    """The folders in `root` that are named as splits.

    Of two for tests beside one for validation, neither is needed. If none has the name of a split, those are
    splits that are alike but for it: imagenet_train and imagenet_val.

    Raises:
        UserError: several mean the same split.
    """
    found: dict[Kind, list[str]] = {}
    for name in folders:
        if kind := split_of(name):
            found.setdefault(kind, []).append(name)
    found = found or alike_but_for(_SPLITS, root, folders, first="train")
    for kind, names in found.items():
        if len(names) > 1 and not (kind == "test" and "val" in found):
            raise UserError(
                f"{root} holds {' and '.join(names)}, which mean the same split ({kind}); keep one of them"
            )
    return {kind: names[0] for kind, names in found.items()}


def alike_but_for(
    words: Mapping[str, str], root: str | os.PathLike, folders: Sequence[str], *, first: str
) -> dict[str, list[str]]:
    """The folders in `root` whose names are alike but for one of `words`, by what it means.

    They are of two meanings at least, and one is `first`; otherwise there are none.

    Raises:
        UserError: there are several sets of such folders.
    """
    by_others: dict[str, dict[str, list[str]]] = {}
    for name in folders:
        parts = [word for word in _words(name) if not _GENERAL.fullmatch(word)]
        if len(found := [word for word in parts if word in words]) == 1:
            others = " ".join(word for word in parts if word not in words)
            by_others.setdefault(others, {}).setdefault(words[found[0]], []).append(name)
    sets = [meant for meant in by_others.values() if first in meant and len(meant) > 1]
    if len(sets) > 1:
        names = [name for meant in sets for alike in meant.values() for name in alike]
        raise UserError(
            f"{root} holds {', '.join(names[:4])} ...: several sets of folders; keep one, or make one folder "
            "of each kind, with a folder for each class in it"
        )
    return sets[0] if sets else {}


def is_general(name: str) -> bool:
    """Whether the name is that of no class: images, test, all_classes."""
    words = _words(name)
    return bool(words) and all(_GENERAL.fullmatch(word) or word in _SPLITS for word in words)


def is_leftover(name: str) -> bool:
    """Whether a file or folder of this name was left behind by a system, and is nobody's picture or class."""
    return nfc(name).lower() in _LEFTOVERS


def picture_extensions() -> frozenset[str]:
    """In lower case with the dot: of the formats that Pillow reads, with its plugins that are loaded."""
    known = Image.registered_extensions().items()
    read = {*Image.OPEN, "MPO"} - _NO_PICTURES  # an .mpo is opened as a JPEG
    return frozenset(end for end, name in known if name in read)


def looks_like_picture(head: bytes) -> bool:
    """Whether a file without an extension begins as the common formats do."""
    Image.init()
    return any(bool(Image.OPEN[name][1](head)) for name in _BY_CONTENT if name in Image.OPEN)


def to_convert(extension: str) -> bool:
    """Whether these are pictures that another program can convert."""
    return bool(_TO_CONVERT.fullmatch(extension))


def _words(name: str) -> list[str]:
    """`trainSet_2017` -> train, set."""
    words = re.split(r"[\W_]+|(?<=[a-z])(?=[A-Z])", nfc(name))
    return [word for word in (word.casefold().rstrip("0123456789") for word in words) if word]
