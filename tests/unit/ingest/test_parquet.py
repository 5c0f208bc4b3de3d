"""Parquet feeds: columns of every type, damaged files, folders of parts."""

import decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.unit.ingest.test_feed import codes, read, warned
from w2w import schema
from w2w.errors import BadInput
from w2w.ingest.feed import FeedConfig, check_feed


def test_damaged_parquet_is_named(tmp_path):
    path = tmp_path / "feed.parquet"
    pq.write_table(pa.table({"product_id": [str(i) for i in range(5000)], "image": ["x"] * 5000}), path, use_dictionary=False)
    data = bytearray(path.read_bytes())
    data[10:20_000] = b"\xff" * 19_990
    path.write_bytes(data)
    with pytest.raises(BadInput, match=r"feed\.parquet"):
        read(FeedConfig(uri=str(path)))


def test_parquet_columns_of_every_type(tmp_path):
    """A number, a time, a dictionary: text. What Arrow has no text for, bytes and lists: no attribute."""
    shown = {
        "half": pa.array(np.array([1.5, np.nan], np.float16)),
        "decimal": pa.array([decimal.Decimal("1.10"), None]),
        "time": pa.array([1, None], pa.time32("s")),
        "dictionary": pa.array(["x", None]).dictionary_encode(),
        "numbers": pa.array([7, None]).dictionary_encode(),
        "large": pa.array(["x", None], pa.large_string()),
        "view": pa.array(["x", None], pa.string_view()),
    }
    hidden = {
        "bytes": pa.array([b"\xff", b"a"]),
        "coded": pa.array([b"\xff", b"a"]).dictionary_encode(),
        "list": pa.array([[1], [2]]),
        "struct": pa.array([{"a": 1}, {"a": 2}]),
        "id": pa.array([b"\xff" * 16, b"b" * 16], pa.uuid()),
    }
    path = tmp_path / "feed.parquet"
    pq.write_table(pa.table({"product_id": [1, 2], "image": ["a", "b"], **shown, **hidden}), path)
    rows, rejects = read(FeedConfig(uri=str(path)))
    assert rejects == []
    assert dict(rows[0]["attributes"]) == {
        "decimal": "1.10", "dictionary": "x", "half": "1.5", "large": "x", "numbers": "7", "time": "00:00:01.000", "view": "x",
    }  # fmt: skip
    assert rows[1]["attributes"] == []
    pq.write_table(pa.table({"product_id": [1], "image": ["a"], "at": pa.array([1], pa.timestamp("us", tz="Foo/Bar"))}), path)
    rows, rejects = read(FeedConfig(uri=str(path)))
    assert (rows[0]["attributes"], [said[:2] for said in warned(rows)], rejects) == ([], [("1", "at")], []), (
        "a zone that nobody knows"
    )


def test_parquet_that_names_a_column_twice_or_is_locked(tmp_path):
    path = tmp_path / "feed.parquet"
    config = FeedConfig(uri=str(path))
    pq.write_table(pa.table([["1"], ["2"], ["a"]], names=["product_id", "product_id", "image"]), path)
    with pytest.raises(BadInput, match=r"feed\.parquet: duplicate column names: 'product_id'"):
        check_feed(config)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"product_id", b"product_i\xe4"))
    with pytest.raises(BadInput, match=r"feed\.parquet: not a Parquet file: 'utf-8' codec"):
        check_feed(config)
    path.write_bytes(whole[:-4] + b"PARE")
    with pytest.raises(BadInput, match=r"feed\.parquet: not a Parquet file: .*encrypted"):
        check_feed(config)


def test_parquet_folder(tmp_path):
    folder = tmp_path / "parts"
    folder.mkdir()
    first = {
        "product_id": pa.array([7, 8]),
        "image": pa.array(["7.jpg", "8.jpg"]).dictionary_encode(),
        "price": pa.array([19.9, float("nan")]),
        "raw": pa.array([b"x", b"y"]),
        "sizes": pa.array([["S"], []]),
        "sold": pa.array([True, None]),
    }
    pq.write_table(pa.table(first), folder / "a.parquet")
    broken = pa.array([b"ok", b"caf\xe9"]).view(pa.string())
    pq.write_table(pa.table({"product_id": ["8", "9"], "image": ["x", "y"], "title": broken}), folder / "b.parquet")
    (folder / "_SUCCESS").write_text("")
    config = FeedConfig(uri=str(folder))
    check_feed(config)
    rows, rejects = read(config)
    assert [(r[schema.PRODUCT_ID], r[schema.PRICE]) for r in rows] == [("7", 19.9), ("8", None), ("9", None)]
    assert [said[:2] for said in warned(rows)] == [("9", "title")]
    assert rows[0][schema.ATTRIBUTES] == [("sold", "true")]
    assert rows[0][schema.IMAGE_URI] == str(folder / "7.jpg")
    assert rows[1][schema.SOURCE] == str(folder / "a.parquet") + ":2"
    assert sorted(codes(rejects)) == [("duplicate_key", 1)]
