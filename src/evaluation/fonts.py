# SPDX-License-Identifier: Apache-2.0
"""Which fonts draw which names: the default one, and of others those that the system has."""

import functools
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import matplotlib
from matplotlib import font_manager

DEFAULT = Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"


@functools.cache
def characters_of(font: Path) -> frozenset[str]:
    """What a font has signs for; nothing if it cannot be read, or is of bitmaps."""
    try:
        opened = font_manager.get_font(font)
    except (OSError, RuntimeError):
        return frozenset()
    return frozenset(map(chr, opened.get_charmap())) if opened.scalable else frozenset()


def fonts_for(texts: Iterable[str]) -> list[Path]:
    """The default font, and as few of the system's as draw what it lacks, as far as there are any."""
    return _fonts_for(frozenset("".join(texts)) - characters_of(DEFAULT))


@functools.cache
def _fonts_for(lacking: frozenset[str]) -> list[Path]:
    fonts = [DEFAULT]
    for font in _system_fonts() if lacking else ():
        if lacking & characters_of(font):
            fonts.append(font)
            lacking -= characters_of(font)
            if not lacking:
                break
    return fonts


def _system_fonts() -> list[Path]:
    """Upright ones of common weight first, the largest first: those have Chinese, Japanese and Korean."""
    found = map(Path, sorted(font_manager.findSystemFonts()))
    fonts = [font for font in found if "lastresort" not in font.name.lower() and font.is_file()]

    def order(font: Path) -> tuple[bool, int]:
        name = font.name.lower()
        return any(word in name for word in ("bold", "italic", "oblique", "serif")), -font.stat().st_size

    return sorted(fonts, key=order)


def drawable(texts: Sequence[str], instead: Callable[[int], str] = str) -> tuple[list[str], list[str]]:
    """The texts, and the families of fonts for them (Matplotlib's `fontfamily`).

    Args:
        texts: names.
        instead: what stands for a text that no font draws, by its place.
    """
    fonts = fonts_for(texts)
    known = frozenset().union(*map(characters_of, fonts))
    drawn = [text if known.issuperset(text) else instead(place) for place, text in enumerate(texts)]
    return drawn, [_family(font) for font in fonts]


@functools.cache
def _family(font: Path) -> str:
    """The name by which Matplotlib knows a font, which may have been installed after its list was made."""
    if font != DEFAULT:
        font_manager.fontManager.addfont(os.fspath(font))
    return font_manager.get_font(font).family_name
