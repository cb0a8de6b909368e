import errno
import json
import os
import re
import resource

import cv2
import numpy as np
import pytest
from mgre.data.coco_file import load_keypoints
from mgre.errors import DataError, SetupError
from mgre.pose import extraction, images, journal
from mgre.pose.base import PoseModel
from mgre.pose.extraction import ImageSet, extract_keypoints, open_journals, sets_to_write
from mgre.pose.hrnet import HRNetPoseModel, load_hrnet
from mgre.pose.onnx_model import onnx
from mgre.system import locks
from PIL import Image


class BrightestPixel(PoseModel):
    """Every key point is at the brightest pixel; ``stop_at`` raises as Ctrl-C does, when that batch comes."""

    def __init__(self, fingerprint="brightest", stop_at=None):
        self.fingerprint = fingerprint
        self.stop_at = stop_at
        self.batches = []

    def prepare(self, crop):
        y, x = np.unravel_index(crop.sum(axis=2).argmax(), crop.shape[:2])
        return x, y

    def predict(self, prepared):
        if len(self.batches) == self.stop_at:
            raise KeyboardInterrupt
        self.batches.append(len(prepared))
        return np.array([[(x, y, (k + 1) / 17) for k in range(17)] for x, y in prepared], dtype=np.float32)


class StopAt(PoseModel):
    """Another model that is stopped, as by Ctrl-C, after a number of batches."""

    def __init__(self, model, num_batches):
        self.fingerprint = model.fingerprint
        self.model = model
        self.left = num_batches

    def prepare(self, crop):
        return self.model.prepare(crop)

    def predict(self, prepared):
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        return self.model.predict(prepared)


def draw_crop(path, place, size, value=255):
    """A black crop with one pixel, by default white, at the place (x, y)."""
    pixels = np.zeros((*size, 3), dtype=np.uint8)
    pixels[place[1], place[0]] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def crops(tmp_path):
    """Seven crops of different sizes with one white pixel each; its place by file name."""
    places = {}
    for index in range(7):
        name = f"{'query' if index % 2 else 'train'}/{index}.png"
        draw_crop(tmp_path / name, (index, 2 * index), (20 + index, 10 + index))
        places[name] = (index, 2 * index)
    return places


def image_set_of(folder, crops, output="keypoints.json"):
    return ImageSet(str(folder), [str(folder / name) for name in crops], str(folder / output))


def extract(folder, crops, model, output="keypoints.json", *, overwrite=False, **options):
    (image_set,) = sets_to_write([image_set_of(folder, crops, output)], overwrite=overwrite)
    options = {"batch_size": 3, "num_threads": 2} | options
    with open_journals([image_set], model, overwrite=overwrite) as journals:
        return extract_keypoints(model, image_set, journals[image_set], overwrite=overwrite, **options)


def stop(folder, crops, batch, **options):
    with pytest.raises(KeyboardInterrupt):
        extract(folder, crops, BrightestPixel(stop_at=batch), **options)
    return folder / "keypoints.json.unfinished"


def test_the_points_of_every_image_are_written_as_training_reads_them(tmp_path, crops):
    model = BrightestPixel()
    found = extract(tmp_path, crops, model)
    assert model.batches == [3, 3, 1]
    assert not found.faulty
    read = load_keypoints(str(tmp_path / "keypoints.json"))
    assert set(read) == set(crops)
    for name, place in crops.items():
        assert (read[name].points[:, :2] == place).all()
        assert read[name].size == Image.open(tmp_path / name).size[::-1]
        np.testing.assert_allclose(read[name].points[:, 2], np.arange(1, 18) / 17, atol=5e-4)
    assert set(os.listdir(tmp_path)) == {"keypoints.json", "query", "train"}
    assert "brightest" in json.loads((tmp_path / "keypoints.json").read_text())["info"]["description"]


# -- stopped and started again --------------------------------------------------------------------


