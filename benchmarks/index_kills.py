#!/usr/bin/env python
"""Kill a process that adds to a gallery and removes from it, at random moments, and see whether anything is lost.

A third of the kills come while a transaction is being written, a third in the first moments of the process, when it
tidies up after the last kill, and the rest anywhere. After each kill all that was acknowledged has to be there, bit by
bit, and nothing that was removed in any byte of the folder.
"""

import argparse
import json
import multiprocessing
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from mgre.gallery import Gallery
from mgre.gallery.checking import check

FINGERPRINT, DIM = "a model", 256
# For some kills the gallery grows, for the next it shrinks. So it looks for directions, and copies itself when most of
# its rows are erased.
KILLS_OF_A_TREND, LARGE, SMALL = 3, 4000, 500
# Most vectors that are added or removed at a time.
MOST = 600
# Seconds in which something has to happen.
PATIENCE = 120.0


@dataclass
class Known:
    """What the log of the killed processes says.

    Attributes:
        there: the number of the vector of each id that is in the gallery.
        removed: the same of each id that was removed.
        unsure: what was going on at the kill: an entry of the log, or None.
    """

    there: dict[str, int] = field(default_factory=dict)
    removed: dict[str, int] = field(default_factory=dict)
    unsure: dict | None = None


def vector(number: int) -> np.ndarray:
    """The vector of this number, (1, D); its energy is in few directions, as that of real features."""
    scales = np.arange(1, DIM + 1) ** -0.85
    return (np.random.default_rng(number).standard_normal((1, DIM)) * scales).astype(np.float32)


def vectors(first: int, count: int) -> np.ndarray:
    return np.concatenate([vector(number) for number in range(first, first + count)])


def change(folder: Path, log: Path, seed: int) -> None:
    """Add and remove, until killed."""
    chosen = random.Random(seed)
    known = read(log)
    number = 1 + max([*known.there.values(), *known.removed.values(), seed * 1_000_000])
    grows = seed // KILLS_OF_A_TREND % 2 == 0
    with log.open("a", buffering=1) as file, Gallery(str(folder)) as gallery:
        while True:
            if not SMALL < len(known.there) < LARGE:
                grows = len(known.there) <= SMALL
            count = chosen.randint(1, MOST)
            if chosen.random() < (0.9 if grows else 0.1):
                own = [f"own {number + i}" for i in range(count)] if chosen.random() < 0.5 else None
                begun = {"action": "add", "first": number, "count": count, "ids": own}
                print(json.dumps(begun), file=file)
                ids = gallery.add(vectors(number, count), fingerprint=FINGERPRINT, ids=own)
                known.there |= dict(zip(ids, range(number, number + count), strict=True))
                number += count
            else:
                ids = chosen.sample(sorted(known.there), min(count, len(known.there)))
                begun = {"action": "remove", "ids": ids}
                print(json.dumps(begun), file=file)
                gallery.remove(ids)
                for id in ids:
                    known.removed[id] = known.there.pop(id)
            print(json.dumps({"action": "done", "ids": ids}), file=file)


def read(log: Path) -> Known:
    """What the log says, its last line being cut short or not."""
    known = Known()
    for line in log.read_text().splitlines() if log.exists() else []:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if entry["action"] in ("done", "settled"):
            _settle(known, entry["ids"], happened=entry.get("happened", True))
        else:
            known.unsure = entry
    return known


def _settle(known: Known, ids: list[str], *, happened: bool) -> None:
    begun, known.unsure = known.unsure, None
    if not happened:
        return
    if begun["action"] == "add":
        known.there |= {id: begun["first"] + i for i, id in enumerate(ids)}
    else:
        known.removed |= {id: known.there.pop(id) for id in ids}


