# SPDX-License-Identifier: Apache-2.0
"""Damaged pictures: replaced, left out or refused; what the system fails to read is waited for."""

import errno
import logging
import os

import numpy as np
import pytest
from PIL import Image

from src.common.errors import UserError
from src.data import damage
from src.data.damage import ReadablePictures, damaged_in, left_out_of, without_faults
from src.data.prepare.mindrecord import write_mindrecord
from src.data.resize import resize_box
from src.data.sources import ImageFiles, open_split
from tests.helpers.errors import fails
from tests.helpers.pictures import as_it_is

FORMATS = ("tif", "bmp", "gif", "ppm", "png", "jpg")


def colour(index):
    return (20 * index, 100, 200)


def picture(path, index):
    rng = np.random.default_rng(index)
    noise = rng.integers(0, 2, (40, 30, 3)) * 4
    Image.fromarray((np.array(colour(index)) + noise).astype(np.uint8)).save(path)


def cut_in_its_middle(path):
    """What only decoding finds: the end, which a quick look asks for, is there."""
    data = path.read_bytes()
    middle = len(data) * 6 // 10
    end = data[-12:] if path.suffix in (".png", ".jpg") else b""
    path.write_bytes(data[:middle] + end)


@pytest.fixture
def make(tmp_path):
    """A function (format) -> 10 pictures of two classes by turns, each of a colour of its own."""

    def files(kind="bmp"):
        paths = [tmp_path / f"{index}.{kind}" for index in range(10)]
        for index, path in enumerate(paths):
            picture(path, index)
        return ImageFiles(tuple(map(str, paths)), np.arange(10, dtype=np.int32) % 2, ("cat", "dog"))

    return files


def which(pixels):
    """The picture that pixels are of."""
    return round((float(pixels[..., 0].mean()) - 2) / 20)


class TestReplacing:
    @pytest.mark.parametrize("kind", FORMATS)
    def test_the_next_of_the_class_takes_the_place(self, make, tmp_path, kind):
        """Old behaviour: the training ended at that step, with skip as well."""
        files = make(kind)
        for index in (4, 6, 9):
            cut_in_its_middle(tmp_path / f"{index}.{kind}")
        source = ReadablePictures(files, skip=True, same_class=True)
        assert [which(source.read(index)) for index in range(10)] == [0, 1, 2, 3, 8, 5, 8, 7, 8, 1]
        assert which(source.read(4, as_it_is)) == 8
        assert sorted(source.damaged) == [4, 6, 9] and damaged_in(source) is source.damaged

    def test_a_run_that_goes_on_gets_the_same(self, make, tmp_path):
        """What was met before does not matter: a crop above the damage is read as it was."""
        files = make("jpg")
        cut_in_its_middle(tmp_path / "4.jpg")
        first, other = (ReadablePictures(files, skip=True, same_class=True) for _ in range(2))
        first.read(4)

        def above(height, width):
            return resize_box((0, 0, 8, width), 8, width, "bilinear")

        for index in (4, 2):
            crops = [s.read(index, above) for s in (first, other)]
            np.testing.assert_array_equal(*crops)

    def test_it_is_said_once_and_ten_times_at_most(self, make, tmp_path, caplog, monkeypatch):
        monkeypatch.setattr(damage, "_SHOWN", 1)
        source = ReadablePictures(make(), skip=True, same_class=True)
        for index in (4, 6):
            cut_in_its_middle(tmp_path / f"{index}.bmp")
        with caplog.at_level(logging.INFO, "quartet"):
            for _ in range(2):
                source.read(4)
        assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
        assert "4.bmp (cannot be decoded" in caplog.messages[0] and "6.bmp" in caplog.messages[1]

    def test_nothing_left_of_a_class(self, make, tmp_path):
        """It cannot be trained on; in an evaluation another image fills the place."""
        files = make()
        for index in range(0, 10, 2):
            cut_in_its_middle(tmp_path / f"{index}.bmp")
        message = fails(ReadablePictures(files, skip=True, same_class=True).read, 2)
        assert "2.bmp: every image of the class cat is damaged" in message
        source = ReadablePictures(files, skip=True, same_class=False)
        assert which(source.read(2)) == 3 and sorted(source.damaged) == [0, 2, 4, 6, 8]
        for index in range(1, 10, 2):
            cut_in_its_middle(tmp_path / f"{index}.bmp")
        assert "every image to evaluate is damaged" in fails(source.read, 2)

    def test_without_skip_it_is_an_error_that_names_the_key(self, make, tmp_path):
        cut_in_its_middle(tmp_path / "4.bmp") if (files := make()) else None
        source = ReadablePictures(files, skip=False, same_class=True)
        message = fails(source.read, 4)
        assert "4.bmp: cannot be decoded" in message and message.endswith("or use --damaged_images skip")
        assert source.damaged == {}

    def test_some_of_them_are_a_source_of_their_own(self, make, tmp_path):
        cut_in_its_middle(tmp_path / "4.bmp") if (files := make()) else None
        source = ReadablePictures(files, skip=True, same_class=True, left_out=3)
        some = source.take([5, 4, 2])
        assert [which(some.read(index)) for index in range(3)] == [5, 2, 2]
        assert list(some.damaged) == [1] and source.damaged == {} and some.labels.tolist() == [1, 0, 0]
        assert (left_out_of(source), left_out_of(some), left_out_of(files)) == (3, 0, 0)
        assert some.name(1) == str(tmp_path / "4.bmp") and len(some) == 3

    def test_records_are_replaced_too(self, make, tmp_path):
        files = make("gif")
        cut_in_its_middle(tmp_path / "4.gif")
        out = tmp_path / "out"
        out.mkdir()
        write_mindrecord({"train": files, "test": files.take([0, 1])}, out, root=tmp_path, shards=2)
        source = ReadablePictures(open_split(out, "train"), skip=True, same_class=True)
        assert which(source.read(4)) == 6 and "4.gif" in source.name(4) and list(source.damaged) == [4]


