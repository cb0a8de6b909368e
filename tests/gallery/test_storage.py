"""What is left on the disk: after kills, errors, removals, and damage."""

import errno
import multiprocessing
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mgre.errors import DataError, SetupError
from mgre.gallery import Filter, Gallery, reduction, storage
from mgre.gallery.checking import Report, check
from mgre.gallery.database import Database
from mgre.gallery.row_file import RowFile

MODEL = "a model"
# Where a process may be stopped.
STEPS = [
    *((Database, name) for name in ("execute", "many", "set")),
    *((RowFile, name) for name in ("write", "erase", "cut")),
    (Path, "unlink"),
    (storage.Storage, "renew"),
]


def killed_at(step: int, action: Callable[[], object]) -> bool:
    """Run ``action`` in a process that is killed right before this one of its calls of ``STEPS``; whether it was."""

    def run() -> None:
        count = 0

        def kill_in(owner: type, name: str) -> None:
            method = getattr(owner, name)

            def stopped(*args, **kwargs):
                nonlocal count
                count += 1
                if count == step:
                    os.kill(os.getpid(), signal.SIGKILL)
                return method(*args, **kwargs)

            setattr(owner, name, stopped)

        for owner, name in STEPS:
            kill_in(owner, name)
        action()

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def bytes_of(folder: str) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(Path(folder).rglob("*")))


@pytest.fixture
def small(monkeypatch):
    """Directions and copies already in small galleries."""
    monkeypatch.setattr(storage, "LEAST_VECTORS", 50)
    monkeypatch.setattr(storage, "LEAST_ERASED", 20)
    monkeypatch.setattr(reduction, "MOST_LEFT", 1)


