"""TorchScript files of ``mgre export``, by torch and without the toolbox."""

import json
import warnings

import numpy as np
import torch

from mgre.errors import WeightsError
from mgre.inference.exported import ExportedFacts
from mgre.inference.exported_model import ExportedModel
from mgre.system.onnx_session import first_line

# The entry of the archive that holds the facts and the names of the outputs.
FACTS = "mgre.json"


class TorchScriptModel(ExportedModel):
    """A file of ``mgre export --format torchscript``. It is code: load files of people you trust only."""

    _device = "cpu"

    @classmethod
    def load(cls, path: str, *, device: str) -> "TorchScriptModel":
        """See :func:`mgre.inference.load`."""
        device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        extra = {FACTS: ""}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # torch.jit is deprecated
                network = torch.jit.load(path, map_location=device, _extra_files=extra)
        except (RuntimeError, ValueError) as error:
            raise WeightsError(
                f"'{path}' is no TorchScript file that can be read ({first_line(error)}): export it again"
            ) from error
        content = json.loads(extra[FACTS] or "{}")
        names = content.pop("outputs", [])
        facts = ExportedFacts.from_metadata(content, path)

        @torch.inference_mode()
        def run(images: np.ndarray) -> dict[str, np.ndarray]:
            outputs = network(torch.from_numpy(images).to(device))
            outputs = outputs if isinstance(outputs, tuple) else (outputs,)
            return {name: output.float().cpu().numpy() for name, output in zip(names, outputs, strict=True)}

        model = cls(run, facts, path)
        model._device = device
        return model

    def beside(self, path: str) -> "TorchScriptModel":
        """See :meth:`ExportedModel.beside`."""
        return TorchScriptModel.load(path, device=self._device)
