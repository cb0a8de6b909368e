"""The files of a gallery, and what keeps them in step with its SQLite file whatever stops a process.

- ``gallery.sqlite`` is the truth (:mod:`mgre.gallery.database`).
- ``vectors-*.f32`` holds the vectors, row ``slot`` that of the entry with this slot. Rows are added at the end and
  reach the disk before the entries are committed. So what a killed process leaves is behind the rows in use, where the
  next change cuts it off.
- ``compact-*.f32`` and ``directions-*.npy`` are derived (:mod:`mgre.gallery.reduction`). Where they are missing or cut
  short, a search reads all vectors, and the next change makes them anew.

A removal commits first that the entries are gone, and that their rows have to be erased. Then it overwrites the rows
with zeros. Where a process is killed in between, the next change erases them before all else. Where more than half of
the rows are erased, the vectors are copied to a new file without them.
"""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mgre.errors import DataError, SetupError, first_names, printable
from mgre.gallery.database import FILE_NAME, Database, State
from mgre.gallery.reduction import find_directions, normalise, reduce_vectors, spread_numbers
from mgre.gallery.row_file import RowFile, parts_of
from mgre.system.files import sync_folder

# Fewer vectors than these are searched by all products.
LEAST_VECTORS = 2048
# Directions are looked for anew when the gallery has grown by this factor.
GROWTH = 4
# Vectors among which directions are looked for.
SAMPLED = 8192
# Erased rows from which the vectors may be copied.
LEAST_ERASED = 1024
_PATTERNS = ("vectors-*.f32", "compact-*.f32", "directions-*.npy")


@dataclass(frozen=True)
class View:
    """What a search sees.

    Attributes:
        state: of the gallery.
        vectors: (N, D), float32, by slot.
        compact, directions: (N, d + 1), float32, and (D, d), float64; or None and None.
        holes: slots of removed entries, int64.
    """

    state: State
    vectors: np.ndarray
    compact: np.ndarray | None
    directions: np.ndarray | None
    holes: np.ndarray


