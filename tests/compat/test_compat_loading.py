import inspect
import os
import random
import threading
import time
import warnings
from collections import Counter
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision.transforms as T
from fastreid.config import get_cfg
from fastreid.data import CommDataset, build, build_reid_test_loader, data_utils
from fastreid.data.samplers import BalancedIdentitySampler, NaiveIdentitySampler
from fastreid.data.transforms import ToTensor, build_transforms, functional
from fastreid.data.transforms import build as transforms_build
from mgre.compat import loading
from mgre.data.batches import Collate
from mgre.errors import ConfigError, DataError
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.functional import pil_to_tensor


def random_image(mode: str = "RGB", size: tuple[int, int] = (8, 16)) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


@pytest.fixture
def image_items(tmp_path):
    items = []
    for i in range(5):
        path = tmp_path / f"{i}.png"
        Image.new("RGB", (8, 16), (i, 0, 0)).save(path)
        items.append((str(path), i, 0))
    return items


# -- Data loaders ---------------------------------------------------------------------------------


def test_plain_loader_without_cuda(monkeypatch, image_items):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    test_set = CommDataset(image_items, ToTensor(), relabel=False)
    loader, num_query = build_reid_test_loader(test_set=test_set, test_batch_size=2, num_query=1, num_workers=0)
    assert isinstance(loader, DataLoader) and not isinstance(loader, data_utils.DataLoaderX)
    assert not loader.pin_memory
    assert num_query == 1
    batches = list(loader)
    assert [b["targets"].tolist() for b in batches] == [[0, 1], [2, 3], [4]]
    assert [b["images"][:, 0].flatten(1).mean(1).tolist() for b in batches] == [[0, 1], [2, 3], [4]]


def test_toolbox_loader_with_cuda(monkeypatch, image_items):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: f"stream on {device}")
    loader = build.DataLoaderX(0, dataset=CommDataset(image_items, ToTensor()), pin_memory=True)
    assert isinstance(loader, data_utils.DataLoaderX)
    assert loader.pin_memory
    assert loader.stream == "stream on 0"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_loader_with_cuda_gives_batches_on_the_gpu(image_items):
    test_set = CommDataset(image_items, ToTensor(), relabel=False)
    loader, _ = build_reid_test_loader(test_set=test_set, test_batch_size=2, num_query=1, num_workers=0)
    batches = list(loader)
    assert [b["targets"].tolist() for b in batches] == [[0, 1], [2, 3], [4]]
    assert all(b["images"].is_cuda for b in batches)


class Processes(Dataset):
    """Who loads: the process's id."""

    def __init__(self, length: int = 8) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"index": torch.tensor(index), "process": torch.tensor(os.getpid())}