class TestPatience:
    @pytest.fixture
    def waits(self, monkeypatch):
        """The waits, and what is done in them: a list to fill with functions."""
        waited, then = [], {}

        def sleep(seconds):
            waited.append(seconds)
            then.get(len(waited), lambda: None)()

        monkeypatch.setattr(damage.time, "sleep", sleep)
        return waited, then

    @pytest.mark.parametrize("skip", [False, True])
    def test_a_file_that_is_gone_for_a_moment_is_read_again(self, make, tmp_path, waits, caplog, skip):
        waited, then = waits
        source = ReadablePictures(make(), skip=skip, same_class=True)
        (tmp_path / "4.bmp").rename(tmp_path / "elsewhere")
        then[2] = lambda: (tmp_path / "elsewhere").rename(tmp_path / "4.bmp")
        assert which(source.read(4)) == 4 and waited == [0.5, 1.0] and "trying again" in caplog.text
        assert source.damaged == {}

    def test_a_file_that_stays_away(self, make, tmp_path, waits):
        waited, _ = waits
        files = make()
        (tmp_path / "4.bmp").unlink()
        assert "4.bmp" in fails(ReadablePictures(files, skip=False, same_class=True).read, 4, as_it_is)
        assert waited == [0.5, 1.0, 2.0]
        assert which(ReadablePictures(files, skip=True, same_class=True).read(4)) == 6

    def test_a_disk_that_is_gone_ends_the_run_even_with_skip(self, make, tmp_path, waits):
        """Not every image is damaged: nothing would be left to train on, after hours of waiting."""
        source = ReadablePictures(make(), skip=True, same_class=True)
        for path in tmp_path.iterdir():
            path.unlink()
        assert "6.bmp" in fails(source.read, 4) and waits[0] == [0.5, 1.0, 2.0] * 2

    def test_records_that_the_disk_fails_to_give_are_read_again(self, make, tmp_path, waits, monkeypatch):
        """Old behaviour: files alone were read again."""
        files, out = make(), tmp_path / "out"
        out.mkdir()
        write_mindrecord({"train": files, "test": files.take([0])}, out, root=tmp_path, shards=1)
        source, pread = ReadablePictures(open_split(out, "train"), skip=False, same_class=True), os.pread

        def fail_once(*how):
            monkeypatch.setattr(os, "pread", pread)
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(os, "pread", fail_once)
        assert which(source.read(4)) == 4 and waits[0] == [0.5]

    def test_damage_is_not_read_again(self, make, tmp_path, waits):
        source = ReadablePictures(make("png"), skip=False, same_class=True)
        whole = (tmp_path / "4.png").read_bytes()
        for data in (b"", b"no image", whole[: len(whole) // 2]):
            (tmp_path / "4.png").write_bytes(data)
            assert "4.png" in fails(source.read, 4)
        assert waits[0] == []

    def test_an_error_of_another_kind_is_raised_as_it_is(self, make):
        files = make()
        source = ReadablePictures(files, skip=True, same_class=True)

        def broken(height, width):
            raise UserError("not of an image")

        assert fails(source.read, 3, broken) == "not of an image"


class TestFaults:
    @pytest.fixture
    def splits(self, make):
        files = make()
        return {"train": files.take(range(8)), "test": files.take([8, 9])}

    def faults(self, splits, *indices):
        everything = [*splits["train"].files, *splits["test"].files]
        return {everything[index]: "the file is empty" for index in indices}

    def test_they_are_counted_and_named(self, splits, tmp_path):
        """Old behaviour: the counts were of one split, 1 of 2 images where the set has 20."""
        message = fails(without_faults, splits, self.faults(splits, 1, 9), root=tmp_path, skip=False)
        assert f"{tmp_path}: 2 of 10 images are damaged (1 of 8 for training, 1 of 2 held out)" in message
        assert "1.bmp (the file is empty), 9.bmp (the file is empty)" in message
        assert message.endswith("or use --damaged_images skip")

    def test_they_are_left_out_and_named_in_the_log(self, splits, tmp_path, caplog):
        with caplog.at_level(logging.INFO, "quartet"):
            whole = without_faults(splits, self.faults(splits, 1, 3), root=tmp_path, skip=True)
        assert [which(whole["train"].read(index)) for index in range(6)] == [0, 2, 4, 5, 6, 7]
        assert whole["train"].labels.tolist() == [0, 0, 0, 1, 0, 1] and len(whole["test"]) == 2
        (warning,) = caplog.messages  # each name once
        assert "2 of 10 images are damaged (2 of 8 for training, 0 of 2 held out) and left out" in warning
        assert warning.count("is empty") == 2 and "3.bmp" in warning

    def test_ten_are_named_and_all_are_in_the_log(self, splits, tmp_path, caplog, monkeypatch):
        monkeypatch.setattr(damage, "_SHOWN", 2)
        faults = self.faults(splits, 0, 1, 2, 3)
        assert fails(without_faults, splits, faults, root=tmp_path, skip=False).count("is empty") == 2
        with caplog.at_level(logging.INFO, "quartet"):
            without_faults(splits, faults, root=tmp_path, skip=True)
        assert caplog.messages[0].endswith("...") and caplog.text.count("is empty") == len(faults)

    def test_a_class_that_is_not_evaluated_may_be_trained(self, splits, tmp_path, caplog):
        """Old behaviour: the run was refused where every held-out image of a class was damaged."""
        whole = without_faults(splits, self.faults(splits, 8), root=tmp_path, skip=True)
        assert whole["test"].labels.tolist() == [1] and len(whole["train"]) == 8
        assert "no held-out image is left of 1 class (cat)" in caplog.text

    def test_a_class_that_is_not_trained_is_refused(self, splits, tmp_path):
        message = fails(without_faults, splits, self.faults(splits, 1, 3, 5, 7), root=tmp_path, skip=True)
        assert "every image of 1 class (dog) is damaged" in message

    def test_a_name_without_print_stays_on_one_line(self, splits, tmp_path):
        odd = ImageFiles((f"{tmp_path}/two\nlines.jpg",), np.zeros(1, np.int32), ("cat", "dog"))
        faults = {odd.files[0]: "the file is empty"}
        message = fails(without_faults, {**splits, "test": odd}, faults, root=tmp_path, skip=False)
        assert r"'two\nlines.jpg' (the file is empty)" in message

    def test_without_faults_nothing_is_said(self, splits, tmp_path, caplog):
        assert without_faults(splits, {}, root=tmp_path, skip=False) == splits and not caplog.records
