"""What the gallery keeps of an image beside its vector, and which images a search or a list is limited to."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from mgre.errors import DataError, printable

# The longest id, in characters.
LONGEST_ID = 500
# Of the table of entries: those of :func:`entry_of`.
COLUMNS = "id, camera, time_text, metadata, path"


@dataclass(frozen=True)
class Entry:
    """An image of the gallery.

    Attributes:
        id: the user's own or a made one; it is never given to another image, also after the removal of this one.
        camera: any name.
        time: as it was given, see :func:`seconds_of`.
        metadata: anything of JSON's types, by name.
        path: of the image, as it was given.
    """

    id: str
    camera: str | None = None
    time: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    path: str | None = None


@dataclass(frozen=True)
class Filter:
    """Which images are looked at: those that meet all conditions. An image without camera or time meets none about it.

    Attributes:
        cameras: one of these; none given: of any camera.
        since, until: from this time to that, both included, see :func:`seconds_of`.
        metadata: the value under each of these names is equal, by its text: "3" is both the number and the text 3,
            "true" both the truth value and the text.
    """

    cameras: tuple[str, ...] = ()
    since: str | float | None = None
    until: str | float | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)

    def conditions(self) -> tuple[list[str], list[Any]]:
        """SQL conditions on the table of entries, and their values in this order.

        Raises:
            DataError: a time is none.
        """
        conditions: list[str] = []
        values: list[Any] = []
        if self.cameras:
            conditions.append(f"camera IN ({', '.join('?' * len(self.cameras))})")
            values += self.cameras
        for sign, time in ((">=", self.since), ("<=", self.until)):
            if time is not None:
                conditions.append(f"time {sign} ?")
                values.append(seconds_of(str(time)))
        for name, value in self.metadata.items():
            path = f'$."{name}"'
            conditions.append(
                "CASE json_type(metadata, ?) WHEN 'true' THEN 'true' WHEN 'false' THEN 'false' "
                "ELSE CAST(json_extract(metadata, ?) AS TEXT) END = ?"
            )
            if '"' in name:
                raise DataError(f"metadata name '{printable(name)}' has a double quote: a filter takes names without")
            values += [path, path, value]
        return conditions, values


def seconds_of(time: str) -> float:
    """A time as a number that can be compared.

    Args:
        time: a number of seconds by any clock, or a date and time by ISO 8601 such as 2026-11-27T09:30:00+01:00. Such a
            time is compared as its seconds since 1970; one without a zone is taken for UTC.

    Raises:
        DataError: it is neither.
    """
    try:
        seconds = float(time)
    except ValueError:
        try:
            # Python 3.10 does not know Z, which stands for UTC.
            moment = datetime.fromisoformat(time[:-1] + "+00:00" if time.endswith(("Z", "z")) else time)
            seconds = (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
        except ValueError:
            seconds = math.nan
    if not math.isfinite(seconds):
        raise DataError(
            f"'{printable(time)[:60]}' is no time: give seconds, or a date and time like 2026-11-27T09:30:00+01:00"
        )
    return seconds


def entry_of(row: Sequence[Any]) -> Entry:
    """The entry of a row of :data:`COLUMNS`."""
    id, camera, time, metadata, path = row
    return Entry(id, camera, time, json.loads(metadata), path)


def where(conditions: Sequence[str]) -> str:
    """A clause of SQL that asks for all of the conditions."""
    return f"WHERE {' AND '.join(conditions)}" if conditions else ""


@dataclass(frozen=True)
class Described:
    """New images as the table of entries takes them, ids still missing where they are to be made."""

    ids: list[str | None]
    rows: list[tuple[str | None, float | None, str | None, str, str | None]]


def describe(
    count: int,
    *,
    ids: Sequence[str] | None = None,
    cameras: Sequence[object] | None = None,
    times: Sequence[object] | None = None,
    metadata: Sequence[object] | None = None,
    paths: Sequence[str] | None = None,
) -> Described:
    """Check what is said of ``count`` new images. Empty text and None stand for what is not known.

    Raises:
        DataError: another number of values; an id is empty, too long, or occurs twice; a value is of no allowed kind.
    """
    columns = {"ids": ids, "cameras": cameras, "times": times, "metadata": metadata, "paths": paths}
    for name, values in columns.items():
        if values is not None and len(values) != count:
            raise DataError(f"there are {count} vectors, but {len(values)} {name}: give one each, in the same order")
    unknown = [None] * count
    texts = {name: [_text(value, name) for value in columns[name] or unknown] for name in ("cameras", "times", "paths")}
    return Described(
        list(_check_ids(ids) if ids is not None else unknown),
        [
            (camera, None if time is None else seconds_of(time), time, _json(said), path)
            for camera, time, path, said in zip(*texts.values(), metadata or unknown, strict=True)
        ],
    )


def _check_ids(ids: Sequence[object]) -> list[str]:
    seen: set[str] = set()
    for number, value in enumerate(ids):
        text = _text(value, "ids")
        if text is None or len(text) > LONGEST_ID or not text.isprintable():
            raise DataError(
                f"the id of vector {number} is '{printable(str(value))[:60]}': give 1 to {LONGEST_ID} printable "
                "characters, or no ids, to have them made"
            )
        if text in seen:
            raise DataError(f"the id '{text}' is given to two vectors: give each its own")
        seen.add(text)
    return [str(value) for value in ids]


def _text(value: object, name: str) -> str | None:
    text = "" if value is None or (isinstance(value, float) and math.isnan(value)) else str(value)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{name}: '{printable(text)[:80]}' is no text in UTF-8: rename it, or leave it out") from error
    return text or None


def _json(value: object) -> str:
    """Metadata as JSON text."""
    try:
        content = json.loads(value) if isinstance(value, str) and value else value or {}
        if not isinstance(content, Mapping):
            raise ValueError("it is no object")
        text = json.dumps(dict(content), ensure_ascii=False, allow_nan=False)
        text.encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise DataError(
            f"metadata '{printable(str(value))[:60]}' is not an object of JSON ({error}): give names and values "
            'like {"place": "gate"}'
        ) from error
    return text
