import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src.common.errors import UserError
from src.data import sources
from src.data.binary import ImageSet, read_cifar10, write_cifar10
from src.data.sources import ImageFiles, open_split
from tests.helpers.errors import fails


def colour(label, number):
    return (40 * label, 10 * number, 200)


@pytest.fixture
def folder(tmp_path):
    """10 pictures of the class `cat` and 20 of `dog`, each of a colour of its own."""
    for label, (name, count) in enumerate((("cat", 10), ("dog", 20))):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number in range(count):
            image = Image.new("RGB", (20 + number, 30), colour(label, number))
            image.save(tmp_path / "pets" / name / f"{number:02d}.png")
    return tmp_path / "pets"


@pytest.fixture
def with_val(tmp_path, folder):
    """The same as train, and two pictures a class in val."""
    root = tmp_path / "split"
    root.mkdir()
    for name in ("cat", "dog"):
        (root / "val" / name).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (20, 30), (1, 2, 3)).save(root / "val" / name / f"{number}.jpg")
    folder.rename(root / "train")
    return root


def refused(data_path, split="train", **options):
    return fails(open_split, data_path, split, **options)


class TestFinding:
    @pytest.fixture
    def cifar10(self, tmp_path, make_set):
        (tmp_path / "cifar-10-batches-bin").mkdir()
        write_cifar10(tmp_path / "cifar-10-batches-bin", make_set(7), make_set(3, seed=1))
        return tmp_path

    @pytest.mark.parametrize("dataset", ["auto", "cifar10"])
    def test_cifar10(self, cifar10, dataset):
        for data_path in (cifar10, str(cifar10 / "cifar-10-batches-bin")):
            source = open_split(data_path, "test", dataset=dataset)
            assert isinstance(source, ImageSet)
            np.testing.assert_array_equal(source.images, read_cifar10(cifar10, "test").images)

    @pytest.mark.parametrize("dataset", ["auto", "cifar100"])
    def test_cifar100(self, tmp_path, write_cifar100, dataset):
        write_cifar100(tmp_path / "cifar-100-binary", {"train": 9, "test": 4})
        source = open_split(tmp_path, "train", dataset=dataset)
        assert len(source) == 9 and len(source.class_names) == 100

    def test_other_folders_beside_cifar10_do_not_matter(self, cifar10):
        (cifar10 / "samples").mkdir()
        Image.new("RGB", (32, 32)).save(cifar10 / "samples" / "0.png")
        assert isinstance(open_split(cifar10, "train"), ImageSet)

    def test_several_data_sets_are_ambiguous(self, cifar10, write_cifar100, folder):
        write_cifar100(cifar10 / "cifar-100-binary", {"train": 9, "test": 4})
        assert "--dataset cifar10 or cifar100" in refused(cifar10)
        folder.rename(cifar10 / "train")
        assert "--dataset cifar10 or cifar100 or folder" in refused(cifar10)
        assert len(open_split(cifar10, "train", dataset="cifar100")) == 9
        assert len(open_split(cifar10, "train", dataset="cifar10")) == 7

    def test_no_data_set_is_said(self, tmp_path):
        message = refused(tmp_path)
        assert f"{tmp_path} holds no data set" in message and "src.data.prepare" in message
        (tmp_path / "x.png").touch()
        assert refused(tmp_path) == message
        assert f"{tmp_path / 'nowhere'} is not a folder" in refused(tmp_path / "nowhere")
        assert f"{tmp_path / 'nowhere'} is not a folder" in refused(tmp_path / "nowhere", dataset="folder")

    @pytest.mark.parametrize(
        ("name", "file"), [("cifar-10-batches-py", "batches.meta"), ("cifar-100-python", "meta")]
    )
    def test_a_version_for_python_is_recognised(self, tmp_path, name, file):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).touch()
        assert "Python version" in refused(tmp_path) and "Python version" in refused(tmp_path / name)

    @pytest.mark.parametrize(("dataset", "named"), [("cifar10", "cifar-10-b"), ("cifar100", "cifar-100-b")])
    def test_a_data_set_that_was_asked_for_is_missed(self, folder, dataset, named):
        assert f"{folder} holds no {named}" in refused(folder, dataset=dataset)


