"""Commits: what is visible when, what a crash leaves, what a second writer can do."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError

from w2w import ids, schema
from w2w.cli import tables
from w2w.errors import JobFailed, StorageFailed, UsageError
from w2w.stage import Counts
from w2w.table import delta, doubles, maintain
from w2w.table.current import current_products
from w2w.table.parts import RECEIPT_SCHEMA, Output, write_part
from w2w.table.sink import Committer, Lineage, append_rows, to_action

IMAGES, EMBEDDINGS = Output(schema.IMAGES, unique=schema.IMAGE_ID), Output(schema.EMBEDDINGS)


def lineage(version: str = "v1", run: str = "run", job: str = "embed") -> Lineage:
    return Lineage(job, run, job, version, {}, {"images": 3}, "test")


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
    assert maintain.vacuum(store, schema.EMBEDDINGS, 0, dry_run=True) == 1


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
    first, second = (Committer(store, [EMBEDDINGS], lineage(run=run)) for run in ("a", "b"))
    third = Committer(store, [EMBEDDINGS], lineage("v2", "c"))
    for name in ("a", "b"):
        first.add(receipts(store, EMBEDDINGS, vectors([name])))
        first.commit()
    second.add(receipts(store, EMBEDDINGS, vectors(["a"])))
    with pytest.raises(JobFailed, match="another run of 'embed', a, wrote to"):
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
    assert maintain.compact(store, schema.EMBEDDINGS) == maintain.Compacted(0, 6, 1)
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


def listed(rows: list[dict]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=schema.PRODUCTS.schema)


PRODUCTS = Output(schema.PRODUCTS)


def history_of(store: str) -> list[tuple]:
    """(product, title, active) in the order in which they count."""
    rows = delta.read(store, schema.PRODUCTS, ["product_id", "title", "active", "fetched_at"])
    return [tuple(r.values())[:3] for r in rows.sort_by([("product_id", "ascending"), ("fetched_at", "ascending")]).to_pylist()]


def test_runs_of_other_options_double_no_row(tmp_path):
    """Two ingests that differ in an option, or ingest beside crawl: each works on what was there when it began."""
    store = str(tmp_path)
    append_rows(store, PRODUCTS, listed([product("a", "old", 1), product("c", "gone", 1)]), lineage())
    late = replace(lineage("v2", "late", "crawl"), seen=delta.FirstSeen())
    assert current_products(store, ["product_id"]).num_rows == 2  # here the late one looks at what is there
    assert delta.open_table(store, schema.IMAGES) is None
    first = [product("a", "new", 10), product("b", "new", 10), product("c", "gone", 10, False), product("d", "x", 10)]
    append_rows(store, IMAGES, images([1, 2]), lineage("v1", "first", "ingest"))
    append_rows(store, PRODUCTS, listed(first), lineage("v1", "first", "ingest"))
    maintain.compact(store, schema.PRODUCTS)
    committer = Committer(store, [IMAGES, PRODUCTS], late, every_s=1e9)
    second = [product("a", "new", 11), product("b", "new", 11), product("c", "gone", 11, False), product("d", "y", 11)]
    committer.add(receipts(store, IMAGES, images([2, 3])))
    committer.add(receipts(store, PRODUCTS, listed(second[:2])))
    committer.commit()
    committer.add(receipts(store, PRODUCTS, listed([*second[2:], product("e", "only here", 12)])))
    committer.commit()
    assert sorted(delta.read(store, schema.IMAGES, [schema.BYTES]).column(0).to_pylist()) == [b"1", b"2", b"3"]
    assert history_of(store) == [
        ("a", "old", True), ("a", "new", True), ("b", "new", True), ("c", "gone", True), ("c", "gone", False),
        ("d", "x", True), ("d", "y", True), ("e", "only here", True),
    ]  # fmt: skip


def test_a_run_whose_rows_others_wrote_meanwhile_writes_none(tmp_path):
    store = str(tmp_path)
    committers = [Committer(store, [EMBEDDINGS], lineage("v1", f"r{i}", f"embed-{i}"), every_s=1e9) for i in range(3)]
    for committer, names in zip(committers, (["a", "b"], ["b", "c"], ["a", "b", "c"])):
        committer.add(receipts(store, EMBEDDINGS, vectors(names)))
        committer.commit()
    assert owners(store) == ["a", "b", "c"]
    assert committers[2].version(schema.EMBEDDINGS) == 2


def test_the_fence_tells_keys_apart_whose_parts_hold_its_separator_or_nothing(tmp_path):
    """Another run's rows drop only those with the very same key: null is not "", and a part ends where it ends."""
    store, cut = str(tmp_path), doubles._BETWEEN
    columns = pa.schema([("a", pa.string()), ("b", pa.string())])
    output = Output(schema.Table("keyed", columns, key=("a", "b")))
    theirs = [("x", ""), (f"x{cut}y", "z"), ("same", None)]
    mine = [("x", None), (None, "x"), ("x", f"y{cut}z"), ("same", None)]
    committer = Committer(store, [output], lineage("v2", "mine"), every_s=1e9)
    append_rows(store, output, pa.table(list(zip(*theirs)), schema=columns), lineage())
    committer.add(receipts(store, output, pa.table(list(zip(*mine)), schema=columns)))
    committer.commit()
    got = [(row["a"], row["b"]) for row in delta.read(store, output.table, ["a", "b"]).to_pylist()]
    assert sorted(got, key=str) == sorted([*theirs, *mine[:3]], key=str)


