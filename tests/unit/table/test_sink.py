"""Commits: what is visible when, what a crash leaves, what a second writer can do."""

import numpy as np
import pyarrow as pa
import pytest

from w2w import ids, schema
from w2w.errors import JobFailed, UsageError
from w2w.table import delta, maintain
from w2w.table.sink import RECEIPT_SCHEMA, Committer, Counts, Lineage, Output, append_rows, write_part

IMAGES, EMBEDDINGS = Output(schema.IMAGES, unique=schema.IMAGE_ID), Output(schema.EMBEDDINGS)


def lineage(version: str = "v1") -> Lineage:
    return Lineage("embed", "run", "embed", version, {}, {"images": 3}, "test")


def vectors(names: list[str], model: str = "m1") -> pa.Table:
    n = len(names)
    flat = pa.array(np.arange(2 * n, dtype=np.float32))
    return pa.table(
        {
            schema.OWNER_ID: names,
            schema.OWNER_KIND: ["image"] * n,
            schema.MODEL_VERSION: [model] * n,
            schema.VECTOR: pa.ListArray.from_arrays(pa.array(range(0, 2 * n + 1, 2), pa.int32()), flat),
        }
    )


def images(numbers: list[int]) -> pa.Table:
    n = len(numbers)
    return pa.table(
        {
            schema.IMAGE_ID: [ids.image_id(b"%d" % i) for i in numbers],
            schema.BYTES: [b"%d" % i for i in numbers],
            schema.WIDTH: pa.array([1] * n, pa.int32()),
            schema.HEIGHT: pa.array([1] * n, pa.int32()),
            schema.FORMAT: ["JPEG"] * n,
            schema.PHASH: pa.array([-1] * n, pa.int64()),
            schema.SOURCE_URI: ["x"] * n,
            schema.FETCHED_AT: pa.array([0] * n, schema.TIME),
        }
    )


def receipts(store: str, output: Output, rows: pa.Table, counts: Counts | None = None) -> pa.Table:
    found = write_part(store, output, rows, "run")
    if counts and found:
        found[0]["counts"] = counts.to_json()
    return pa.Table.from_pylist(found, schema=RECEIPT_SCHEMA)


def owners(store: str) -> list[str]:
    return sorted(delta.read(store, schema.EMBEDDINGS, [schema.OWNER_ID]).column(0).to_pylist())


def test_a_part_is_invisible_until_its_commit(tmp_path):
    store = str(tmp_path)
    committer = Committer(store, [EMBEDDINGS], lineage(), every_s=1e9)
    committer.add(receipts(store, EMBEDDINGS, vectors(["a", "b"]), Counts(2, 2)))
    assert owners(store) == []
    committer.commit()
    assert owners(store) == ["a", "b"]
    committer.add(receipts(store, EMBEDDINGS, vectors(["c"]), Counts(1, 1)))
    assert owners(store) == ["a", "b"]  # the driver dies here: the part is an orphan
    assert committer.committed == Counts(2, 2)
    opened = delta.open_table(store, schema.EMBEDDINGS)
    assert maintain.vacuum(opened, 0, dry_run=True) == "1 files would be deleted"


def test_values_survive_partitions_and_dtypes(tmp_path):
    store = str(tmp_path)
    append_rows(store, EMBEDDINGS, pa.concat_tables([vectors(["a", "b"], "m1"), vectors(["a"], "m2")]), lineage())
    columns = [schema.OWNER_ID, schema.MODEL_VERSION, schema.VECTOR]
    got = delta.read(store, schema.EMBEDDINGS, columns, model_version="m1").to_pylist()
    assert got == [
        {"owner_id": "a", "model_version": "m1", "vector": [0.0, 1.0]},
        {"owner_id": "b", "model_version": "m1", "vector": [2.0, 3.0]},
    ]
    entry = delta.history(delta.open_table(store, schema.EMBEDDINGS), 1)[0]
    assert entry["w2w"]["inputs"] == {"images": 3}
    assert entry["w2w"]["rows"] == 3
    other = delta.open_table(store, schema.EMBEDDINGS).to_pyarrow_table()  # a reader that knows nothing of w2w
    assert other.num_rows == 3


def test_a_second_writer_of_the_same_stage_is_refused(tmp_path):
    store = str(tmp_path)
    first, second = (Committer(store, [EMBEDDINGS], lineage()) for _ in range(2))
    third = Committer(store, [EMBEDDINGS], lineage("v2"))
    for name in ("a", "b"):
        first.add(receipts(store, EMBEDDINGS, vectors([name])))
        first.commit()
    second.add(receipts(store, EMBEDDINGS, vectors(["a"])))
    with pytest.raises(JobFailed, match="another run of 'embed' wrote to"):
        second.commit()
    third.add(receipts(store, EMBEDDINGS, vectors(["c"], "m2")))  # another model: no conflict
    third.commit()
    assert owners(store) == ["a", "b", "c"]