def test_workers_are_kept_for_the_next_iteration(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    loader = build.DataLoaderX(0, dataset=Processes(), num_workers=2, batch_size=2)
    passes = [list(loader) for _ in range(2)]
    for batches in passes:
        assert torch.cat([b["index"] for b in batches]).tolist() == list(range(8))
    first, second = ({int(p) for b in batches for p in b["process"]} for batches in passes)
    assert first == second and len(first) == 2 and os.getpid() not in first
    # Without workers there is nothing to keep, and torch refuses to.
    assert not build.DataLoaderX(0, dataset=Processes(), num_workers=0).persistent_workers


@pytest.fixture
def cuda_loader_on_the_cpu(monkeypatch):
    """The loader that is used with CUDA, as a function; it "copies" to the CPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: None)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: SimpleNamespace(wait_stream=lambda stream: None))
    return lambda **kwargs: build.DataLoaderX("cpu", **kwargs)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_iteration_that_was_left_early_takes_no_batches_of_the_next(cuda_loader_on_the_cpu, num_workers):
    loader = cuda_loader_on_the_cpu(dataset=Processes(), num_workers=num_workers, batch_size=1)

    def iterate() -> None:
        for leave_after in (1, 3, 8, 0, 8):
            batches = iter(loader)
            indices = [int(next(batches)["index"]) for _ in range(leave_after)]
            assert indices == list(range(leave_after))
        assert next(batches, None) is None

    assert within(60, iterate) is None


@pytest.mark.parametrize("num_workers", [0, 2])
def test_workers_end_though_an_iteration_was_left_early(cuda_loader_on_the_cpu, num_workers):
    # More batches than the loader's thread may hold, so that it is still at work.
    loader = cuda_loader_on_the_cpu(dataset=Processes(100), num_workers=num_workers, batch_size=1)

    def iterate() -> list[int]:
        worker, thread = int(next(iter(loader))["process"]), loader.iter
        assert thread.is_alive()
        loader.end_workers()
        assert not thread.is_alive()
        if num_workers:
            with pytest.raises(ProcessLookupError):
                os.kill(worker, 0)
        assert next(loader, None) is None
        return [int(batch["index"]) for batch in loader]

    assert within(60, iterate) == list(range(100))


def test_a_worker_that_never_comes_back_is_ended_too(monkeypatch, cuda_loader_on_the_cpu, new_processes):
    class Stuck(Processes):
        def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
            if index:
                time.sleep(1000)
            return super().__getitem__(index)

    monkeypatch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 0.2)
    monkeypatch.setattr(loading, "PATIENCE", 0.2)
    loader = cuda_loader_on_the_cpu(dataset=Stuck(), num_workers=1, batch_size=1)

    def leave() -> None:
        iter(loader)  # has the first batch
        (worker,) = new_processes()
        loader.end_workers()
        worker.join(10)  # torch 2.9 has told it to end, and does not wait for it
        assert not worker.is_alive()

    assert within(60, leave) is None


def test_packed_batches_arrive_unpacked(monkeypatch, cuda_loader_on_the_cpu):
    images = torch.arange(2 * 3 * 4 * 2).reshape(2, 3, 4, 2).float()
    images[1, :, 1:3] = torch.tensor([0.5, 1.5, 2.5]).reshape(3, 1, 1)
    kwargs = {
        "dataset": [{"images": image} for image in images],
        "batch_size": 2,
        "collate_fn": Collate([0.5, 1.5, 2.5]),
    }
    assert next(iter(DataLoader(**kwargs)))["images"].dtype == torch.uint8
    with_cuda = cuda_loader_on_the_cpu(**kwargs)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for loader in (with_cuda, build.DataLoaderX(0, **kwargs)):
        (batch,) = loader
        assert list(batch) == ["images"] and torch.equal(batch["images"], images)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("num_workers", [0, 2])
def test_packed_batches_arrive_unpacked_on_the_gpu(num_workers):
    images = torch.arange(16 * 3 * 4 * 2).remainder(256).reshape(16, 3, 4, 2).float()
    images[1::2, :, 1:3] = torch.tensor([0.5, 1.5, 2.5]).reshape(3, 1, 1)
    data = [{"images": image, "targets": i} for i, image in enumerate(images)]
    collate = Collate([0.5, 1.5, 2.5])
    loader = build.DataLoaderX(
        0, dataset=data, batch_size=4, collate_fn=collate, num_workers=num_workers, pin_memory=True
    )
    for _ in range(2):
        batches = list(loader)
        assert all(batch["images"].is_cuda for batch in batches)
        assert torch.equal(torch.cat([batch["images"] for batch in batches]).cpu(), images)
        assert torch.cat([batch["targets"] for batch in batches]).tolist() == list(range(16))


def within(seconds: float, function):
    """What ``function`` returned or raised; fails where it hangs."""
    outcome = []

    def call():
        try:
            outcome.append(function())
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), "it hangs"
    return outcome[0]


def test_background_error_reaches_the_main_thread(monkeypatch):
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    seen = []

    def batches():
        yield 1
        yield 2
        raise OSError("unreadable image")

    def consume():
        for batch in data_utils.BackgroundGenerator(batches(), local_rank=0):
            seen.append(batch)

    error = within(10, consume)
    assert seen == [1, 2]
    assert isinstance(error, OSError)
    assert str(error) == "unreadable image"


def test_background_generator_without_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    assert within(10, lambda: list(data_utils.BackgroundGenerator(iter("abc"), local_rank=0))) == ["a", "b", "c"]


# -- Images ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I", "F"])
def test_to_tensor_keeps_values(mode):
    image = random_image(mode)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tensor = ToTensor()(image)
    expected = pil_to_tensor(image)
    assert tensor.dtype == {"I": torch.int32}.get(mode, torch.float32)
    assert tensor.is_contiguous()
    assert torch.equal(tensor, expected.to(tensor.dtype))


def test_to_tensor_of_bits_and_shorts():
    bits = Image.fromarray(np.array([[True, False], [False, True]]))
    assert bits.mode == "1"
    assert functional.to_tensor(bits).tolist() == [[[255, 0], [0, 255]]]
    shorts = Image.fromarray(np.array([[1, 2], [3, 32767]], dtype=np.uint16))
    assert shorts.mode == "I;16"
    assert functional.to_tensor(shorts).tolist() == [[[1, 2], [3, 32767]]]


def test_to_tensor_of_arrays_is_the_toolboxs():
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert torch.equal(functional.to_tensor(pixels), torch.arange(24).reshape(2, 4, 3).permute(2, 0, 1).float())


def test_to_tensor_stays_where_it_is_sound(monkeypatch):
    def sound(pic):
        return torch.from_numpy(np.array(pic))

    monkeypatch.setattr(functional, "to_tensor", sound)
    loading.convert_images()
    assert functional.to_tensor is sound


# -- Transforms -----------------------------------------------------------------------------------


def transforms_config(**enabled: bool):
    cfg = get_cfg()
    cfg.INPUT.SIZE_TRAIN = [16, 8]
    for name in enabled:
        cfg.INPUT[name].ENABLED = True
        if "PROB" in cfg.INPUT[name]:
            cfg.INPUT[name].PROB = 1.0
    return cfg


def test_affine_is_that_of_the_former_arguments():
    transforms = build_transforms(transforms_config(AFFINE=True))
    affine = T.RandomAffine(degrees=10, scale=[0.9, 1.1], shear=0.1, interpolation=T.InterpolationMode.NEAREST, fill=0)
    image = random_image()
    torch.manual_seed(1)
    transformed = transforms(image)
    torch.manual_seed(1)
    # At the image's own size nothing but the affine map is left between the image and its tensor.
    assert torch.equal(transformed, pil_to_tensor(affine(image)).float())
    assert not torch.equal(transformed, pil_to_tensor(image).float())


def test_affine_stays_where_the_names_are_there(monkeypatch):
    class Former:
        @staticmethod
        def RandomAffine(degrees, resample=False, fillcolor=0):
            return None

    monkeypatch.setattr(transforms_build, "T", Former)
    monkeypatch.setattr(loading, "T", Former)
    assert "resample" in inspect.signature(loading.T.RandomAffine).parameters
    loading.name_affine_arguments()
    assert transforms_build.T is Former


def test_every_augmentation_runs():
    names = ("AUTOAUG", "AUGMIX", "AFFINE", "CJ", "REA", "RPT", "PADDING", "FLIP")
    transforms = build_transforms(transforms_config(**dict.fromkeys(names, True)))
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    for _ in range(60):
        image = transforms(random_image())
        assert image.shape == (3, 16, 8)
        assert image.dtype == torch.float32
        assert image.min() >= 0
        assert image.max() <= 255


# -- Samplers -------------------------------------------------------------------------------------


def items(num_identities: int, images_each: int = 4) -> list[tuple[str, int, int]]:
    return [("", pid, camid) for pid in range(num_identities) for camid in range(images_each)]


@pytest.mark.parametrize("sampler", [BalancedIdentitySampler, NaiveIdentitySampler])
class TestIdentitySamplers:
    def test_too_few_identities(self, sampler):
        with pytest.raises(DataError) as error:
            sampler(items(3), mini_batch_size=16, num_instances=4)
        for part in ("SOLVER.IMS_PER_BATCH 16", "DATALOADER.NUM_INSTANCE 4", "4 identities", "has 3"):
            assert part in str(error.value)

    @pytest.mark.parametrize(("batch", "instances"), [(4, 8), (10, 4), (8, 0)])
    def test_numbers_that_make_no_batch(self, sampler, batch, instances):
        with pytest.raises(ConfigError, match=r"DATALOADER.NUM_INSTANCE"):
            sampler(items(10), mini_batch_size=batch, num_instances=instances)

    def test_just_enough_identities_fill_batches(self, sampler):
        source = items(4)
        stream = iter(sampler(source, mini_batch_size=16, num_instances=4, seed=0))
        batch = within(10, lambda: [next(stream) for _ in range(16)])
        assert Counter(source[i][1] for i in batch) == {0: 4, 1: 4, 2: 4, 3: 4}