class Storage:
    """An open gallery's files.

    Args:
        folder: of the gallery.
        patience: seconds to wait for other processes.
    """

    def __init__(self, folder: str, *, patience: float) -> None:
        self.folder = folder
        self.database = Database(folder, patience=patience)
        self._view: View | None = None

    def close(self) -> None:
        self._view = None
        self.database.close()

    @contextmanager
    def reading(self) -> Iterator[View]:
        """All of the gallery, as it stays until this ends.

        Raises:
            DataError: a file is damaged or missing.
        """
        with self.database.reading() as state:
            if self._view is None or self._view.state != state:
                vectors = self.vectors(state).map(state.slots)
                compact = directions = None
                if (derived := self.derived(state)) is not None:
                    file, directions = derived
                    compact = file.map(state.slots)
                holes = self.database.numbers("SELECT slot FROM holes ORDER BY slot")
                self._view = View(state, vectors, compact, directions, holes)
            yield self._view

    @contextmanager
    def changing(self) -> Iterator[State]:
        """A change that is whole or not there. What an earlier one has left is tidied up first."""
        with self.database.changing() as state:
            self._tidy(state)
            state = self.database.state()
            try:
                yield state
            except BaseException:
                with suppress(OSError):  # the next change does it
                    self._cut(state)
                raise

    def append(self, state: State, vectors: np.ndarray) -> None:
        """Write vectors (N, D), float32, to the slots behind those in use, within :meth:`changing`.

        Raises:
            OSError: the disk is full.
        """
        parts = list(parts_of(*vectors.shape))
        self.vectors(state).write(state.slots, (vectors[part] for part in parts))
        if (derived := self.derived(state)) is not None:
            file, directions = derived
            file.write(state.slots, (reduce_vectors(normalise(vectors[part]), directions) for part in parts))

    def renew(self) -> None:
        """After a change: new directions where the gallery has grown, and a copy where most rows are erased.

        A full disk, or another process, only keeps it from being done.
        """
        with suppress(SetupError):
            with self.database.reading() as state:
                grown = state.slots >= max(LEAST_VECTORS, GROWTH * state.compact_at)
                num_holes = self.database.one("SELECT count(*) FROM holes")
            crowded = num_holes >= LEAST_ERASED and 2 * num_holes > state.slots
            if not (grown or crowded):
                return
            with self.changing() as state:
                if crowded:
                    self._copy_without_holes(state)
                self._derive(self.database.state())
            with self.changing():
                pass  # it removes the old files

    def vectors(self, state: State) -> RowFile:
        return RowFile(os.path.join(self.folder, state.vectors), state.dimension)

    def derived(self, state: State) -> tuple[RowFile, np.ndarray] | None:
        """The file of compact rows, and the directions; None where they are not there or do not fit."""
        if not state.compact:
            return None
        try:
            directions = np.load(os.path.join(self.folder, state.directions), allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        if directions.ndim != 2 or directions.dtype != np.float64 or len(directions) != state.dimension:
            return None
        file = RowFile(os.path.join(self.folder, state.compact), directions.shape[1] + 1)
        return (file, directions) if file.num_rows >= state.slots else None

    def _tidy(self, state: State) -> None:
        """Erase what was removed, cut off what was not committed, make anew what does not fit, remove old files."""
        self.vectors(state).require(state.slots)
        pending = self.database.numbers("SELECT slot FROM holes WHERE NOT erased ORDER BY slot").tolist()
        if pending:
            self.vectors(state).erase(pending)
        if state.compact and self.derived(state) is None:
            self._derive(state)  # it leaves nothing of erased rows
        elif pending and (derived := self.derived(state)) is not None:
            derived[0].erase(pending)
        if pending:
            self.database.execute("UPDATE holes SET erased = 1")
        state = self.database.state()
        self._cut(state)
        named = {state.vectors, state.compact, state.directions}
        for path in (path for pattern in _PATTERNS for path in Path(self.folder).glob(pattern)):
            if path.name not in named:
                path.unlink(missing_ok=True)

    def _cut(self, state: State) -> None:
        self.vectors(state).cut(state.slots)
        if (derived := self.derived(state)) is not None:
            derived[0].cut(state.slots)

    def _derive(self, state: State) -> None:
        """Look for directions, and write compact rows where there are some."""
        vectors = self.vectors(state).map(state.slots)
        sample = vectors[spread_numbers(state.slots, SAMPLED)]
        directions = find_directions(sample[sample.any(axis=1)])  # erased rows are zeros
        names = {"compact": "", "directions": ""}
        if directions is not None:
            names = {"compact": new_name("compact", ".f32"), "directions": new_name("directions", ".npy")}
            with open(os.path.join(self.folder, names["directions"]), "wb") as file:
                np.save(file, directions, allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())
            compact = RowFile(os.path.join(self.folder, names["compact"]), directions.shape[1] + 1)
            compact.write(
                0, (reduce_vectors(normalise(vectors[p]), directions) for p in parts_of(state.slots, state.dimension))
            )
            sync_folder(self.folder)
        self.database.set(compact_at=state.slots, **names)

    def _copy_without_holes(self, state: State) -> None:
        """Copy the vectors to a new file without the rows of removed entries; the entries get new slots."""
        old = self.vectors(state).map(state.slots)
        slots = self.database.numbers("SELECT slot FROM entries ORDER BY slot")
        name = new_name("vectors", ".f32")
        copy = RowFile(os.path.join(self.folder, name), state.dimension)
        copy.write(0, (old[slots[part]] for part in parts_of(len(slots), state.dimension)))
        sync_folder(self.folder)
        # In ascending order, so that the new slot, which is at most the old one, is free.
        moved = ((new, old) for new, old in enumerate(slots.tolist()) if new != old)
        self.database.many("UPDATE entries SET slot = ? WHERE slot = ?", moved)
        self.database.execute("DELETE FROM holes")
        self.database.set(vectors=name, slots=len(slots), compact="", directions="")


def new_name(kind: str, suffix: str) -> str:
    """A file name that no file has."""
    return f"{kind}-{secrets.token_hex(6)}{suffix}"


def check_vectors(vectors: object, dimension: int) -> np.ndarray:
    """Vectors (N, D) in float32.

    Raises:
        DataError: another shape or type, or a number that is not finite or too large.
    """
    array = np.asarray(vectors)
    if array.ndim != 2 or array.shape[1] != dimension or not np.issubdtype(array.dtype, np.floating):
        raise DataError(
            f"the vectors are an array {array.shape} of {array.dtype}: (N, {dimension}) of float32 is needed"
        )
    array = array.astype(np.float32, copy=False)
    for part in parts_of(*array.shape):
        # The norm must not overflow in float32.
        largest = np.abs(array[part]).max(axis=1)
        wrong = np.flatnonzero(~(largest < 1e15))
        if wrong.size:
            raise DataError(
                f"vector {part.start + int(wrong[0])} has a number that is NaN, infinite or above 1e15: look at the "
                "image it is of, and at the model's weights"
            )
    return array


def require_no_others(folder: str) -> None:
    """
    Raises:
        DataError: the folder has files that are none of a gallery.
    """
    others = sorted(name for name in os.listdir(folder) if not name.startswith((".", "vectors-", FILE_NAME)))
    if others:
        raise DataError(
            f"folder '{folder}' has other files ({printable(first_names(others))}): choose one that is empty, or that "
            "does not exist"
        )
