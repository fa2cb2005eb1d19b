"""What all tests of the parts share: no deadlines on a shared machine, and a cache of their own."""

from __future__ import annotations

import os
from collections.abc import Iterator

import hypothesis
import pytest

# A neighbour on the machine is no reason to fail, and a failure must come again when it is looked into.
hypothesis.settings.register_profile("speedproof", deadline=None, derandomize=True)
hypothesis.settings.load_profile("speedproof")


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One cache for the whole session, so that an export is made once, and none is left behind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPEEDPROOF_CACHE", os.fspath(tmp_path_factory.mktemp("cache")))
        yield
