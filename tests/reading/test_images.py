"""The one decoder: every mode of Pillow against the same picture with 8 bits, and files that are no images."""

import numpy as np
import PIL
import pytest
from fastreid.data.data_utils import read_image
from mgre.data.unreadable import check_headers
from mgre.errors import DataError
from mgre.reading.images import ImageError, UnreadableImageError, load_image
from PIL import Image

# A picture with 8 bits, and the same one with 16: v / 255 = 257 v / 65535.
GREY = np.add.outer(np.arange(0, 40, 5), np.arange(0, 216, 43)).astype(np.uint8)
GREY_16 = GREY.astype(np.uint16) * 257


def save(path, image, **options) -> str:
    image.save(path, **options)
    return str(path)


def decoded(path) -> np.ndarray:
    """By both decoders, which are one."""
    image = load_image(path)
    assert image.mode == "RGB"
    assert np.array_equal(np.asarray(read_image(path)), np.asarray(image))
    return np.asarray(image)


def grey_form(values=GREY) -> np.ndarray:
    return np.repeat(values[..., None], 3, axis=2)


@pytest.mark.parametrize(
    ("suffix", "order", "mode"),
    [("png", "<u2", "I;16"), ("tif", "<u2", "I;16"), ("tif", ">u2", "I;16B"), ("pgm", "<u2", "I")],
)
def test_16_bits_are_scaled(tmp_path, suffix, order, mode):
    """Pillow's own conversion gives 255 for all but the darkest pixels."""
    path = save(tmp_path / f"a.{suffix}", Image.fromarray(GREY_16.astype(order)))
    assert np.array_equal(decoded(path), grey_form())
    with Image.open(path) as image:
        assert image.mode == mode


def test_16_bits_are_rounded_not_cut_off(tmp_path):
    values = np.arange(0, 65536, 97, dtype=np.uint16).reshape(26, 26)
    path = save(tmp_path / "a.png", Image.fromarray(values))
    expected = np.array([[round(int(v) * 255 / 65535) for v in row] for row in values], dtype=np.uint8)
    assert np.array_equal(decoded(path), grey_form(expected))


def test_a_largest_value_that_the_file_tells_is_white(tmp_path):
    """A PGM of 12 bits says 4095 in its header; a thermal camera's of 14 bits 16383."""
    for white in (4095, 16383):
        values = (GREY.astype(np.float64) * white / 255).round().astype(">u2")
        path = tmp_path / f"{white}.pgm"
        path.write_bytes(f"P5 {GREY.shape[1]} {GREY.shape[0]} {white}\n".encode() + values.tobytes())
        assert np.abs(decoded(path).astype(int) - grey_form().astype(int)).max() <= 1


def test_white_is_zero(tmp_path):
    """A TIFF may count from white; Pillow turns only those of 8 bits over."""
    path = save(tmp_path / "a.tif", Image.fromarray(65535 - GREY_16), tiffinfo={262: 0})
    assert np.array_equal(decoded(path), grey_form())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (GREY.astype(np.uint16) * 16, "has 16 bits a pixel, but no value above 4000: its sensor has fewer bits"),
        (GREY.astype(np.uint16) * 64, "no value above 16000"),
        (GREY.astype(np.int32) * 257, "numbers of 32 bits from 0 to 64250 as pixels, and does not say which is white"),
        (GREY.astype(np.float32) / 255, "floating-point numbers from 0 to 0.9"),
        (GREY.astype(np.float32) - 20, "floating-point numbers from -20 to 2"),
        (GREY.astype(np.float32) * np.float32("nan"), "floating-point numbers from nan to nan"),
    ],
)
def test_what_has_no_certain_white_stops_by_name(tmp_path, values, message):
    """A 12-bit depth image, a 14-bit thermal one, numbers of 32 bits, metres or degrees: any scale would be a guess."""
    path = save(tmp_path / "a.tif", Image.fromarray(values))
    with pytest.raises(ImageError, match=message) as caught:
        load_image(path)
    assert path in str(caught.value) and "scale all images of the data set alike" in str(caught.value)
    assert not isinstance(caught.value, UnreadableImageError)  # it is not skipped as a damaged file is
    with pytest.raises(DataError, match=r"1 of 1 images cannot be used\. Image '.*a\.tif' has"):
        check_headers([path], str(tmp_path))
    with pytest.raises(DataError, match="cannot be used"):  # nor is it in the cache of good ones
        check_headers([path], str(tmp_path))


