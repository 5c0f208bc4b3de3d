"""What unit tests share."""

from types import SimpleNamespace

import pytest
import ray

from w2w.models import trial


@pytest.fixture(scope="package", autouse=True)
def models_are_tried_here():
    """In this process, where torch is already: one of its own takes seconds. ``garments/test_weights.py`` has one started."""

    def run(command, input, capture_output):
        return SimpleNamespace(stdout=trial.answer(input).encode(), stderr=b"", returncode=0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trial, "subprocess", SimpleNamespace(run=run))
        yield


@pytest.fixture(autouse=True)
def no_ray(monkeypatch):
    """Unit tests start none, and use none that a cluster test of this process has started."""

    def refuse(*args, **options):
        raise AssertionError("Ray was asked for: move the test to tests/cluster, or take nights.without_ray")

    monkeypatch.setattr(ray, "init", refuse)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
