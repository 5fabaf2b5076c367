# SPDX-License-Identifier: Apache-2.0
"""Folders of classes as people have them: which pictures train, which are evaluated, and what is said."""

import os
import unicodedata
from pathlib import Path

import pytest

from src.data.splits import list_folder, list_tests
from tests.helpers.errors import fails
from tests.helpers.folders import save, unreadable

NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


def listed(root, fraction=0.3, seed=0, **how):
    return list_folder(root, val_fraction=fraction, seed=seed, **how)


def names(items):
    return sorted(tuple(path.split(os.sep)[-2:]) for path, _ in items)


def splits(listing):
    """The folders that train and are evaluated, and how many pictures of which classes."""
    return listing.train_root, len(listing.train), listing.test_root, len(listing.test), listing.class_names


class TestLayouts:
    def test_class_folders(self, make_folder):
        root = make_folder("a", "b", count=5)
        listing = listed(root)
        assert listing.class_names == ("a", "b") and listing.test_root is None
        assert len(listing.train) + len(listing.test) == 10
        assert all(path.split(os.sep)[-2] == "ab"[label] for path, label in listing.train + listing.test)
        assert [path for path, _ in listing.train] == sorted(path for path, _ in listing.train)
        first, second = listing.in_words()
        assert first == (
            f"{len(listing.train)} training pictures in {root}, {len(listing.test)} test pictures held out, "
            "of 2 classes (a, b)"
        )
        assert second == "left out: nothing"

    def test_numbers_as_names_are_sorted_as_text(self, make_folder):
        assert listed(make_folder(*map(str, range(11)))).class_names == tuple(sorted(map(str, range(11))))

    @pytest.mark.parametrize(
        ("train", "test"),
        [("train", "val"), ("train", "valid"), ("Train", "Val"), ("training", "validation"),
         ("train", "dev"), ("TRAIN", "holdout"), ("train", "test"), ("Training", "Test"),
         ("seg_train", "seg_test"), ("train_images", "val_images"), ("train2017", "val2017")],
    )  # fmt: skip
    def test_folders_named_as_splits(self, make_folder, train, test):
        """Old: but for train, val and test, the splits became the classes."""
        root = make_folder(f"{train}/a", f"{train}/b", f"{test}/a", f"{test}/b")
        listing = listed(root)
        assert splits(listing) == (root / train, 6, root / test, 6, ("a", "b"))
        assert f"6 test pictures in {root / test}" in listing.in_words()[0]

    @pytest.mark.parametrize("name", ["imagenet_{}", "ILSVRC2012_img_{}", "{}_v2", "cifar-{}", "{} clean"])
    def test_splits_that_have_other_words_alike(self, make_folder, name):
        """Old: they became the classes."""
        train, val = name.format("train"), name.format("val")
        root = make_folder(f"{train}/a", f"{train}/b", f"{val}/a", f"{val}/b", "devkit/x.txt")
        listing = listed(root)
        assert splits(listing) == (root / train, 6, root / val, 6, ("a", "b"))
        assert "1 folder (devkit), beside the splits" in listing.in_words()[1]
        tested = list_tests(root, ["a", "b"])
        assert (tested.test_root, len(tested.test)) == (root / val, 6)

    def test_splits_of_several_things_are_refused(self, make_folder):
        """Old: four classes."""
        message = fails(listed, make_folder("cats_train", "cats_val", "dogs_train", "dogs_val"))
        assert "cats_train, cats_val, dogs_train, dogs_val ...: several sets of folders" in message

    def test_a_word_of_a_split_alone_makes_none(self, make_folder):
        root = make_folder("train_station", "test_tube", "bus")
        assert listed(root).class_names == ("bus", "test_tube", "train_station")

    def test_val_goes_before_test_and_others_are_not_used(self, make_folder):
        root = make_folder("train/a", "train/b", "valid/a", "valid/b", "test/a", "images")
        listing = listed(root)
        assert listing.test_root == root / "valid" and listing.class_names == ("a", "b")
        said = listing.in_words()[1]
        assert "1 folder (images)" in said and "1 folder (test)" in said

    @pytest.mark.parametrize("other", ["images", "notes"])
    def test_train_beside_another_folder_alone(self, make_folder, other):
        """Old: two classes, `train` and the other."""
        listing = listed(make_folder("train/a", "train/b", other))
        assert listing.class_names == ("a", "b") and listing.test_root is None and listing.test
        assert other in listing.in_words()[1]

    @pytest.mark.parametrize("test", ["test/1.jpg", "test/images/1.jpg", "test/test/1.jpg", "val/", "val/a/"])
    def test_tests_of_no_known_class_are_passed_over(self, make_folder, test):
        """Kaggle's, and an empty val. Old: refused as lacking all classes."""
        root = make_folder("train/cat", "train/dog", test)
        listing = listed(root)
        assert listing.test_root is None and {label for _, label in listing.test} == {0, 1}
        assert len(listing.train) + len(listing.test) == 6
        if test.startswith("test"):
            assert "1 picture of unknown class" in listing.in_words()[1]

    def test_an_empty_val_beside_a_labelled_test(self, make_folder):
        root = make_folder("train/a", "train/b", "val/", "test/a")
        assert listed(root).test_root == root / "test"
        assert f"{root / 'val'}, which holds no picture" in listed(root).in_words()[1]

    @pytest.mark.parametrize("above", ["flowers", "archive/flowers", "dataset/dataset"])
    @pytest.mark.parametrize("below", [("rose", "tulip"), ("train/rose", "train/tulip", "val/rose")])
    def test_a_folder_that_holds_the_data_set_alone(self, make_folder, above, below):
        """Old: one class, top-1 100 %."""
        root = make_folder(*(f"{above}/{name}" for name in below))
        save(root / "README.txt")
        listing = listed(root)
        assert listing.class_names == ("rose", "tulip")
        assert str(root / above) in listing.in_words()[0] and "1 .txt" in listing.in_words()[1]

    def test_train_within_train(self, make_folder):
        root = make_folder("seg_train/seg_train/a", "seg_train/seg_train/b", "seg_test/seg_test/a")
        listing = listed(root)
        assert len(listing.train) == 6 and len(listing.test) == 3 and listing.class_names == ("a", "b")

    def test_train_can_be_the_name_of_a_class(self, make_folder):
        root = make_folder("airplane", "car", "train")
        listing = listed(root)
        assert listing.class_names == ("airplane", "car", "train")
        assert f"{root / 'train'} is taken for a class" in listing.in_words()[0]

    def test_tiny_imagenet_as_it_comes(self, make_folder):
        """Old: "val/images is of a class that train does not have"."""
        root = make_folder("train/n01/images", "train/n02/images", "val/images", "test/images")
        save(root / "train" / "n01" / "n01_boxes.txt")
        lines = "0.jpg\tn02\t0\t32\t44\t62\n1.jpg\tn01\t52\t55\t57\t59\n2.jpg\tn02\t4\t0\t60\t55\n"
        (root / "val" / "val_annotations.txt").write_text(lines)
        listing = listed(root)
        assert splits(listing) == (root / "train", 6, root / "val", 3, ("n01", "n02"))
        found = [(Path(file).name, label) for file, label in listing.test]
        assert found == [("1.jpg", 0), ("0.jpg", 1), ("2.jpg", 1)]
        assert f"classes by {root / 'val' / 'val_annotations.txt'}" in listing.in_words()[0]
        assert "1 .txt" in listing.in_words()[1], "n01_boxes.txt alone"
        for where in (root, root / "val"):
            by_name = list_tests(where, ["n02", "n01"])
            assert [(Path(file).name, label) for file, label in by_name.test] == [
                ("0.jpg", 0), ("2.jpg", 0), ("1.jpg", 1)
            ]  # fmt: skip

    @pytest.mark.parametrize("place", ["LOC_val_solution.csv", "val/labels.txt", "val.txt"])
    def test_flat_validation_images_with_their_labels(self, make_folder, place):
        files = [f"ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, 5)]
        root = make_folder("train/n01", "train/n02", *(f"val/{file}" for file in files))
        labels = ("n02", "n01", "n01", "n02")
        if place == "LOC_val_solution.csv":
            rows = [f"{Path(f).stem},{n} 1 2 30 40 " for f, n in zip(files, labels, strict=True)]
            rows.insert(0, "ImageId,PredictionString")
        else:
            rows = [f"{f} {int(n[-1]) - 1}" for f, n in zip(files, labels, strict=True)]
        (root / place).write_text("\n".join(rows))
        found = {Path(file).name: label for file, label in listed(root).test}
        assert found == dict(zip(files, (1, 0, 0, 1), strict=True))
        assert listed(root).in_words()[1] == "left out: nothing"
        if place.startswith("val/"):
            assert len(list_tests(root / "val", ["n01", "n02"]).test) == 4

    def test_a_label_file_that_is_of_another_split(self, make_folder):
        """A list of classes beside the splits is no file of labels."""
        root = make_folder("train/a", "train/b", "test/1.jpg")
        (root / "labels.txt").write_text("a\nb\n")
        (root / "val_labels.csv").write_text("1.jpg,a\n")
        assert listed(root).test_root is None


class TestClasses:
    def test_a_class_that_val_lacks_is_named(self, make_folder):
        """Old: refused."""
        listing = listed(make_folder("train/a", "train/b", "val/a", "val/b/"))
        assert len(listing.train) == 6 and {label for _, label in listing.test} == {0}
        assert "no test picture of 1 class (b)" in listing.in_words()[0]

    @pytest.mark.parametrize("content", ["c/", "c/notes.txt", "c/.hidden.jpg", "c/@eaDir/0.jpg"])
    def test_an_empty_class_folder_is_named(self, make_folder, content):
        """Old: refused."""
        listing = listed(make_folder("a", "b", content))
        assert listing.class_names == ("a", "b")
        assert "without a picture: 1 class folder (c)" in listing.in_words()[1]
        assert listed(make_folder("train/a", "train/b", f"train/{content}")).class_names == ("a", "b")

    def test_an_unknown_class_in_val_is_refused(self, make_folder):
        root = make_folder("train/a", "train/b", "val/a", "val/c")
        assert f"{root / 'val' / 'c'} is of a class that the training folder does not" in fails(listed, root)

    def test_an_unknown_class_alone_in_val_is_refused(self, make_folder):
        root = make_folder("train/a", "train/b", "val/c")
        assert str(root / "val" / "c") in fails(listed, root)

    def test_an_empty_unknown_class_in_val_is_not(self, make_folder):
        assert len(listed(make_folder("train/a", "train/b", "val/a", "val/c/", "val/__MACOSX")).test) == 3

    def test_accents_meet_in_nfc(self, make_folder):
        """Old: "val/café is of a class that train does not have"."""
        root = make_folder(f"train/{NFC}", "train/x", f"val/{NFD}")
        assert [label for _, label in listed(root).test] == [0, 0, 0]
        assert listed(root).class_names == (NFC, "x")

    def test_two_forms_of_a_name_are_one_class(self, make_folder):
        listing = listed(make_folder(NFC, NFD, "x"))
        assert listing.class_names == (NFC, "x")
        assert sum(label == 0 for _, label in listing.train + listing.test) == 6

    def test_the_held_out_share_does_not_depend_on_the_form_of_accents(self, make_folder):
        root = make_folder(NFC, "b", count=20)
        before = {name for _, name in names(item for item in listed(root).test if item[1] == 1)}
        (root / NFC).rename(root / NFD)
        assert {name for _, name in names(item for item in listed(root).test if item[1] == 1)} == before

    def test_names_that_differ_in_case_only_are_said_once(self, make_folder):
        listing = listed(make_folder("Cat", "cat", "dog"))
        assert listing.class_names == ("Cat", "cat", "dog")
        assert listing.in_words()[0].count("differ in case only: Cat and cat") == 1

    def test_another_case_in_val_is_the_same_class(self, make_folder):
        root = make_folder("train/Cat", "train/dog", "val/cat", "val/DOG")
        listing = listed(root)
        assert [label for _, label in listing.test] == [0, 0, 0, 1, 1, 1]
        assert "read by another name: 2 classes (DOG as dog, cat as Cat)" in listing.in_words()[0]

    def test_pictures_beside_class_folders_are_counted(self, make_folder):
        root = make_folder("a", "b", "x.jpg")
        assert f"1 picture in {root} outside of class folders" in listed(root).in_words()[1]
        root = (
            make_folder("more/train/a", "more/train/b", "more/val/a", "more/y.jpg", "more/val/z.jpg") / "more"
        )
        for listing in (listed(root), list_tests(root, ("a", "b"))):
            for where in (root, root / "val"):
                assert f"1 picture in {where} outside of class folders" in listing.in_words()[1]

    def test_links(self, make_folder, tmp_path):
        """A link up, in place of a class, made a class of all pictures."""
        root = make_folder("train/a", "train/b")
        (root / "train" / "all").symlink_to(root)
        (root / "train" / "a" / "loop").symlink_to(root / "train")
        save(tmp_path / "elsewhere" / "x.png")
        (root / "train" / "c").symlink_to(tmp_path / "elsewhere")
        (root / "train" / "again").symlink_to(root / "train" / "b")
        listing = listed(root)
        assert listing.class_names == ("a", "b", "c") and len(listing.train + listing.test) == 7
        assert "3 links to a folder that they lie in or beside" in listing.in_words()[1]

    def test_thousands_of_classes(self, make_folder):
        root = make_folder(*(f"{k:04d}" for k in range(2000)), count=1)
        listing = listed(root)
        assert [label for _, label in listing.train] == list(range(2000)) and not listing.test
        assert "not held out, of 2,000 classes (0000, 0001, 0002, 0003, 0004 ...)" in listing.in_words()[0]


class TestRefused:
    def test_one_class(self, make_folder):
        root = make_folder("rose")
        message = fails(listed, root)
        assert "holds one class alone, rose" in message and f"give {root / 'rose'} as data_path" in message

    def test_one_class_with_folders_in_it(self, make_folder):
        assert "one class alone, rose" in fails(listed, make_folder("rose", "rose/old", "rose/new"))

    def test_one_class_with_pictures(self, make_folder):
        assert "one class alone, flowers" in fails(
            listed, make_folder("flowers/a", "flowers/b", "notes/x.txt")
        )

    def test_a_val_of_empty_class_folders_is_said(self, make_folder):
        root = make_folder("train/a", "train/b", "val/a/", "val/b/")
        assert f"{root / 'val'}, which holds no picture" in listed(root).in_words()[1]

    def test_no_classes(self, make_folder):
        root = make_folder("a/0.jpg", "notes.txt")
        assert "not a folder" in fails(listed, root / "nowhere")
        message = fails(listed, root / "a")
        assert "0 class folders" in message and "1 picture" in message

    def test_nothing_but_empty_classes(self, make_folder):
        assert "none of its folders holds a picture" in fails(listed, make_folder("a/", "b/x.txt"))

    def test_train_without_class_folders(self, make_folder):
        root = make_folder("train/x.jpg", "test/x.jpg", "labels.csv")
        assert f"{root / 'train'} holds 0 class folders" in fails(listed, root)

    def test_flat_pictures_in_train_and_images(self, make_folder):
        root = make_folder("train", "images")
        assert f"{root / 'train'} holds 0 class folders" in fails(listed, root)

    @pytest.mark.parametrize("others", [(), ("a", "b"), ("a", "test/a")])
    def test_val_without_train(self, make_folder, others):
        root = make_folder("val/a", "val/b", *others)
        message = fails(listed, root)
        assert "but no folder train" in message and str(root / "train") in message

    def test_two_folders_for_one_split(self, make_folder):
        message = fails(listed, make_folder("train/a", "train/b", "val/a", "valid/a"))
        assert "val and valid" in message and "keep one" in message
        assert "train" in fails(listed, make_folder("training/a", "training/b"))

    @pytest.mark.parametrize("sets", [("cats", "dogs"), ("imagenet", "tiny")])
    def test_splits_within_classes(self, make_folder, sets):
        """Old: the splits were merged."""
        root = make_folder(*(f"{name}/{split}/x" for name in sets for split in ("train", "val")))
        message = fails(listed, root)
        assert f"{root / sets[0]} holds folders for train and val" in message
        assert str(root / "train" / sets[0]) in message

    @pytest.mark.parametrize(
        "folders",
        [("train/a", "train/b", "train/val/a"), ("a", "b", "flowers/a", "flowers/b"),
         ("train/a", "train/b", "train/all/a", "train/all/b", "val/a")],
    )  # fmt: skip
    def test_a_data_set_among_its_classes(self, make_folder, folders):
        """Old: one class more, of pictures of all classes."""
        message = fails(listed, make_folder(*folders))
        assert "is no class: it holds a" in message and "move it out of there" in message

    def test_folders_that_all_classes_hold_are_named(self, make_folder):
        """Folds, domains or views: the classes may be one level below."""
        root = make_folder("fold0/a", "fold0/b", "fold1/a", "fold1/b")
        assert "each of them holds folders a, b, which are not taken" in listed(root).in_words()[0]
        assert "each of them" not in listed(make_folder("fold0/c")).in_words()[0]

    def test_a_class_may_hold_a_folder_of_the_name_of_another(self, make_folder):
        assert listed(make_folder("cat", "dog", "dog/cat")).class_names == ("cat", "dog")

    @pytest.mark.parametrize("name", ["two\nlines", " padded", "padded ", "bell\a"])
    def test_names_that_are_not_plain(self, make_folder, name):
        message = fails(listed, make_folder("a", "b", name))
        assert "rename" in message and repr(name) in message

    def test_a_folder_that_cannot_be_read_unless_it_is_to_be_passed_over(self, make_folder, monkeypatch):
        root = make_folder("a", "b", "c")
        unreadable(monkeypatch, root / "c")
        message = fails(listed, root)
        assert f"{root / 'c'} (Permission denied)" in message and "--damaged_images skip" in message
        listing = listed(root, skip_unreadable=True)
        assert listing.class_names == ("a", "b") and "cannot be read: 1 folder" in listing.in_words()[1]


class TestByName:
    """The pictures to evaluate a network of given classes on."""

    def test_all_of_class_folders(self, make_folder):
        """Old: a tenth, silently; with one picture a class "no image can be held out"."""
        root = make_folder("test/a", "test/b", count=30)
        for where in (root, root / "test"):
            listing = list_tests(where, ("b", "a"))
            assert len(listing.test) == 60 and not listing.train
            assert {Path(file).parent.name: label for file, label in listing.test} == {"b": 0, "a": 1}
        assert len(list_tests(make_folder("c", "d", count=1), ("c", "d")).test) == 2

    def test_of_some_of_the_classes(self, make_folder):
        """ImageNet-A has 200 of 1,000. Old: refused."""
        root = make_folder("b")
        listing = list_tests(root, ("a", "b", "c"))
        assert [label for _, label in listing.test] == [1, 1, 1]
        assert listing.in_words()[0] == f"3 test pictures in {root}, of 1 of the network's 3 classes"

    @pytest.mark.parametrize("where", ["imagenet-a", "val", "imagenet/val"])
    def test_without_train(self, make_folder, where):
        """Old: "head for 1000 classes, the network one for 2"."""
        listing = list_tests(make_folder(f"{where}/n01", f"{where}/n03"), ("n01", "n02", "n03"))
        assert [label for _, label in listing.test] == [0, 0, 0, 2, 2, 2]

    def test_of_other_folders_the_pictures_are_counted(self, make_folder):
        listing = list_tests(make_folder("a", "b", "y", "z/"), ("a", "b"))
        assert len(listing.test) == 6
        assert "3 pictures of no class of the network, in 1 folder (y)" in listing.in_words()[1]

    def test_where_the_names_of_splits_are_classes(self, make_folder):
        assert len(list_tests(make_folder("car", "train", "test"), ("car", "test", "train")).test) == 9

    def test_val_goes_before_train_and_train_is_never_taken_unasked(self, make_folder):
        root = make_folder("train/a", "train/b", "val/a")
        assert len(list_tests(root, ("a", "b")).test) == 3
        alone = make_folder("x/train/a", "x/train/b", "x/test/1.jpg") / "x"
        message = fails(list_tests, alone, ("a", "b"))
        assert f"give {alone / 'train'}" in message
        assert len(list_tests(alone / "train", ("a", "b")).test) == 6

    @pytest.mark.parametrize("above", ["", "train/"])
    def test_the_share_that_training_held_out(self, make_folder, above):
        root = make_folder(f"{above}a", f"{above}b", count=20)
        trained = listed(root, 0.3, 7)
        assert list_tests(root, trained.class_names, val_fraction=0.3, seed=7).test == trained.test

    def test_no_picture_of_these_classes(self, make_folder):
        message = fails(list_tests, make_folder("x", "y"), ("a", "b"))
        assert "(a, b)" in message and "in 2 folders (x, y)" in message
        assert "not a folder" in fails(list_tests, make_folder("x") / "nowhere", ("a",))

    def test_a_folder_that_cannot_be_read(self, make_folder, monkeypatch):
        root = make_folder("a", "b")
        unreadable(monkeypatch, root / "b")
        assert "Permission denied" in fails(list_tests, root, ("a", "b"))
        assert len(list_tests(root, ("a", "b"), skip_unreadable=True).test) == 3
