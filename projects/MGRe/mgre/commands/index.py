"""What ``mgre index`` does."""

import argparse
import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tabulate import tabulate

from mgre.errors import ConfigError, DataError, SetupError, printable
from mgre.gallery import Filter, Gallery, Match, Rerank
from mgre.gallery.checking import check as check_gallery
from mgre.gallery.features_file import Features, read_features
from mgre.gallery.pictures import draw_matches
from mgre.inference.model import Model
from mgre.inference.pictures import save_picture
from mgre.reading.image_files import is_image_name
from mgre.system.files import explain_unwritable, write_atomically

FAILED = 1


def run(args: argparse.Namespace) -> int:
    """Do what ``args.action`` says; the exit status."""
    return _ACTIONS[args.action](args) or 0


def build(args: argparse.Namespace) -> int:
    """Make an index of features, which must be new or empty; the exit status."""
    features, status = _read(args)
    features = _with_options(features, args)
    if not len(features.vectors):
        raise DataError("there is nothing to build an index of: no features")
    with Gallery.create(
        args.index,
        dimension=_dimension(features.vectors),
        fingerprint=features.fingerprint,
        record=features.record,
    ) as gallery:
        _add(gallery, features)
    return status


def add(args: argparse.Namespace) -> int:
    """Add features to an index; the exit status."""
    with Gallery(args.index) as gallery:
        features, status = _read(args)
        _add(gallery, _with_options(features, args))
    return status


def remove(args: argparse.Namespace) -> None:
    """Remove entries, and erase their vectors."""
    with Gallery(args.index) as gallery:
        gallery.remove(args.ids)
        print(f"removed {len(set(args.ids))}, {len(gallery)} remain in {printable(args.index)}")


def search(args: argparse.Namespace) -> int:
    """Print the nearest entries of each query, or write them to a file; the exit status."""
    if bool(args.id) == bool(args.sources):
        raise ConfigError("name the queries: a features file, images with --model, or entries of the index by --id")
    if args.output and Path(args.output).suffix not in _WRITERS:
        raise ConfigError(f"--output '{args.output}' ends in neither {' nor '.join(_WRITERS)}: name such a file")
    with Gallery(args.index) as gallery:
        queries, status = (_stored(gallery, args.id), 0) if args.id else _read_queries(args)
        found = gallery.search(
            queries.vectors,
            fingerprint=queries.fingerprint,
            count=args.count,
            cameras=queries.cameras if args.other_cameras else None,
            filter=_filter(args),
            rerank=Rerank(first=args.first) if args.rerank else None,
        )
    names = queries.ids or queries.paths or [str(number) for number in range(len(found))]
    answers = [Answer(name, matches) for name, matches in zip(names, found, strict=True)]
    if args.pictures:
        _draw(answers, queries.paths or [None] * len(found), args.pictures)
    if args.output:
        # A file name may have bytes that are no text.
        text = _WRITERS[Path(args.output).suffix](answers).encode(errors="backslashreplace")
        with explain_unwritable(f"'{args.output}'", "name another file"), write_atomically(args.output) as path:
            Path(path).write_bytes(text)
        count = sum(len(answer.matches) for answer in answers)
        print(f"{len(answers)} queries, {count} results: {printable(args.output)}")
    else:
        print("\n\n".join(map(_as_table, answers)))
    return status


def show(args: argparse.Namespace) -> None:
    """Print the entries."""
    with Gallery(args.index) as gallery:
        state, total = gallery.state, len(gallery)
        entries = list(gallery.entries(_filter(args), limit=args.limit))
    print(
        f"{printable(args.index)}: {total} entries of {state.dimension} numbers, model {printable(state.fingerprint)}"
    )
    rows = [[entry.id, entry.camera, entry.time, entry.path, _metadata_text(entry.metadata)] for entry in entries]
    print(_table(rows, ["id", "camera", "time", "path", "metadata"]))


def _metadata_text(metadata: Mapping[str, object]) -> str:
    return json.dumps(metadata, ensure_ascii=False) if metadata else ""


def check(args: argparse.Namespace) -> int:
    """Print what is not well; the exit status."""
    with Gallery(args.index) as gallery:
        report = check_gallery(gallery)
    print(f"{printable(args.index)}: {report.entries} entries, {report.removed} removed")
    for problem in report.problems:
        print(f"problem: {printable(problem)}")
    return FAILED if report.problems else 0


def _draw(answers: Sequence["Answer"], paths: Sequence[str | None], folder: str) -> None:
    """A picture of each answer in ``folder``."""
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise SetupError(f"folder '{folder}' cannot be made ({error.strerror}): choose another one") from error
    width = len(str(len(answers)))
    for number, (answer, path) in enumerate(zip(answers, paths, strict=True), start=1):
        name = os.path.join(folder, f"query{number:0{width}}.png")
        save_picture(draw_matches(answer.query, path, answer.matches), name)
    print(f"{len(answers)} pictures in {printable(folder)}" if len(answers) > 1 else printable(name))


_ACTIONS = {"build": build, "add": add, "remove": remove, "search": search, "list": show, "check": check}


@dataclass(frozen=True)
class Answer:
    """What a search has found for one query."""

    query: str
    matches: list[Match]


def _as_json(answers: Sequence[Answer]) -> str:
    content = [{"query": answer.query, "results": [_fields(*pair) for pair in _ranked(answer)]} for answer in answers]
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


