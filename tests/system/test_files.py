import os

import pytest
from mgre.system.files import write_atomically


def test_a_file_is_written_with_its_folder_and_replaced(tmp_path):
    path = tmp_path / "new" / "file.txt"
    for text in ("first", "second"):
        with write_atomically(str(path)) as unfinished:
            assert os.path.dirname(unfinished) == str(path.parent)
            with open(unfinished, "w") as file:
                file.write(text)
            assert not path.exists() or path.read_text() != text
        assert path.read_text() == text
    assert os.listdir(path.parent) == ["file.txt"]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "file.txt").write_text("old")
    with pytest.raises(KeyboardInterrupt), write_atomically(str(tmp_path / "file.txt")) as unfinished:
        with open(unfinished, "w") as file:
            file.write("half")
        raise KeyboardInterrupt
    assert (tmp_path / "file.txt").read_text() == "old"
    assert os.listdir(tmp_path) == ["file.txt"]