@pytest.mark.parametrize("action", ["add", "remove", "remove most"])
def test_killed_at_any_step_a_change_is_whole_or_not_there(make, draw, small, action):
    vectors = draw(400)
    with make() as gallery:
        gallery.add(vectors[:100], fingerprint=MODEL)
        folder = gallery.folder
    there, step, first = list(range(100)), 0, 100
    seen = set()
    while True:
        step += 1
        num = 7 if action == "add" else 3 if action == "remove" else len(there) * 6 // 10
        gone = there[:: max(1, len(there) // num)][:num]

        def change(first=first, num=num, gone=gone) -> None:
            with Gallery(folder) as gallery:
                if action == "add":
                    gallery.add(
                        vectors[first : first + num], fingerprint=MODEL, ids=[f"v{first + i}" for i in range(num)]
                    )
                else:
                    gallery.remove([name(i) for i in gone])

        after = [*there, *range(first, first + num)] if action == "add" else [i for i in there if i not in gone]

        def name(number: int) -> str:
            return str(number + 1) if number < 100 else f"v{number}"

        killed = killed_at(step, change)
        with Gallery(folder) as gallery:
            found = [entry.id for entry in gallery.entries()]
            assert found in ([name(i) for i in there], [name(i) for i in after]), f"step {step}"
            whole = found == [name(i) for i in after]
            seen.add(whole)
            report = check(gallery)
            assert report.problems == [] and report.entries == len(found)
            there = after if whole else there
            assert (gallery.vectors_of(found) == vectors[there]).all()
        content = bytes_of(folder)
        lost = set(range(400)) - set(there)
        assert not any(vectors[i].tobytes()[:32] in content for i in lost), f"step {step}"
        if whole and action == "add":
            first += num
        if not killed:
            break
        if len(there) < 40 or first > 390:  # begin anew, to go on with the next step
            for path in Path(folder).iterdir():
                path.unlink()
            with Gallery.create(folder, dimension=64, fingerprint=MODEL) as gallery:
                gallery.add(vectors[:100], fingerprint=MODEL)
            there, first = list(range(100)), 100
    assert step >= 8 and seen == {True, False}


def test_what_is_removed_is_in_no_byte_of_the_folder(make, draw):
    count = 3000
    vectors, gallery = draw(count), make()
    said = {
        "ids": [f"Ada Lovelace {i:04}" for i in range(count)],
        "cameras": [f"gate {i:04}" for i in range(count)],
        "times": [f"2026-11-27T09:30:00.12{i:04}" for i in range(count)],
        "metadata": [{"note": f"a secret {i:04}"} for i in range(count)],
        "paths": [f"crops/ada-{i:04}.jpg" for i in range(count)],
    }
    gallery.add(vectors, fingerprint=MODEL, **said)
    compact = np.fromfile(Path(gallery.folder, gallery.state.compact), dtype="<f4").reshape(count, -1)

    def traces(i: int) -> list[bytes]:
        texts = [said["metadata"][i]["note"], *(said[name][i] for name in ("ids", "cameras", "times", "paths"))]
        return [vectors[i].tobytes()[:24], compact[i].tobytes()[:24], *(text.encode() for text in texts)]

    content = bytes_of(gallery.folder)
    assert all(trace in content for i in (7, 8, 2999) for trace in traces(i))
    gallery.remove([said["ids"][7], said["ids"][2999]])
    content = bytes_of(gallery.folder)
    assert not any(trace in content for i in (7, 2999) for trace in traces(i))
    assert all(trace in content for trace in traces(8))
    gallery.remove(said["ids"][:7] + said["ids"][8:2999])
    content = bytes_of(gallery.folder)
    assert not any(trace in content for i in range(0, count, 10) for trace in traces(i))
    assert not any(text in content for text in (b"Ada", b"gate ", b"secret", b"2026", b"crops"))
    assert (len(gallery), check(gallery)) == (0, Report(entries=0, removed=count, problems=[]))


def test_most_rows_erased_are_left_out_of_a_copy(make, draw, brute_order, small):
    vectors, gallery = draw(300), make()
    gallery.add(vectors, fingerprint=MODEL)
    old = gallery.state
    gallery.remove([str(i + 1) for i in range(300) if i % 3])
    kept = vectors[::3]
    state = gallery.state
    assert state.slots == 100 and state.compact not in ("", old.compact) and state.vectors != old.vectors
    assert sorted(path.name for path in Path(gallery.folder).iterdir()) == sorted(
        ["gallery.sqlite", state.vectors, state.compact, state.directions]
    )
    assert Path(gallery.folder, state.vectors).stat().st_size == kept.nbytes
    found = gallery.search(vectors[:5], fingerprint=MODEL, count=100)
    order = brute_order(vectors[:5], kept)
    assert [[(int(match.entry.id) - 1) // 3 for match in matches] for matches in found] == order.tolist()
    assert check(gallery).problems == []


def test_holes_are_not_found(make, draw, brute_order):
    vectors, gallery = draw(3000), make()
    gallery.add(vectors, fingerprint=MODEL)
    gallery.remove([str(i + 1) for i in range(0, 900, 3)])
    kept = {i for i in range(3000) if i >= 900 or i % 3}
    for limits in (None, Filter(until=1)):  # nobody has a time
        found = gallery.search(vectors[:4], fingerprint=MODEL, count=3000, filter=limits)
        expected = [[i for i in row if i in kept and limits is None] for row in brute_order(vectors[:4], vectors)]
        assert [[int(match.entry.id) - 1 for match in matches] for matches in found] == expected


@pytest.mark.parametrize("fails", [1, 2])  # the vectors, the compact rows
def test_a_full_disk_while_adding_loses_nothing(make, draw, monkeypatch, fails):
    vectors, gallery = draw(3000), make()
    gallery.add(vectors[:2500], fingerprint=MODEL)
    before, calls, sync = bytes_of(gallery.folder), [], os.fsync

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == fails:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SetupError, match=r"cannot be read or written \(No space left on device\), and nothing was"):
        gallery.add(vectors[2500:], fingerprint=MODEL)
    monkeypatch.undo()
    assert bytes_of(gallery.folder) == before
    assert len(gallery.add(vectors[2500:], fingerprint=MODEL)) == 500
    assert check(gallery).problems == []


def test_a_disk_that_is_full_after_the_change_makes_it_no_error(make, draw, monkeypatch):
    """It is acknowledged; only the compact rows have to wait."""
    vectors, gallery = draw(3000), make()

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np, "save", full)
    assert len(gallery.add(vectors, fingerprint=MODEL)) == 3000
    assert not gallery.state.compact and check(gallery) == Report(entries=3000, removed=0, problems=[])
    monkeypatch.undo()
    gallery.remove(["1"])
    assert gallery.state.compact and check(gallery) == Report(entries=2999, removed=1, problems=[])


def test_what_could_not_be_erased_is_said_and_erased_later(make, draw, monkeypatch):
    vectors, gallery = draw(100), make()
    gallery.add(vectors, fingerprint=MODEL)

    def full(*args, **kwargs):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(RowFile, "erase", full)
    with pytest.raises(SetupError, match="the entries are removed, but their vectors are not erased yet: the next"):
        gallery.remove(["7"])
    monkeypatch.undo()
    assert len(gallery) == 99 and vectors[6].tobytes() in bytes_of(gallery.folder)
    gallery.add(vectors[:1], fingerprint=MODEL)
    assert vectors[6].tobytes()[:24] not in bytes_of(gallery.folder)


def test_a_full_database_loses_nothing(make, draw):
    gallery = make()
    gallery.add(draw(100), fingerprint=MODEL)
    pages = gallery._database.one("PRAGMA page_count")
    gallery._database.execute(f"PRAGMA max_page_count = {pages}")
    for change in (
        lambda: gallery.add(draw(2000), fingerprint=MODEL, paths=["a" * 200] * 2000),
        lambda: gallery.add(draw(3000), fingerprint=MODEL),
    ):
        with pytest.raises(
            SetupError, match=r"\(database or disk is full\), and nothing was changed: look at the free"
        ):
            change()
    assert check(gallery) == Report(entries=100, removed=0, problems=[])


def test_two_writers_at_once(make, draw, tmp_path):
    first = make()
    first.add(draw(10), fingerprint=MODEL)
    with Gallery(first.folder, patience=0.05) as second:
        with first.storage.changing():
            for change in (lambda: second.add(draw(1), fingerprint=MODEL), lambda: second.remove(["1"])):
                with pytest.raises(SetupError, match="in use by another process, and nothing was changed: try again"):
                    change()
            assert len(second.search(draw(1), fingerprint=MODEL)[0]) == 10
        assert second.add(draw(1), fingerprint=MODEL) == ["11"]
        # A change waits for those who read, who would see rows disappear.
        with first.storage.reading() as view:
            with pytest.raises(SetupError, match="in use by another process"):
                second.remove(["1"])
            assert view.vectors[0].any() and len(view.vectors) == 11
        assert (len(first), check(first).problems) == (11, [])


def test_readers_see_what_others_have_changed(make, draw):
    gallery, vectors = make(), draw(3000)
    gallery.add(vectors[:2100], fingerprint=MODEL)
    with Gallery(gallery.folder) as reader:
        assert len(reader.search(vectors[:1], fingerprint=MODEL, count=5000)[0]) == 2100
        gallery.add(vectors[2100:], fingerprint=MODEL)
        assert reader.search(vectors[2500:2501], fingerprint=MODEL)[0][0].entry.id == "2501"
        gallery.remove([str(i) for i in range(1, 2001)])
        assert gallery.state.slots == 1000
        assert reader.search(vectors[2500:2501], fingerprint=MODEL)[0][0].entry.id == "2501"
        assert len(reader.search(vectors[:1], fingerprint=MODEL, count=5000)[0]) == 1000


def damage(path: Path, at: int, content: bytes = b"\xff\xff\xff\xff") -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(content)


def test_damage_is_found_and_named(make, draw):
    vectors, gallery = draw(3000), make()
    gallery.add(vectors, fingerprint=MODEL)
    state, folder = gallery.state, Path(gallery.folder)
    damage(folder / state.vectors, 256 * 41 + 8, b"\0\0\1\1")
    (problem,) = check(gallery).problems
    assert "the vectors of 1 entries have changed on the disk (42)" in problem
    damage(folder / state.vectors, 256 * 41, vectors[41].tobytes())
    assert check(gallery).problems == []
    damage(folder / state.compact, 16 * 4 * 50, b"\0\0\1\1")
    (problem,) = check(gallery).problems
    assert f"1 rows of {state.compact} have changed on the disk: remove that file" in problem
    (folder / state.compact).unlink()
    report = check(gallery)
    assert report.problems == [] and gallery.state.compact not in ("", state.compact)


@pytest.mark.parametrize("kind", ["compact", "directions"])
def test_without_a_derived_file_the_search_stays_exact_and_a_change_makes_it_anew(make, draw, brute_order, kind):
    vectors, gallery = draw(3000), make()
    gallery.add(vectors, fingerprint=MODEL)
    state = gallery.state
    path = Path(gallery.folder, getattr(state, kind))
    path.write_bytes(path.read_bytes()[:1000])
    with Gallery(gallery.folder) as other:
        found = other.search(vectors[:3], fingerprint=MODEL, count=30)
        order = brute_order(vectors[:3], vectors)[:, :30]
        assert [[int(match.entry.id) - 1 for match in matches] for matches in found] == order.tolist()
        other.remove(["77"])
        assert not path.exists() and Path(other.folder, getattr(other.state, kind)).exists()
        assert check(other).problems == []


def test_missing_and_foreign_files_are_one_line(make, draw, tmp_path):
    with make() as gallery:
        gallery.add(draw(100), fingerprint=MODEL)
        folder, name = Path(gallery.folder), gallery.state.vectors
    vectors, database = (folder / name).read_bytes(), (folder / "gallery.sqlite").read_bytes()
    (folder / name).write_bytes(vectors[:-1])
    with Gallery(str(folder)) as gallery:
        for use in (
            lambda: gallery.search(draw(1), fingerprint=MODEL),
            lambda: check(gallery),
            lambda: gallery.add(draw(1), fingerprint=MODEL),  # which would fill the gap with zeros
        ):
            with pytest.raises(DataError, match="is missing or cut short, 99 of 100 vectors are there: bring"):
                use()
    (folder / name).write_bytes(vectors)
    wrong = {
        b"no database": "gallery.sqlite' is damaged (file is not a database): bring the folder back",
        b"": "gallery.sqlite' is a file of another program",
        database[:8192]: "is damaged (",
        database[:60] + (9).to_bytes(4, "big") + database[64:]: "has format 9, and this version of mgre reads 1",
    }
    for content, message in wrong.items():
        (folder / "gallery.sqlite").write_bytes(content)
        with pytest.raises(DataError) as caught, Gallery(str(folder)) as gallery:
            list(gallery.entries())
        assert message in str(caught.value) and "\n" not in str(caught.value)
        assert (folder / "gallery.sqlite").read_bytes() == content
    (folder / "gallery.sqlite").write_bytes(database)
    with Gallery(str(folder)) as gallery:
        assert check(gallery).problems == []


def test_checking_finds_what_no_code_does(make, draw):
    gallery = make()
    gallery.add(draw(100), fingerprint=MODEL)
    gallery.remove(["1", "2"])
    damage(Path(gallery.folder, gallery.state.vectors), 256)
    with sqlite3.connect(Path(gallery.folder, "gallery.sqlite")) as other:
        other.execute("UPDATE entries SET id = '1' WHERE id = '50'")
        other.execute("DELETE FROM entries WHERE id = '60'")
    problems = " ".join(check(gallery).problems)
    assert "not all slots" in problems and "1 removed vectors are not erased" in problems
    assert "ids were given again after a removal: 1" in problems


def test_an_index_that_another_process_fills_is_not_begun_anew(make, draw):
    gallery = make()

    def begin_anew():
        with pytest.raises(DataError, match="is an index already"):
            Gallery.create(gallery.folder, dimension=8, fingerprint="another")

    second = threading.Thread(target=begin_anew)
    with gallery.storage.changing() as state:  # what add() does, in two parts
        second.start()
        time.sleep(0.2)  # the other one waits by then
        gallery.storage.append(state, draw(1))
        row = (0, "1", None, None, None, "{}", None, 0)
        gallery.storage.database.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        gallery.storage.database.set(slots=1)
    second.join()
    assert (gallery.vectors_of(["1"]) == draw(1)).all()


def test_an_index_that_was_begun_anew_takes_no_vectors_of_its_first_model(make, draw, monkeypatch):
    gallery, check_model = make(), Gallery._check_model

    def begin_anew(*arguments):
        monkeypatch.setattr(Gallery, "_check_model", check_model)
        Gallery.create(gallery.folder, dimension=8, fingerprint="another").close()

    monkeypatch.setattr(Gallery, "_check_model", begin_anew)  # right after add() has looked at the model
    with pytest.raises(DataError, match="of model another, and these are of a model"):
        gallery.add(draw(1), fingerprint=MODEL)
    assert len(gallery) == 0


@pytest.mark.parametrize("column", ["vectors", "compact", "directions"])
def test_an_index_names_no_files_outside_of_its_folder(make, draw, tmp_path, column):
    gallery = make()
    gallery.add(draw(3000), fingerprint=MODEL)
    gallery.close()
    own = tmp_path / "own.f32"
    own.write_bytes(b"\x01" * 4 * 64 * 4000)
    for name in ("../own.f32", str(own), "own.f32", b"own", 7):
        with sqlite3.connect(tmp_path / "index" / "gallery.sqlite") as connection:
            connection.execute(f"UPDATE state SET {column} = ?", (name,))
        with Gallery(gallery.folder) as changed, pytest.raises(DataError, match="its state names no files of an index"):
            changed.add(draw(1), fingerprint=MODEL)
    assert own.read_bytes() == b"\x01" * 4 * 64 * 4000


def test_nothing_is_written_through_a_link(make, draw, tmp_path):
    gallery = make()
    gallery.add(draw(3), fingerprint=MODEL)
    vectors = tmp_path / "index" / gallery.state.vectors
    own = tmp_path / "own.f32"
    own.write_bytes(vectors.read_bytes() + b"mine")
    content = own.read_bytes()
    vectors.unlink()
    vectors.symlink_to(own)
    for change in (lambda: gallery.add(draw(1), fingerprint=MODEL), lambda: gallery.remove(["1"])):
        with pytest.raises(SetupError, match="cannot be read or written"):
            change()
    assert own.read_bytes() == content
