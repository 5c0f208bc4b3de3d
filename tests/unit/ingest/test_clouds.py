"""Feeds in other people's clouds: read as from a disk, and never written to."""

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from pyarrow import fs

from tests.unit.ingest import gcs
from w2w import storage
from w2w.errors import Reject, RejectCode, UsageError
from w2w.ingest.feed import FeedConfig, check_feed, read_feed
from w2w.ingest.images import load_image


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    """A folder whose files lie at gs://shop."""
    root = tmp_path_factory.mktemp("gcs")
    with subprocess.Popen([sys.executable, gcs.__file__, str(root)], stdout=subprocess.PIPE, text=True) as server:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server.stdout.readline().strip()}")
            (root / "shop" / "images").mkdir(parents=True)
            yield root / "shop"
        server.kill()


def rows(uri: str, **options) -> tuple[list[dict], list[dict]]:
    batches = list(read_feed(FeedConfig(uri=uri, **options)))
    return [r for b in batches for r in b.rows.to_pylist()], [r for b in batches for r in b.rejects.to_pylist()]


def test_a_table_and_its_pictures(bucket):
    values = {
        "1": "images/1.jpg",
        "2": "gs://shop/images/2.jpg",
        "3": "gs://other/3.jpg",
        "4": "s3://shop/images/1.jpg",
        "5": "../x",
    }
    (bucket / "feed.csv").write_text("product_id,image\n" + "".join(f"{k},{v}\n" for k, v in values.items()))
    for number in (1, 2):
        (bucket / "images" / f"{number}.jpg").write_bytes(b"picture %d" % number)
    check_feed(FeedConfig(uri="gs://shop/feed.csv"))
    found, rejects = rows("gs://shop/feed.csv")
    assert {r["product_id"]: r["image_uri"] for r in found} == {n: f"gs://shop/images/{n}.jpg" for n in ("1", "2")}
    assert {r["key"]: r["code"] for r in rejects} == dict.fromkeys("345", RejectCode.BLOCKED_URL)
    assert {r["image_fingerprint"] for r in found} == {"9-1767323045000000000"}
    assert load_image("gs://shop/images/2.jpg", max_bytes=100) == b"picture 2"
    for uri, code in (("gs://shop/images/9.jpg", RejectCode.NOT_FOUND), ("gs://shop/images/1.jpg", RejectCode.TOO_MANY_BYTES)):
        with pytest.raises(Reject) as error:
            load_image(uri, max_bytes=5)
        assert error.value.code == code


def test_a_folder_and_a_shard(bucket, tmp_path):
    (bucket / "folder" / "top").mkdir(parents=True)
    (bucket / "folder" / "top" / "a.jpg").write_bytes(b"a picture")
    (found,), _ = rows("gs://shop/folder")
    assert (found["product_id"], found["category"], found["image_uri"]) == ("top/a", "top", "gs://shop/folder/top/a.jpg")
    with tarfile.open(bucket / "x-000.tar", "w") as tar:
        tar.add(bucket / "folder" / "top" / "a.jpg", "b.jpg")
    (found,), _ = rows("gs://shop/x-{000..000}.tar")
    assert found["image_uri"] == "gs://shop/x-000.tar#b.jpg"
    where = {"offset": found["image_offset"], "size": found["image_size"]}
    assert load_image(found["image_uri"], **where, max_bytes=100) == b"a picture"


def test_what_is_not_there_or_not_ours_is_said(bucket):
    with pytest.raises(UsageError, match=r"feed\.uri=gs://shop/none\.csv: no such file or folder"):
        check_feed(FeedConfig(uri="gs://shop/none.csv"))
    with pytest.raises(UsageError, match="names no bucket: gs://BUCKET/PREFIX"):
        storage.source("gs:///feed.csv")
    with pytest.raises(UsageError, match=r"feed\.uri=gs://locked/feed\.csv: Permission denied"):
        check_feed(FeedConfig(uri="gs://locked/feed.csv"))


@pytest.mark.parametrize("uri", ["gs://shop/store", "az://shop/store"])
def test_nothing_is_written_there(uri):
    doings = (storage.absolute, storage.delete, lambda uri: storage.write_bytes(uri, b"x"))
    for doing in (*doings, lambda uri: storage.replace_if(uri, b"x", None), lambda uri: storage.check_writable(uri, "--store")):
        with pytest.raises(UsageError, match=f"from {uri[:5]} only feeds and pictures are read"):
            doing(uri)
    assert not Path("shop").exists()
    assert not Path(uri).exists()


def test_azure_is_asked_by_its_own_variables(monkeypatch):
    for name in [name for name in os.environ if name.startswith("AZURE_")]:
        monkeypatch.delenv(name)
    with pytest.raises(UsageError, match="az://: set AZURE_STORAGE_ACCOUNT_NAME"):
        check_feed(FeedConfig(uri="az://container/feed.csv"))
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "devstoreaccount1")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "a2V5")
    system, path = storage.filesystem("az://container/a/feed.csv")
    assert system == fs.AzureFileSystem("devstoreaccount1", account_key="a2V5")
    assert path == "container/a/feed.csv"
