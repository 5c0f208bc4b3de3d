"""What the tests of models share."""

import pytest


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache of converted models of the module's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("W2W_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
