"""A shop of twenty products, a store beside it, a clock, and jobs that do their work in this process."""

import pytest

from tests.unit.nights.nights import Clock, Shop, without_ray


@pytest.fixture
def clock(monkeypatch) -> Clock:
    without_ray(monkeypatch)
    return Clock(monkeypatch)


@pytest.fixture
def shop(tmp_path) -> Shop:
    (tmp_path / "shop").mkdir()
    made = Shop(tmp_path / "shop")
    made.stock(20)
    return made


@pytest.fixture
def store(tmp_path) -> str:
    return str(tmp_path / "store")
