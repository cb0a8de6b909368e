"""The check of a gallery: is everything there that was acknowledged, and nothing that was removed?"""

import zlib
from dataclasses import dataclass

import numpy as np

from mgre.errors import first_names
from mgre.gallery.database import digest
from mgre.gallery.gallery import Gallery
from mgre.gallery.reduction import normalise, reduce_vectors
from mgre.gallery.row_file import parts_of

# Compact rows are computed again with other sizes of products, whose sums can differ in the last bits.
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Report:
    """
    Attributes:
        entries: how many there are.
        removed: how many there were.
        problems: one line each; none means that all is well.
    """

    entries: int
    removed: int
    problems: list[str]


def check(gallery: Gallery) -> Report:
    """Read all of a gallery. What a killed process has left is tidied up first, and derived files that are missing are
    made anew.

    Raises:
        DataError: gallery.sqlite is damaged, or the file of vectors is missing or cut short.
        SetupError: another process is changing the gallery.
    """
    storage = gallery.storage
    with storage.changing():
        pass
    with storage.reading() as view:
        found = storage.database
        problems = [f"gallery.sqlite: {row[0]}" for row in found.rows("PRAGMA integrity_check") if row[0] != "ok"]
        state, slots = view.state, found.numbers("SELECT slot FROM entries ORDER BY slot")
        if not np.array_equal(np.sort(np.concatenate((slots, view.holes))), np.arange(state.slots)):
            problems.append("entries and removed entries together are not all slots of the file of vectors")
        checksums = dict(found.rows("SELECT slot, checksum FROM entries"))
        damaged, uneven, left = [], [], 0
        for part in parts_of(*view.vectors.shape):
            vectors = view.vectors[part]
            for slot, vector in enumerate(vectors, start=part.start):
                if slot in checksums and zlib.crc32(vector) != checksums[slot]:
                    damaged.append(slot)
            holes = view.holes[(view.holes >= part.start) & (view.holes < part.stop)]
            left += int(view.vectors[holes].any(axis=1).sum())
            if view.compact is not None and view.directions is not None:
                expected = reduce_vectors(normalise(vectors), view.directions)
                differing = ~(np.abs(expected - view.compact[part]).max(axis=1) <= TOLERANCE)
                uneven += (np.flatnonzero(differing) + part.start).tolist()
        if damaged:
            ids = [found.one("SELECT id FROM entries WHERE slot = ?", (slot,)) for slot in damaged[:4]]
            problems.append(
                f"the vectors of {len(damaged)} entries have changed on the disk ({first_names(ids)}): remove these "
                "entries and add their images again under other ids, or bring the folder back from a backup"
            )
        if left:
            problems.append(f"{left} removed vectors are not erased")
        if uneven and not damaged:
            problems.append(f"{len(uneven)} rows of {state.compact} have changed on the disk: remove that file")
        removed = found.one("SELECT count(*) FROM removed")
        if removed:
            gone = {row[0] for row in found.rows("SELECT digest FROM removed")}
            again = [row[0] for row in found.rows("SELECT id FROM entries") if digest(state.salt, row[0]) in gone]
            if again:
                problems.append(f"ids were given again after a removal: {first_names(again)}")
    return Report(len(slots), removed, problems)
