"""What is said of images, and conditions on it."""

import json

import pytest
from mgre.errors import DataError
from mgre.gallery.entries import Filter, describe, seconds_of


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        ("12.5", 12.5),
        ("-3", -3),
        ("1970-01-02", 86400),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1970-01-01 00:00:01", 1),
        ("2026-11-27T09:30:00Z", 1795771800),
    ],
)
def test_times(time, seconds):
    assert seconds_of(time) == seconds


@pytest.mark.parametrize("time", ["noon", "nan", "inf", "2026-13-01", "\x1b[2J"])
def test_what_is_no_time(time):
    with pytest.raises(DataError, match="is no time: give seconds, or") as caught:
        seconds_of(time)
    assert "\x1b" not in str(caught.value)


def test_what_is_not_known():
    said = describe(3, cameras=[1, "", None], times=[float("nan"), "", "5"], metadata=[{}, "", '{"ä": [1]}'])
    assert said.ids == [None] * 3
    assert [row[0] for row in said.rows] == ["1", None, None]
    assert [row[1:3] for row in said.rows] == [(None, None), (None, None), (5.0, "5")]
    assert [json.loads(row[3]) for row in said.rows] == [{}, {}, {"ä": [1]}]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ids": ["a"]}, "there are 2 vectors, but 1 ids"),
        ({"ids": ["a", "a"]}, "the id 'a' is given to two vectors"),
        ({"ids": ["a", ""]}, "the id of vector 1 is ''"),
        ({"ids": ["a", "b\nc"]}, r"the id of vector 1 is 'b\\nc'"),
        ({"ids": ["a", "b" * 501]}, "1 to 500 printable"),
        ({"paths": ["a", "\udc80"]}, "is no text in UTF-8"),
        ({"times": ["1", "x"]}, "'x' is no time"),
        ({"metadata": [{}, "[1]"]}, "not an object of JSON"),
        ({"metadata": [{}, "{"]}, "not an object of JSON"),
        ({"metadata": [{}, {"a": float("nan")}]}, "not an object of JSON"),
        ({"metadata": [{}, {"a": object()}]}, "not an object of JSON"),
        ({"metadata": [{}, '{"a": "\\ud800"}']}, "not an object of JSON"),
        ({"metadata": [{}, '{"a":' + "[" * 100_000]}, "not an object of JSON"),
    ],
)
def test_wrong_values_are_one_line(options, message):
    with pytest.raises(DataError, match=message) as caught:
        describe(2, **options)
    assert "\n" not in str(caught.value)


def test_a_filter_with_a_name_that_would_leave_its_quotes():
    with pytest.raises(DataError, match="double quote"):
        Filter(metadata={'a" OR 1=1': "x"}).conditions()