def _as_csv(answers: Sequence[Answer]) -> str:
    text = io.StringIO()
    names = ["query", "rank", "id", "distance", "cosine", "camera", "time", "path", "metadata"]
    writer = csv.DictWriter(text, names)
    writer.writeheader()
    for answer in answers:
        for pair in _ranked(answer):
            fields = _fields(*pair)
            metadata = json.dumps(fields["metadata"], ensure_ascii=False)
            writer.writerow({"query": answer.query, **fields, "metadata": metadata})
    return text.getvalue()


_WRITERS = {".json": _as_json, ".csv": _as_csv}


def _as_table(answer: Answer) -> str:
    rows = [
        [rank, match.entry.id, f"{match.distance:.4f}", match.entry.camera, match.entry.time, match.entry.path]
        for rank, match in _ranked(answer)
    ]
    return f"{printable(answer.query)}\n" + _table(rows, ["rank", "id", "distance", "camera", "time", "path"])


def _table(rows: Sequence[Sequence[object]], headers: Sequence[str]) -> str:
    if not rows:
        return "nothing found"
    cells = [[printable(cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
    # What looks like a number stays as it is written: an id may be 007.
    return tabulate(cells, headers=headers, disable_numparse=True, missingval="", colalign=["left"] * len(headers))


def _ranked(answer: Answer) -> list[tuple[int, Match]]:
    return list(enumerate(answer.matches, start=1))


def _fields(rank: int, match: Match) -> dict[str, object]:
    entry = match.entry
    return {
        "rank": rank,
        "id": entry.id,
        "distance": match.distance,
        "cosine": match.cosine,
        "camera": entry.camera,
        "time": entry.time,
        "path": entry.path,
        "metadata": dict(entry.metadata),
    }


def _filter(args: argparse.Namespace) -> Filter:
    pairs = [pair.split("=", 1) for pair in args.where]
    wrong = [pair for pair in pairs if len(pair) < 2 or not pair[0]]
    if wrong:
        raise ConfigError(f"--where '{printable(wrong[0][0])}' is no name with a value: give it like \"coat=red\"")
    return Filter(cameras=tuple(args.camera), since=args.since, until=args.until, metadata=dict(pairs))


def _add(gallery: Gallery, features: Features) -> None:
    ids = gallery.add(
        features.vectors,
        fingerprint=features.fingerprint,
        ids=features.ids,
        cameras=features.cameras,
        times=features.times,
        metadata=features.metadata,
        paths=features.paths,
    )
    named = f" (ids {printable(ids[0])} to {printable(ids[-1])})" if ids else ""
    print(f"added {len(ids)}{named}, {len(gallery)} in {printable(gallery.folder)}")


def _read(args: argparse.Namespace) -> tuple[Features, int]:
    """The features of ``args.sources``, and the exit status: :data:`SKIPPED` where images were left out."""
    if args.model:
        from mgre.commands.model_options import imports_of_model
        from mgre.inference import load
        from mgre.inference.crops import list_files

        paths = [crop.path for crop in list_files(args.sources)]  # before the model, which takes seconds to load
        model = load(args.model, config_file=args.config_file, overrides=imports_of_model(args), device=args.device)
        return embed(model, paths)
    images = [source for source in args.sources if is_image_name(os.path.basename(source)) or os.path.isdir(source)]
    if images:
        raise ConfigError(
            f"'{images[0]}' is no features file: to take images, add --model with the model that the index was built by"
        )
    if len(args.sources) > 1:
        raise ConfigError("name one features file, or with --model any number of images and folders")
    return read_features(args.sources[0]), 0


def _read_queries(args: argparse.Namespace) -> tuple[Features, int]:
    queries, status = _read(args)
    if args.query_camera and queries.cameras is None:
        queries = replace(queries, cameras=[args.query_camera] * len(queries.vectors))
    if args.other_cameras and queries.cameras is None:
        raise ConfigError("--other-cameras needs the queries' cameras, and the file names none: add --query-camera")
    return queries, status


def _stored(gallery: Gallery, ids: Sequence[str]) -> Features:
    """Entries of the index as queries."""
    state = gallery.state
    entries = [gallery.entry(id) for id in ids]
    return Features(
        gallery.vectors_of(ids),
        state.fingerprint,
        state.record,
        ids=list(ids),
        cameras=[entry.camera or "" for entry in entries],
        paths=[entry.path or "" for entry in entries],
    )


def _with_options(features: Features, args: argparse.Namespace) -> Features:
    count = len(features.vectors)
    if args.ids_from != "file":
        if features.paths is None:
            raise ConfigError(f"--ids-from {args.ids_from} needs paths, and the features file has none")
        name = os.path.basename if args.ids_from == "name" else str
        features = replace(features, ids=[name(path) for path in features.paths])
    if args.camera and features.cameras is None:
        features = replace(features, cameras=[args.camera] * count)
    if args.time and features.times is None:
        features = replace(features, times=[args.time] * count)
    return features


def _dimension(vectors: np.ndarray) -> int:
    if vectors.ndim != 2:
        raise DataError(f"features have shape {vectors.shape}: (N, D) is needed")
    return vectors.shape[1]


def embed(model: Model, paths: Sequence[str]) -> tuple[Features, int]:
    """The features of images by a trained model, and the exit status.

    Images that cannot be read are named and left out; the status is then :data:`SKIPPED`.

    Args:
        model: the trained model.
        paths: of the images.

    Raises:
        DataError: no image can be read.
    """
    from mgre.commands.readable import SKIPPED, readable

    skipped: list[str] = []
    vectors = model.embed(readable(paths, skipped))
    left_out = set(skipped)
    kept = [path for path in paths if path not in left_out]
    if not kept:
        raise DataError(f"none of the {len(paths)} images can be read: name others")
    features = Features(vectors, model.fingerprint, model.record.to_json(), paths=kept)
    return features, SKIPPED if skipped else 0
