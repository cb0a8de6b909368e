import multiprocessing
import os
import signal

import pytest
from mgre.system.files import unfinished_files, write_atomically


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


def _die_while_writing(path: str) -> None:
    with write_atomically(path) as unfinished, open(unfinished, "w") as file:
        file.write("half")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_process_leaves_the_old_file_and_an_unfinished_one_that_is_found(tmp_path):
    (tmp_path / "file.txt").write_text("old")
    writer = multiprocessing.get_context("fork").Process(target=_die_while_writing, args=(str(tmp_path / "file.txt"),))
    writer.start()
    writer.join()
    assert (tmp_path / "file.txt").read_text() == "old"
    (unfinished,) = unfinished_files(str(tmp_path))
    assert unfinished.read_text() == "half"
    assert unfinished_files(str(tmp_path), "*.txt") == [unfinished]
    assert unfinished_files(str(tmp_path), "*.pth") == unfinished_files(str(tmp_path / "nowhere")) == []


def test_writers_of_one_file_do_not_meet(tmp_path):
    path = str(tmp_path / "file.txt")
    with write_atomically(path) as first, write_atomically(path) as second:
        for unfinished, text in ((first, "first"), (second, "second")):
            with open(unfinished, "w") as file:
                file.write(text)
    assert (tmp_path / "file.txt").read_text() == "first"  # the outer block ends last
    assert os.listdir(tmp_path) == ["file.txt"]


def test_content_and_name_are_on_the_disk_in_this_order(tmp_path, monkeypatch):
    steps = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (steps.append(os.fstat(file).st_ino), fsync(file)))
    monkeypatch.setattr(os, "replace", lambda old, new: (steps.append("rename"), replace(old, new)))
    with write_atomically(str(tmp_path / "file.txt")) as unfinished, open(unfinished, "w") as file:
        file.write("new")
    assert steps == [(tmp_path / "file.txt").stat().st_ino, "rename", tmp_path.stat().st_ino]
