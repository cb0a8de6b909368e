"""OpenVINO's files of ``mgre export``, by OpenVINO and without torch."""

import os

import numpy as np

from mgre.errors import SetupError, WeightsError
from mgre.inference.exported import INPUT, ExportedFacts
from mgre.inference.exported_model import ExportedModel

# A CPU's own default may be bfloat16, which changes features by some percent.
_EXACT = {"INFERENCE_PRECISION_HINT": "f32", "EXECUTION_MODE_HINT": "ACCURACY"}
_KEYS = ("format", "record", "checkpoint", "fingerprint", "flavour", "precision", "normalized", "boxes")


class OpenVinoModel(ExportedModel):
    """A file of ``mgre export --format openvino``."""

    @classmethod
    def load(cls, path: str, *, device: str) -> "OpenVinoModel":
        """See :func:`mgre.inference.load`; the device is the CPU.

        Raises:
            SetupError: OpenVINO is missing, or another device is asked for.
            WeightsError: the file or the .bin file beside it cannot be read.
        """
        if device not in ("auto", "cpu"):
            raise SetupError(f"'{path}' runs on the CPU here, not on '{device}': choose cpu")
        try:
            import openvino
        except ImportError as error:
            raise SetupError(f"'{path}' needs a package ({error}): pip install openvino") from error
        weights = f"{os.path.splitext(path)[0]}.bin"
        if not os.path.isfile(weights):
            raise WeightsError(f"'{path}' has no '{weights}' beside it, which holds the weights: copy both")
        core = openvino.Core()
        try:
            network = core.read_model(path)
            compiled = core.compile_model(network, "CPU", _EXACT)
        except RuntimeError as error:
            raise WeightsError(f"'{path}' cannot be read by OpenVINO ({_reason(error)}): export it again") from error
        entries = {
            f"mgre.{key}": str(network.get_rt_info(f"mgre.{key}").value)
            for key in _KEYS
            if network.has_rt_info(f"mgre.{key}")
        }
        facts = ExportedFacts.from_metadata(entries, path)
        names = [output.get_any_name() for output in compiled.outputs]

        def run(images: np.ndarray) -> dict[str, np.ndarray]:
            found = compiled({INPUT: images.astype(np.uint8)})
            return {name: found[name] for name in names}

        return cls(run, facts, path)

    def beside(self, path: str) -> "OpenVinoModel":
        """See :meth:`ExportedModel.beside`."""
        return OpenVinoModel.load(path, device="cpu")


def _reason(error: Exception) -> str:
    """The last line of OpenVINO's message: those before it are places in its source."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
