"""Files below s3://, against a server in this process that throttles, hangs up and answers nothing."""

import hashlib
import itertools
import threading

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from moto.server import ThreadedMotoServer

from tests.cluster.s3 import through
from w2w import clouds, schema, storage
from w2w.errors import Changed, StorageFailed
from w2w.table import delta


@pytest.fixture(scope="module")
def server():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    keys = {"aws_access_key_id": "x", "aws_secret_access_key": "x"}
    boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", **keys).create_bucket(Bucket="shop")
    yield endpoint
    server.stop()


@pytest.fixture(autouse=True)
def settings(server, monkeypatch):
    for name, value in (("ENDPOINT_URL", server), ("ACCESS_KEY_ID", "x"), ("SECRET_ACCESS_KEY", "x"), ("REGION", "us-east-1")):
        monkeypatch.setenv(f"AWS_{name}", value)


def test_one_of_many_writers_wins():
    uri, outcomes = "s3://shop/a/CURRENT", []
    storage.replace_if(uri, b"first", None)

    def write(n: int) -> None:
        try:
            storage.replace_if(uri, f"writer {n}".encode(), b"first")
            outcomes.append(n)
        except Changed:
            outcomes.append(None)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = [n for n in outcomes if n is not None]
    assert storage.read_bytes(uri) == f"writer {winner}".encode()
    for expected in (None, b"first"):
        with pytest.raises(Changed, match=r"s3://shop/a/CURRENT was written by another run"):
            storage.replace_if(uri, b"late", expected)
    with pytest.raises(Changed):
        storage.replace_if("s3://shop/a/none", b"new", b"old")


@pytest.mark.parametrize("expected", [None, b"old"])
def test_an_answer_that_is_lost_is_no_other_writer(server, monkeypatch, expected):
    uri = f"s3://shop/lost/{expected}"
    if expected:
        storage.write_bytes(uri, expected)
    lost = iter(["lost"])
    with through(server, lambda method, path, nth: next(lost, None) if method == "PUT" else None) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        storage.replace_if(uri, b"new", expected)
        assert len(proxy.faults) == 1
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    assert storage.read_bytes(uri) == b"new"


def test_a_burst_of_throttling_is_waited_out(server, monkeypatch):
    with through(server, lambda method, path, nth: "busy" if nth % 10 < 3 else None) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        storage.write_bytes("s3://shop/busy/a", b"a")
        storage.replace_if("s3://shop/busy/b", b"b", None)
        assert storage.read_bytes("s3://shop/busy/a") + storage.read_bytes("s3://shop/busy/b") == b"ab"
        assert len(storage.list_files("s3://shop/busy")) == 2
        assert len(proxy.faults) >= 2


def test_a_throttled_read_of_fewer_bytes_than_the_refusal_has_is_waited_out(server, monkeypatch):
    """The CURRENT of an index, a column of a few rows."""
    monkeypatch.setattr(clouds, "_PAUSE_S", 0.01)
    rows = pa.table({"a": [1], "b": ["x"]})
    with storage.writer("s3://shop/small/rows.parquet") as f:
        pq.write_table(rows, f)
    storage.write_bytes("s3://shop/small/CURRENT", b"v1")
    refused = iter(["busy", "busy", None] * 50)
    with through(server, lambda method, path, nth: next(refused) if method == "GET" else None) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        assert storage.read_bytes("s3://shop/small/CURRENT") == b"v1"
        assert storage.sha256("s3://shop/small/CURRENT") == hashlib.sha256(b"v1").hexdigest()
        system, path = storage.filesystem("s3://shop/small/rows.parquet")
        with delta.open_part(system, path) as file:
            assert file.read() == rows
        assert len(proxy.faults) >= 6


@pytest.mark.parametrize("fault", ["cut", "reset"])
def test_answers_that_end_too_early_are_asked_for_again(server, monkeypatch, fault):
    monkeypatch.setattr(delta, "_CUT_PAUSE_S", 0.01)
    store, rows = f"s3://shop/{fault}", pa.table({name: pa.array(["x"] * 5) for name in ("a", "b")})
    table = schema.Table("cut", rows.schema, key=("a",))
    with storage.writer(f"{store}/rows.parquet") as f:
        pq.write_table(rows, f)
    gets = itertools.count()
    with through(server, lambda method, path, nth: fault if method == "GET" and next(gets) % 8 == 0 else None) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        for _ in range(5):
            assert delta.create_table(store, table).version() == 0
        assert len(storage.read_bytes(f"{store}/rows.parquet")) > 500
        system, path = storage.filesystem(f"{store}/rows.parquet")
        with delta.open_part(system, path) as file:
            assert file.read() == rows
        assert len(proxy.faults) >= 3


def test_a_table_whose_answers_always_end_too_early_is_named(server, monkeypatch):
    monkeypatch.setattr(delta, "_CUT_PAUSE_S", 0)
    table = schema.Table("cut", pa.schema([("a", pa.string())]), key=("a",))
    delta.create_table("s3://shop/ever", table)
    with through(server, lambda method, path, nth: "cut" if method == "GET" else None) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        with pytest.raises(StorageFailed, match=r"cannot read table 's3://shop/ever/cut': .*before message length"):
            delta.open_table("s3://shop/ever", table)


def test_a_server_that_throttles_for_ever_is_named(server, monkeypatch):
    monkeypatch.setattr(clouds, "_PAUSE_S", 0)
    storage.write_bytes("s3://shop/never", b"v1")
    with through(server, lambda method, path, nth: "busy" if method == "GET" else None) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        with pytest.raises(StorageFailed, match=r"cannot read s3://shop/never: .*GetObject"):
            storage.read_bytes("s3://shop/never")


def test_storage_that_stays_away_is_named(server, monkeypatch):
    monkeypatch.setattr(clouds, "_ATTEMPTS", 2)
    with through(server, lambda method, path, nth: "busy") as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        for call in (
            lambda: storage.read_bytes("s3://shop/x/y"),
            lambda: storage.write_bytes("s3://shop/x/y", b""),
            lambda: storage.replace_if("s3://shop/x/y", b"", None),
            lambda: storage.exists("s3://shop/x/y"),
            lambda: storage.delete("s3://shop/x/y"),
            lambda: storage.list_files("s3://shop/x/y"),
        ):
            with pytest.raises(StorageFailed, match=r"^cannot (read|write|list|delete) s3://shop/x/y: .*(?i:slow.?down|503)"):
                call()
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    with pytest.raises(FileNotFoundError):
        storage.read_bytes("s3://shop/x/y")
