"""One local Ray for all cluster tests of a session."""

import os
from pathlib import Path

import pytest

from w2w.engine.cluster import RayConfig, connect


@pytest.fixture(scope="session", autouse=True)
def ray_cluster():
    import ray

    # workers import the stages that tests define
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]))
    connect(RayConfig(num_cpus=2, object_store_mb=512))
    yield
    ray.shutdown()


@pytest.fixture
def s3_with_checks():
    """A server that knows no key: every request is refused, as with wrong credentials."""
    from tests.cluster import s3

    with s3.serve(check_credentials=True) as settings:
        yield settings, s3.BUCKET
