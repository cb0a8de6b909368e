"""docs/recipes/two-photos.md: its commands, from top to bottom, on drawn people."""

import re
import shlex
import shutil
from pathlib import Path

from mgre.data.synthetic.files import SyntheticSpec, ensure_drawn
from mgre_cli.main import main
from PIL import Image

RECIPE = Path("docs/recipes/two-photos.md").absolute()


def test_the_commands_of_the_recipe(model, tmp_path, monkeypatch, capsys):
    spec = SyntheticSpec(num_train_ids=1, num_test_ids=9, num_cameras=2, images_per_camera=2, size=(64, 32))
    drawn = ensure_drawn(str(tmp_path), spec, progress=False)
    (tmp_path / "labelled").mkdir()
    for path in (*drawn.glob("query/*.jpg"), *drawn.glob("bounding_box_test/*.jpg")):
        shutil.copy(path, tmp_path / "labelled")
    for name, path in zip("abc", sorted(drawn.glob("query/*.jpg")), strict=False):
        shutil.copy(path, tmp_path / f"{name}.jpg")
    monkeypatch.chdir(tmp_path)
    commands = [
        shlex.split(line)
        for block in re.findall(r"```sh\n(.*?)```", RECIPE.read_text(), re.DOTALL)
        for line in block.splitlines()
    ]
    assert [words[1] for words in commands] == ["compare", "calibrate", "compare", "compare"]
    shown = []
    for name, *words in commands:
        assert name == "mgre"
        assert main(words) == 0, capsys.readouterr().err
        shown.append(capsys.readouterr().out)
    assert "not calibrated" in shown[0]
    assert "labelled (9 identities, 2 cameras, " in shown[1]
    assert re.search(r"^verdict +(the same person|different people): ", shown[2], re.MULTILINE)
    assert Image.open("pair.png").width > 700
    assert shown[3].count('"cosine"') == 3
