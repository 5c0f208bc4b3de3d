"""The seeds' rows by their commands: the shortest in the slow tier, all of them in the soak."""

import json
import subprocess
import sys

import pytest

from tests.bench.seeds import ROOT, by_seed, read_rows, with_needed


@pytest.fixture(autouse=True, scope="session")
def ray_cluster():
    """The commands start Ray themselves."""


def run(names: list[str], folder) -> dict:
    """What the bench says of these rows, all of which have to have been run."""
    command = [sys.executable, "-m", "tests.bench.seeds", *names, "--folder", str(folder), "--out", str(folder / "README.md")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["failed"] == {}
    lines = by_seed(with_needed(read_rows(), names))
    assert [line["did"] for line in said["rows"]] == [line.did for _, line in lines]
    return said


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_shortest(tmp_path):
    """A crawl, the public sets of a seed, and their retrieval; run again, nothing is computed."""
    said = run(["search-sets"], tmp_path)
    again = run(["search-sets"], tmp_path)
    assert again == said
    assert (tmp_path / "README.md").read_text().count("\n| fashion-visual-search |") == 4


REAL = "what2wear-heatmaps"  # the row that needs the folder of real images


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_all(tmp_path):
    run([name for name in read_rows() if name != REAL], tmp_path)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_on_real_images(real_images, tmp_path, monkeypatch):
    monkeypatch.setenv("W2W_DATA", str(real_images))
    run([REAL], tmp_path)
