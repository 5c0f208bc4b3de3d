"""The site in a bucket: the files of a folder, with the types that a browser asks for; only what changed is written again."""

import http.client
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import boto3
import pytest
from moto.server import ThreadedMotoServer

from tests import chromium
from tests.unit.gallery.conftest import NUM
from w2w.gallery import job

BUCKET = "site"
TYPES = {".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".jpg": "image/jpeg"}


@pytest.fixture
def bucket(monkeypatch):
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    urllib.request.urlopen(
        urllib.request.Request(f"{endpoint}/moto-api/reset", method="POST")
    )  # servers of a process share buckets
    for name, value in (
        ("ENDPOINT_URL", endpoint),
        ("ACCESS_KEY_ID", "x"),
        ("SECRET_ACCESS_KEY", "x"),
        ("REGION", "us-east-1"),
    ):
        monkeypatch.setenv(f"AWS_{name}", value)
    keys = {"aws_access_key_id": "x", "aws_secret_access_key": "x"}
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", **keys)
    client.create_bucket(Bucket=BUCKET)
    yield client, endpoint
    server.stop()


def listed(client) -> dict[str, str]:
    """Name -> ETag, which is the MD5 of the bytes."""
    found = client.list_objects_v2(Bucket=BUCKET, Prefix="shop/")
    assert not found["IsTruncated"]
    return {o["Key"].removeprefix("shop/"): o["ETag"] for o in found["Contents"] if o["Size"]}


def test_a_site_in_a_bucket_is_that_of_a_folder(store, tmp_path, bucket):
    client, endpoint = bucket
    out = f"s3://{BUCKET}/shop"
    made = job.main(job.Config(store=store, out=out, side_px=64))
    job.main(job.Config(store=store, out=str(tmp_path), side_px=64))
    local = {str(f.relative_to(tmp_path)): f.read_bytes() for f in tmp_path.rglob("*") if f.is_file()}
    first = listed(client)
    assert set(first) == set(local)
    for name, data in local.items():
        there = client.get_object(Bucket=BUCKET, Key=f"shop/{name}")
        assert there["ContentType"] == TYPES[Path(name).suffix], name
        if name != "index.html":  # which names the run
            assert there["Body"].read() == data
    again = job.main(job.Config(store=store, out=out, side_px=64))
    assert (again.pictures_written, again.pictures_kept, again.files_removed) == (0, made.pictures_written, 0)
    assert {name for name, etag in listed(client).items() if etag != first[name]} == {"index.html"}
    fewer = job.main(job.Config(store=store, out=out, side_px=64, limit=10))
    assert fewer.files_removed > 20
    assert len([name for name in listed(client) if name.startswith("thumbs/")]) < len(first)
    host = urlsplit(endpoint)
    connection = http.client.HTTPConnection(host.hostname, host.port)
    connection.request("GET", f"/{BUCKET}/shop/index.html")
    assert b"w2w gallery" in connection.getresponse().read()
    connection.close()


@pytest.mark.skipif(chromium.program() is None, reason="no Chromium on this machine")
def test_a_browser_shows_it(store, bucket):
    client, endpoint = bucket
    client.put_bucket_acl(Bucket=BUCKET, ACL="public-read")
    job.main(job.Config(store=store, out=f"s3://{BUCKET}/shop", side_px=64))
    with chromium.browser("127.0.0.1") as browser:
        page = browser.page(390)
        page.open(f"{endpoint}/{BUCKET}/shop/index.html")
        page.until("document.querySelectorAll('.cards img').length > 20")
        assert page.evaluate("document.querySelector('[role=status]').textContent") == f"{NUM - 1} products"
        assert [r for r in page.requests if not r.startswith(endpoint)] == []
        assert page.errors == []
