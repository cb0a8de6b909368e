import pickle
import random
import threading
import time
from itertools import islice

import numpy as np
import pytest
import torch
from fastreid.data.samplers import (
    BalancedIdentitySampler,
    ImbalancedDatasetSampler,
    NaiveIdentitySampler,
    TrainingSampler,
)
from mgre.data.epoch_sampler import Draw, EpochSampler, draw_by_epoch, epoch_sampler
from mgre.system.randomness import random_states, seeded, set_random_states
from torch.utils.data import BatchSampler, DataLoader, Dataset

ITEMS = [(f"{i}.jpg", i // 4, i % 4) for i in range(32)]
SAMPLERS = {
    "TrainingSampler": lambda: TrainingSampler(len(ITEMS), seed=5),
    "NaiveIdentitySampler": lambda: NaiveIdentitySampler(ITEMS, 8, 2, seed=5),
    "BalancedIdentitySampler": lambda: BalancedIdentitySampler(ITEMS, 8, 2, seed=5),
    "ImbalancedDatasetSampler": lambda: ImbalancedDatasetSampler(ITEMS, seed=5),
}


def draws(sampler: EpochSampler, count: int) -> list[tuple[int, int]]:
    return [(int(draw), draw.seed) for draw in islice(iter(sampler), count)]


@pytest.mark.parametrize("name", SAMPLERS)
def test_any_step_can_be_gone_to(name):
    whole = draws(EpochSampler(SAMPLERS[name](), batch_size=8, steps_per_epoch=4), 8 * 12)
    assert len(set(whole)) == len(whole)  # no two images are augmented alike
    for step in (0, 1, 3, 4, 7, 11):
        np.random.seed(step)  # the state of the process has no part in it
        torch.manual_seed(step)
        sampler = EpochSampler(SAMPLERS[name](), batch_size=8, steps_per_epoch=4)
        sampler.go_to(step)
        assert draws(sampler, 8 * (12 - step)) == whole[8 * step :]


def test_an_epoch_is_the_toolboxs_stream_from_a_seed():
    sampler = EpochSampler(SAMPLERS["NaiveIdentitySampler"](), batch_size=8, steps_per_epoch=4)
    first = [index for index, _ in draws(sampler, 8 * 8)]
    for epoch in range(2):
        toolbox = NaiveIdentitySampler(ITEMS, 8, 2, seed=int(np.random.SeedSequence((5, epoch)).generate_state(1)[0]))
        assert first[32 * epoch : 32 * (epoch + 1)] == list(islice(iter(toolbox), 32))
    assert first[:32] != first[32:]


def test_a_draw_is_an_index_and_travels():
    draw = pickle.loads(pickle.dumps(Draw(3, 7)))
    assert (draw, draw.seed, ["a", "b", "c", "d"][draw]) == (3, 7, "d")


class Noise(Dataset):
    """What each of the generators that augmentations use gives for a draw."""

    num_classes = 8

    def __len__(self) -> int:
        return len(ITEMS)

    def __getitem__(self, draw: Draw) -> torch.Tensor:
        with seeded(draw.seed):
            return torch.tensor([float(draw), torch.rand(()).item(), random.random(), np.random.rand()])


def noise_loader(workers: int) -> DataLoader:
    batches = BatchSampler(TrainingSampler(len(ITEMS), seed=5), 8, True)
    return draw_by_epoch(DataLoader(Noise(), batch_sampler=batches, num_workers=workers))


def test_workers_augment_alike_and_the_process_draws_as_before():
    before = random_states()
    alone = list(islice(iter(noise_loader(0)), 6))
    after = random_states()
    for kind in ("python", "numpy"):
        assert torch.equal(before[kind][1], after[kind][1])
    assert torch.equal(before["torch"], after["torch"])
    together = noise_loader(2)
    epoch_sampler(together).go_to(2)
    for batch, expected in zip(islice(iter(together), 4), alone[2:], strict=True):
        assert torch.equal(batch, expected)


def test_random_states_are_put_back_from_a_file(tmp_path):
    def draw() -> list[float]:
        return [random.gauss(0, 1), float(np.random.normal()), torch.rand(()).item(), random.random()]

    draw()  # both normal generators keep a second number for later
    torch.save(random_states(), tmp_path / "states.pth")
    expected = draw()
    draw()
    set_random_states(torch.load(tmp_path / "states.pth", weights_only=True))
    assert draw() == expected


def test_states_are_not_taken_while_another_thread_is_seeded():
    np.random.seed(3)
    before, entered = random_states(), threading.Event()

    def draw() -> None:
        with seeded(7):
            entered.set()
            time.sleep(0.2)

    thread = threading.Thread(target=draw)
    thread.start()
    entered.wait()
    taken = random_states()
    thread.join()
    for name in ("python", "numpy"):
        assert torch.equal(taken[name][1], before[name][1])
    assert torch.equal(taken["torch"], before["torch"])
