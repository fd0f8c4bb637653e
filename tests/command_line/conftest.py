"""The place where commands are run whole, ended and run two at once."""

import pytest

from support.ended_commands import Bench


@pytest.fixture(scope="session")
def bench(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("ends"))