def test_rows_of_garments_that_stand_there_are_dropped_from_their_partition(tmp_path):
    """Of a table whose rows come in lists, and whose parts do not hold the partition's column: digits stay text."""
    store, nested = str(tmp_path), Output(schema.GARMENTS, unique=schema.GARMENT_ID, nested="items")

    def garments(*names: str) -> pa.Table:
        row = {f.name: "0" for f in schema.GARMENTS.schema} | {"score": 0.5, "box_xyxy": [], "mask_rle": None, "crop": b""}
        rows = pa.Table.from_pylist([row | {"garment_id": n, "stage_version": "0012"} for n in names], schema.GARMENTS.schema)
        return pa.table({"items": pa.array([rows.to_pylist()], pa.list_(pa.struct(list(schema.GARMENTS.schema))))})

    append_rows(store, nested, garments("a", "b"), lineage())
    append_rows(store, nested, garments("b", "c"), lineage("v2", "other"))
    got = delta.read(store, schema.GARMENTS, ["garment_id", "stage_version"], stage_version="0012")
    assert sorted(got.column(0).to_pylist()) == ["a", "b", "c"]
    assert set(got.column(1).to_pylist()) == {"0012"}


def test_the_order_of_commits_counts_and_not_the_clocks(tmp_path):
    """A machine an hour ahead hides no later edit, and no withdrawal."""
    store, hour = str(tmp_path), 3_600_000_000
    append_rows(store, PRODUCTS, listed([product("a", "first", 5 * hour), product("b", "first", hour)]), lineage("1", "ahead"))
    append_rows(store, PRODUCTS, listed([product("a", "edited", 4 * hour)]), lineage("2", "behind"))
    maintain.compact(store, schema.PRODUCTS)
    append_rows(store, PRODUCTS, listed([product("a", "edited", 3 * hour, False)]), lineage("3", "far-behind"))
    assert history_of(store)[:3] == [("a", "first", True), ("a", "edited", True), ("a", "edited", False)]
    current = current_products(store, ["product_id", "active"]).to_pylist()
    assert current == [{"product_id": "a", "active": False}, {"product_id": "b", "active": True}]


def test_a_clock_that_agrees_changes_no_stamp(tmp_path):
    store = str(tmp_path)
    for at in (7, 2_000_000, 4_000_000):
        append_rows(store, PRODUCTS, listed([product("a", str(at), at)]), lineage(str(at), f"run{at}"))
    stamps = delta.read(store, schema.PRODUCTS, ["fetched_at"]).column(0).cast(pa.int64()).to_pylist()
    assert sorted(stamps) == [7, 2_000_000, 4_000_000]


@pytest.mark.parametrize("error", [OSError("connection closed"), CommitFailedError("Concurrent transaction failed.")])
def test_a_commit_whose_answer_was_lost_is_known_again(tmp_path, monkeypatch, error):
    store, real, lost = str(tmp_path), DeltaTable.create_write_transaction, []

    def once(self, *args, **options):
        real(self, *args, **options)
        if not lost:
            lost.append(True)
            raise error

    monkeypatch.setattr(DeltaTable, "create_write_transaction", once)
    versions = append_rows(store, EMBEDDINGS, vectors(["a"]), lineage())
    assert lost
    assert versions == {"embeddings": 1}
    assert owners(store) == ["a"]


def test_a_commit_that_storage_refuses_is_a_sentence(tmp_path, monkeypatch):
    def refuses(self, *args, **options):
        raise OSError("no space left on device")

    monkeypatch.setattr(DeltaTable, "create_write_transaction", refuses)
    with pytest.raises(StorageFailed, match=r"^cannot write to table '.*embeddings': no space left on device$"):
        append_rows(str(tmp_path), EMBEDDINGS, vectors(["a"]), lineage())


