import json

import pytest
import safetensors.torch
import torch
from mgre.errors import DamagedFileError
from mgre.system.safetensors_header import is_safetensors, read_metadata


def test_the_texts_are_those_that_the_library_wrote(tmp_path):
    path = str(tmp_path / "w.bin")
    safetensors.torch.save_file({"a": torch.zeros(3)}, path, metadata={"name": "ü\n", "b": "2"})
    assert is_safetensors(path)
    assert read_metadata(path) == {"name": "ü\n", "b": "2"}
    safetensors.torch.save_file({"a": torch.zeros(3)}, path)
    assert read_metadata(path) == {}


@pytest.mark.parametrize(
    "content",
    [
        (2**63).to_bytes(8, "little") + b"{}",
        (9).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"{]",
        (2).to_bytes(8, "little") + b"[]",
        (20).to_bytes(8, "little") + json.dumps({"__metadata__": 7}).encode(),
    ],
)
def test_a_damaged_header_is_one_line(tmp_path, content):
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(DamagedFileError, match=r"w.safetensors' is damaged or cut short \(\d+ bytes\)") as caught:
        read_metadata(str(path))
    assert "\n" not in str(caught.value)
