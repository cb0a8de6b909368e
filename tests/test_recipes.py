"""Pages of docs/recipes/: every command runs, in the page's order, and so does the Python, on drawn people."""

import re
import shlex
from pathlib import Path

import cv2
import mgre
import numpy as np
import pytest
import torch
from mgre.data.synthetic.files import SyntheticSpec, ensure_drawn
from mgre.engine.training_record import make_record
from mgre_cli.main import main
from PIL import Image

BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)


def blocks_of(page: Path) -> list[tuple[str, str]]:
    return BLOCK.findall(page.read_text())


@pytest.fixture
def recipe_folder(tmp_path, small_config, build_small):
    """A folder with what the pages name: a model, crops and their CSV, frames and a video with boxes."""
    record = make_record(small_config(), {"mAP": 12.5})
    torch.save({"model": build_small().state_dict(), "record": record.to_json()}, tmp_path / "model.pth")
    spec = SyntheticSpec(num_train_ids=1, num_test_ids=2, num_cameras=2, images_per_camera=2)
    drawn = ensure_drawn(str(tmp_path / "drawn"), spec, progress=False)
    crops = [Image.open(path) for path in sorted(Path(drawn).glob("bounding_box_test/*.jpg"))]
    (tmp_path / "crops").mkdir()
    lines = ["path,camera,time,coat"]
    for number, crop in enumerate(crops):
        crop.save(tmp_path / "crops" / f"{number}.png")
        lines.append(f"crops/{number}.png,gate,2026-11-27T08:0{number},red")
    (tmp_path / "crops.csv").write_text("\n".join(lines))
    write_frames(tmp_path, crops)
    return tmp_path


def write_frames(folder: Path, crops: list[Image.Image]) -> None:
    """Two people who walk to the right; the frames, a video of them, and their boxes."""
    (folder / "frames").mkdir()
    writer = cv2.VideoWriter(str(folder / "video.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 10, (480, 240))
    boxes, tracks = ["path,x_min,y_min,x_max,y_max,camera,track"], ["frame,x_min,y_min,x_max,y_max,track"]
    for number in range(4):
        frame = Image.new("RGB", (480, 240), (90, 110, 90))
        for track, crop in enumerate(crops[:2]):
            x, y = 100 + 200 * track + 5 * number, 40
            frame.paste(crop, (x, y))
            box = f"{x},{y},{x + crop.width},{y + crop.height}"
            boxes.append(f"frames/{number:04d}.jpg,{box},gate,{track}")
            tracks.append(f"{number},{box},{track}")
        frame.save(folder / "frames" / f"{number:04d}.jpg")
        writer.write(np.asarray(frame)[:, :, ::-1])
    writer.release()
    (folder / "boxes.csv").write_text("\n".join(boxes))
    (folder / "tracks.csv").write_text("\n".join(tracks))


def check_features() -> None:
    """The same person gives the same features as a file, in a frame and in a video."""
    found = {name: np.load(f"{name}.npz") for name in ("features", "crops", "boxes", "tracks")}
    counts = {name: len(file["features"]) for name, file in found.items()}
    assert counts == {"features": 4, "crops": 4, "boxes": 8, "tracks": 8}
    np.testing.assert_array_equal(found["features"]["features"], found["crops"]["features"])
    for name in ("boxes", "tracks"):
        first = found[name]["features"][:2]
        expected = found["features"]["features"][:2]
        assert all(cosine(first[i], expected[i]) > 0.98 for i in (0, 1))
    assert len({str(file["fingerprint"]) for file in found.values()}) == 1
    assert mgre.load("model.safetensors").fingerprint == str(found["boxes"]["fingerprint"])
    assert Path("card.md").read_text().startswith("# Model card: model.safetensors\n")


# What a page has made, by its name.
CHECKS = {"features": check_features}


@pytest.mark.parametrize("name", CHECKS)
def test_a_page_runs_from_top_to_bottom(name, recipe_folder, monkeypatch):
    page = Path("docs/recipes", f"{name}.md")
    blocks = blocks_of(page)
    monkeypatch.chdir(recipe_folder)
    for language, block in blocks:
        if language == "python":
            exec(compile(block, str(page), "exec"), {})
            continue
        for command in block.replace("\\\n", " ").splitlines():
            program, *words = shlex.split(command, comments=True)
            assert program == "mgre"
            assert main(words) == 0, command
    CHECKS[name]()


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
