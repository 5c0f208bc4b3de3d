"""What can be known before any work is said in one sentence: the file, the column, the option."""

import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from w2w.errors import BadInput, UsageError
from w2w.ingest.feed import FeedConfig, check_feed

HEADER = "product_id,title,category,price,image"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"uri": ""}, ["uri"]),
        ({"uri": "missing.csv"}, ["missing.csv", "no such file"]),
        ({"uri": "https://x.test/feed.csv"}, ["download"]),
        ({"uri": "ftp://x.test/feed.csv"}, ["s3://"]),
        ({"kind": "yaml"}, ["kind=yaml", "jsonl"]),
        ({"kind": "images"}, ["kind=images", "folder"]),
        ({"columns": {"colour": "c"}}, ["columns.colour", "product_id"]),
        ({"columns": {"title": "tilte"}}, ["'tilte'", "columns.title", "'title'"]),
        ({"columns": {"image": "zzz"}}, ["'zzz'", "columns.image", "it has 'product_id'"]),
        ({"attributes": ["pryce"]}, ["'pryce'", "attributes", "'price'"]),
        ({"csv_delimiter": "ab"}, ["csv_delimiter"]),
        ({"encoding": "klingon"}, ["klingon", "utf-8"]),
        ({"image_root": "/no/such/folder"}, ["image_root"]),
        ({"category_default": " "}, ["category_default"]),
        ({"category_map": {"Tees": "tops"}}, ["feed.category_map.Tees", "'tops' is no class of ours: bag, "]),
    ],
)
def test_mistakes_are_named(tmp_path, settings, words):
    path = tmp_path / "feed.csv"
    path.write_text(f"{HEADER}\n1,t,top,1,1.jpg\n")
    with pytest.raises(UsageError) as caught:
        check_feed(FeedConfig(**{"uri": str(path), **settings}))
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"csv_delimiter": ";"}, ["csv_delimiter=';'", "','", "4 times"]),
        ({"encoding": "utf-16"}, ["feed.csv", "not utf-16"]),
    ],
)
def test_a_file_that_is_not_what_was_said_is_bad_input(tmp_path, settings, words):
    (tmp_path / "feed.csv").write_text(f"{HEADER}\n1,t,top,1,1.jpg\n")
    with pytest.raises(BadInput) as caught:
        check_feed(FeedConfig(uri=str(tmp_path / "feed.csv"), **settings))
    for word in words:
        assert word in str(caught.value)


ASKED = (
    "columns.image",
    "columns.product_id",
    "did you mean",
    "compressed archive",
    "set feed.kind",
)  # wrong usage: exit code 2


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("feed.csv", b"", ["empty"]),
        ("feed.csv", HEADER.encode() + b"\n", ["no rows"]),
        ("feed.csv", HEADER.encode(), ["no rows"]),
        ("feed.csv", b"product_id,title\n1,t\n", ["'image'", "columns.image"]),
        ("feed.csv", b"product_id,image,image\n1,a,b\n", ["duplicate", "'image'"]),
        (
            "feed.csv",
            HEADER.encode() + b"\n" + b"1,caf\xe9,top,1,1.jpg\n1,caf\xc3\xa9,top,1,1.jpg\n" * 30,
            ["line 2", "encoding=cp1252"],
        ),
        ("feed.csv", "prodüct_idx,image\n1,a\n".encode("cp1252"), ["'product_id'", "did you mean 'prodüct_idx'"]),
        ("feed.jsonl", b'{"number": "1", "image": "a"}\n', ["'product_id'", "columns.product_id"]),
        ("feed.json", b'[{"number": "1", "image": "a"}]\n', ["'product_id'", "columns.product_id"]),
        ("feed.json", b'[{"id": "1", "image": "a"}, {"id":', ["object 2 of the array is not JSON"]),
        ("feed.xml", b"<rss><item><id>1</id></rss>", ["not XML"]),
        ("feed.xml", b'<?xml version="1.0" encoding="f-8"?><rss/>', ["not XML", "f-8"]),
        ("feed.xml", b'<?xml version="1.0" encoding="big5"?><rss/>', ["not XML", "multi-byte"]),
        ("feed.xml", b"<!DOCTYPE a [<!ENTITY b 'c'>]><rss/>", ["document type"]),
        ("feed.parquet", b"not parquet at all", ["not a Parquet file"]),
        ("feed.tar.gz", b"x", ["compressed archive"]),
        ("feed.xyz", b"x", ["set feed.kind"]),
    ],
)
def test_unusable_files_are_named(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UsageError if any(w.startswith(ASKED) for w in words) else BadInput) as caught:
        check_feed(FeedConfig(uri=str(path)))
    for word in (name, *words):
        assert word in str(caught.value)


def test_unusable_parquet_columns_and_folders_are_named(tmp_path):
    path = tmp_path / "feed.parquet"
    pq.write_table(pa.table({"product_id": ["1"], "image": pa.array([b"x"])}), path)
    with pytest.raises(UsageError, match=r"'image' of feed.columns.image holds binary"):
        check_feed(FeedConfig(uri=str(path)))
    (tmp_path / "none").mkdir()
    with pytest.raises(UsageError, match="no images, Parquet files or tars"):
        check_feed(FeedConfig(uri=str(tmp_path / "none")))
    (tmp_path / "a.jpg").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"parquet and images; set feed\.kind"):
        check_feed(FeedConfig(uri=str(tmp_path)))
    with pytest.raises(UsageError, match="kind=csv is a file"):
        check_feed(FeedConfig(uri=str(tmp_path), kind="csv"))


def test_what_is_neither_file_nor_folder_is_named(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    os.symlink("loop.csv", tmp_path / "loop.csv")
    for name, why in {"pipe.csv": "neither a plain file", "loop.csv": "no such file", "x" * 300 + ".csv": "too long"}.items():
        with pytest.raises(UsageError, match=rf"feed\.uri=.*\.csv: .*{why}"):
            check_feed(FeedConfig(uri=str(tmp_path / name)))
