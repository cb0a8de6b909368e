import gc

import pytest
from mgre.system.garbage import no_garbage_collection


def test_the_collector_rests_and_goes_on_after_an_error_too():
    with pytest.raises(KeyError), no_garbage_collection():
        with no_garbage_collection():
            assert not gc.isenabled()
        assert not gc.isenabled()
        raise KeyError
    assert gc.isenabled()
    gc.disable()
    try:
        with no_garbage_collection():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
