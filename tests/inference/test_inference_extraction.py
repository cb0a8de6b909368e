"""Extraction with a model whose features can be computed by hand."""

import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from mgre.errors import ConfigError, DataError, SetupError
from mgre.inference import extraction, features_file
from mgre.inference.crops import Crop, list_csv, list_files
from mgre.inference.extraction import Options, extract
from mgre.inference.preparation import prepare
from PIL import Image


@pytest.fixture
def folder(tmp_path, write_crops):
    """Seven images."""
    write_crops(7)
    return tmp_path / "crops"


def expected(paths, model):
    return model.embed([Image.open(path) for path in paths], batch_size=1)


def read(path):
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def test_features_of_a_folder(folder, tmp_path, plain_model):
    model, told = plain_model(), []
    outcome = extract(
        model, list_files([str(folder)]), str(tmp_path / "f.npz"), Options(batch_size=3), progress=told.append
    )
    assert model.batches == [3, 3, 1] and sum(told) == 7
    assert (outcome.written, outcome.computed, outcome.faults) == (7, 7, {})
    found = read(tmp_path / "f.npz")
    assert found["paths"].tolist() == [str(folder / f"{i}.png") for i in range(7)]
    assert found["features"].dtype == np.float32
    np.testing.assert_array_equal(found["features"], expected(found["paths"], model))
    assert [str(found[name]) for name in ("fingerprint", "record", "complete")] == [
        "plain",
        model.record.to_json(),
        "yes",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["crops", "f.npz"]


def test_flip_is_the_mean_of_both(folder, tmp_path, plain_model):
    model = plain_model()
    extract(model, list_files([str(folder)]), str(tmp_path / "f.npz"), Options(flip=True))
    images = [Image.open(path) for path in sorted(folder.iterdir())]
    mirrored = [image.resize((4, 8), Image.Resampling.BICUBIC).transpose(0) for image in images]
    both = (model.embed(images) + model.embed(mirrored)) / 2
    np.testing.assert_allclose(read(tmp_path / "f.npz")["features"], both, atol=1e-4)


@pytest.fixture
def boxes(tmp_path, folder):
    (tmp_path / "boxes.csv").write_text(
        "path,x_min,y_min,x_max,y_max,camera,time,id,coat\n"
        "crops/1.png,1,2,11,22,hall,2026-11-27,x1,red\n"
        'crops/0.png,0,0,9,20,yard,,x2,"<b>"\n'
        "crops/1.png,0,0,20,20,hall,2026-11-28,x3,\n"
    )
    return list_csv(str(tmp_path / "boxes.csv"))


def test_the_facts_of_a_csv_and_the_regions(tmp_path, boxes, plain_model):
    model = plain_model()
    extract(model, boxes, str(tmp_path / "f.npz"), Options(regions=True, batch_size=2))
    found = read(tmp_path / "f.npz")
    assert found["cameras"].tolist() == ["hall", "yard", "hall"]
    assert found["times"].tolist() == ["2026-11-27", "", "2026-11-28"]
    assert found["ids"].tolist() == ["x1", "x2", "x3"]
    assert [json.loads(text) for text in found["metadata"]] == [{"coat": "red"}, {"coat": "<b>"}, {"coat": ""}]
    np.testing.assert_array_equal(found["xyxy"], [[1, 2, 11, 22], [0, 0, 9, 20], [0, 0, 20, 20]])
    cut = [Image.open(crop.path).crop(crop.box) for crop in boxes]
    np.testing.assert_array_equal(found["features"], model.embed(cut))
    np.testing.assert_array_equal(found["terms/stage1"].sum(axis=1), found["features"])
    np.testing.assert_array_equal(found["boxes/head"], model.describe(cut).boxes["head"])


def test_parquet_has_the_same(tmp_path, boxes, plain_model, monkeypatch):
    monkeypatch.setattr(extraction, "_PART_SIZE", 1)
    extract(plain_model(), boxes, str(tmp_path / "f.npz"), Options(regions=True, batch_size=1))
    extract(plain_model(), boxes, str(tmp_path / "f.parquet"), Options(regions=True, batch_size=1))
    arrays, table = read(tmp_path / "f.npz"), pyarrow.parquet.read_table(tmp_path / "f.parquet")
    rows = table.to_pylist()
    assert list(rows[0]) == [
        *("path", "x_min", "y_min", "x_max", "y_max", "id", "camera", "time", "metadata"),
        *("feature", "boxes/head", "terms/stage1"),
    ]
    for name, column in (("paths", "path"), ("cameras", "camera"), ("times", "time"), ("metadata", "metadata")):
        assert arrays[name].tolist() == [row[column] for row in rows]
    np.testing.assert_array_equal(
        arrays["xyxy"], [[row[name] for name in ("x_min", "y_min", "x_max", "y_max")] for row in rows]
    )
    np.testing.assert_array_equal(arrays["features"], np.float32([row["feature"] for row in rows]))
    np.testing.assert_array_equal(
        arrays["terms/stage1"].reshape(3, -1), np.float32([row["terms/stage1"] for row in rows])
    )
    assert table.schema.metadata[b"mgre.fingerprint"] == b"plain" and table.schema.metadata[b"mgre.complete"] == b"yes"


def test_without_pyarrow_parquet_is_one_line_before_any_work(folder, tmp_path, plain_model, monkeypatch):
    model = plain_model()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(SetupError, match=r"pip install pyarrow, or name an \.npz"):
        extract(model, list_files([str(folder)]), str(tmp_path / "f.parquet"), Options())
    assert model.batches == []


def test_what_cannot_be_read_is_left_out_and_what_is_doubtful_is_named(folder, tmp_path, plain_model, write_image):
    (folder / "2.png").write_bytes(b"no image")
    write_image(folder / "8.png", (1, 12))
    write_image(folder / "9.png", (30, 12), mode="L")
    outcome = extract(plain_model(), list_files([str(folder)]), str(tmp_path / "f.npz"), Options(batch_size=4))
    ((fault, count),) = outcome.faults.items()
    assert "2.png' cannot be read" in fault and count == 1
    assert (outcome.small, outcome.grey) == ([str(folder / "8.png")], [str(folder / "9.png")])
    found = read(tmp_path / "f.npz")
    assert [os.path.basename(path) for path in found["paths"]] == [f"{i}.png" for i in (0, 1, 3, 4, 5, 6, 8, 9)]
    assert str(found["complete"]) == "no"
    np.testing.assert_array_equal(found["features"], expected(found["paths"], plain_model()))


def test_where_nothing_can_be_read_there_is_no_file(tmp_path, plain_model):
    (tmp_path / "a.png").touch()
    with pytest.raises(DataError, match=r"none of the 1 images could be read, .* first: .*a.png' is empty"):
        extract(plain_model(), list_files([str(tmp_path / "a.png")]), str(tmp_path / "f.npz"), Options())
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


class Cut(BaseException):
    pass


def cut_off(model, images, output, options=None, *, after=2):
    """An extraction that ends in its third batch."""
    embed = model.embed_pixels

    def embed_some(pixels):
        if len(model.batches) == after:
            raise Cut
        return embed(pixels)

    model.embed_pixels = embed_some
    with pytest.raises(Cut):
        extract(model, images, output, options or Options(batch_size=2))


def test_a_cut_extraction_goes_on(folder, tmp_path, plain_model, write_image):
    output, images = str(tmp_path / "f.npz"), list_files([str(folder)])
    cut_off(plain_model(), images, output)
    assert not os.path.exists(output)
    write_image(folder / "00.png")  # new, and before the others
    (folder / "3.png").unlink()
    os.utime(folder / "1.png", ns=(0, 0))  # changed
    model, images = plain_model(), list_files([str(folder)])
    outcome = extract(model, images, output, Options(batch_size=2))
    assert (outcome.written, outcome.computed, model.batches) == (7, 5, [2, 2, 1])
    found = read(output)
    assert found["paths"].tolist() == [crop.path for crop in images]
    np.testing.assert_array_equal(found["features"], expected(found["paths"], plain_model()))
    assert not os.path.exists(f"{output}.unfinished")


def test_another_model_does_not_go_on_with_the_parts_of_the_first(folder, tmp_path, plain_model):
    output, images = str(tmp_path / "f.npz"), list_files([str(folder)])
    cut_off(plain_model(), images, output)
    with pytest.raises(
        DataError, match=r"f.npz.unfinished' is an unfinished extraction with another model: .*--overwrite"
    ):
        extract(plain_model("other"), images, output, Options())
    with pytest.raises(DataError, match="with another flip"):
        extract(plain_model(), images, output, Options(flip=True))
    model = plain_model("other")
    extract(model, images, output, Options(), overwrite=True)
    assert sum(model.batches) == 7 and str(read(output)["fingerprint"]) == "other"


def test_a_damaged_part_is_found_again(folder, tmp_path, plain_model):
    output, images = str(tmp_path / "f.npz"), list_files([str(folder)])
    cut_off(plain_model(), images, output)
    (part,) = Path(f"{output}.unfinished").glob("part-*")
    part.write_bytes(part.read_bytes()[:100])
    outcome = extract(plain_model(), images, output, Options())
    assert outcome.computed == 7


@pytest.mark.parametrize("other", ["other", "plain", ""])
def test_an_output_that_is_there_is_kept(folder, tmp_path, plain_model, other):
    output, images = str(tmp_path / "f.npz"), list_files([str(folder)])
    if other:
        extract(plain_model(other), images, output, Options())
    else:
        Path(output).write_text("mine")
    before, model = Path(output).read_bytes(), plain_model()
    said = {"other": ", and of another model", "plain": ", of this model", "": ""}[other]
    with pytest.raises(DataError, match=f"f.npz' is there already{said}: add --overwrite"):
        extract(model, images, output, Options())
    assert Path(output).read_bytes() == before and not model.batches
    extract(model, images, output, Options(), overwrite=True)
    assert str(read(output)["fingerprint"]) == "plain"


def test_two_runs_on_one_output_are_kept_apart(folder, tmp_path, plain_model):
    output, images = str(tmp_path / "f.npz"), list_files([str(folder)])
    model = plain_model()
    embed = model.embed_pixels

    def embed_meanwhile(pixels):
        with pytest.raises(DataError, match="is in use by another run"):
            extract(plain_model(), images, output, Options(), overwrite=True)
        return embed(pixels)

    model.embed_pixels = embed_meanwhile
    extract(model, images, output, Options())
    assert len(read(output)["paths"]) == 7


def test_a_full_disk_loses_no_part(folder, tmp_path, plain_model, monkeypatch):
    output, images = str(tmp_path / "f.npz"), list_files([str(folder)])

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(features_file, "_write_npz", full)
        with pytest.raises(SetupError, match=r"f.npz' cannot be written \(No space left on device\).* is kept"):
            extract(plain_model(), images, output, Options())
    model = plain_model()
    extract(model, images, output, Options())
    assert model.batches == [] and len(read(output)["features"]) == 7


def test_a_file_of_another_kind_in_the_place_of_the_parts_is_kept(folder, tmp_path, plain_model):
    output = tmp_path / "f.npz"
    parts = tmp_path / "f.npz.unfinished"
    parts.mkdir()
    (parts / "mine.txt").touch()
    with pytest.raises(DataError, match="is of another kind: move it away"):
        extract(plain_model(), list_files([str(folder)]), str(output), Options(), overwrite=True)
    assert [path.name for path in parts.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("output", "message"), [("f.csv", "ends in neither of .npz, .parquet"), ("d.npz", "is a folder")]
)
def test_an_output_of_another_kind(folder, tmp_path, plain_model, output, message):
    (tmp_path / "d.npz").mkdir()
    with pytest.raises((ConfigError, DataError), match=message):
        extract(plain_model(), list_files([str(folder)]), str(tmp_path / output), Options(), overwrite=True)


def test_no_images(tmp_path, plain_model):
    with pytest.raises(ConfigError, match="there are no images"):
        extract(plain_model(), [], str(tmp_path / "f.npz"), Options())


KILLED = """
import sys, time
import numpy as np
from mgre.inference import extraction
from mgre.inference.crops import list_files
from mgre.inference.model import Model
from mgre.record import ModelRecord

class Slow(Model):
    fingerprint = "slow"

    def embed_pixels(self, pixels):
        time.sleep(float(sys.argv[3]))
        return pixels.mean(axis=(2, 3), dtype=np.float32)

extraction._PART_SIZE = 2
model = Slow(ModelRecord("Slow", (8, 4), None, (0, 0, 0), (1, 1, 1), ""), "slow.pth")
outcome = extraction.extract(model, list_files([sys.argv[1]]), sys.argv[2], extraction.Options(batch_size=1))
print(outcome.written, outcome.computed)
"""


def test_sigkill_loses_no_finished_part(folder, tmp_path):
    output = tmp_path / "f.npz"
    environment = {**os.environ, "MGRE_INFERENCE_ONLY": "1"}
    command = [sys.executable, "-c", KILLED, str(folder), str(output)]
    with subprocess.Popen([*command, "0.3"], env=environment) as process:
        while not (tmp_path / "f.npz.unfinished" / "part-000000.npz").exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert not output.exists()
    done = subprocess.run([*command, "0"], env=environment, capture_output=True, text=True, check=True)
    written, computed = map(int, done.stdout.split())
    assert written == 7 and computed <= 5
    found = read(output)
    means = [
        np.asarray(Image.open(path).resize((4, 8), Image.Resampling.BICUBIC)).mean((0, 1)) for path in found["paths"]
    ]
    np.testing.assert_allclose(found["features"], means, atol=1e-3)


def test_a_path_that_is_no_text(tmp_path, write_image, plain_model):
    path = os.fsdecode(os.fsencode(str(write_image(tmp_path / "a.png"))).replace(b"a.png", b"\xff.png"))
    os.rename(tmp_path / "a.png", path)
    extract(plain_model(), [Crop(path)], str(tmp_path / "f.npz"), Options())
    extract(plain_model(), [Crop(path)], str(tmp_path / "f.parquet"), Options())
    assert read(tmp_path / "f.npz")["paths"].tolist() == [path]
    assert pyarrow.parquet.read_table(tmp_path / "f.parquet")["path"].to_pylist() == [str(tmp_path / "\\udcff.png")]


@pytest.mark.parametrize("crop", [None, (4, 2)])
def test_boxes_are_in_fractions_of_the_whole_image(folder, tmp_path, plain_model, crop):
    model = plain_model()
    model.record = dataclasses.replace(model.record, center_crop=crop)
    crops = list_files([str(folder)])
    extract(model, crops, str(tmp_path / "f.npz"), Options(regions=True))
    found, said = read(tmp_path / "f.npz"), model.describe([crop.path for crop in crops])
    own = model.describe_pixels(np.stack([prepare(crop.path, model.record) for crop in crops])).boxes["head"]
    expected = own if crop is None else 0.25 + own / 2  # the middle half of each side
    np.testing.assert_allclose(found["boxes/head"], expected, rtol=1e-6)
    np.testing.assert_array_equal(said.boxes["head"], found["boxes/head"])


@pytest.mark.parametrize("options", [Options(), Options(flip=True), Options(regions=True)])
def test_features_that_are_no_numbers_are_not_written(folder, tmp_path, plain_model, options):
    model = plain_model()
    embed = model.embed_pixels
    model.embed_pixels = lambda pixels: np.full_like(embed(pixels), np.nan)
    with pytest.raises(DataError, match=r"'plain\.pth' gives features that are NaN or infinite"):
        extract(model, list_files([str(folder)]), str(tmp_path / "f.npz"), options)
    assert not (tmp_path / "f.npz").exists()
