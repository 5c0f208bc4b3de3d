"""One headless Chromium for each file that looks at pages with it."""

import pytest

from tests import chromium


@pytest.fixture(scope="module")
def browser():
    with chromium.browser() as found:
        yield found
