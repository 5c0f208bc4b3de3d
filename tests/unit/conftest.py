"""What unit tests share."""

from types import SimpleNamespace

import pytest

from w2w.models import trial


@pytest.fixture(scope="session", autouse=True)
def models_are_tried_here():
    """In this process, where torch is already: one of its own takes seconds. ``garments/test_weights.py`` has one started."""

    def run(command, input, capture_output):
        return SimpleNamespace(stdout=trial.answer(input).encode(), stderr=b"", returncode=0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trial, "subprocess", SimpleNamespace(run=run))
        yield