class TestFolder:
    def test_pictures_are_read_with_their_labels(self, folder):
        source = open_split(folder, "train", val_fraction=0.2)
        assert isinstance(source, ImageFiles) and source.class_names == ("cat", "dog")
        assert source.labels.dtype == np.int32 and source.labels.shape == (len(source),)
        for index in range(len(source)):
            number = int(Path(source.files[index]).stem)
            pixels = source.read(index)
            assert pixels.shape == (30, 20 + number, 3) and pixels.flags["C_CONTIGUOUS"]
            assert (pixels == colour(source.labels[index], number)).all()

    def test_the_splits_share_nothing_and_have_everything(self, folder):
        train, test = (open_split(folder, split, val_fraction=0.2, seed=3) for split in ("train", "test"))
        assert (np.bincount(test.labels) + np.bincount(train.labels)).tolist() == [10, 20]
        assert not set(train.files) & set(test.files)
        assert {*train.files, *test.files} == {str(path) for path in folder.rglob("*.png")}
        assert open_split(folder, "test", val_fraction=0.2, seed=3).files == test.files
        assert open_split(folder, "test", val_fraction=0.2, seed=4).files != test.files

    def test_a_folder_for_tests_is_taken_as_it_is(self, with_val):
        train, test = (open_split(with_val, split, val_fraction=0.5) for split in ("train", "test"))
        assert (len(train), len(test), test.labels.tolist()) == (30, 4, [0, 0, 1, 1])
        assert all(str(with_val / "val") in file for file in test.files)

    def test_some_pictures_are_taken(self, folder):
        source = open_split(folder, "train")
        taken = source.take(np.array([20, 3]))
        assert isinstance(taken, ImageFiles) and taken.class_names == source.class_names
        assert taken.files == (source.files[20], source.files[3])
        assert taken.labels.tolist() == [1, 0] and taken.labels.dtype == np.int32
        assert source.take((20, 3)).files == taken.files and len(source.take([])) == 0

    def test_threads_read_the_same(self, folder):
        source = open_split(folder, "train")
        alone = [source.read(index) for index in range(len(source))]
        with ThreadPoolExecutor(8) as pool:
            for index, pixels in enumerate(pool.map(source.read, [*range(len(source))] * 10)):
                np.testing.assert_array_equal(pixels, alone[index % len(source)])

    def test_more_classes_than_fit_a_byte(self, tmp_path):
        for number in range(300):
            (tmp_path / f"{number:03d}").mkdir()
            Image.new("L", (4, 4), 7).save(tmp_path / f"{number:03d}" / "x.png")
        assert open_split(tmp_path, "train").labels.tolist() == list(range(300))
        assert f"{tmp_path}: no image can be held out" in refused(tmp_path, "test")

    def test_files_that_are_no_images_by_their_name_are_passed_over(self, folder):
        (folder / "cat" / "Thumbs.db").write_bytes(b"x")
        (folder / "cat" / "notes.txt").write_text("x")
        (folder / "cat" / ".hidden.png").write_bytes(b"")
        assert len(open_split(folder, "train")) + len(open_split(folder, "test")) == 30

    def test_a_class_that_is_empty_in_val_is_named(self, with_val):
        for path in (with_val / "val" / "dog").iterdir():
            path.unlink()
        for split in ("train", "test"):
            message = refused(with_val, split)
            assert f"{with_val / 'val'} lacks 1 of the classes of {with_val / 'train'}: dog;" in message

    def test_a_class_that_train_lacks_is_named(self, with_val):
        (with_val / "val" / "owl").mkdir()
        (with_val / "val" / "owl" / "0.png").touch()
        assert f"{with_val / 'val' / 'owl'} is of a class that" in refused(with_val)

    def test_a_name_without_print_is_refused(self, folder):
        (folder / "owl\a").mkdir()
        assert r"'owl\x07'" in refused(folder)

    def test_pictures_in_no_class_folder_are_said(self, folder):
        assert "0 class folders" in refused(folder / "cat", dataset="folder")


