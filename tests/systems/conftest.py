"""What the system tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.systems.docker_engine import Docker, running_engine


@pytest.fixture(scope="module")
def docker() -> Iterator[Docker]:
    """An engine of the file's own; programs that the tests start speak to it as well."""
    with running_engine() as engine, pytest.MonkeyPatch.context() as patch:
        for name, value in engine.environment.items():
            patch.setenv(name, value)
        yield engine
