"""Image values stay below their root, one listing tells their fingerprints, and bytes come or a reject says why not."""

import errno
import os
from pathlib import Path

import pyarrow as pa
import pytest

from w2w import storage
from w2w.errors import Reject, RejectCode, StorageFailed
from w2w.ingest import images
from w2w.ingest.images import ImageRoot, load_image


def resolve(root: str, *values: str) -> list[str]:
    uris, refused = ImageRoot(root).resolve(pa.array(values))
    for row, code, _ in refused:
        assert code == RejectCode.BLOCKED_URL
        assert uris[row].as_py() == ""
    return ["BLOCKED" if u == "" else u for u in uris.to_pylist()]


@pytest.mark.parametrize(
    ("root", "value", "uri"),
    [
        ("/data/img", "1.jpg", "/data/img/1.jpg"),
        ("/data/img/", "a/1.jpg", "/data/img/a/1.jpg"),
        ("/data/./x/../img", "1.jpg", "/data/img/1.jpg"),
        ("/data/img", "./a//b/../1.jpg", "/data/img/a/1.jpg"),
        ("/data/img", "..jpg", "/data/img/..jpg"),
        ("/data/img", "a..b/...jpg", "/data/img/a..b/...jpg"),
        ("/data/img", "/data/img/1.jpg", "/data/img/1.jpg"),
        ("/data/img", "https://u:pa/ss@cdn.test/1.jpg", "BLOCKED"),
        ("/data/img", "https://cdn.test:8080/@brand/1.jpg", "https://cdn.test:8080/@brand/1.jpg"),
        ("/data/img", "../../etc/passwd", "BLOCKED"),
        ("/data/img", "a/../../img2/1.jpg", "BLOCKED"),
        ("/data/img", "..", "BLOCKED"),
        ("/data/img", ".", "BLOCKED"),
        ("/data/img", "/etc/passwd", "BLOCKED"),
        ("/data/img", "/data/img2/1.jpg", "BLOCKED"),
        ("/data/img", "/data/img/../x.jpg", "BLOCKED"),
        ("/data/img", "//host/share.jpg", "BLOCKED"),
        ("/data/img", "file:///data/img/1.jpg", "BLOCKED"),
        ("/data/img", "FILE:/data/img/1.jpg", "BLOCKED"),
        ("/data/img", "data:image/png;base64,AA", "BLOCKED"),
        ("/data/img", "gs://bucket/1.jpg", "BLOCKED"),
        ("/data/img", "s3://other/1.jpg", "BLOCKED"),
        ("/data/img", "HTTPS://x.test/../1.jpg", "HTTPS://x.test/../1.jpg"),
        ("/data/img", "https://me:pw@x.test/1.jpg", "BLOCKED"),
        ("/", "etc/1.jpg", "/etc/1.jpg"),
        ("/", "/etc/../1.jpg", "/1.jpg"),
        ("s3://b/img", "1.jpg", "s3://b/img/1.jpg"),
        ("s3://b/img", "s3://b/img/a/1.jpg", "s3://b/img/a/1.jpg"),
        ("s3://b/img", "../private/1.jpg", "BLOCKED"),
        ("s3://b/img", "s3://b/img/../private/1.jpg", "BLOCKED"),
        ("s3://b/img", "s3://other/1.jpg", "BLOCKED"),
        ("https://cdn.test/p/", "a/1.jpg?w=2", "https://cdn.test/p/a/1.jpg?w=2"),
        ("https://cdn.test/p", "/a/1.jpg", "https://cdn.test/p/a/1.jpg"),
        ("https://cdn.test/p", "../../1.jpg", "BLOCKED"),
    ],
)
def test_resolve(root, value, uri):
    assert resolve(root, value) == [uri]


def test_a_key_with_an_empty_part_is_not_taken_for_another():
    uris, refused = ImageRoot("s3://b/img").resolve(pa.array(["a//1.jpg", "s3://b/img//1.jpg", "/1.jpg", "a/1%20%25.jpg"]))
    assert [(row, code) for row, code, _ in refused] == [(0, RejectCode.BAD_VALUE), (1, RejectCode.BAD_VALUE)]
    assert uris.to_pylist() == ["", "", "s3://b/img/1.jpg", "s3://b/img/a/1%20%25.jpg"]


