"""A year of nights, each compared with a store made from scratch, while a process searches the index. No Ray in it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench import year
from tests.bench.year_shop import PICTURES_DOWN

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True, scope="session")
def ray_cluster():
    """These nights run in one process."""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_fortnight_is_as_one_from_scratch(tmp_path):
    """With crashes, failing suppliers, and a change of models over a bridge."""
    nights, reader = year.live(tmp_path, 14, products=110, seed=3, upgrade_at=5, fault_every=3)
    told = year.summary(nights, reader, {})
    assert [one for row in nights.rows for one in row.differences] == []
    assert (reader["errors"], reader["wrong"]) == ([], [])
    assert reader["searches"] > 20
    assert told["crashes"] >= 2
    assert PICTURES_DOWN in told["faults"]
    upgrades = [row.upgrade for row in nights.rows]
    assert {"bridge", "bridged", "over"} <= set(upgrades)
    assert min(row.recall for row in nights.rows if not row.error) == 1


@pytest.mark.soak
@pytest.mark.timeout(4 * 3600)
def test_a_year_is_as_one_from_scratch(tmp_path):
    page = tmp_path / "year.html"
    command = [sys.executable, "-m", "tests.bench.year", "--page", page, "--seed", os.environ.get("W2W_SEED", "0")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["value"] == 0, done.stderr[-3000:]
    assert (told["reader"]["errors"], told["reader"]["wrong"]) == (0, 0)
    assert told["nights"] == 365
    assert told["crashes"] > 60
    assert page.stat().st_size > 10_000
