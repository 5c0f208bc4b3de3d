"""Where Ray's private names no longer do what they did, a local cluster starts by the public API alone."""

import subprocess
import sys

import pytest

SCRIPT = """
import ray
from w2w.engine import cluster, private

def broken(*args, **options):
    raise AttributeError("no longer so")

private._INSTEAD = (("ray._private.node:Node", "start_log_monitor", broken),)
cluster.connect(cluster.RayConfig(num_cpus=1, object_store_mb=128, lean=True))
assert not cluster.is_lean()
print("answer", ray.get(ray.remote(lambda: 42).remote()))
"""


@pytest.fixture(scope="session", autouse=True)
def ray_cluster():
    """The script starts its own."""


@pytest.mark.slow
def test_the_public_way_is_the_fall_back(tmp_path):
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.stdout.splitlines()[-1:] == ["answer 42"], done.stdout + done.stderr
