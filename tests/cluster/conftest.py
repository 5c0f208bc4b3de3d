"""One local Ray for all cluster tests of a session."""

import os
from pathlib import Path

import pytest

from w2w.engine.cluster import RayConfig, connect
from w2w.index import flow


@pytest.fixture(scope="session")
def plugins_folder(tmp_path_factory) -> Path:
    """On the workers' path: for packages from outside."""
    return tmp_path_factory.mktemp("plugins")


@pytest.fixture(scope="session", autouse=True)
def ray_cluster(plugins_folder):
    import ray

    assert not ray.is_initialized(), "an earlier test of this process has started Ray with an environment of its own"
    # workers import the stages that tests define
    places = [str(Path(__file__).parents[2]), str(plugins_folder), os.environ.get("PYTHONPATH")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, places))
    connect(RayConfig(num_cpus=2, object_store_mb=512))
    yield
    ray.shutdown()


@pytest.fixture(scope="package", autouse=True)
def shards_on_workers():
    """Those of small stores are built as those of large ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flow, "_HERE", 0)
        yield


@pytest.fixture
def s3_with_checks():
    """A server that knows no key: every request is refused, as with wrong credentials."""
    from tests.cluster import s3

    with s3.serve(check_credentials=True) as settings:
        yield settings, s3.BUCKET