def test_refused_rows_keep_their_place():
    assert resolve("/r", "1.jpg", "../x", "https://h/2.jpg", "/r/3.jpg", "file:x", "4.jpg") == [
        "/r/1.jpg",
        "BLOCKED",
        "https://h/2.jpg",
        "/r/3.jpg",
        "BLOCKED",
        "/r/4.jpg",
    ]


def test_fingerprints_come_from_one_listing(tmp_path, monkeypatch):
    listings = []
    real = storage.list_files
    monkeypatch.setattr(storage, "list_files", lambda uri: listings.append(uri) or real(uri))
    for i in range(20):
        (tmp_path / f"{i}.jpg").write_bytes(b"x" * i)
    root = ImageRoot(str(tmp_path))
    assert root.fingerprints(pa.array(["https://h/1.jpg"])).to_pylist() == [""]
    assert listings == []
    uris = [f"{tmp_path}/{i}.jpg" for i in (7, 3)] + ["https://h/1.jpg", f"{tmp_path}/missing.jpg"]
    for _ in range(2):
        times = [(tmp_path / f"{i}.jpg").stat().st_mtime_ns for i in (7, 3)]
        assert root.fingerprints(pa.array(uris)).to_pylist() == [f"7-{times[0]}", f"3-{times[1]}", "", ""]
    assert listings == [str(tmp_path)]


def test_fingerprints_of_an_empty_or_missing_folder(tmp_path):
    for root in (tmp_path, tmp_path / "none"):
        assert ImageRoot(str(root)).fingerprints(pa.array([f"{root}/1.jpg"])).to_pylist() == [""]


def load(uri: str | Path, *place: int, max_bytes: int = 1000) -> bytes:
    return load_image(str(uri), *place, max_bytes=max_bytes)


@pytest.mark.parametrize(
    ("uri", "place", "code"),
    [
        ("missing.jpg", (), RejectCode.NOT_FOUND),
        ("file.jpg/x.jpg", (), RejectCode.NOT_FOUND),
        ("folder", (), RejectCode.NOT_FOUND),
        ("pipe.jpg", (), RejectCode.NOT_FOUND),
        ("itself.jpg", (), RejectCode.NOT_FOUND),
        ("x" * 300 + ".jpg", (), RejectCode.NOT_FOUND),
        ("x/" * 3000 + ".jpg", (), RejectCode.NOT_FOUND),
        ("C:\\photos\\a%20b.jpg", (), RejectCode.NOT_FOUND),
        ("half \udce9.jpg", (), RejectCode.BAD_VALUE),
        ("nothing\0.jpg", (), RejectCode.BAD_VALUE),
        ("big.jpg", (), RejectCode.TOO_MANY_BYTES),
        ("s.tar#a.jpg", (0, 5000), RejectCode.TOO_MANY_BYTES),
        ("s.tar#a.jpg", (90, 20), RejectCode.TRUNCATED),
        ("s.tar#a.jpg", (500, 20), RejectCode.TRUNCATED),
        ("none.tar#a.jpg", (0, 20), RejectCode.NOT_FOUND),
    ],
)
def test_what_cannot_be_loaded_is_a_reject(tmp_path, uri, place, code):
    (tmp_path / "file.jpg").write_bytes(b"x")
    (tmp_path / "big.jpg").write_bytes(b"x" * 1001)
    (tmp_path / "s.tar").write_bytes(bytes(100))
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    os.symlink("itself.jpg", tmp_path / "itself.jpg")
    with pytest.raises(Reject) as caught:
        load(tmp_path / uri, *place)
    assert caught.value.code == code


def test_a_file_of_the_machine_is_not_waited_for():
    for uri in ("/dev/zero", "/dev/tty", "/proc/self", "/"):
        with pytest.raises(Reject, match="not a plain file"):
            load(uri)


def test_bytes_and_ranges(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"0123456789")
    (tmp_path / "s.tar").write_bytes(b"0123456789")
    (tmp_path / "100%25 é\\x.jpg").write_bytes(b"as it is called")
    assert load(tmp_path / "100%25 é\\x.jpg") == b"as it is called"
    assert load(tmp_path / "a.jpg", max_bytes=10) == b"0123456789"
    assert load(f"{tmp_path}/s.tar#x.jpg", 3, 4) == b"3456"
    assert load(f"{tmp_path}/s.tar#odd.tar#name.jpg", 3, 0) == b""


