"""The same index below s3://, against a server in this process."""

import os
from pathlib import Path

import boto3
import numpy as np
import pytest
from moto.server import ThreadedMotoServer

from w2w.errors import JobFailed
from w2w.index.publish import collect_garbage, rollback, versions
from w2w.index.search import open_index
from w2w.index.spec import IndexConfig

from .conftest import run_job


@pytest.fixture
def bucket(monkeypatch):
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    for name, value in (("ACCESS_KEY_ID", "x"), ("SECRET_ACCESS_KEY", "x"), ("REGION", "us-east-1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1").create_bucket(Bucket="shop")
    yield "s3://shop"
    server.stop()


def test_shards_on_s3_are_downloaded_once_and_checked(bucket, tmp_path, catalog, monkeypatch):
    monkeypatch.setenv("W2W_CACHE", str(tmp_path / "gate"))
    uri, cache = f"{bucket}/index/default", str(tmp_path / "cache")
    cfg = IndexConfig(factory="IVF4,SQ8", nprobe=4, target_recall=0.8)
    first = run_job(uri, catalog, cfg)
    assert run_job(uri, catalog, cfg).built == []
    assert len(versions(uri)) == 2
    assert rollback(uri, first.manifest.version) == first.manifest.version
    hits = open_index(uri, "m1", cache).search(catalog.vectors["tops-00001-0"][None], 3)
    assert hits["image_id"][0].as_py() == "tops-00001-0"
    copies = {p: p.stat().st_mtime_ns for p in Path(cache).rglob("*.faiss")}
    assert len(copies) == len(first.manifest.shards)
    assert open_index(uri, "m1", cache).search(catalog.vectors["tops-00001-0"][None], 3).equals(hits)
    assert {p: p.stat().st_mtime_ns for p in Path(cache).rglob("*.faiss")} == copies

    damaged = next(iter(copies))
    damaged.write_bytes(b"not the shard")  # the cache is repaired
    again = open_index(uri, "m1", cache).search(catalog.vectors["tops-00001-0"][None], 3)
    assert again.equals(hits)
    client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"], region_name="us-east-1")
    client.put_object(Bucket="shop", Key=f"index/default/shards/{damaged.parent.name}/base.faiss", Body=b"not the shard")
    damaged.unlink()
    with pytest.raises(JobFailed, match="damaged"):
        open_index(uri, "m1", cache).search(catalog.vectors["tops-00001-0"][None], 3)
    client.delete_object(Bucket="shop", Key=f"index/default/shards/{damaged.parent.name}/base.faiss")
    with pytest.raises(JobFailed, match="missing"):
        open_index(uri, "m1", cache)
    assert collect_garbage(uri, 2, young_s=0.0) == []
    assert np.isfinite(hits["score"].to_numpy()).all()
