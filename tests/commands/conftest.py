"""Small models: of drawn people, as the quickstart leaves it, and of any."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from mgre.config import load_config
from mgre.engine.trainer import Trainer
from mgre.engine.training_record import make_record

QUICKSTART = "configs/MGRe/quickstart.yml"
SMALL = {
    "MODEL.DEVICE": "cpu",
    "MODEL.MGRE.BACKBONE": "build_toy_backbone",
    "MODEL.HEADS.EMBEDDING_DIM": "16",
    "MODEL.MGRE.LOCATION.CONV_CHANNELS": "8",
    "MODEL.MGRE.LOCATION.HIDDEN_DIM": "16",
    "INPUT.SIZE_TRAIN": "(64, 32)",
    "INPUT.SIZE_TEST": "(64, 32)",
    "DATASETS.SYNTHETIC.NUM_TRAIN_IDS": "4",
    "DATASETS.SYNTHETIC.NUM_TEST_IDS": "4",
    "DATASETS.SYNTHETIC.NUM_CAMERAS": "2",
    "DATASETS.SYNTHETIC.IMAGES_PER_CAMERA": "2",
    "DATASETS.SYNTHETIC.SIZE": "(64, 32)",
}


@pytest.fixture(scope="module")
def small_words() -> list[str]:
    """Overrides of the quickstart's config for a model and a data set that are quickly evaluated."""
    return [word for pair in SMALL.items() for word in pair]


@pytest.fixture(scope="module")
def drawn_folder(tmp_path_factory: pytest.TempPathFactory, small_words: list[str]) -> Path:
    """A folder with ``logs/MGRe/quickstart/model_final.pth``, not trained, of these sizes, and the configs."""
    folder = tmp_path_factory.mktemp("drawn")
    model = folder / "logs/MGRe/quickstart/model_final.pth"
    model.parent.mkdir(parents=True)
    (folder / "configs").symlink_to(Path("configs").absolute())
    cfg = load_config(QUICKSTART, small_words)
    torch.manual_seed(0)
    network = Trainer.build_model(cfg)
    torch.save({"model": network.state_dict(), "record": make_record(cfg, {}).to_json()}, model)
    return folder


@pytest.fixture
def drawn(drawn_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """:func:`drawn_folder`, as the working directory, with its data set in it."""
    monkeypatch.chdir(drawn_folder)
    monkeypatch.setenv("FASTREID_DATASETS", str(drawn_folder / "datasets"))
    yield drawn_folder


@pytest.fixture
def model(save_model):
    """The path of a small checkpoint, which is quickly read and written."""
    return str(save_model(**{"MODEL.MGRE.BACKBONE": "build_toy_backbone"})[1])
