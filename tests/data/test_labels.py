# SPDX-License-Identifier: Apache-2.0
"""Files of labels as people, spreadsheets and published sets write them."""

import pytest

from src.common.errors import UserError
from src.data.labels import read_class_names, read_labels

CLASSES = ("ant", "bee", "crazy cat")
IMAGES = ("set/ant/1.png", "set/ant/2.png", "set/bee/deep/1.png", "set/bee/with space.png")


def _read(tmp_path, text, images=IMAGES, classes=CLASSES, encoding="utf-8"):
    path = tmp_path / "labels.txt"
    path.write_bytes(text.encode(encoding, "surrogateescape"))
    return read_labels(path, images, classes)


@pytest.mark.parametrize("separator", ["\t", ",", ";", ", ", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_separators_marks_and_ends_of_lines(tmp_path, separator, encoding, end):
    """Old behaviour: "'' is no class of the model"."""
    rows = [("ant/1.png", "ant"), ("2.png", "2"), ("bee/deep/1.png", "crazy cat"), ("with space.png", "bee")]
    text = end.join(separator.join(row) for row in rows)
    assert _read(tmp_path, text, encoding=encoding) == [0, 2, 2, 1]
    assert _read(tmp_path, text + 2 * end, encoding=encoding) == [0, 2, 2, 1]


def test_a_space_and_tabs_where_a_name_has_spaces(tmp_path):
    text = "ant/1.png ant\n\nset/bee/deep/1.png crazy cat\nbee/with space.png\tbee\n2.png 2\nelse.png ant\n"
    assert _read(tmp_path, text) == [0, 2, 2, 1]
    assert _read(tmp_path, text.replace("bee/with space.png\t", '"bee/with space.png" ')) == [0, 2, 2, 1]


@pytest.mark.parametrize(
    "text",
    [
        "image,label\na,ant\nb,bee\n",
        "id,breed\na,ant\nb,bee\n",
        "label,file name\nant,a.jpg\nbee,b.jpg\n",
        ",Filename,Class\n0,a.jpg,ant\n1,b.jpg,bee\n",
        '"image";"label";"note"\n"a.jpg";"ant";"x"\n"b.jpg";"bee";""\n',
        "ImageId,PredictionString\na,ant 85 1 499 272\nb,bee 131 0 499 254 bee 2 3 4 5 \n",
        "a.jpg\tant\t0\t32\t44\t62\nb.jpg\tbee\t1\t2\t3\t4\n",
        "a.jpg 0\nb.jpg 1\n",
    ],
)
def test_titles_and_further_columns(tmp_path, text):
    """The last three: ImageNet's, Tiny-ImageNet's and Caffe's lists of validation images."""
    assert _read(tmp_path, text, images=("val/a.jpg", "val/b.jpg")) == [0, 1]


def test_lines_of_images_that_are_not_asked_for_may_be_of_any_class(tmp_path):
    text = "a.jpg,ant\nz.jpg,unicorn\nb.jpg,bee\n"
    assert _read(tmp_path, text, images=("a.jpg", "b.jpg")) == [0, 1]
    with pytest.raises(UserError, match="line 4: 'wasp' is no class"):
        _read(tmp_path, f"{text}c.jpg,wasp\n", images=("a.jpg", "b.jpg", "c.jpg"))


@pytest.mark.parametrize("titles", ["file,ant,bee", "file,age,kind", "file,width,height"])
def test_several_columns_of_numbers_without_a_title_that_says_class(tmp_path, titles):
    """Old: the first of them was taken for the class."""
    text = f"{titles}\na.jpg,1,0\nb.jpg,0,1\n"
    with pytest.raises(UserError, match="no title says which column is the class; write label"):
        _read(tmp_path, text, images=("a.jpg", "b.jpg"))


@pytest.mark.parametrize("name", [r"set\ant\1.png", r".\ant\1.png", "./ant/1", "../set/ant/1.png", "ant/1"])
def test_paths_with_either_slash_and_without_an_extension(tmp_path, name):
    assert _read(tmp_path, f"{name},bee\n", images=IMAGES[:1]) == [1]


def test_classes_with_commas(tmp_path):
    classes = ("tench, Tinca tinca", "cock")
    images = ("a.jpg", "b.jpg")
    for text in ("a.jpg tench, Tinca tinca\nb.jpg cock\n", 'a.jpg,"tench, Tinca tinca"\nb.jpg,cock\n'):
        assert _read(tmp_path, text, images=images, classes=classes) == [0, 1]


def test_accents_compare_as_one(tmp_path):
    composed, apart = "caf\u00e9", "cafe\u0301"
    for one, other in ((composed, apart), (apart, composed)):
        assert _read(tmp_path, f"{one}.jpg,{one}\n", images=[f"{other}.jpg"], classes=[other]) == [0]


def test_a_class_named_as_a_number_is_not_a_place(tmp_path):
    assert _read(tmp_path, "1.png 0\n", images=["1.png"], classes=("7", "0")) == [1]


def test_ids_of_imagenet_and_another_case(tmp_path):
    classes = ("n01440764 tench", "n01443537 goldfish")
    text = "a.jpg,n01443537\nb.jpg,Tench\n"
    assert _read(tmp_path, text, images=["a.jpg", "b.jpg"], classes=classes) == [1, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ant/1.png wasp\n", r"labels\.txt, line 1: 'wasp' is no class of ant, bee, crazy cat; "),
        ("1,wasp\n2.png,ant\n", "line 1: 'wasp' is no class"),
        ("image,label\n1.png,wasp\n2.png,ant\n", "line 2: 'wasp' is no class"),
        ("ant/1.png 3\n", "line 1: '3' is no class .*number from 0"),
        ("ant/1.png\n", "line 1: '' is no class"),
        ("2.png crazy dog\n", "line 1: 'crazy dog' is no class"),
        ("2.png ant\n2.png bee\n", "line 2: 2.png has another label above"),
        ("1.png ant\n2.png ant\n", r"no label for 3 of 4 images \(.*ant/1\.png, .*; add lines"),
        ("", "no label for 4 of 4"),
        ("\udcff", r"labels: cannot read .*labels\.txt \(not UTF-8 text"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path, text, message):
    with pytest.raises(UserError, match=message) as caught:
        _read(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_no_file(tmp_path):
    with pytest.raises(UserError, match=r"labels: cannot read .*gone \(No such file"):
        read_labels(tmp_path / "gone", IMAGES, CLASSES)


# --- names of classes


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("ant\nbee\n\n", ("ant", "bee")),
        ("\ufefftench, Tinca tinca\r\ncock\r\n", ("tench, Tinca tinca", "cock")),
        ('["ant", "bee"]', ("ant", "bee")),
        (
            '{"0": ["n01440764", "tench"],\n\t"1": ["n01443537", "goldfish"]}',
            ("n01440764 tench", "n01443537 goldfish"),
        ),
        ("{0: 'tench, Tinca tinca',\n 1: \"hen-of-the-woods\"}", ("tench, Tinca tinca", "hen-of-the-woods")),
        ('{"bee": 1, "ant": 0}', ("ant", "bee")),
        ("cafe\u0301\n", ("caf\u00e9",)),
        ('["\\ud83d\\ude00", "caf\\u00e9"]', ("\U0001f600", "caf\u00e9")),
        ("0 ant\n1 crazy cat\n", ("ant", "crazy cat")),
        ("1,bee\n0,ant\n", ("ant", "bee")),
        ("0: ant\n1: bee\n", ("ant", "bee")),
        ("0 ant\n2 bee\n", ("0 ant", "2 bee")),
        ("0\n1\n", ("0", "1")),
    ],
)
def test_names_of_classes(tmp_path, text, names):
    path = tmp_path / "names"
    path.write_text(text, encoding="utf-8")
    assert read_class_names(path) == names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no names"),
        ("[]", "holds no names"),
        ('{"1": "ant", "2": "bee"}', "neither a list of names nor their numbers"),
        ('{"a": "ant"}', "neither a list"),
        ("[1, 2]", "neither a list"),
        ('["ant", ', "neither a list"),
        ("{[]: 0}", "neither a list"),
        ('["ant", ""]', "holds '', which is no plain name"),
        ('["ant", "\\ud83d"]', "which is no plain name"),
        ("ant\nbe\a\n", "which is no plain name"),
        (None, "cannot read .*names .No such file"),
    ],
)
def test_names_that_are_none(tmp_path, text, message):
    path = tmp_path / "names"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=f"class_names: .*{message}"):
        read_class_names(path)
