"""A small model for the tests of commands."""

import pytest


@pytest.fixture
def model(save_model):
    """The path of a checkpoint of 0.2 M parameters, which is quickly read and written."""
    return str(save_model(**{"MODEL.MGRE.BACKBONE": "build_osnet_backbone", "MODEL.BACKBONE.DEPTH": "x0_25"})[1])
