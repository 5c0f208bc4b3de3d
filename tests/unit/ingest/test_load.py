"""The stage that reads images: what comes first goes on first, and nothing is lost."""

import os
import threading

import pyarrow as pa
import pytest

from w2w import ids, schema
from w2w.errors import Reject, RejectCode
from w2w.ingest import stage
from w2w.ingest.stage import LOAD_GIVES, WORK_SCHEMA, load
from w2w.web.permission import Asked


def rows(*uris: str, fault: dict[str, str] | None = None) -> pa.Table:
    fault = fault or {}
    return pa.Table.from_pylist(
        [
            {schema.KEY: u, schema.IMAGE_URI: u, schema.REJECT_CODE: fault.get(u), schema.REJECT_DETAIL: fault.get(u)}
            for u in uris
        ],
        schema=WORK_SCHEMA,
    )


def urls(first: int, last: int) -> list[str]:
    return [f"http://x.test/{i}" for i in range(first, last)]


def fetch(url: str, known: str) -> tuple[bytes | None, str, Asked]:
    return url.encode(), "", Asked()


def test_rows_keep_their_order_where_nothing_is_slow_and_know_their_content():
    (result,) = load(iter([rows(*urls(0, 5)), rows(*urls(5, 9))]), max_bytes=10, fetch=fetch)
    assert result.column(schema.KEY).to_pylist() == urls(0, 9)
    assert result.column(schema.BYTES).to_pylist() == [u.encode() for u in urls(0, 9)]
    assert result.column(schema.IMAGE_ID)[3].as_py() == ids.image_id(b"http://x.test/3")
    assert all(result.schema.field(f.name).type == f.type for f in LOAD_GIVES)


def test_a_row_that_drips_holds_up_nobody():
    release = threading.Event()

    def drip(url: str, known: str) -> tuple[bytes | None, str, Asked]:
        if url.endswith("/1"):
            assert release.wait(60)
        return url.encode(), "", Asked()

    seen = []
    tables = (rows(*urls(i, i + 4)) for i in range(0, 40, 4))
    for part in load(tables, max_bytes=10, fetch=drip, batch_rows=4):
        assert part.num_rows <= 4
        seen += part.column(schema.KEY).to_pylist()
        if len(seen) >= 28:  # while one row of the first batch still waits
            release.set()
    assert sorted(seen) == sorted(urls(0, 40))
    assert seen.index("http://x.test/1") >= 28


def test_faults_of_rows_are_kept_and_other_faults_are_raised():
    def refuse(url: str, known: str) -> tuple[bytes | None, str, Asked]:
        if url.endswith("/2"):
            raise Reject(RejectCode.NOT_FOUND, "gone")
        if url.endswith("/9"):
            raise RuntimeError("a bug")
        return b"x", "", Asked()

    table = rows(*urls(0, 4), fault={"http://x.test/3": "duplicate_key"})
    (result,) = load(iter([table]), max_bytes=10, fetch=refuse)
    assert result.column(schema.REJECT_CODE).to_pylist() == [None, None, "not_found", "duplicate_key"]
    assert result.column(schema.BYTES).null_count == 2
    with pytest.raises(RuntimeError, match="a bug"):
        list(load(iter([rows(*urls(8, 10))]), max_bytes=10, fetch=refuse))
    assert list(load(iter([]), max_bytes=10, fetch=refuse)) == []


def test_one_bad_name_does_not_end_a_run(tmp_path):
    """A name of 300 characters, a link to itself and a pipe among good ones."""
    (tmp_path / "ok.jpg").write_bytes(b"x")
    os.symlink("itself.jpg", tmp_path / "itself.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    uris = [f"{tmp_path}/{name}" for name in ("ok.jpg", "x" * 300 + ".jpg", "itself.jpg", "pipe.jpg", "a\0b.jpg", "ok.jpg")]
    (result,) = load(iter([rows(*uris)]), max_bytes=10, fetch=fetch)
    assert result.column(schema.REJECT_CODE).to_pylist() == [None, *["not_found"] * 3, "bad_value", None]
    assert result.column(schema.BYTES).to_pylist() == [b"x", None, None, None, None, b"x"]


def test_large_images_travel_in_smaller_tables(monkeypatch):
    monkeypatch.setattr(stage, "_HELD_BYTES", 30)
    sizes = [t.num_rows for t in load(iter([rows(*urls(0, 10))]), max_bytes=10, fetch=fetch)]
    assert sizes == [3, 3, 3, 1]
