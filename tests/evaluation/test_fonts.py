# SPDX-License-Identifier: Apache-2.0
"""Names that the default font cannot draw: by a font of the system, else by number, without warnings."""

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from matplotlib.text import Text

from src.evaluation import fonts
from src.evaluation.drawing import shortened
from src.evaluation.evaluate import Example
from src.evaluation.fonts import DEFAULT, drawable, fonts_for
from src.evaluation.metrics import Totals
from src.evaluation.pictures import confusion_matrix, recall_by_class, worst_mistakes
from src.retrieval import sheets
from tests.evaluation.drawn import texts_of

pytestmark = pytest.mark.usefixtures("no_warnings")

NAMES = ["猫", "개", "ant"]


def _font_of(letters, path):
    """A font whose every sign is a square."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 800), (800, 800), (800, 0)):
        pen.lineTo(corner)
    pen.closePath()
    names = [".notdef", *(f"uni{ord(letter):04X}" for letter in letters)]
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder(names)
    font.setupCharacterMap({ord(letter): name for letter, name in zip(letters, names[1:], strict=True)})
    font.setupGlyf(dict.fromkeys(names, pen.glyph()))
    font.setupHorizontalMetrics(dict.fromkeys(names, (1000, 0)))
    font.setupHorizontalHeader(ascent=800, descent=-200)
    font.setupNameTable({"familyName": path.stem, "styleName": "Regular"})
    font.setupOS2()
    font.setupPost()
    font.save(path)
    return path


@pytest.fixture
def system(tmp_path, monkeypatch):
    """system(letters, ...): the system has a font for each of these, and what reads as none."""
    monkeypatch.setattr(font_manager.fontManager, "ttflist", list(font_manager.fontManager.ttflist))

    def have(*each):
        found = [_font_of(letters, tmp_path / f"font{k}.ttf") for k, letters in enumerate(each)]
        (tmp_path / "broken.ttf").write_bytes(b"no font")
        paths = [*map(str, found), str(tmp_path / "broken.ttf"), str(tmp_path / "gone.ttf")]
        monkeypatch.setattr(font_manager, "findSystemFonts", lambda: paths)
        fonts._fonts_for.cache_clear()
        return found

    yield have
    fonts._fonts_for.cache_clear()


def _draw_all(folder, names):
    confusion_matrix(2 * np.eye(len(names), dtype=int), names, folder / "confusion.png", of="猫.ckpt")
    totals = Totals(len(names))
    labels = np.arange(len(names))
    totals.update(np.eye(len(names), dtype=np.float32), labels)
    recall_by_class(totals, names, folder / "recall.png", of="x")
    image = np.zeros((8, 8, 3), np.uint8)
    mistake = Example(index=7, image=image, label=0, prediction=1, probability=0.9, loss=6.0)
    worst_mistakes(
        [mistake], names, (0, 0, 0), (1, 1, 1), folder / "worst.png", of="x", name_of=lambda _: "猫/개.jpg"
    )


def test_without_a_font_names_are_numbers(system, tmp_path, figures):
    """Old behaviour: boxes, and a page of warnings."""
    system()
    _draw_all(tmp_path, NAMES)
    confusion, recall, worst = map(texts_of, figures)
    assert confusion.count("0") == confusion.count("1") == confusion.count("ant") == 2
    assert {"0", "1", "ant"} <= set(recall) and r"'\u732b.ckpt'" in confusion
    assert {"truth: 0", "predicted: 1 90.0 %", "image 7"} <= set(worst)


def test_fonts_of_the_system_draw_the_names(system, tmp_path, figures):
    chinese, korean = system("猫", "개")
    _draw_all(tmp_path, NAMES)
    confusion, recall, worst = map(texts_of, figures)
    assert confusion.count("猫") == 2 and "猫.ckpt" in confusion and set(NAMES) <= set(recall)
    assert {"truth: 猫", "predicted: 개 90.0 %", "猫/개.jpg"} <= set(worst)
    assert set(fonts_for(NAMES)) == {DEFAULT, chinese, korean}
    cat = next(text for text in figures[1].findobj(Text) if text.get_text() == "猫")
    assert set(cat.get_fontfamily()) == {"DejaVu Sans", "font0", "font1"}


def test_only_what_is_needed_is_looked_for(system):
    system("猫")
    assert fonts_for(["ant", "café"]) == [DEFAULT]
    assert drawable(["猫", "개", "ant"], lambda place: f"class {place}") == (
        ["猫", "class 1", "ant"],
        ["DejaVu Sans", "font0"],
    )


def test_wide_letters_count_twice():
    assert shortened("猫" * 10) == "猫" * 10 and shortened("猫" * 11) == "猫" * 9 + "…"
    assert shortened("a" * 20) == "a" * 20 and shortened("a" * 21) == "a" * 19 + "…"


def test_a_sheet_takes_the_font_that_has_most_of_a_name(system):
    (font,) = system("猫狗.jpg")
    for name, drawn, by in (
        ("猫狗.jpg", "猫狗.jpg", font),
        ("猫 and dog.jpg", "? and dog.jpg", DEFAULT),
        ("\udce9\n.jpg", "??.jpg", DEFAULT),
    ):
        text, opened = sheets._drawable(name)
        assert (text, str(opened.path)) == (drawn, str(by))