@pytest.mark.parametrize("num_done", [0, 1, 2])
@pytest.mark.parametrize("cut", [0, 1, 30])
def test_a_stopped_run_goes_on_and_ends_in_the_same_file(tmp_path, crops, num_done, cut):
    extract(tmp_path, crops, BrightestPixel(), "undisturbed.json")
    journal = stop(tmp_path, crops, num_done)
    assert not (tmp_path / "keypoints.json").exists()
    if cut and num_done:  # as if the process had been killed while it wrote
        journal.write_bytes(journal.read_bytes()[:-cut])
    model = BrightestPixel()
    extract(tmp_path, crops, model)
    assert len(model.batches) == 3 - num_done + bool(cut and num_done)
    assert (tmp_path / "keypoints.json").read_bytes() == (tmp_path / "undisturbed.json").read_bytes()
    assert not journal.exists()


@pytest.mark.parametrize("kind", ["hrnet", "heatmaps", "simcc"])
def test_real_networks_end_in_the_same_file_too(tmp_path, hrnet_weights, write_pose_onnx, write_image, kind):
    """Stopped, an image replaced and a broken one mended, each in its own batch; then against an undisturbed run."""
    if kind == "hrnet":
        model = HRNetPoseModel(load_hrnet(hrnet_weights), input_size=(96, 64))
    else:
        model = onnx(weights=write_pose_onnx(tmp_path / "pose.onnx", kind), device="cpu")
    sizes = [(40 + 3 * index, 20 + index) for index in range(14)]
    names = [write_image(tmp_path / f"{index:02d}.png", size).name for index, size in enumerate(sizes)]
    mended = (tmp_path / names[1]).read_bytes()
    (tmp_path / names[1]).write_bytes(mended[:100])
    with pytest.raises(KeyboardInterrupt):
        extract(tmp_path, names, StopAt(model, 4))
    (tmp_path / names[1]).write_bytes(mended)
    Image.fromarray(np.full((50, 30, 3), (200, 30, 30), dtype=np.uint8)).save(tmp_path / names[6])
    found = extract(tmp_path, names, StopAt(model, 3))  # the two batches and the last one
    extract(tmp_path, names, model, "undisturbed.json")
    assert (tmp_path / "keypoints.json").read_bytes() == (tmp_path / "undisturbed.json").read_bytes()
    assert len(found.keypoints) == 14 and not found.faulty
    assert len({keypoints.points.tobytes() for keypoints in found.keypoints.values()}) == 14