def test_content_addressed_rows_stand_once(tmp_path):
    store = str(tmp_path)
    append_rows(store, IMAGES, images([1, 2]), lineage())
    committer = Committer(store, [IMAGES, EMBEDDINGS], lineage(), every_s=1e9)
    committer.add(receipts(store, IMAGES, images([2, 3, 3, 4])))
    committer.add(receipts(store, IMAGES, images([4, 1])))
    committer.add(receipts(store, IMAGES, images([5])))
    committer.commit()
    got = delta.read(store, schema.IMAGES, [schema.IMAGE_ID, schema.BYTES])
    assert sorted(got.column(schema.BYTES).to_pylist()) == [b"1", b"2", b"3", b"4", b"5"]


def test_compaction_keeps_the_rows(tmp_path):
    store = str(tmp_path)
    for name in "abcdef":
        append_rows(store, EMBEDDINGS, vectors([name]), lineage(name))
    before = delta.read(store, schema.EMBEDDINGS, [schema.OWNER_ID, schema.VECTOR]).sort_by(schema.OWNER_ID)
    assert maintain.compact(store, schema.EMBEDDINGS) == "6 parts became 1"
    assert delta.read(store, schema.EMBEDDINGS, [schema.OWNER_ID, schema.VECTOR]).sort_by(schema.OWNER_ID).equals(before)
    append_rows(store, EMBEDDINGS, vectors(["g"]), lineage())
    assert owners(store) == list("abcdefg")


def test_another_schema_is_refused_with_what_to_do(tmp_path):
    from deltalake import write_deltalake

    write_deltalake(str(tmp_path / "images"), pa.table({"image_id": ["a"]}))
    with pytest.raises(UsageError, match="has no column 'bytes': it was not written by this version of w2w"):
        delta.open_table(str(tmp_path), schema.IMAGES)
    write_deltalake(str(tmp_path / "embeddings"), vectors(["a"]).set_column(3, "vector", pa.array([[1.0]])))
    with pytest.raises(UsageError, match="column 'vector' is list<element: double>, and w2w needs"):
        delta.open_table(str(tmp_path), schema.EMBEDDINGS)


def product(name: str, title: str, at: int, active: bool = True) -> dict:
    row = dict.fromkeys(schema.PRODUCTS.schema.names)
    row |= {"product_id": name, "title": title, "category": "top", "image_uri": "", "image_fingerprint": ""}
    return row | {"row_digest": title, "active": active, "fetched_at": at}


def test_current_products_are_the_newest_rows(tmp_path):
    store = str(tmp_path)
    rows = [product("b", "old", 1), product("a", "only", 5), product("b", "new", 9, False), product("b", "mid", 4)]
    append_rows(store, Output(schema.PRODUCTS), pa.Table.from_pylist(rows, schema=schema.PRODUCTS.schema), lineage())
    got = delta.current_products(store, ["product_id", "title", "active"]).to_pylist()
    assert got == [
        {"product_id": "a", "title": "only", "active": True},
        {"product_id": "b", "title": "new", "active": False},
    ]


@pytest.mark.parametrize("repeats", [0, 1, 3])
def test_current_rows_a_batch_at_a_time(tmp_path, monkeypatch, repeats):
    """Every product once, in its newest row, whether it has one row or several; and read in small pieces."""
    monkeypatch.setattr(delta, "_CURRENT_ROWS", 7)
    monkeypatch.setattr(delta, "_KEPT_ROWS", 10)
    store, rng = str(tmp_path), np.random.default_rng(repeats)
    rows = [product(f"p{i}", f"{i} at {t}", t) for i in range(40) for t in range(1 + (i % 4 if repeats else 0) * repeats)]
    for part in np.array_split(rng.permutation(len(rows)), 3):
        some = pa.Table.from_pylist([rows[i] for i in part], schema=schema.PRODUCTS.schema)
        append_rows(store, Output(schema.PRODUCTS), some, lineage())
    current = delta.CurrentRows(store, schema.PRODUCTS)
    batches = list(current.batches(["title", "product_id"]))
    assert max(b.num_rows for b in batches[:-1]) <= 7
    newest = {r["product_id"]: r["title"] for r in sorted(rows, key=lambda r: r["fetched_at"])}
    got = pa.concat_tables(batches).to_pylist()
    assert len(got) == 40
    assert {r["product_id"]: r["title"] for r in got} == newest
    again = list(current.batches(["title", "product_id"]))
    assert [b.to_pylist() for b in again] == [b.to_pylist() for b in batches]
    several = current.several(["product_id"]).column(0).to_pylist()
    assert sorted(several) == sorted(r["product_id"] for r in rows if repeats and int(r["product_id"][1:]) % 4)
    assert list(delta.CurrentRows(str(tmp_path / "none"), schema.PRODUCTS).batches(["title"])) == []