def write_twice(store: str, output: Output, *tables: pa.Table) -> None:
    """As an older w2w did: parts of runs that knew nothing of each other."""
    for rows in tables:
        opened = delta.create_table(store, output.table)
        actions = [to_action(r) for r in write_part(store, output, rows, "old")]
        opened.create_write_transaction(actions, "append", opened.schema(), partition_by=list(output.table.partition_by))


def test_merged_and_vacuumed_in_one_command_the_rows_stay(tmp_path):
    store = str(tmp_path)
    for name in "abc":
        append_rows(store, EMBEDDINGS, vectors([name]), lineage())
    told = tables.main(tables.Config(store=store, compact=True, vacuum=True, vacuum_hours=0))
    assert (told.compacted["embeddings"].parts_after, told.vacuumed["embeddings"]) == (1, 3)
    assert owners(store) == ["a", "b", "c"]


def test_compaction_takes_out_rows_that_stand_twice(tmp_path):
    store = str(tmp_path)
    first = [
        product("a", "x", 1),
        product("b", "x", 1),
        product("a", "y", 3),
        product("c", "x", 1),
        product("c", "x", 5, False),
    ]
    again = [product("a", "x", 2), product("b", "x", 2), product("a", "x", 4), product("c", "x", 6)]  # a back to x, c listed
    write_twice(store, PRODUCTS, listed(first), listed(again), listed([product("b", "x", 9)]))
    write_twice(store, Output(schema.IMAGES), images([1, 2, 3]), images([2, 3, 4]))
    write_twice(store, EMBEDDINGS, vectors(["a", "b"], "m1"), vectors(["b"], "m1"), vectors(["b"], "m2"))
    assert maintain.compact(store, schema.PRODUCTS, dry_run=True) == maintain.Compacted(3, 3)
    assert len(history_of(store)) == 10
    done = maintain.compact(store, schema.PRODUCTS)
    assert (done.rows_twice, done.parts_before, done.parts_after) == (3, 3, 1)
    assert history_of(store) == [
        ("a", "x", True), ("a", "y", True), ("a", "x", True), ("b", "x", True),
        ("c", "x", True), ("c", "x", False), ("c", "x", True),
    ]  # fmt: skip
    assert maintain.compact(store, schema.IMAGES).rows_twice == 2
    assert sorted(delta.read(store, schema.IMAGES, [schema.BYTES]).column(0).to_pylist()) == [b"1", b"2", b"3", b"4"]
    assert maintain.compact(store, schema.EMBEDDINGS).rows_twice == 1
    assert owners(store) == ["a", "b", "b"]
    for table in (schema.PRODUCTS, schema.IMAGES, schema.EMBEDDINGS):
        assert maintain.mend(store, table) == 0
    assert maintain.compact(store, schema.IMAGES) == maintain.Compacted(0, 1, 1)


def test_a_row_with_another_picture_or_owner_is_no_double(tmp_path):
    said = {"product_id": "p", "row_digest": "d", "category": "top", "image_uri": "u", "active": True}
    rows = []
    for second, picture in enumerate([("i1", "", None), ("i2", "", None), ("i2", "etag", None), ("i2", "etag", "main")]):
        row = dict.fromkeys(schema.PRODUCTS.schema.names) | said | dict(zip(("image_id", "image_fingerprint", "feed"), picture))
        rows += [row | {"fetched_at": 2 * second}, row | {"fetched_at": 2 * second + 1}]
    table = pa.Table.from_pylist(rows, schema=schema.PRODUCTS.schema)
    append_rows(str(tmp_path), Output(schema.PRODUCTS), table, lineage())
    listed = delta.parts(delta.open_table(str(tmp_path), schema.PRODUCTS))
    assert doubles.find(str(tmp_path), schema.PRODUCTS, listed).tolist() == [False, True] * 4


def test_doubles_found_in_random_histories(tmp_path):
    rng, store = np.random.default_rng(3), str(tmp_path)
    rows = [product(f"p{rng.integers(6)}", f"{rng.integers(3)}", int(t), bool(rng.integers(2))) for t in range(200)]
    kept, last = [], {}
    for row in rows:
        said = (row["row_digest"], row["active"])
        if last.get(row["product_id"]) != said:
            kept.append((row["product_id"], row["title"], row["active"]))
        last[row["product_id"]] = said
    shuffled = [rows[i] for i in rng.permutation(200)]
    write_twice(store, PRODUCTS, *(listed(shuffled[i : i + 37]) for i in range(0, 200, 37)))
    assert maintain.mend(store, schema.PRODUCTS) == 200 - len(kept)
    assert history_of(store) == sorted(kept, key=lambda r: r[0])
