"""A checkpoint as a :class:`mgre.inference.model.Model`, by torch."""

import functools
import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import yaml
from torch import nn

from mgre.config import leaves, load_config
from mgre.config.loading import parse_config
from mgre.engine.load_model import load_model
from mgre.engine.training_record import renew_record
from mgre.errors import SetupError, WeightsError, shell_word
from mgre.inference.model import Description, Model
from mgre.modeling import MGRe
from mgre.modeling.fitting_keys import only_for_training
from mgre.record import ModelRecord
from mgre.system.foreign_messages import is_out_of_memory
from mgre.system.model_files import read_record
from mgre.system.precision import amp_dtype

# Keys that change the features and leave no trace in the weights.
_WITHOUT_TRACE = (
    *("MODEL.BACKBONE.LAST_STRIDE", "MODEL.HEADS.POOL_LAYER", "MODEL.HEADS.NECK_FEAT"),
    *("MODEL.MGRE.BOXES", "MODEL.MGRE.SOURCE_BLOCKS", "MODEL.MGRE.REGIONS"),
)


class CheckpointModel(Model):
    """A model of MGRe or of any architecture of the toolbox.

    Attributes:
        network: the model itself, in evaluation mode.
    """

    def __init__(self, network: nn.Module, record: ModelRecord, path: str, *, amp: bool = False) -> None:
        super().__init__(record, path)
        self.network = network.eval()
        self._device = next(network.parameters()).device
        self._dtype = amp_dtype("auto", self._device) if amp else None

    @classmethod
    def load(
        cls, path: str, *, config_file: str, overrides: Sequence[str], device: str, amp: bool
    ) -> "CheckpointModel":
        """See :func:`mgre.inference.load`."""
        record = read_record(path)
        device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        own = [*overrides, "MODEL.DEVICE", device, "MODEL.WEIGHTS", path]
        if config_file:
            cfg = load_config(config_file, own)
        elif record is not None:
            cfg = parse_config(record.config, own, f"the record of '{path}'")
        else:
            raise WeightsError(
                f"checkpoint '{path}' has no record of its model: name the config that it was trained with, "
                f"--config-file path/to/config.yml (model {shell_word(path)})"
            )
        if record is None or config_file or overrides:
            record = renew_record(cfg, record)
        return cls(load_model(cfg), record, path, amp=amp)

    @functools.cached_property
    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        state = self.network.state_dict()
        unused = only_for_training(self.network, state)
        # Buffers beside the weights: the statistics of the pixels, and the centres of the regions.
        for name, tensor in sorted((state | dict(self.network.named_buffers())).items()):
            if name not in unused and not name.endswith("num_batches_tracked"):
                digest.update(name.encode())
                digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
        facts = (self.record.input_size, self.record.center_crop, self.record.interpolation, self.record.stage_weights)
        values = dict(leaves(yaml.safe_load(self.record.config)))
        keys = {name: values.get(name) for name in _WITHOUT_TRACE}
        digest.update(json.dumps((facts, keys), sort_keys=True).encode())
        return digest.hexdigest()[:32]

    def embed_pixels(self, pixels: np.ndarray) -> np.ndarray:
        with self._inference(len(pixels)):
            return self.network(self._batch(pixels)).float().cpu().numpy()

    def describe_pixels(self, pixels: np.ndarray) -> Description:
        if not isinstance(self.network, MGRe):
            return Description(self.embed_pixels(pixels), {}, {})
        with self._inference(len(pixels)):
            features, boxes, terms = self.network.explain(self._batch(pixels))
        return Description(
            features.float().cpu().numpy(),
            {name: box.float().cpu().numpy() for name, box in boxes.items()},
            {stage: term.float().cpu().numpy() for stage, term in terms.items()},
        )

    @contextmanager
    def _inference(self, size: int) -> Iterator[None]:
        """Within the block the network computes in its precision; a lack of memory is an error that names ``size``."""
        autocast = torch.autocast(self._device.type, dtype=self._dtype, enabled=self._dtype is not None)
        try:
            with torch.inference_mode(), autocast:
                yield
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise SetupError(
                f"'{self.path}' ran out of memory with {size} images at a time: take a smaller --batch-size"
            ) from error

    def _batch(self, pixels: np.ndarray) -> dict[str, Any]:
        return {"images": torch.from_numpy(pixels).to(self._device).float()}