def test_floating_point_numbers_of_8_bits(tmp_path):
    assert np.array_equal(decoded(save(tmp_path / "a.tif", Image.fromarray(GREY.astype(np.float32)))), grey_form())


def test_a_black_image_is_black_in_every_mode(tmp_path):
    for number, kind in enumerate((np.uint8, np.uint16, np.int32, np.float32)):
        path = save(tmp_path / f"{number}.tif", Image.fromarray(np.zeros((4, 3), kind)))
        assert not decoded(path).any()


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr"])
def test_other_modes_are_those_of_pillow(tmp_path, mode):
    colours = np.stack([GREY, GREY[::-1], 255 - GREY], axis=2)
    image = Image.fromarray(colours).convert(mode)
    path = save(tmp_path / "a.tif", image)
    with Image.open(path) as stored:
        try:
            expected = np.asarray(stored.convert("RGB"))
        except OSError as error:
            if mode != "YCbCr":  # which Pillow 12, the last for Python 3.10, writes and cannot read
                raise
            pytest.skip(f"Pillow {PIL.__version__} cannot read what it has written: {error}")
    assert np.array_equal(decoded(path), expected)


def test_transparent_pixels_show_black_whatever_colour_is_hidden_there(tmp_path):
    colours = np.stack([GREY, GREY[::-1], 255 - GREY], axis=2)
    alpha = np.zeros(GREY.shape, np.uint8)
    alpha[2:6], alpha[6:] = 255, 51
    # 51 / 255 is a fifth.
    expected = (colours * (alpha[..., None] / 255)).round()
    for hidden in ((255, 0, 255), (0, 0, 0)):
        shown = np.where(alpha[..., None] > 0, colours, np.uint8(hidden))
        path = save(tmp_path / "a.png", Image.fromarray(np.dstack([shown, alpha])))
        assert np.abs(decoded(path) - expected).max() <= 1


def test_transparency_in_every_mode_that_has_it(tmp_path):
    """Grey with alpha, a palette with a transparent colour, a transparent colour of RGB, of grey and of 16 bits."""
    mask = GREY[0, 1] == GREY
    expected = grey_form(np.where(mask, 0, GREY))
    value = int(GREY[0, 1])
    grey = Image.fromarray(GREY)
    palette = Image.fromarray(GREY)
    palette.putpalette([level for level in range(256) for _ in range(3)])
    files = {
        "la.png": (Image.merge("LA", (grey, Image.fromarray(np.uint8(255 * ~mask)))), {}),
        "palette.png": (palette, {"transparency": value}),
        "palette.gif": (palette, {"transparency": value}),
        "rgb.png": (grey.convert("RGB"), {"transparency": (value,) * 3}),
        "grey.png": (grey, {"transparency": value}),
        "16.png": (Image.fromarray(GREY_16), {"transparency": 257 * value}),
    }
    for name, (image, options) in files.items():
        assert np.array_equal(decoded(save(tmp_path / name, image, **options)), expected), name


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg", "webp"])
@pytest.mark.parametrize("deep", [False, True])
def test_images_are_turned_upright(tmp_path, suffix, deep):
    if deep and suffix in ("jpg", "webp"):
        pytest.skip("has 8 bits")
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path / f"a.{suffix}", Image.fromarray(GREY_16 if deep else GREY), exif=exif, quality=100)
    error = np.abs(decoded(path).astype(int) - grey_form(np.rot90(GREY, -1)).astype(int)).max()
    assert error <= (4 if suffix in ("jpg", "webp") else 0)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\n <!DOCTYPE html><html><title>Log in</title>", "is a web page"),
        (b"<HTML><HEAD>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "is a pointer of Git LFS"),
        (b"", r"is empty \(0 bytes\)"),
        (b"P6 nothing", "cannot be read"),
    ],
)
def test_files_of_another_kind_are_called_by_it(tmp_path, content, kind):
    path = tmp_path / "0001_c1.jpg"
    path.write_bytes(content)
    with pytest.raises(UnreadableImageError, match=f"0001_c1.jpg' {kind}"):
        load_image(str(path))
    with pytest.raises(DataError, match=rf"1 of 1 images cannot be read.*UNREADABLE_IMAGES skip.*{kind}"):
        check_headers([str(path)], "")
