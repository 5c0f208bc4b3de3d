"""A signal that comes while Ray starts, which answers it by ending the process."""

import signal

import pytest

from w2w.engine import cluster


@pytest.fixture
def starting(monkeypatch):
    """Ray, to which SIGTERM is sent while it starts. It has set a handler of its own."""

    def init(*args, **options):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise SystemExit(signal.SIGTERM)

    monkeypatch.delenv("W2W_RAY_LEAN", raising=False)
    for name in ("_own", "_lean"):
        monkeypatch.setattr(cluster, name, False)  # as it was, afterwards
    monkeypatch.setattr(cluster.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(cluster.ray, "init", init)
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_sigterm_while_ray_starts_ends_a_job_as_at_any_other_time(starting):
    def stop(number, frame):
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    with pytest.raises(KeyboardInterrupt):
        cluster.connect(cluster.RayConfig())
    assert signal.getsignal(signal.SIGTERM) is stop


def test_where_nobody_else_listens_it_ends_the_process(starting):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with pytest.raises(SystemExit):
        cluster.connect(cluster.RayConfig())
