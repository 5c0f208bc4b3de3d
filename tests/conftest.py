"""Shared by all tests: where the real images are, and a store with rows in it."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("W2W_RAY_LEAN", "1")  # for every Ray that a test starts, or a process that it starts
settings.register_profile("w2w", deadline=None)  # a slow moment of the machine is no failure
settings.load_profile("w2w")


@pytest.fixture(scope="session")
def real_images() -> Path:
    """The folder of real images, or a skip that says why."""
    folder = Path(os.environ.get("W2W_DATA", Path(__file__).parents[1] / ".." / "shared" / "data")).resolve()
    if not (folder / "catalog" / "products.csv").exists():
        pytest.skip(f"no real images at {folder}: set W2W_DATA")
    return folder