def test_web_images_go_through_fetch():
    assert load_image("https://x.test/a.jpg", max_bytes=9, fetch=lambda url: url.encode()) == b"https://x.test/a.jpg"
    for uri in ("https://x.test/a.jpg", "file:///etc/passwd", "ftp://x.test/a.jpg"):
        with pytest.raises(Reject) as caught:
            load_image(uri, max_bytes=9)
        assert caught.value.code == RejectCode.BLOCKED_URL


class BrokenSystem:
    def __init__(self, message: str):
        self.message = message

    def open_input_file(self, path: str) -> None:
        raise OSError(self.message)


def test_s3_refusals_are_rejects_and_s3_failures_rise(monkeypatch):
    denied = "When reading information for key 'a.jpg' in bucket 'b': AWS Error ACCESS_DENIED during HeadObject operation"
    monkeypatch.setattr(storage, "filesystem", lambda uri: (BrokenSystem(denied), "b/a.jpg"))
    with pytest.raises(Reject) as caught:
        load("s3://b/a.jpg")
    assert caught.value.code == RejectCode.FORBIDDEN
    slow = "AWS Error SLOW_DOWN during GetObject operation: Please reduce your request rate."
    monkeypatch.setattr(storage, "filesystem", lambda uri: (BrokenSystem(slow), "b/a.jpg"))
    with pytest.raises(StorageFailed, match=r"cannot read s3://b/a\.jpg: AWS Error SLOW_DOWN"):
        load("s3://b/a.jpg")


def test_a_disk_that_is_lost_is_no_fault_of_a_row(monkeypatch, tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"x")
    for number in (errno.EIO, errno.ESTALE, errno.EMFILE, errno.ETIMEDOUT):

        def broken(uri: str, *_, number=number):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(images, "_read", broken)
        with pytest.raises(StorageFailed, match=r"cannot read .*a\.jpg"):
            load(tmp_path / "a.jpg")


@pytest.fixture(scope="module")
def bucket():
    """A real S3 server on the loopback interface with images in it."""
    moto = pytest.importorskip("moto.server", reason="moto[server] plays S3")
    server = moto.ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    patch = pytest.MonkeyPatch()
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    for name, value in {"AWS_ENDPOINT_URL": f"http://{host}:{port}", **dict.fromkeys(names, "test")}.items():
        patch.setenv(name, value)
    import boto3

    boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1").create_bucket(Bucket="w2w-feed")
    yield "s3://w2w-feed"
    patch.undo()
    server.stop()


def test_feed_and_images_on_s3(bucket):
    from w2w.ingest.feed import FeedConfig, check_feed, read_feed

    storage.write_bytes(f"{bucket}/shop/feed.csv", b"product_id,image\n1,img/1.jpg\n2,img/2.jpg\n3,../../x.jpg\n")
    storage.write_bytes(f"{bucket}/shop/img/1.jpg", b"first")
    config = FeedConfig(uri=f"{bucket}/shop/feed.csv")
    check_feed(config)
    (batch,) = read_feed(config)
    uris = batch.rows.column("image_uri").to_pylist()
    assert uris == [f"{bucket}/shop/img/1.jpg", f"{bucket}/shop/img/2.jpg"]
    prints = batch.rows.column("image_fingerprint").to_pylist()
    assert prints[0].startswith("5-")
    assert prints[1] == ""
    assert batch.rejects.column("code").to_pylist() == ["blocked_url"]
    assert load(uris[0]) == b"first"
    for uri, code in {
        uris[1]: RejectCode.NOT_FOUND,
        f"{bucket}/shop//1.jpg": RejectCode.BAD_VALUE,
        f"{bucket}/shop/{'x' * 1100}.jpg": RejectCode.NOT_FOUND,
        f"{bucket}/shop": RejectCode.NOT_FOUND,
        f"{bucket}/shop/100%25.jpg": RejectCode.NOT_FOUND,
    }.items():
        with pytest.raises(Reject) as caught:
            load(uri)
        assert caught.value.code == code, uri
    (folder,) = read_feed(FeedConfig(uri=f"{bucket}/shop/img", kind="images"))
    assert folder.rows.column("image_uri").to_pylist() == uris[:1]
