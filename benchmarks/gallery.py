#!/usr/bin/env python
"""Build and search a gallery of made vectors, beside faiss' IndexFlat, which compares all numbers, on the same vectors.

    benchmarks/gallery.py --sizes 100000 1000000 --output docs/benchmark-gallery

Each side is a process of its own, one after the other. Both search by cosine for the same neighbours. A million vectors
of 2,048 numbers take 9 GB of disk and, for IndexFlat, 9 GB of memory.
"""

import argparse
import csv
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TypeVar

import numpy as np
from mgre.gallery import Gallery, exact
from mgre.gallery import search as gallery_search
from tabulate import tabulate

_T = TypeVar("_T")

FINGERPRINT = "made"
# Vectors that are made and added at a time.
BLOCK = 50_000
# Queries of a block, and single ones before the first that is timed.
BATCH, WARM_UP = 64, 3
SIDES = {"ours": "gallery", "faiss": "IndexFlat"}


@dataclass(frozen=True)
class Recipe:
    """How vectors are made: unit vectors around their person's centre, shifted by their camera, as in
    benchmarks/evaluation.py.

    Attributes:
        scales: (D,), roots of the shares of the energy in each direction.
        noise, camera_shift, spread: norms beside a centre's 1, and the spread of the noise's logarithm.
        images, cameras: of a person; of all.
    """

    scales: np.ndarray
    noise: float
    camera_shift: float
    spread: float
    images: int
    cameras: int

    def block(self, number: int, rows: int) -> np.ndarray:
        """(rows, D), float32, of persons that are in no other block."""
        random = np.random.default_rng(number)
        centres = self._directions(random, max(2, rows // self.images))
        shifts = self.camera_shift * self._directions(np.random.default_rng(1 << 32), self.cameras)
        noise = self.noise * np.exp(self.spread * random.standard_normal((rows, 1), dtype=np.float32))
        made = random.standard_normal((rows, len(self.scales)), dtype=np.float32)
        made *= noise
        made *= self.scales
        made += centres[random.integers(len(centres), size=rows)]
        made += shifts[random.integers(self.cameras, size=rows)]
        made /= np.linalg.norm(made, axis=1, keepdims=True)
        return made

    def blocks(self, total: int) -> Iterator[np.ndarray]:
        for number, start in enumerate(range(0, total, BLOCK)):
            yield self.block(number, min(BLOCK, total - start))

    def queries(self, total: int) -> np.ndarray:
        """(64, D): other images of persons of the first block."""
        rows = min(BLOCK, total)
        return np.ascontiguousarray(self.block(0, rows + rows // 10)[-BATCH:])

    def _directions(self, random: np.random.Generator, count: int) -> np.ndarray:
        made = random.standard_normal((count, len(self.scales)), dtype=np.float32) * self.scales
        return made / np.linalg.norm(made, axis=1, keepdims=True)


def make_recipe(dim: int, spectrum: str) -> Recipe:
    from mgre import compat

    compat.apply()
    import evaluation  # here, because it imports torch and the toolbox

    shares = evaluation.make_spectrum(dim, spectrum).numpy()
    noise, camera_shift = evaluation.NORMS[spectrum]
    noise *= float(1 / np.square(shares).sum()) ** 0.25
    return Recipe(
        np.sqrt(shares).astype(np.float32),
        noise,
        camera_shift,
        evaluation.SPREAD,
        evaluation.IMAGES_PER_IDENTITY,
        evaluation.NUM_CAMERAS,
    )


@dataclass(frozen=True)
class Measurement:
    """Seconds, milliseconds and mebibytes of one side.

    Attributes:
        build_s: without the making of the vectors.
        first_ms: the first query of a new process, with opening.
        query_ms, best_ms, block_ms: the median of single queries, the fastest of them, which other work has slowed
            least, and the fastest of three blocks of 64 queries.
        peak_mib, own_mib: most memory while searching, above that of the process with its libraries; how much of what
            is there at the end is not the page cache's.
        disk_mib: of the files.
        read: whole vectors that a query reads, in the mean of 64.
    """

    build_s: float
    first_ms: float
    query_ms: float
    best_ms: float
    block_ms: float
    peak_mib: float
    own_mib: float
    disk_mib: float
    read: float


def build_ours(folder: str, recipe: Recipe, total: int) -> float:
    seconds = 0.0
    with Gallery.create(folder, dimension=len(recipe.scales), fingerprint=FINGERPRINT) as gallery:
        for vectors in recipe.blocks(total):
            start = time.perf_counter()
            gallery.add(vectors, fingerprint=FINGERPRINT)
            seconds += time.perf_counter() - start
    return seconds


def search_ours(folder: str, queries: np.ndarray, count: int, repeats: int) -> tuple[Measurement, np.ndarray]:
    before = _memory("VmRSS")
    _forget_peak()
    start = time.perf_counter()
    gallery = Gallery(folder)

    def search(some: np.ndarray) -> list[list[int]]:
        found = gallery.search(some, fingerprint=FINGERPRINT, count=count)
        return [[int(match.entry.id) - 1 for match in matches] for matches in found]

    measured = _measure(search, queries, repeats, start, before)
    asked, cosines = 0, exact.cosines

    def counted(vectors: np.ndarray, places: np.ndarray, query: np.ndarray) -> np.ndarray:
        nonlocal asked
        asked += len(places)
        return cosines(vectors, places, query)

    gallery_search.cosines = counted
    found = np.array(search(queries))
    disk = sum(path.stat().st_size for path in Path(folder).iterdir()) / 2**20
    return Measurement(0.0, *measured, disk, asked / len(queries)), found


def run_faiss(recipe: Recipe, total: int, count: int, repeats: int) -> tuple[Measurement, np.ndarray]:
    import faiss

    queries = recipe.queries(total)
    before = _memory("VmRSS")
    # The whole array at once: an index that grows holds its vectors twice for a moment.
    index = faiss.IndexFlatIP(len(recipe.scales))
    index.codes.resize(total * index.code_size)
    index.ntotal = total
    store = faiss.rev_swig_ptr(index.get_xb(), total * index.d).reshape(total, index.d)
    seconds = 0.0
    for number, vectors in enumerate(recipe.blocks(total)):
        start = time.perf_counter()
        store[number * BLOCK : number * BLOCK + len(vectors)] = vectors
        seconds += time.perf_counter() - start
    del vectors
    _forget_peak()
    measured = _measure(lambda some: index.search(some, count)[1], queries, repeats, time.perf_counter(), before)
    found = index.search(queries, count)[1]
    return Measurement(seconds, *measured, total * index.code_size / 2**20, total), found


def _measure(
    search: Callable[[np.ndarray], object], queries: np.ndarray, repeats: int, start: float, before: float
) -> tuple[float, ...]:
    """The fields of a measurement from ``first_ms`` to ``own_mib``."""
    search(queries[:1])
    first = time.perf_counter() - start
    for number in range(WARM_UP):
        search(queries[number : number + 1])
    single = [_time(search, queries[number % BATCH][None]) for number in range(repeats)]
    block = [_time(search, queries) for _ in range(3)]
    peak, own = _memory("VmHWM") - before, _memory("RssAnon")
    return 1e3 * first, 1e3 * median(single), 1e3 * min(single), 1e3 * min(block), peak, own


def _time(search: Callable[[np.ndarray], object], queries: np.ndarray) -> float:
    start = time.perf_counter()
    search(queries)
    return time.perf_counter() - start


def _memory(field: str) -> float:
    """This process's memory now ("VmRSS"), at most ("VmHWM"), or without files' ("RssAnon"), in MiB."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith(field))


def _forget_peak() -> None:
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def _in_a_process(function: Callable[..., _T], *args: object) -> _T:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(function, *args).result()


def measure(args: argparse.Namespace, total: int, folder: str) -> list[dict[str, object]]:
    """A row for each side."""
    recipe = _in_a_process(make_recipe, args.dim, args.spectrum)
    ours_folder = os.path.join(folder, "gallery")
    seconds = _in_a_process(build_ours, ours_folder, recipe, total)
    queries = _in_a_process(recipe.queries, total)
    ours, found = _in_a_process(search_ours, ours_folder, queries, args.count, args.repeats)
    shutil.rmtree(ours_folder)
    rows = {"ours": {**asdict(ours), "build_s": seconds}}
    same = None
    if "faiss" in args.sides:
        theirs, expected = _in_a_process(run_faiss, recipe, total, args.count, args.repeats)
        rows["faiss"] = asdict(theirs)
        same = sum(set(a) == set(b) for a, b in zip(found.tolist(), expected.tolist(), strict=True))
    base = {"vectors": total, "numbers": args.dim, "spectrum": args.spectrum}
    return [
        {**base, "side": SIDES[side], **values, "same sets of 64": same if side == "ours" else None}
        for side, values in rows.items()
    ]


def parse_args(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", type=int, default=[1_000_000], help="of galleries")
    parser.add_argument("--dim", type=int, default=2048, help="numbers of a vector")
    parser.add_argument("--spectrum", choices=("real", "flat"), default="real")
    parser.add_argument("--count", type=int, default=20, help="neighbours of a query")
    parser.add_argument("--repeats", type=int, default=30, help="single queries to time")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--folder", help="where the gallery goes while it is measured; default: a temporary one")
    parser.add_argument("--output", help="write a .csv of this name")
    return parser.parse_args(words)


def main(args: argparse.Namespace) -> None:
    # The processes of the sides leave torch out: what they hold in memory is theirs.
    os.environ["MGRE_INFERENCE_ONLY"] = "1"
    rows = []
    for total in args.sizes:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            rows += measure(args, total, folder)
        print(tabulate(rows, headers="keys", floatfmt=".1f"), flush=True)
    if args.output:
        with open(f"{args.output}.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main(parse_args())
    sys.exit(0)