class TestDamaged:
    @pytest.fixture
    def damaged(self, with_val):
        """An empty, a truncated and a misnamed file among 33 for training."""
        train = with_val / "train"
        whole = (train / "dog" / "00.png").read_bytes()
        (train / "dog" / "cut.png").write_bytes(whole[:-20])
        (train / "cat" / "empty.jpg").touch()
        (train / "dog" / "text.jpg").write_text("not found")
        return with_val

    def test_they_are_counted_and_named(self, damaged):
        message = refused(damaged)
        assert f"{damaged / 'train'}: 3 of 33 images are damaged" in message
        for part in ("cat/empty.jpg (the file is empty)", "dog/cut.png (", "dog/text.jpg (not an image"):
            assert part in message
        assert "--damaged_images skip" in message

    def test_they_are_left_out_and_named_in_the_log(self, damaged, caplog):
        with caplog.at_level(logging.INFO, "quartet"):
            source = open_split(damaged, "train", damaged="skip")
        assert len(source) == 30
        assert not any(Path(file).name in ("cut.png", "empty.jpg", "text.jpg") for file in source.files)
        for index, file in enumerate(source.files):
            assert source.class_names[source.labels[index]] == Path(file).parent.name
        (warning,) = (record for record in caplog.records if record.levelno == logging.WARNING)
        assert "3 of 33 images are damaged and left out" in warning.message
        assert "cat/empty.jpg" in warning.message
        details = [record.message for record in caplog.records if record.levelno == logging.INFO]
        assert len(details) == 3 and any("dog/cut.png" in line for line in details)

    def test_ten_are_named_and_the_rest_counted(self, with_val, caplog):
        for number in range(12):
            (with_val / "train" / "dog" / f"bad{number:02d}.jpg").touch()
        message = refused(with_val)
        assert "12 of 42" in message and message.count("the file is empty") == 10
        with caplog.at_level(logging.INFO, "quartet"):
            open_split(with_val, "train", damaged="skip")
        (warning,) = (record.message for record in caplog.records if record.levelno == logging.WARNING)
        assert warning.count("the file is empty") == 10 and warning.endswith("...")
        details = [record.message for record in caplog.records if record.levelno == logging.INFO]
        assert [line for line in details if "bad11.jpg (the file is empty)" in line] == details[-1:]
        assert len(details) == 12

    def test_the_other_split_is_not_concerned(self, with_val):
        (with_val / "val" / "cat" / "0.jpg").write_bytes(b"")
        assert len(open_split(with_val, "train")) == 30
        assert f"{with_val / 'val'}: 1 of 4 images" in refused(with_val, "test")

    def test_leaving_them_out_does_not_move_the_others(self, folder):
        before = open_split(folder, "test", val_fraction=0.5)
        Path(before.files[0]).write_bytes(b"")
        after = open_split(folder, "test", val_fraction=0.5, damaged="skip")
        assert after.files == before.files[1:]

    @pytest.mark.parametrize("split", ["train", "test"])
    def test_a_class_of_which_nothing_is_left_is_named(self, folder, split):
        for path in (folder / "cat").iterdir():
            path.write_bytes(b"")
        message = refused(folder, split, damaged="skip")
        assert f"{folder / 'cat'}: every" in message and "remove the folder" in message

    def test_a_name_without_print_stays_on_one_line(self, with_val):
        (with_val / "train" / "cat" / "two\nlines.jpg").touch()
        assert r"two\nlines.jpg" in refused(with_val)

    def test_what_the_look_does_not_find_is_said_when_it_is_read(self, with_val):
        path = with_val / "train" / "cat" / "00.png"
        data = bytearray(path.read_bytes())
        data[-30:-14] = bytes(16)
        path.write_bytes(data)
        source = open_split(with_val, "train")
        index = source.files.index(str(path))
        with pytest.raises(UserError, match=r"cat/00\.png: cannot be decoded.*replace or remove") as caught:
            source.read(index)
        assert "\n" not in str(caught.value)

    def test_every_file_is_looked_at_once(self, folder, monkeypatch):
        looked = []
        monkeypatch.setattr(sources, "fault", lambda file: looked.append(file))
        monkeypatch.setattr(sources, "_CHUNK", 4)
        source = open_split(folder, "train")
        assert sorted(looked) == sorted(source.files)


def test_a_file_that_is_gone_for_a_moment_is_read_again(tmp_path, monkeypatch, caplog):
    path, waited = tmp_path / "a.png", []

    def comes_back(seconds):
        waited.append(seconds)
        if len(waited) == 2:
            Image.new("RGB", (3, 2), "red").save(path)

    monkeypatch.setattr(sources.time, "sleep", comes_back)
    images = ImageFiles((str(path),), np.zeros(1, np.int32), ("a",))
    assert images.read(0).shape == (2, 3, 3)
    assert waited == [0.5, 1.0] and "trying again" in caplog.text
    path.unlink()
    assert "a.png" in fails(images.read_crop, 0, lambda height, width: (0, 0, height, width), 1)
    assert waited[2:] == [0.5, 1.0, 2.0], "over three seconds in all"


def test_damage_is_not_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr(sources.time, "sleep", None)
    path = tmp_path / "a.png"
    Image.new("RGB", (30, 20), "red").save(path)
    whole = path.read_bytes()
    for data in (b"", b"no image", whole[: len(whole) // 2]):
        path.write_bytes(data)
        assert "a.png" in fails(ImageFiles((str(path),), np.zeros(1, np.int32), ("a",)).read, 0)


def test_checking_and_listing_are_progress_for_the_launcher(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(sources.heartbeat, "progress", lambda: made.append(1))
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(4):
            Image.new("RGB", (3, 2), "red").save(tmp_path / name / f"{number}.png")
    open_split(tmp_path, "train")
    assert len(made) >= 3  # two folders, one lot of files
