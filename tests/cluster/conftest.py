"""One local Ray for all cluster tests of a session."""

import os
from pathlib import Path

import pytest

from w2w.runtime.cluster import RayConfig, connect


@pytest.fixture(scope="session", autouse=True)
def ray_cluster():
    import ray

    # workers import the stages that tests define
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]))
    connect(RayConfig(num_cpus=2, object_store_mb=512))
    yield
    ray.shutdown()
