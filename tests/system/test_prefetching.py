import threading

import pytest
from mgre.system.prefetching import prefetch


def test_results_come_in_order_and_are_computed_ahead():
    asked, computed = [], []
    done = threading.Event()

    def items():
        for number in range(10):
            asked.append(number)
            yield number

    def work(number):
        computed.append(number)
        if len(computed) == 4:
            done.set()
        return number * number

    results = prefetch(work, items(), num_ahead=3, num_threads=2)
    assert next(results) == 0
    assert done.wait(10)  # without being asked for
    assert asked == [0, 1, 2, 3]  # and no further
    assert [0, *results] == [number * number for number in range(10)]


def test_an_error_comes_in_its_place():
    results = prefetch(lambda number: 6 // number, [3, 2, 0, 1], num_ahead=9, num_threads=2)
    assert [next(results), next(results)] == [2, 3]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_one_thread_takes_one_item_after_the_other():
    seen = []
    list(prefetch(seen.append, range(50), num_ahead=20, num_threads=1))
    assert seen == list(range(50))
