"""The image files of a folder, against lists written by hand."""

import pytest
from mgre.errors import DataError
from mgre.pose.images import find_images
from mgre.reading.image_files import (
    IMAGE_SUFFIXES,
    describe_other_contents,
    list_image_files,
    list_image_files_below,
)
from PIL import Image

HIDDEN = ("._a.jpg", ".DS_Store", "Thumbs.db", "thumbs.db", "Desktop.ini", ".a.jpg.swp")


@pytest.fixture
def folder(tmp_path):
    for name in ("b.JPG", "a.jpeg", "c.Tif", "d.webp", "e.BMP", "a.jpg.jpg", *HIDDEN):
        (tmp_path / name).touch()
    return tmp_path


def names(paths, folder):
    return [path.removeprefix(f"{folder}/") for path in paths]


def test_every_suffix_is_one_that_pillow_reads():
    Image.init()
    assert set(IMAGE_SUFFIXES) <= set(Image.EXTENSION)


def test_images_in_any_case_without_hidden_files_and_without_a_word(folder, data_log):
    expected = ["a.jpeg", "a.jpg.jpg", "b.JPG", "c.Tif", "d.webp", "e.BMP"]
    assert names(list_image_files(str(folder)), folder) == expected
    assert names(find_images(str(folder)), folder) == expected  # the tool's
    assert not data_log.records


def test_what_is_passed_over_is_counted_and_named_once(folder, data_log):
    for name in ("notes.txt", "x.heic", "y.heic", "README"):
        (folder / name).touch()
    (folder / "removed").mkdir()
    (folder / "removed" / "z.jpg").touch()
    for _ in range(3):
        assert len(list_image_files(str(folder))) == 6
    assert len({id(record) for record in data_log.records}) == 1
    assert data_log.records[0].getMessage() == (
        f"'{folder}': passed over 4 files that are no images (.heic: 2, without suffix: 1, .txt: 1; first README) and "
        f"1 folder (first removed); images end in {', '.join(IMAGE_SUFFIXES)}"
    )


def test_images_that_differ_by_the_suffix_alone_are_named(folder, data_log):
    (folder / "b.png").touch()
    (folder / "b_mask.png").touch()
    assert len(list_image_files(str(folder))) == 8
    assert f"'{folder}': 2 images have the name of another one but for the suffix, first b.JPG, b.png" in data_log.text


def test_images_in_folders_are_taken_where_there_are_no_others(tmp_path, data_log):
    for name in (
        "1/a.jpg",
        "1/._a.jpg",
        "2/b.PNG",
        "__MACOSX/._c.jpg",
        "__MACOSX/c.jpg",
        "@eaDir/d.jpg",
        "2/deep/e.jpg",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert list_image_files(str(tmp_path)) == []
    assert names(list_image_files(str(tmp_path), or_in_its_folders=True), tmp_path) == ["1/a.jpg", "2/b.PNG"]
    assert f"'{tmp_path}/2': passed over 1 folder (first deep)" in data_log.text
    assert names(list_image_files_below(str(tmp_path)), tmp_path) == ["1/a.jpg", "2/b.PNG", "2/deep/e.jpg"]
    (tmp_path / "f.jpg").touch()
    assert names(list_image_files(str(tmp_path), or_in_its_folders=True), tmp_path) == ["f.jpg"]


def test_the_contents_in_words(tmp_path):
    assert describe_other_contents(str(tmp_path)) == describe_other_contents(str(tmp_path / "none")) == ""
    (tmp_path / "a.jpg").touch()
    assert describe_other_contents(str(tmp_path)) == ""
    (tmp_path / "a.GIF").touch()
    assert describe_other_contents(str(tmp_path)) == "1 file that is no image (.gif: 1; first a.GIF)"


def test_a_folder_that_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match=r"none' cannot be read .*: mend the path or its permissions"):
        list_image_files(str(tmp_path / "none"))
