"""ONNX files of ``mgre export``, by onnxruntime and without torch."""

import numpy as np

from mgre.inference.exported import INPUT, ExportedFacts
from mgre.inference.exported_model import ExportedModel
from mgre.system.onnx_session import best_device, open_session


class OnnxModel(ExportedModel):
    """A file of ``mgre export --format onnx``."""

    _device = "cpu"

    @classmethod
    def load(cls, path: str, *, device: str) -> "OnnxModel":
        """See :func:`mgre.inference.load`."""
        device = best_device() if device == "auto" else device
        session = open_session(path, device=device)
        facts = ExportedFacts.from_metadata(session.get_modelmeta().custom_metadata_map, path)
        names = [output.name for output in session.get_outputs()]

        def run(images: np.ndarray) -> dict[str, np.ndarray]:
            return dict(zip(names, session.run(names, {INPUT: images}), strict=True))

        model = cls(run, facts, path)
        model._device = device
        return model

    def beside(self, path: str) -> "OnnxModel":
        return OnnxModel.load(path, device=self._device)
