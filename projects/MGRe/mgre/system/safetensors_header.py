"""The header of a safetensors file, read without torch and without the tensors.

The file begins with the header's length in eight bytes, the lowest first, and the header, which is JSON: an object with
an entry for each tensor, and under ``__metadata__`` texts by name.
"""

import json
import os

from mgre.errors import DamagedFileError

# The format's own limit.
_LONGEST_HEADER = 100_000_000


def is_safetensors(path: str) -> bool:
    """Whether the file begins like one, whatever its name."""
    with open(path, "rb") as file:
        return file.read(9)[8:9] == b"{"


def read_metadata(path: str) -> dict[str, str]:
    """The texts in the header.

    Raises:
        DamagedFileError: the header is cut short or changed.
    """
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        text = file.read(min(length, _LONGEST_HEADER))
    try:
        if len(text) < length:
            raise ValueError
        metadata = json.loads(text).get("__metadata__", {})
        return {str(name): str(value) for name, value in metadata.items()}
    except (ValueError, AttributeError, RecursionError) as error:
        raise DamagedFileError(
            f"weight file '{path}' is damaged or cut short ({os.path.getsize(path)} bytes): copy or download it again, "
            "or use another checkpoint"
        ) from error