def verify(folder: Path, log: Path, before: Known) -> list[str]:
    """What is wrong after a kill, which should be nothing.

    Args:
        before: what was known at the last verification; the bytes of what was removed earlier are not looked for.
    """
    known, faults = read(log), []
    with Gallery(str(folder)) as gallery:
        found = {entry.id for entry in gallery.entries()}
        if known.unsure:
            if known.unsure["action"] == "add":
                ids = sorted(found - set(known.there), key=lambda id: int(id.split()[-1]))
                changed, wanted = len(ids), known.unsure["count"]
            else:
                ids = known.unsure["ids"]
                changed, wanted = len(set(ids) - found), len(ids)
            if changed not in (0, wanted):
                faults.append(f"half of a change: {changed} of {wanted} entries")
            happened = changed > 0
            with log.open("a") as file:  # its last line may be cut short
                print("\n" + json.dumps({"action": "settled", "ids": ids, "happened": happened}), file=file)
            known = read(log)
        lost, back = set(known.there) - found, found - set(known.there)
        if lost or back:
            faults.append(f"{len(lost)} entries lost, {len(back)} that nobody added")
        report = check(gallery)
        faults += report.problems
        ids = sorted(known.there.keys() & found)
        expected = [vector(known.there[id]) for id in ids]
        if ids and not np.array_equal(gallery.vectors_of(ids), np.concatenate(expected)):
            faults.append("vectors have changed")
        if known.there.keys() & known.removed.keys():
            faults.append("an id was given again")
    content = b"".join(path.read_bytes() for path in folder.iterdir())
    new = known.removed.keys() - before.removed.keys()
    left = count_present([vector(known.removed[id]).tobytes()[:64] for id in new], content)
    if left:
        faults.append(f"the vectors of {left} removed entries are still on the disk")
    return faults


def count_present(patterns: Sequence[bytes], content: bytes) -> int:
    """The number of patterns, of at least 8 bytes, that are somewhere in ``content``.

    To look for thousands one by one takes longer than all else here. So the first 8 bytes of all are looked for first.
    """
    if not patterns:
        return 0
    starts = [int.from_bytes(pattern[:8], sys.byteorder) for pattern in patterns]
    ordered = np.sort(np.array(starts, np.uint64))
    present = set()
    for offset in range(min(8, len(content))):
        words = np.frombuffer(content, np.uint64, (len(content) - offset) // 8, offset)
        nearest = ordered[np.searchsorted(ordered, words).clip(max=len(ordered) - 1)]
        present.update(words[words == nearest].tolist())
    return sum(start in present and pattern in content for start, pattern in zip(starts, patterns, strict=True))


def torture(folder: Path, *, kills: int, seed: int) -> list[str]:
    """Kill so often; all faults."""
    index, log, moments = folder / "index", folder / "log.txt", random.Random(seed)
    Gallery.create(str(index), dimension=DIM, fingerprint=FINGERPRINT).close()
    faults, known = [], Known()
    for kill in range(1, kills + 1):
        size = log.stat().st_size if log.exists() else 0
        process = multiprocessing.get_context("fork").Process(target=change, args=(index, log, kill))
        process.start()
        kind = moments.random()
        if kind < 1 / 3:
            seconds, what = moments.uniform(0, 0.1), "of its start"
        else:
            _wait(process, lambda size=size: log.exists() and log.stat().st_size > size)
            seconds, what = moments.uniform(0, 2), "after its first change began"
        time.sleep(seconds)
        if kind > 2 / 3:
            journal, seconds, what = index / "gallery.sqlite-journal", moments.uniform(0, 0.01), "into a transaction"
            _wait(process, journal.exists)
            time.sleep(seconds)
        if not process.is_alive():
            return [*faults, f"the process ended by itself with {process.exitcode}"]
        process.kill()
        process.join()
        found = verify(index, log, known)
        faults += found
        known = read(log)
        print(
            f"kill {kill}: {seconds:.3f} s {what}; {len(known.there)} there, {len(known.removed)} removed; "
            f"{'; '.join(found) or 'all well'}",
            flush=True,
        )
    return faults + verify(index, log, Known())


def _wait(process: multiprocessing.Process, happened: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while process.is_alive() and time.monotonic() < end and not happened():
        time.sleep(0.0005)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    return parser.parse_args()


if __name__ == "__main__":
    arguments = parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        wrong = torture(Path(temporary), kills=arguments.kills, seed=arguments.seed)
    print(f"faults: {', '.join(wrong[:10]) or 'none'}")
    sys.exit(bool(wrong))