def test_replaced_images_are_found_anew_with_their_batch(tmp_path, crops):
    stop(tmp_path, crops, 2)
    replaced = sorted(crops)[4]
    before = (tmp_path / replaced).stat()
    draw_crop(tmp_path / replaced, (1, 1), Image.open(tmp_path / replaced).size[::-1])
    os.utime(tmp_path / replaced, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    model = BrightestPixel()
    found = extract(tmp_path, crops, model)
    assert model.batches == [3, 1]  # the second batch again, and the third
    assert (found.keypoints[replaced].points[:, :2] == (1, 1)).all()
    extract(tmp_path, crops, BrightestPixel(), "undisturbed.json")
    assert (tmp_path / "keypoints.json").read_bytes() == (tmp_path / "undisturbed.json").read_bytes()


def test_replaced_images_are_found_anew_to_overwrite_too(tmp_path, crops):
    (tmp_path / "keypoints.json").write_text("old")
    stop(tmp_path, crops, 1, overwrite=True)
    draw_crop(tmp_path / sorted(crops)[0], (1, 1), (30, 30))
    found = extract(tmp_path, crops, BrightestPixel(), overwrite=True)
    assert (found.keypoints[sorted(crops)[0]].points[:, :2] == (1, 1)).all()


def test_a_mended_image_is_found(tmp_path, crops):
    mended, broken = sorted(crops)[0], sorted(crops)[3]
    for name in (mended, broken):
        (tmp_path / name).write_bytes(b"")
    stop(tmp_path, crops, 2)
    draw_crop(tmp_path / mended, crops[mended], (30, 30))
    model = BrightestPixel()
    found = extract(tmp_path, crops, model)
    assert model.batches == [3, 1]  # the batch of the image that is still broken stays
    assert list(found.faulty) == [broken]
    assert (found.keypoints[mended].points[:, :2] == crops[mended]).all()


def test_an_image_that_could_not_be_read_for_a_while_is_found(tmp_path, crops, monkeypatch):
    name = sorted(crops)[0]
    with monkeypatch.context() as patch:
        load_image = images.load_image

        def offline(path):
            if path.endswith(name):
                raise images.ImageError(f"Image '{path}' cannot be read (Input/output error)")
            return load_image(path)

        patch.setattr(images, "load_image", offline)
        stop(tmp_path, crops, 2)
    found = extract(tmp_path, crops, BrightestPixel())
    assert not found.faulty and set(found.keypoints) == set(crops)


def test_another_batch_size_or_list_of_images_keeps_what_is_done(tmp_path, crops):
    stop(tmp_path, crops, 1)
    model = BrightestPixel(stop_at=1)
    with pytest.raises(KeyboardInterrupt):
        extract(tmp_path, crops, model, batch_size=2)
    assert model.batches == [2]
    draw_crop(tmp_path / "a.png", (3, 4), (20, 10))
    del crops[sorted(crops)[4]]  # of the second run's batch: the other one of it is found again
    model = BrightestPixel()
    found = extract(tmp_path, [*crops, "a.png"], model)
    assert model.batches == [3, 1]
    places = crops | {"a.png": (3, 4)}
    assert {name: tuple(keypoints.points[0, :2]) for name, keypoints in found.keypoints.items()} == places


def test_a_folder_that_was_moved_with_its_journal_goes_on(tmp_path, crops):
    folder = tmp_path / "here"
    folder.mkdir()
    for name in ("query", "train"):
        (tmp_path / name).rename(folder / name)
    stop(folder, crops, 2)
    folder.rename(tmp_path / "there")
    model = BrightestPixel()
    extract(tmp_path / "there", crops, model)
    assert model.batches == [1]


def test_work_of_another_model_is_neither_mixed_nor_thrown_away(tmp_path, crops):
    path = stop(tmp_path, crops, 2)
    before = path.read_bytes()
    with pytest.raises(DataError, match=r"with another model: go on with .* or add --overwrite"):
        extract(tmp_path, crops, BrightestPixel("other"))
    assert path.read_bytes() == before
    model = BrightestPixel("other")
    extract(tmp_path, crops, model, overwrite=True)
    assert model.batches == [3, 3, 1]


def test_work_of_another_folder_is_neither_mixed_nor_thrown_away(tmp_path, crops):
    """The same file names, bytes and times, but other pixels."""
    output = tmp_path / "keypoints.json"
    folders = [tmp_path / "a", tmp_path / "b"]
    for x, folder in enumerate(folders):
        draw_crop(folder / "1.png", (x, 0), (8, 8))
        (folder / "1.png").write_bytes((folder / "1.png").read_bytes().ljust(1000))
        os.utime(folder / "1.png", ns=(10**18, 10**18))
        draw_crop(folder / "2.png", (x, 0), (8, 8))
    stop(folders[0], ["1.png", "2.png"], 1, batch_size=1, output=output)
    journal = tmp_path / "keypoints.json.unfinished"
    before = journal.read_bytes()
    with pytest.raises(DataError, match="with another folder: "):
        extract(folders[1], ["1.png", "2.png"], BrightestPixel(), output)
    assert journal.read_bytes() == before
    found = extract(folders[1], ["1.png", "2.png"], BrightestPixel(), output, overwrite=True)
    assert [found.keypoints[name].points[0, 0] for name in ("1.png", "2.png")] == [1, 1]


@pytest.mark.parametrize(
    "content", [b"hello", b"[]\n", b"3\n", b'{"batch": 1}\n', b"\x00\x00", b'{"format": "other"}\n']
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_of_somebody_elses_is_left_alone(tmp_path, crops, content, overwrite):
    (tmp_path / "keypoints.json.unfinished").write_bytes(content)
    with pytest.raises(
        DataError, match=r"keypoints.json.unfinished' would be the journal .* another kind: move it away"
    ):
        extract(tmp_path, crops, BrightestPixel(), overwrite=overwrite)
    assert (tmp_path / "keypoints.json.unfinished").read_bytes() == content


@pytest.mark.parametrize("damage", [b"[]\n", b'{"images": [{}]}\n', b'{"images": 3}\n', b"\xff\n", b"null\n"])
def test_a_damaged_line_is_not_done(tmp_path, crops, damage):
    path = stop(tmp_path, crops, 2)
    header, _, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(header + damage + second)
    model = BrightestPixel()
    found = extract(tmp_path, crops, model)
    assert model.batches == [3, 1] and set(found.keypoints) == set(crops)


def test_an_empty_journal_is_begun(tmp_path, crops):
    (tmp_path / "keypoints.json.unfinished").touch()  # killed before the first line
    assert set(extract(tmp_path, crops, BrightestPixel()).keypoints) == set(crops)


def test_two_runs_on_one_output_are_kept_apart(tmp_path, crops):
    image_set = image_set_of(tmp_path, crops)
    model = BrightestPixel()
    with open_journals([image_set], model, overwrite=False) as journals:
        with pytest.raises(DataError, match=r"keypoints.json.unfinished' is in use by another run: wait"):
            extract(tmp_path, crops, BrightestPixel(), overwrite=True)
        extract_keypoints(model, image_set, journals[image_set], batch_size=3)
    assert model.batches == [3, 3, 1]


def test_a_journal_that_another_run_removes_meanwhile_is_not_used(tmp_path, crops, monkeypatch):
    monkeypatch.setattr(locks.fcntl, "flock", lambda *_: os.remove(tmp_path / "keypoints.json.unfinished"))
    with pytest.raises(DataError, match="is in use by another run"):
        extract(tmp_path, crops, BrightestPixel())


def test_where_the_file_system_has_no_locks_it_goes_without(tmp_path, crops, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", no_locks)
    assert set(extract(tmp_path, crops, BrightestPixel()).keypoints) == set(crops)


# -- several data sets ----------------------------------------------------------------------------


@pytest.fixture
def three_sets(tmp_path, crops):
    """Three folders with two crops each."""
    sets = []
    for index in range(3):
        for name in ("a.png", "b.png"):
            draw_crop(tmp_path / str(index) / name, (index, 3), (20, 10))
        sets.append(image_set_of(tmp_path / str(index), ["a.png", "b.png"]))
    return sets


def extract_all(sets, model, overwrite=False):
    """The indices of the sets that were found."""
    done = []
    with open_journals(sets_to_write(sets, overwrite=overwrite), model, overwrite=overwrite) as journals:
        for image_set, kept in journals.items():
            extract_keypoints(model, image_set, kept, overwrite=overwrite, batch_size=1)
            done.append(sets.index(image_set))
    return done


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_finished_set_is_neither_in_the_way_nor_done_again(three_sets, overwrite):
    if overwrite:
        for image_set in three_sets:
            with open(image_set.output, "w") as file:
                file.write("old")
    with pytest.raises(KeyboardInterrupt):
        extract_all(three_sets, BrightestPixel(stop_at=3), overwrite)  # the second one's first image is done
    first = os.stat(three_sets[0].output)
    model = BrightestPixel()
    assert extract_all(three_sets, model, overwrite) == [1, 2]
    assert len(model.batches) == 3
    assert os.stat(three_sets[0].output).st_ino == first.st_ino
    for index, image_set in enumerate(three_sets):
        read = load_keypoints(image_set.output)
        assert [keypoints.points[0, 0] for keypoints in read.values()] == [index] * 2
        assert not os.path.exists(image_set.journal_path)
    # Now that all are finished:
    with pytest.raises(DataError, match="is there already: add --overwrite"):
        extract_all(three_sets, BrightestPixel())
    assert extract_all(three_sets, BrightestPixel(), overwrite=True) == [0, 1, 2]


def test_to_overwrite_after_a_run_that_could_not_leaves_no_old_file(three_sets):
    with open(three_sets[0].output, "w") as file:
        file.write("old")
    with pytest.raises(KeyboardInterrupt):
        extract_all(three_sets, BrightestPixel(stop_at=1))  # the second set's first image is done
    model = BrightestPixel(stop_at=3)
    with pytest.raises(KeyboardInterrupt):
        extract_all(three_sets, model, overwrite=True)  # the first set and the second one's second image
    assert len(load_keypoints(three_sets[0].output)) == 2
    assert extract_all(three_sets, BrightestPixel(), overwrite=True) == [2]


def test_to_overwrite_after_a_run_that_could_not_begin_leaves_no_old_file(three_sets, monkeypatch):
    for image_set in three_sets:
        with open(image_set.output, "w") as file:
            file.write("old")

    def full(path, *args, **options):
        if path == three_sets[2].journal_path:
            raise OSError(errno.ENOSPC, "No space left on device")
        return journal.Journal(path, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(extraction, "Journal", full)
        with pytest.raises(SetupError, match="No space left"):
            extract_all(three_sets, BrightestPixel(), overwrite=True)
    assert extract_all(three_sets, BrightestPixel(), overwrite=True) == [0, 1, 2]


def test_to_overwrite_with_another_model_does_all_again(three_sets):
    with pytest.raises(KeyboardInterrupt):
        extract_all(three_sets, BrightestPixel(stop_at=3))
    assert extract_all(three_sets, BrightestPixel("other"), overwrite=True) == [0, 1, 2]


def test_nothing_is_begun_where_one_set_cannot_be(three_sets):
    with open(three_sets[2].journal_path, "w") as file:
        file.write("mine")
    model = BrightestPixel()
    with pytest.raises(DataError, match="another kind"):
        extract_all(three_sets, model)
    assert not model.batches


# -- bad input ------------------------------------------------------------------------------------


def test_an_existing_file_is_replaced_only_when_told(tmp_path, crops):
    (tmp_path / "keypoints.json").write_text("mine")
    model = BrightestPixel()
    with pytest.raises(DataError, match="is there already: add --overwrite"):
        extract(tmp_path, crops, model)
    assert (tmp_path / "keypoints.json").read_text() == "mine" and not model.batches
    extract(tmp_path, crops, model, overwrite=True)
    assert len(load_keypoints(str(tmp_path / "keypoints.json"))) == 7


def test_a_file_that_appears_before_the_first_image_is_not_replaced(tmp_path, crops):
    (image_set,) = sets_to_write([image_set_of(tmp_path, crops)], overwrite=False)
    (tmp_path / "keypoints.json").write_text("mine")
    with (
        pytest.raises(DataError, match="is there already: add --overwrite"),
        open_journals([image_set], BrightestPixel(), overwrite=False),
    ):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {"keypoints.json", "query", "train"}
    assert (tmp_path / "keypoints.json").read_text() == "mine"


def test_a_file_that_appears_meanwhile_is_not_replaced(tmp_path, crops):
    class Slow(BrightestPixel):
        def predict(self, prepared):
            (tmp_path / "keypoints.json").write_text("mine")
            return super().predict(prepared)

    with pytest.raises(DataError, match="is there already: add --overwrite"):
        extract(tmp_path, crops, Slow())
    assert (tmp_path / "keypoints.json").read_text() == "mine"
    model = BrightestPixel()
    extract(tmp_path, crops, model, overwrite=True)
    assert not model.batches  # what was found is kept
    assert set(load_keypoints(str(tmp_path / "keypoints.json"))) == set(crops)


def test_images_that_show_nobody_are_named_and_skipped(tmp_path, crops, write_image):
    bad = {
        "train/empty.png": (b"", r"empty \(0 bytes\)"),
        "train/cut.jpg": (write_image(tmp_path / "whole.jpg", (64, 32)).read_bytes()[:700], "cannot be read"),
        "train/text.png": (b"hello", "cannot be read"),
    }
    for name, (content, _) in bad.items():
        (tmp_path / name).write_bytes(content)
    Image.new("RGB", (1, 1)).save(tmp_path / "train/pixel.png")
    bad["train/pixel.png"] = b"", "has 1 x 1 pixels"
    model = BrightestPixel()
    found = extract(tmp_path, [*crops, *bad], model)
    assert sum(model.batches) == 7
    assert set(found.keypoints) == set(load_keypoints(str(tmp_path / "keypoints.json"))) == set(crops)
    assert set(found.faulty) == set(bad)
    for name, (_, reason) in bad.items():
        assert name in found.faulty[name] and re.search(reason, found.faulty[name])


def test_points_beside_the_crop_are_not_trusted(tmp_path, crops):
    class Beside(BrightestPixel):
        def predict(self, prepared):
            points = np.ones((len(prepared), 17, 3), dtype=np.float32)
            points[:, 3, 0] = -0.5
            points[:, 4, 1] = 1000
            return points

    found = extract(tmp_path, crops, Beside())
    for keypoints in found.keypoints.values():
        assert np.flatnonzero(keypoints.points[:, 2] == 0).tolist() == [3, 4]
    assert load_keypoints(str(tmp_path / "keypoints.json"))  # far outside and trusted, it would be refused


def test_a_batch_of_bad_images_alone(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    found = extract(tmp_path, ["a.png"], BrightestPixel())
    assert list(found.faulty) == ["a.png"] and not load_keypoints(str(tmp_path / "keypoints.json"))


def test_an_output_that_cannot_be_written(tmp_path, crops):
    (tmp_path / "file").write_text("")
    with pytest.raises(SetupError, match="cannot be written"):
        extract(tmp_path, crops, BrightestPixel(), "file/keypoints.json")


def test_a_full_disk_is_told_and_what_is_done_is_kept(tmp_path, crops):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))  # within the second batch
    try:
        with pytest.raises(SetupError, match=r"keypoints.json' cannot be written \(File too large\): make room"):
            extract(tmp_path, crops, BrightestPixel())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "keypoints.json.unfinished").stat().st_size == 2000
    model = BrightestPixel()
    extract(tmp_path, crops, model)
    assert model.batches == [3, 1]
    assert set(load_keypoints(str(tmp_path / "keypoints.json"))) == set(crops)


OUT_OF_MEMORY = [
    MemoryError(),
    RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to ..."),
    Exception("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : std::bad_alloc"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["numpy", "cuda", "cpu", "onnxruntime"])
def test_a_model_out_of_memory_goes_on_in_smaller_batches(tmp_path, crops, error):
    class Large(BrightestPixel):
        def predict(self, prepared):
            if self.batches and len(prepared) > 2:
                raise error
            return super().predict(prepared)

    with pytest.raises(SetupError, match=r"out of memory with 3 images at a time: .* smaller --batch-size") as caught:
        extract(tmp_path, crops, Large())
    assert "\n" not in str(caught.value)
    model = Large()
    extract(tmp_path, crops, model, batch_size=2)
    assert model.batches == [2, 2]  # the first three are done
    assert set(load_keypoints(str(tmp_path / "keypoints.json"))) == set(crops)


def test_other_errors_of_a_model_are_not_hidden(tmp_path, crops):
    class Wrong(BrightestPixel):
        def predict(self, prepared):
            raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        extract(tmp_path, crops, Wrong())


def test_names_that_json_cannot_hold_are_told(tmp_path, crops):
    name = os.fsdecode(b"train/caf\xe9.png")
    draw_crop(tmp_path / name, (1, 1), (9, 9))
    found = extract(tmp_path, [*crops, name], BrightestPixel())
    assert set(load_keypoints(str(tmp_path / "keypoints.json"))) == set(crops)
    assert "caf\\udce9.png' has a name that is not UTF-8" in found.faulty[name]


def test_images_that_opencv_cannot_resize_are_told(tmp_path, crops):
    class Narrow(BrightestPixel):
        def prepare(self, crop):
            if crop.shape[0] == 21:
                cv2.resize(crop, (0, 0))
            return super().prepare(crop)

    with pytest.raises(KeyboardInterrupt):
        extract(tmp_path, crops, Narrow(stop_at=2))
    model = Narrow()
    found = extract(tmp_path, crops, model)
    assert list(found.faulty) == ["query/1.png"] and "cannot be resized" in found.faulty["query/1.png"]
    assert model.batches == [1]  # its batch is not found again
