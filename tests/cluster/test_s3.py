"""The whole night against an S3 server, its driver killed on the way: the same rows as on a local disk."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

from tests.cluster import s3
from tests.cluster.shops import write_shop
from tests.cluster.test_kill import ROOT, contents, end_session
from w2w import storage

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(autouse=True, scope="session")
def ray_cluster():
    """The night runs in a process of its own, which knows the server."""


@pytest.fixture
def bucket(monkeypatch):
    with s3.serve() as settings:
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        yield f"s3://{s3.BUCKET}"


def night(store: str, feed: str) -> subprocess.Popen:
    options = ["--commit_every_s=0.2", "--item_rows=8", "--max_reject_rate=1", "--ray.num_cpus=2"]
    command = [sys.executable, "jobs/nightly.py", f"--store={store}", f"--feed.uri={feed}", *options]
    return subprocess.Popen(
        command, cwd=ROOT, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process: subprocess.Popen) -> None:
    said, _ = process.communicate(timeout=600)
    end_session(process.pid)
    assert process.returncode == 0, said[-3000:]


@pytest.mark.slow
def test_a_night_on_s3_with_a_killed_driver(bucket, tmp_path):
    feed = write_shop(tmp_path / "shop", 40)
    (tmp_path / "shop" / "images" / "7.jpg").write_bytes(b"<html>")
    for info in storage.list_files(str(tmp_path / "shop")):  # the feed and its images lie in the bucket too
        name = os.path.relpath(info.path, tmp_path)
        storage.write_bytes(f"{bucket}/{name}", storage.read_bytes(info.path))
    remote_feed, store = f"{bucket}/shop/products.csv", f"{bucket}/tables"
    local = tmp_path / "tables"
    beside = night(str(local), str(feed))
    killed = night(store, remote_feed)
    deadline = time.monotonic() + 200
    while not any("/images/images-" in f.path or "/images/ingest-" in f.path for f in storage.list_files(store)):
        assert killed.poll() is None, killed.stdout.read()[-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.kill(killed.pid, signal.SIGKILL)
    end_session(killed.pid)
    finish(night(store, remote_feed))
    finish(beside)
    on_s3, on_disk = contents(store), contents(local)
    # fingerprints of the two feeds differ (other times), and with them digests and keys
    for found in (on_s3, on_disk):
        found["products"] = [line.rpartition(', "row_digest"')[0] for line in found["products"]]
        found["rejects"] = [line.partition("@")[0] for line in found["rejects"]]
    assert on_s3 == on_disk
    assert len(on_s3["products"]) == 39


@pytest.mark.slow
def test_a_night_while_the_server_throttles_and_loses_answers(bucket, tmp_path, monkeypatch):
    """A tenth of all requests is answered 503, in bursts; of others the connection is reset, or the answer ends in the middle;
    and commits are written whose answers never come."""
    feed = write_shop(tmp_path / "shop", 40)
    local, store = tmp_path / "tables", f"{bucket}/tables"
    finish(night(str(local), str(feed)))
    commits = 0

    def fault(method: str, path: str, nth: int) -> str | None:
        nonlocal commits
        if nth % 50 < 5:
            return "busy"
        if method == "PUT" and "/_delta_log/" in path:
            commits += 1
            return "lost" if commits % 3 == 0 else None
        if nth % 73 == 0:
            return "reset"
        return "cut" if nth % 79 == 0 and method == "GET" else None

    with s3.through(os.environ["AWS_ENDPOINT_URL"], fault) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        finish(night(store, str(feed)))
        told = Counter(proxy.faults)
        assert told["busy"] / len(proxy.asked) > 0.08
        assert min(told["reset"], told["cut"]) > 1
        assert commits > 6
        assert contents(store) == contents(local)
