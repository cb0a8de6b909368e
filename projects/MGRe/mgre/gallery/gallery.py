"""A gallery on disk: add, remove, search, list.

Legend: N vectors, D their dimension, B queries, K the number that is asked for.
"""

import os
import sqlite3
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType

import numpy as np

from mgre.errors import DataError, SetupError, nearest, printable
from mgre.gallery import database, reranking
from mgre.gallery.database import FILE_NAME, PATIENCE, State, digest
from mgre.gallery.entries import COLUMNS, Entry, Filter, describe, entry_of, where
from mgre.gallery.reduction import normalise
from mgre.gallery.reranking import Rerank
from mgre.gallery.search import Found, search
from mgre.gallery.storage import Storage, View, check_vectors, new_name, require_no_others
from mgre.system.locks import lock_folder

# In larger galleries no id is looked for that is similar to a wrong one.
MOST_COMPARED_IDS = 20_000


@dataclass(frozen=True)
class Match:
    """An image that a search has found.

    Attributes:
        entry: what the gallery knows of it.
        distance: what the order follows: 1 - cosine, or the re-ranked distance.
        cosine: of the angle between query and image, from -1 to 1.
    """

    entry: Entry
    distance: float
    cosine: float


class Gallery:
    """Vectors of one model with their entries, in a folder. Several processes may use it at a time.

    What :meth:`add` and :meth:`remove` have returned from is on the disk. Where a process is stopped earlier, whatever
    stops it, the gallery is as it was before. One object is for one thread.

    Args:
        folder: of the gallery.
        patience: seconds to wait for a change by another process.

    Raises:
        DataError: there is no gallery, or it is damaged or of another format.
        SetupError: it cannot be opened.
    """

    def __init__(self, folder: str, *, patience: float = PATIENCE) -> None:
        self.storage = Storage(folder, patience=patience)
        self._database = self.storage.database
        self.folder = folder

    @classmethod
    def create(cls, folder: str, *, dimension: int, fingerprint: str, record: str = "{}") -> "Gallery":
        """Make an empty gallery.

        Args:
            folder: it is made where it does not exist. A gallery that is there must be empty and is made anew, since a
                stopped building leaves one.
            dimension: D.
            fingerprint: of the model; vectors of another one are refused.
            record: of the model, JSON text.

        Raises:
            DataError: the folder has a gallery with entries, or other files; a value is wrong.
            SetupError: the folder cannot be written.
        """
        if dimension < 1 or not fingerprint:
            raise DataError("an index needs vectors with one number at least, and the model's fingerprint")
        try:
            os.makedirs(folder, exist_ok=True)
            with lock_folder(folder):  # else a second process could put its gallery in the place of this one
                if os.path.exists(os.path.join(folder, FILE_NAME)):
                    _begin_anew(folder, dimension, fingerprint, record)
                else:
                    require_no_others(folder)
                    database.make(folder, dimension, fingerprint, record, new_name("vectors", ".f32"))
        except OSError as error:
            raise SetupError(f"index '{folder}' cannot be made ({error.strerror}): choose another folder") from error
        return cls(folder)

    def __enter__(self) -> "Gallery":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self.storage.close()

    def __len__(self) -> int:
        with self._database.reading():
            return self._database.one("SELECT count(*) FROM entries")

    @property
    def state(self) -> State:
        """Dimension, fingerprint and record of the model, and what the files are."""
        with self._database.reading() as state:
            return state

    def add(
        self,
        vectors: np.ndarray,
        *,
        fingerprint: str,
        ids: Sequence[str] | None = None,
        cameras: Sequence[object] | None = None,
        times: Sequence[object] | None = None,
        metadata: Sequence[object] | None = None,
        paths: Sequence[str] | None = None,
    ) -> list[str]:
        """Add all of these vectors, or none of them; their ids, when they are on the disk.

        Args:
            vectors: (N, D), floating, as the model gives them; they are kept in float32 and not scaled.
            fingerprint: of the model that they are of.
            ids: of the vectors; None: they are made, as numbers.
            cameras: any names, which are compared as text.
            times: see :func:`mgre.gallery.entries.seconds_of`.
            metadata: mappings of JSON's types, or JSON texts of objects.
            paths: of the images.

        Raises:
            DataError: a value is wrong, an id is or was in the gallery, or the vectors are of another model.
            SetupError: another process is changing the gallery, or the disk is full.
        """
        state = self.state
        self._check_model(state, fingerprint)
        vectors = check_vectors(vectors, state.dimension)
        said = describe(len(vectors), ids=ids, cameras=cameras, times=times, metadata=metadata, paths=paths)
        with self.storage.changing() as state:
            self._check_model(state, fingerprint)  # again: a gallery without entries may have been begun anew
            chosen, next_id = self._choose_ids(said.ids, state)
            self.storage.append(state, vectors)
            rows = (
                (slot, id, *row, zlib.crc32(vector.data))
                for slot, (id, row, vector) in enumerate(
                    zip(chosen, said.rows, map(np.ascontiguousarray, vectors), strict=True), start=state.slots
                )
            )
            statement = (
                "INSERT INTO entries (slot, id, camera, time, time_text, metadata, path, checksum) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
            )
            try:
                self._database.many(statement, rows)
            except sqlite3.IntegrityError:
                older = "SELECT 1 FROM entries WHERE id = ? AND slot < ?"
                there = next(id for id in chosen if self._database.one(older, (id, state.slots)))
                raise DataError(self._not_free(there)) from None
            self._database.set(slots=state.slots + len(vectors), next_id=next_id)
        self.storage.renew()
        return chosen

    def remove(self, ids: Sequence[str]) -> None:
        """Remove all of these entries, or none of them. When this returns, their vectors are erased from the disk.

        Their ids are not given again; only a keyed hash of each is kept for that.

        Raises:
            DataError: an id is not in the gallery.
            SetupError: another process is changing the gallery, or the disk is full. The message says whether the
                entries are removed and only to be erased, which the next change of the gallery does.
        """
        ids = list(dict.fromkeys(ids))
        with self.storage.changing() as state:
            slots = [self._slot_of(id) for id in ids]
            self._database.many("DELETE FROM entries WHERE slot = ?", ((slot,) for slot in slots))
            self._database.many("INSERT INTO removed VALUES (?)", ((digest(state.salt, id),) for id in ids))
            self._database.many("INSERT INTO holes VALUES (?, 0)", ((slot,) for slot in slots))
        try:
            with self.storage.changing():
                pass  # it erases them
        except SetupError as error:
            raise SetupError(
                f"the entries are removed, but their vectors are not erased yet: the next change erases them ({error})"
            ) from error
        self.storage.renew()

    def search(
        self,
        queries: np.ndarray,
        *,
        fingerprint: str,
        count: int = 10,
        cameras: Sequence[object] | None = None,
        filter: Filter | None = None,
        rerank: Rerank | None = None,
    ) -> list[list[Match]]:
        """For each query its K nearest images by cosine, nearest first; those at equal distances in the order in which
        they were added.

        The search is exact, with cosines computed in float64.

        Args:
            queries: (B, D), floating.
            fingerprint: of the model that they are of.
            count: K.
            cameras: of the queries; images of the query's own camera are left out. None, or an empty one, leaves none
                out.
            filter: the images to look at.
            rerank: how to re-rank the first ones; None: not at all.

        Raises:
            DataError: a value is wrong, the vectors are of another model, or a file of the gallery is damaged.
            SetupError: re-ranking needs packages that are not there.
        """
        with self.storage.reading() as view:
            self._check_model(view.state, fingerprint)
            queries = np.ascontiguousarray(check_vectors(queries, view.state.dimension))
            if cameras is not None and len(cameras) != len(queries):
                raise DataError(f"there are {len(queries)} queries, but {len(cameras)} cameras: give one each")
            first = count if rerank is None else max(count, rerank.first)
            found = self._nearest(view, queries, first, cameras, filter or Filter())
            # Rounding can give a vector and itself a cosine above 1. The order is not touched by that.
            found = [(slots, cosines.clip(-1, 1)) for slots, cosines in found]
            plain = [(slots, 1 - cosines) for slots, cosines in found]
            ranked = (
                plain
                if rerank is None
                else reranking.rerank(queries, view.vectors, [near for near, _ in found], rerank)
            )
            matches = []
            for (slots, distances), (near, cosines) in zip(ranked, found, strict=True):
                cosine_of = dict(zip(near.tolist(), cosines.tolist(), strict=True))
                pairs = zip(slots[:count].tolist(), distances[:count].tolist(), strict=True)
                matches.append([Match(self._entry_at(slot), distance, cosine_of[slot]) for slot, distance in pairs])
            return matches

    def entries(self, filter: Filter | None = None, *, limit: int | None = None) -> Iterator[Entry]:
        """The entries in the order in which they were added, at most ``limit``."""
        conditions, values = (filter or Filter()).conditions()
        query = f"SELECT {COLUMNS} FROM entries {where(conditions)} ORDER BY slot LIMIT ?"
        with self._database.reading():
            for row in self._database.rows(query, [*values, -1 if limit is None else limit]):
                yield entry_of(row)

    def vectors_of(self, ids: Sequence[str]) -> np.ndarray:
        """The vectors (N, D), float32, of these entries.

        Raises:
            DataError: an id is not in the gallery.
        """
        with self.storage.reading() as view:
            return view.vectors[[self._slot_of(id) for id in ids]]

    def entry(self, id: str) -> Entry:
        """The entry of this id.

        Raises:
            DataError: there is none.
        """
        with self._database.reading():
            return self._entry_at(self._slot_of(id))

    def _nearest(
        self, view: View, queries: np.ndarray, count: int, cameras: Sequence[object] | None, filter: Filter
    ) -> list[Found]:
        conditions, values = filter.conditions()
        unit = normalise(queries)
        groups = defaultdict(list)
        for number in range(len(queries)):
            camera = "" if cameras is None or cameras[number] is None else str(cameras[number])
            groups[camera].append(number)
        found: list[Found] = [(np.empty(0, dtype=np.int64), np.empty(0))] * len(queries)
        for camera, numbers in groups.items():
            own = (["camera IS NOT ?"], [camera]) if camera else ([], [])
            slots = None
            if conditions or own[0]:
                query = f"SELECT slot FROM entries {where([*conditions, *own[0]])} ORDER BY slot"
                slots = self._database.numbers(query, [*values, *own[1]])
            for number, result in zip(numbers, search(view, unit[numbers], count, slots), strict=True):
                found[number] = result
        return found

    def _choose_ids(self, ids: Sequence[str | None], state: State) -> tuple[list[str], int]:
        """The ids, made where they are None, and where made ids go on."""
        any_removed = self._database.one("SELECT 1 FROM removed LIMIT 1") is not None
        next_id, chosen = state.next_id, []
        for id in ids:
            if id is None:
                while self._slot(str(next_id)) is not None or (any_removed and self._is_removed(str(next_id), state)):
                    next_id += 1
                id, next_id = str(next_id), next_id + 1
            elif any_removed and self._is_removed(id, state):
                raise DataError(self._not_free(id))
            chosen.append(id)
        return chosen, next_id

    def _is_removed(self, id: str, state: State) -> bool:
        return self._database.one("SELECT 1 FROM removed WHERE digest = ?", (digest(state.salt, id),)) is not None

    def _not_free(self, id: str) -> str:
        return (
            f"the id '{id}' is not free: index '{self.folder}' has or had an entry of this id, and none is given "
            "twice; choose another one"
        )

    def _slot(self, id: str) -> int | None:
        return self._database.one("SELECT slot FROM entries WHERE id = ?", (id,))

    def _slot_of(self, id: str) -> int:
        slot = self._slot(id)
        if slot is None:
            few = self._database.one("SELECT count(*) FROM entries") <= MOST_COMPARED_IDS
            known = (row[0] for row in self._database.rows("SELECT id FROM entries")) if few else ()
            raise DataError(f"no entry of index '{self.folder}' has the id '{printable(id)}'{nearest(id, known)}")
        return slot

    def _entry_at(self, slot: int) -> Entry:
        return entry_of(self._database.rows(f"SELECT {COLUMNS} FROM entries WHERE slot = ?", (slot,)).fetchone())

    def _check_model(self, state: State, fingerprint: str) -> None:
        if fingerprint != state.fingerprint:
            raise DataError(
                f"index '{self.folder}' has vectors of model {state.fingerprint}, and these are of "
                f"{fingerprint or 'an unknown one'}: take that model, or build another index, because cosines between "
                "two models mean nothing"
            )


def _begin_anew(folder: str, dimension: int, fingerprint: str, record: str) -> None:
    """Give a gallery without entries to another model.

    Raises:
        DataError: it has entries, or removed ones, whose ids must not be given again.
    """
    with Gallery(folder) as gallery, gallery.storage.changing() as state:
        if state.slots:
            raise DataError(f"'{folder}' is an index already: add to it with mgre index add, or choose another folder")
        gallery.storage.database.set(
            dimension=dimension, fingerprint=fingerprint, record=record, vectors=new_name("vectors", ".f32")
        )
