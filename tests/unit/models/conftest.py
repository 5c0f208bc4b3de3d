"""What the tests of models share."""

import pytest


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """A cache of converted models that is empty at first."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("W2W_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
