"""Each wording that mgre recognises, produced by the library itself."""

import argparse
import multiprocessing
import os
import pickle
import signal
import socket
import warnings

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.distributed as dist
from fastreid.data.datasets import DATASET_REGISTRY, Market1501
from fastreid.utils import registry as toolbox
from fvcore.common import registry as fvcore
from mgre.system import foreign_messages
from mgre.system.foreign_messages import (
    dead_worker_pids,
    is_lost_connection,
    is_missing_file,
    is_out_of_memory,
    is_unsafe_global,
    name_registered_twice,
)
from onnx import TensorProto, helper
from torch.utils.data import DataLoader, Dataset

UNRELATED = RuntimeError("shapes do not match")


class _Deadly(Dataset):
    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_dead_worker_is_found_in_the_errors_of_the_loader():
    batches = iter(DataLoader(_Deadly(), num_workers=1, multiprocessing_context="fork"))
    worker = batches._workers[0].pid
    with pytest.raises(RuntimeError) as raised:
        next(batches)
    assert dead_worker_pids(raised.value) == [worker]
    # torch's handler of SIGCHLD, in C++, has a wording of its own. The loader raises that error or a second one.
    if cause := raised.value.__cause__:
        assert dead_worker_pids(cause) == [worker]
    assert dead_worker_pids(RuntimeError("DataLoader worker (pid(s) 12, 345) exited unexpectedly")) == [12, 345]
    assert dead_worker_pids(RuntimeError("DataLoader worker (pid 12) is killed by signal: Killed. ")) == [12]
    assert dead_worker_pids(UNRELATED) is None


def _lose_the_other(rank: int, port: int, lost: "multiprocessing.Queue[str]") -> None:
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", world_size=2, rank=rank)
    dist.barrier()
    if rank == 1:
        os._exit(0)
    try:
        while True:
            dist.all_reduce(torch.ones(1))
    except RuntimeError as error:
        lost.put(f"{is_lost_connection(error)}: {error}")


def test_a_process_that_has_gone_is_found_in_the_error_of_gloo():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    lost = context.Queue()
    processes = [context.Process(target=_lose_the_other, args=(rank, port, lost), daemon=True) for rank in range(2)]
    for process in processes:
        process.start()
    assert lost.get(timeout=60).startswith("True: ")
    for process in processes:
        process.join(60)
    assert is_lost_connection(dist.DistNetworkError("the store has gone"))
    assert not is_lost_connection(UNRELATED) and not is_lost_connection(ValueError("Broken pipe"))


def _run_onnx_without_memory() -> None:
    shape = helper.make_tensor("shape", TensorProto.INT64, [2], [1 << 21, 1 << 21])
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy")
    graph = helper.make_graph([helper.make_node("Expand", ["x", "shape"], ["y"])], "large", [x], [y], [shape])
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    session.run(None, {"x": np.zeros((1, 1), np.float32)})


@pytest.mark.parametrize(
    "allocate",
    [lambda: np.empty(1 << 58), lambda: torch.empty(1 << 60), _run_onnx_without_memory],
    ids=["numpy", "torch", "onnxruntime"],
)
def test_a_lack_of_memory(allocate):
    with pytest.raises(Exception) as raised:  # the libraries have no common class
        allocate()
    assert is_out_of_memory(raised.value)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_lack_of_memory_on_the_gpu():
    with pytest.raises(torch.OutOfMemoryError) as raised:
        torch.empty(1 << 50, device="cuda")
    assert is_out_of_memory(raised.value)


def test_other_errors_are_no_lack_of_memory():
    assert is_out_of_memory(torch.OutOfMemoryError(""))
    assert not is_out_of_memory(UNRELATED)


def test_an_object_in_a_weight_file_of_the_old_format(tmp_path):
    path = tmp_path / "old.pth"
    torch.save({"args": argparse.Namespace()}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(pickle.UnpicklingError) as refused:
        torch.load(path, weights_only=True)
    assert is_unsafe_global(refused.value)
    path.write_bytes(b"\xff" + path.read_bytes())  # no opcode of a pickle
    with pytest.raises(pickle.UnpicklingError) as damaged:
        torch.load(path, weights_only=True)
    assert not is_unsafe_global(damaged.value)


def _warned_of(pattern: str, function) -> bool:
    with warnings.catch_warnings(record=True) as without:
        warnings.simplefilter("always")
        function()
    with warnings.catch_warnings(record=True) as filtered:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", pattern)
        function()
    return len(filtered) < len(without)


def test_the_warning_of_the_reader_of_market1501(make_market_folder, tmp_path):
    make_market_folder(tmp_path)
    assert _warned_of(foreign_messages.MARKET1501_LAYOUT_IS_OLD, lambda: Market1501(root=str(tmp_path)))


def test_the_warning_of_sparse_tensors():
    warns_always = torch.is_warn_always_enabled()
    torch.set_warn_always(True)  # else torch warns once in a process
    try:
        assert _warned_of(foreign_messages.SPARSE_TENSORS_ARE_BETA, lambda: torch.eye(2).to_sparse_csr())
    finally:
        torch.set_warn_always(warns_always)


@pytest.mark.parametrize("name", ["Market1501", "DukeMTMC", "MSMT17", "CUHK03", "VeRi", "GRID", "WildTrackCrop"])
def test_a_missing_folder_is_found_in_the_errors_of_the_readers(tmp_path, name):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", foreign_messages.MARKET1501_LAYOUT_IS_OLD)
        with pytest.raises((RuntimeError, AssertionError, FileNotFoundError)) as raised:
            DATASET_REGISTRY.get(name)(root=str(tmp_path))
    assert is_missing_file(raised.value)
    assert not is_missing_file(UNRELATED)


@pytest.mark.parametrize("library", [toolbox, fvcore])
def test_a_name_that_is_registered_twice(library):
    registry = library.Registry("PARTS")
    registry.register(Market1501)
    with pytest.raises(AssertionError) as raised:
        registry.register(Market1501)
    assert name_registered_twice(raised.value) == ("Market1501", "PARTS")
    assert name_registered_twice(AssertionError("1 is not 2")) is None
    assert name_registered_twice(UNRELATED) is None
