# SPDX-License-Identifier: Apache-2.0
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src.data.binary import CIFAR10, ImageSet, read_set, write_cifar10
from src.data.sources import ImageFiles, facts_of, open_split, open_splits, open_tests
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
            np.testing.assert_array_equal(source.images, read_set(CIFAR10, cifar10, "test").images)

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
        assert set(test.labels) == set(train.labels) == {0, 1} and len(train) > len(test)
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

    def test_pictures_in_no_class_folder_are_said(self, folder):
        assert "0 class folders" in refused(folder / "cat", dataset="folder")


class TestOthersImages:
    """What a network of some classes is evaluated on."""

    NAMES = ("ant", "cat", "dog")

    def opened(self, path, **how):
        return open_tests(path, self.NAMES, **how)

    def test_all_images_of_class_folders_unless_a_share_is_asked_for(self, folder):
        """Old behaviour: a tenth of them, silently, and a folder of other classes was refused."""
        source = self.opened(folder)
        assert np.bincount(source.labels).tolist() == [0, 10, 20] and source.class_names == self.NAMES
        held_out = self.opened(folder, val_fraction=0.2, seed=3)
        assert held_out.files == open_split(folder, "test", val_fraction=0.2, seed=3).files
        assert set(held_out.labels) == {1, 2}

    def test_a_part_of_the_classes(self, folder):
        for path in (folder / "cat").iterdir():
            path.unlink()
        (folder / "cat").rmdir()
        assert self.opened(folder).labels.tolist() == [2] * 20

    def test_the_folder_for_tests_before_all(self, with_val):
        assert self.opened(with_val).labels.tolist() == [1, 1, 2, 2]
        assert len(self.opened(with_val / "train")) == 30

    def test_val_without_train(self, with_val):
        (with_val / "train").rename(with_val.parent / "elsewhere")
        assert self.opened(with_val).labels.tolist() == [1, 1, 2, 2]

    def test_pictures_of_no_class_of_the_network_are_counted(self, folder):
        source = open_tests(folder, ("cat", "owl"))
        assert source.labels.tolist() == [0] * 10 and "20 pictures of no class of the network" in str(
            source.words
        )
        assert str(folder) in fails(open_tests, folder, ("owl", "ant"))

    def test_a_flat_folder_with_a_file_of_labels(self, folder):
        """As ImageNet's validation images come."""
        flat = folder.parent / "flat"
        flat.mkdir()
        for name in ("cat", "dog"):
            (folder / name / "00.png").rename(flat / f"{name}.png")
        (flat / "labels.csv").write_text("image,class\ndog.png,dog\ncat.png,cat\n")
        source = self.opened(flat)
        assert [Path(file).stem for file in source.files] == ["cat", "dog"] and source.labels.tolist() == [
            1,
            2,
        ]

    def test_names_that_are_there_twice_are_those_of_the_same_data(self, tmp_path, make_set):
        (tmp_path / "cifar-10-batches-bin").mkdir()
        images = make_set(9)
        names = ("crane", "crane", *images.class_names[2:])
        images = replace(images, class_names=names)
        write_cifar10(tmp_path / "cifar-10-batches-bin", images, images)
        assert open_tests(tmp_path, images.class_names).labels.tolist() == images.labels.tolist()

    def test_other_data_sets_go_by_name_as_well(self, tmp_path, make_set):
        (tmp_path / "cifar-10-batches-bin").mkdir()
        images = make_set(30)
        write_cifar10(tmp_path / "cifar-10-batches-bin", images, images)
        names = images.class_names[::-1]
        labels = open_tests(tmp_path, names).labels
        assert [names[label] for label in labels] == [images.class_names[label] for label in images.labels]
        said = fails(open_tests, tmp_path, names[1:])
        assert f"has classes that the network does not have: {names[0]};" in said


def test_facts_tell_data_sets_apart(folder):
    def facts(**how):
        return facts_of(dict(zip(("train", "test"), open_splits(folder, val_fraction=0.2, **how))))

    before = facts()
    splits = dict(zip(("train", "test"), open_splits(folder, val_fraction=0.2)))
    assert (before["train"], before["test"]) == (len(splits["train"]), len(splits["test"]))
    fewer = facts_of({**splits, "train": splits["train"].take(range(5, 20))})
    assert fewer["labels"] != before["labels"] and fewer["listed"] == before["listed"]
    assert facts(seed=1)["listed"] != before["listed"]
    for path in folder.rglob("0*.png"):
        path.write_bytes(path.read_bytes() + b"x")
    assert facts()["listed"] != before["listed"] and facts()["labels"] == before["labels"]


def test_a_folder_that_was_moved_is_the_same(folder):
    before, moved = open_split(folder, "train"), folder.with_name("elsewhere")
    folder.rename(moved)
    assert open_split(moved, "train").listed == before.listed != 0
