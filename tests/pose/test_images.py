import os

import pytest
from mgre.errors import DataError
from mgre.pose.images import find_images, image_size, name_fault, size_fault
from mgre.reading.images import load_image
from PIL import Image


@pytest.fixture
def found(tmp_path):
    """The images found in the folder, by their paths in it."""
    (tmp_path / "set").mkdir()
    return lambda: [os.path.relpath(path, tmp_path / "set") for path in find_images(str(tmp_path / "set"))]


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_images_are_found_below_and_through_links(tmp_path, found):
    root = tmp_path / "set"
    touch(
        root / "b.JPG",
        root / "a" / "c.png",
        root / "a" / "d" / "e.jpeg",
        root / "notes.txt",
        root / "f.bmp",
        root / "g.heic",
    )
    touch(
        root / ".g.jpg", root / ".thumbnails" / "h.jpg", root / "__MACOSX" / "j.jpg", tmp_path / "elsewhere" / "i.jpg"
    )
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "too").symlink_to(tmp_path / "elsewhere")
    assert found() == ["a/c.png", "a/d/e.jpeg", "b.JPG", "f.bmp", "linked/i.jpg", "too/i.jpg"]


def test_links_that_lead_back_up_are_not_followed(tmp_path, found):
    root = tmp_path / "set"
    touch(root / "a" / "b.jpg", tmp_path / "other" / "c.jpg")
    (root / "a" / "up").symlink_to(root)
    (root / "other").symlink_to(tmp_path / "other")
    (tmp_path / "other" / "back").symlink_to(root)
    assert found() == ["a/b.jpg", "other/c.jpg"]


def test_a_link_to_nothing_is_an_image_that_cannot_be_read(tmp_path, found):
    (tmp_path / "set" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    assert found() == ["gone.jpg"]


@pytest.mark.parametrize(
    ("name", "reason"), [("none", "No such file"), ("file.jpg", "Not a directory"), ("", "No such")]
)
def test_what_is_no_folder_is_told(tmp_path, name, reason):
    touch(tmp_path / "file.jpg")
    folder = str(tmp_path / name) if name else ""
    with pytest.raises(DataError, match=f"folder '.*{name}' cannot be read .{reason}"):
        list(find_images(folder))


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_size_is_that_of_the_upright_image(tmp_path, suffix):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    for name, size, options in (("turned", (30, 10), {"exif": exif}), ("plain", (10, 30), {})):
        path = str(tmp_path / f"{name}.{suffix}")
        Image.new("RGB", (30, 10)).save(path, **options)
        image = load_image(path)
        assert image_size(path) == (image.height, image.width) == size


def test_names_and_sizes():
    assert name_fault("query/ä.jpg") == ""
    assert "'caf\\udce9.jpg' has a name that is not UTF-8" in name_fault(os.fsdecode(b"caf\xe9.jpg"))
    assert size_fault("a.jpg", (2, 2)) == ""
    assert size_fault("a.jpg", (1, 5)) == "Image 'a.jpg' has 5 x 1 pixels"
