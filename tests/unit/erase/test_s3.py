"""The same below s3://, against a server in a process of its own."""

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.cluster import s3
from tests.unit.erase.test_erase import GONE, IMAGE, POST, index
from tests.unit.recommend.stores import append, fill, product
from w2w import clouds, schema, storage
from w2w.erase.job import Config, main
from w2w.export import job as export
from w2w.index.manifest import index_uri
from w2w.index.publish import read_manifest
from w2w.table import delta, maintain
from w2w.table.current import current_products


@pytest.fixture
def bucket(monkeypatch):
    with s3.serve() as settings:
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        yield f"s3://{s3.BUCKET}"


@pytest.mark.slow
def test_nothing_is_left_in_a_bucket(bucket, monkeypatch, tmp_path):
    monkeypatch.setenv("W2W_CACHE", str(tmp_path))
    store = f"{bucket}/shops/one"
    fill(store, range(20), posts=4)
    append(store, schema.PRODUCTS, [product(7, fetched_at=1, price=3.0, row_digest="e")], "night1")
    maintain.compact(store, schema.PRODUCTS)
    delta.existing(store, schema.PRODUCTS).create_checkpoint()
    export.main(export.Config(store=store, batch_rows=5))
    index(store, range(20))
    done = main(Config(store=store, product=[GONE], post=[POST], image=[IMAGE]))
    assert not done.found
    assert done.waiting == {"default": 1}
    assert export.main(export.Config(store=store, batch_rows=5)).deletions == 2
    assert not main(Config(store=store, product=[GONE], post=[POST], image=[IMAGE])).waiting
    assert read_manifest(index_uri(store, "default")).num_rows == 18
    rows = current_products(store, [schema.PRODUCT_ID]).column(0)
    assert rows.to_pylist() == [f"p{n:03d}" for n in range(20) if n != 7]
    client = boto3.client("s3", endpoint_url=clouds.endpoint_url(), region_name="us-east-1")
    for info in storage.list_files(store):
        data = client.get_object(Bucket=s3.BUCKET, Key=info.path.partition("/")[2])["Body"].read()
        told = repr(pq.read_table(pa.BufferReader(data)).to_pylist()) if info.path.endswith(".parquet") else ""
        assert not any(text in told or text.encode() in data for text in (GONE, f"{POST}'", f'{POST}"', IMAGE)), info.path
