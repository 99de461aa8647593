"""The simulation silences the product's log; the tests after it want to hear it again."""

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def heard_again() -> Iterator[None]:
    logger = logging.getLogger("stream_app")
    level = logger.level
    yield
    logger.setLevel(level)
