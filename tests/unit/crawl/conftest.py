"""What the tests of web/ have, too."""

from tests.unit.web.conftest import no_backoff, serve  # noqa: F401
