"""`w2w erase` on a store with all that jobs without Ray make of it: nothing is left, everything else is."""

import base64
import gzip
import io
import json
import random
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from tests.unit.index.conftest import Catalog, run_job
from tests.unit.recommend.stores import append, fill, picture, product, vector
from tests.unit.similar.test_job import config as similar_config
from tests.unit.similar.test_job import rows as similar_rows
from w2w import ids, schema, storage
from w2w.erase import flow, job, rules
from w2w.erase.job import Config, main
from w2w.erase.scan import in_file
from w2w.errors import JobFailed, UsageError
from w2w.export import job as export
from w2w.index.manifest import index_uri, seen_uri
from w2w.index.publish import read_manifest, versions
from w2w.index.search import open_manifest
from w2w.index.seen import SEEN, to_bytes
from w2w.index.spec import IndexConfig
from w2w.models.config import EncoderConfig
from w2w.models.encoder import model_version
from w2w.report.page import page_of
from w2w.similar import job as similar
from w2w.table import delta, erased, inventory, maintain

GONE, POST, IMAGE = "p007", "post-3", ids.image_id(picture(12))


def index(store: str, numbers, **options) -> None:
    columns = [schema.PRODUCT_ID, schema.IMAGE_ID, schema.CATEGORY]
    rows = pa.Table.from_pylist([product(n) for n in numbers]).select(columns)
    catalog = Catalog(rows, {product(n)["image_id"]: vector(n) for n in numbers})
    cfg = IndexConfig(exact_below_rows=1000, gate_queries=8, **options)
    run_job(index_uri(store, "default"), catalog, cfg, model_version(EncoderConfig()))


def permission(number: int) -> dict:
    """The eighth is of a host whose rule names what is to go."""
    row = {"permission_id": str(number), "image_id": ids.image_id(picture(number)), "uri": f"https://cdn.example/{number}.jpg"}
    row |= {"feed": "main", "search": True, "training": True, "reason": "", "row_digest": "d", "fetched_at": 0, "run_id": "r"}
    return row | {"robots_rule": f"*: disallow /{GONE}/ (listed)" if number == 8 else "*: allow /"}


@pytest.fixture
def store(tmp_path, made) -> str:
    return str(shutil.copytree(made, tmp_path / "store"))


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> str:
    """Nights, compacted and not: old versions, statistics in the log, exports, an index of two versions, pages, a gallery."""
    place = str(tmp_path_factory.mktemp("made") / "store")
    fill(place, range(40), posts=6)
    append(place, schema.PRODUCTS, [product(7, fetched_at=1, price=3.0, row_digest="e"), product(9, fetched_at=1)], "night1")
    maintain.compact(place, schema.PRODUCTS)
    delta.existing(place, schema.PRODUCTS).create_checkpoint()  # it has the statistics, too
    append(place, schema.PRODUCTS, [product(8, fetched_at=2)], "night2")
    said = {"stage": "embed", "stage_version": "v", "code": "corrupt", "source": None, "rejected_at": 0, "run_id": "r"}
    append(place, schema.REJECTS, [said | {"key": key, "detail": f"about {key}"} for key in ("p007@d", "p0077@d")])
    append(place, schema.PERMISSIONS, [permission(n) for n in range(40)])
    similar.main(similar_config(place))
    export.main(export.Config(store=place, vectors=True, batch_rows=9))
    index(place, range(30))
    index(place, range(40))
    for name, text in (("a", '<img src="data:image/jpeg;base64,xx">'), ("b", "figures alone"), ("c", f"<b>{GONE}</b>")):
        storage.write_bytes(page_of(place, "search", f"search-20260101T000000-00000{name}"), text.encode())
    storage.write_bytes(f"{place}/gallery/pictures/1.jpg", b"x")
    return place


def rows_of(store: str) -> dict[str, list]:
    return {t.name: delta.read(store, t, t.schema.names).to_pylist() for t in flow.tables_of(store)}


def erase(store: str, **more):
    return main(Config(store=store, **({"product": [GONE], "post": [POST], "image": [IMAGE]} | more)))


def traces(store: str, *texts: str) -> set[str]:
    """Files with any of the texts in their bytes, or, decoded by pyarrow alone, in their values."""
    found = set()
    for path in Path(store).rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            data += repr(pq.read_table(path, partitioning=None).to_pylist()).encode() if path.suffix == ".parquet" else b""
            data += repr(pa.ipc.open_file(data).read_all().to_pylist()).encode() if path.suffix == ".arrow" else b""
            found |= {str(path.relative_to(store)) for text in texts if text.encode() in data}
    return found


SOUGHT = (GONE + '"', f"'{GONE}'", "/p007", "p007@", f"'{POST}'", ids.image_id(picture(7)), IMAGE, "https://shop.example/7'")


@pytest.mark.parametrize("golden", [{"key": IMAGE}, {"vector": list(map(float, vector(7)))}], ids=["a picture", "a vector"])
def test_what_a_version_keeps_of_golden_queries_is_asked_again(store, golden):
    index(store, range(20, 30))
    uri, row = index_uri(store, "default"), dict.fromkeys(SEEN.names) | {"kind": "golden", "key": "k", "answers": []} | golden
    where = seen_uri(uri, read_manifest(uri).version)
    storage.write_bytes(where, to_bytes(pa.Table.from_pylist([row], schema=SEEN)))
    erase(store, post=[])
    assert not storage.exists(where)
    assert traces(store, ids.image_id(picture(7))) == set()


def test_nothing_is_left_and_all_else_is(store):
    before, hits = rows_of(store), ids.image_id(picture(7))
    assert traces(store, GONE, POST, IMAGE, hits)
    said = erase(store, dry_run=True)
    assert rows_of(store) == before
    result = erase(store)
    assert (result.found, result.waiting) == ((), {"default": 1})
    for name in ("rows_erased", "rows_changed", "export_files", "pages_and_files"):
        assert getattr(said, name) == getattr(result, name), name
    assert result.rows_erased["products"] == 2
    assert result.rows_erased["posts"] == 1
    assert result.rows_erased["rejects"] == 1
    left = traces(store, *SOUGHT)
    assert left
    assert all(name.startswith("exported/") for name in left)
    after = rows_of(store)
    for name in ("products", "posts", "images", "embeddings", "rejects"):
        key = schema.TABLES[name].key[0]
        mine = {GONE, POST, IMAGE, hits, "p007@d"}
        expected = [row for row in before[name] if row[key] not in mine]
        if name == "posts":
            expected = [row | {"product_ids": [p for p in row["product_ids"] if p != GONE]} for row in expected]
        if name == "products":
            lost = {"image_id": None, "image_uri": "", "image_fingerprint": "", "images": [], "active": False}
            expected = [row | (lost if row["product_id"] == "p012" else {}) for row in expected]
        assert sorted(map(repr, after[name])) == sorted(map(repr, expected)), name
    assert not any(GONE in repr(row) for row in after["similar"])
    rules = {row["image_id"]: row["robots_rule"] for row in after["permissions"]}
    stay = {ids.image_id(picture(n)): n for n in range(40) if n not in (7, 12)}
    assert rules == {image: None if n == 8 else "*: allow /" for image, n in stay.items()}
    pages = {p.parent.name[-1] for p in Path(store, "reports").rglob("index.html")}
    assert pages == {"b"}
    assert not Path(store, "gallery").exists()
    receipt = Path(result.receipt).read_text()
    assert GONE not in receipt
    assert erased.read(store).hashed(schema.PRODUCT_ID, GONE) in receipt


def test_history_and_lineage_stay(store):
    versions_before = {t.name: [e["w2w"] for e in delta.history(delta.open_table(store, t))] for t in flow.tables_of(store)}
    erase(store)
    for table in flow.tables_of(store):
        known = [e["w2w"] for e in delta.history(delta.open_table(store, table))]
        assert known[-len(versions_before[table.name]) :] == versions_before[table.name]


def test_the_index_answers_without_it(store):
    uri = index_uri(store, "default")
    old = versions(uri)
    told = erase(store, dry_run=True)
    result = erase(store)
    assert result.indexes == told.indexes == {"default": "1 shard rewritten, 2 versions deleted"}
    now = read_manifest(uri)
    assert now.num_rows == 38
    assert not set(versions(uri)) & set(old)
    found = open_manifest(uri, now).search(np.stack([vector(7), vector(8)]), k=5)
    assert not {GONE, "p012"} & set(found.column("product_id").to_pylist())
    assert found.filter(pa.array(found["query"].to_numpy() == 1))["product_id"][0].as_py() == "p008"


def test_of_older_versions_no_shard_is_rewritten(store):
    index(store, [n for n in range(41) if n not in (7, 12)])
    told = erase(store, dry_run=True)
    assert erase(store).indexes == told.indexes == {"default": "0 shards rewritten, 2 versions deleted"}


def test_an_index_of_which_nothing_is_left_is_dropped_as_was_told(store):
    gone = {"product": [f"p{n:03d}" for n in range(41)]}
    told = main(Config(store=store, **gone, dry_run=True))
    assert main(Config(store=store, **gone)).indexes == told.indexes == {"default": "dropped: run w2w index"}


def test_what_an_index_has_dropped_is_erased_too(store):
    """A product that went a night ago: its vector is still in a shard, and others stand in a layer."""
    uri = index_uri(store, "default")
    index(store, range(40), layer_share=0.0)
    index(store, [n for n in range(41) if n != 7], layer_from_rows=1, layer_share=0.9)
    before = read_manifest(uri)
    assert any(s.dropped for s in before.shards)
    assert any(s.layer for s in before.shards)
    erase(store)
    now = read_manifest(uri)
    assert now.num_rows == before.num_rows - 1  # p012
    assert {s.name for s in now.shards if s.layer} == {s.name for s in before.shards if s.layer}
    assert not [file for file in traces(store, GONE, "p012") if file.startswith("index/")]
    assert not Path(uri, "shards", next(s.name for s in before.shards if s.dropped)).exists()


def test_similar_products_are_those_of_a_store_that_never_had_it(store, tmp_path):
    erase(store)
    kept = similar_rows(store)
    assert sum(row["card"] == rules.NEVER for row in kept.values()) < 3  # other lists lost an entry, and a spare one moved up
    result = similar.main(similar_config(store))
    assert not result.whole
    assert (result.computed or 0) < 5
    fresh = str(tmp_path / "fresh")
    fill(fresh, [n for n in range(40) if n not in (7, 12)], pictures=False)
    similar.main(similar_config(fresh))
    assert similar_rows(store) == similar_rows(fresh)


@pytest.mark.parametrize("seed", range(4))
def test_similar_lists_go_on_whatever_is_erased(tmp_path, seed):
    rng, store, fresh = random.Random(seed), str(tmp_path / "store"), str(tmp_path / "fresh")
    fill(store, range(60), pictures=False)
    append(store, schema.PRODUCTS, [product(n, fetched_at=1, group_id="g") for n in (1, 6, 11)], "late")
    similar.main(similar_config(store))
    gone = set(rng.sample(range(60), 5)) | {1}
    main(Config(store=store, product=[f"p{n:03d}" for n in gone]))
    result = similar.main(similar_config(store))
    fill(fresh, [n for n in range(60) if n not in gone], pictures=False)
    append(fresh, schema.PRODUCTS, [product(n, fetched_at=1, group_id="g") for n in {6, 11} - gone], "late")
    similar.main(similar_config(fresh))
    assert similar_rows(store) == similar_rows(fresh)
    assert not result.whole


def test_erasing_is_named_and_counts_no_rows_through(store):
    done = erase(store)
    assert inventory.history(delta.existing(store, schema.PRODUCTS))[0].operation == "ERASE"
    assert done.rows_erased["products"] == 2  # of two nights
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(done)
    text = console.export_text()
    assert "rows erased" in text
    assert "rows in" not in text
    assert "rows/s" not in text


def replayed(store: str) -> dict[str, dict]:
    found: dict[str, dict] = {}
    for file in sorted(Path(store, "exports", "default").glob("*.jsonl")):
        for line in file.read_text().splitlines():
            row = json.loads(line)
            found[row["product_id"]] = row
    return found


def test_exports_send_the_deletion_once_and_then_forget_it(store):
    target = replayed(store)
    assert erase(store).waiting == {"default": 1}
    similar.main(similar_config(store))
    sent = export.main(export.Config(store=store, vectors=True, batch_rows=9))
    target |= replayed(store)
    assert target[GONE] == {"op": "delete", "product_id": GONE}
    assert target["p012"]["op"] == "delete"
    assert sent.deletions == 2
    assert GONE not in repr([row for key, row in target.items() if key != GONE])
    assert sum(row["op"] == "upsert" for row in target.values()) == 38
    done = erase(store)
    assert not done.waiting
    assert not traces(store, *SOUGHT)
    again = export.main(export.Config(store=store, vectors=True, batch_rows=9))
    assert again.last_batch > sent.last_batch
    assert GONE not in replayed(store)


def test_the_second_erase_has_only_deletions_sent_again_and_forgets_ids_made_of_ids(store):
    points = {"to": "qdrant", "name": "points", "vectors": True}
    export.main(export.Config(store=store, **points))
    assert ids.point_id(GONE) in "".join(p.read_text() for p in Path(store, "exports", "points").iterdir())
    assert erase(store).waiting == {"default": 1, "points": 1}
    for more in ({"vectors": True, "batch_rows": 9}, points):
        assert export.main(export.Config(store=store, **more)).upserts
    assert traces(store, ids.point_id(GONE))
    assert erase(store).found == ()
    assert not traces(store, ids.point_id(GONE), *SOUGHT)
    for more in ({"vectors": True, "batch_rows": 9}, points):
        assert export.main(export.Config(store=store, dry_run=True, **more)).upserts == 0


class Killed(BaseException):
    pass


@pytest.mark.parametrize("at", [1, 3, 6, 11, 17, 24, 32])
def test_a_killed_run_is_finished_by_the_next(store, monkeypatch, at):
    calls = iter(range(10_000))

    def dying(function):
        def call(*args, **kwargs):
            if next(calls) == at:
                raise Killed
            return function(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        for name in ("write_bytes", "delete", "replace_if"):
            patch.setattr(storage, name, dying(getattr(storage, name)))
        try:
            erase(store)
        except Killed:
            pass
    whole = main(Config(store=store, product=[GONE], post=[POST], image=[IMAGE]))
    assert not whole.found
    left = traces(store, *SOUGHT)
    assert all(name.startswith("exported/") for name in left)
    assert read_manifest(index_uri(store, "default")).num_rows == 38
    assert not Path(store, "erased", "plan.json").exists()


def test_what_cannot_be_erased_is_said(store, monkeypatch):
    with pytest.raises(UsageError, match="say what to erase"):
        main(Config(store=store))
    with pytest.raises(UsageError, match="an empty id"):
        main(Config(store=store, product=[""]))
    file = Path(store).parent / "ids.txt"
    file.write_text("product p007\nprodukt p008\n")
    with pytest.raises(UsageError, match="line 2"):
        main(Config(store=store, from_file=str(file)))
    monkeypatch.setattr(flow, "erase_old_files", lambda *_: 0)
    with pytest.raises(JobFailed, match="still have something of it"):
        erase(store)
    monkeypatch.undo()
    assert not main(Config(store=store)).found  # what the run before left


def test_an_id_that_is_not_there_is_blocked_all_the_same(store):
    before = rows_of(store)
    result = main(Config(store=store, product=["p999"]))
    assert not result.rows_erased
    assert result.not_there == ("product p999",)
    plan = main(Config(store=store, product=["p007", "p999"], post=["none"], dry_run=True))
    assert plan.not_there == ("product p999", "post none")
    assert rows_of(store) == before
    assert Path(store, "gallery").exists()
    assert erased.read(store).has(schema.PRODUCT_ID, "p999")
    allowed = main(Config(store=store, product=["p999"], allow=True))
    assert (allowed.allowed, allowed.still_blocked) == (1, 0)


def test_a_picture_that_another_product_has_stays(store):
    append(store, schema.PRODUCTS, [product(90, image_id=ids.image_id(picture(7)))], "more")
    result = main(Config(store=store, product=[GONE]))
    assert result.pictures_that_stay == 1
    assert ids.image_id(picture(7)) in delta.read(store, schema.IMAGES, [schema.IMAGE_ID]).column(0).to_pylist()


def test_the_search_finds_what_is_planted(store, tmp_path):
    plan = flow.plan_of(store, {GONE}, set(), set())
    place = tmp_path / "planted"
    place.mkdir()
    data = picture(7)
    files = {
        "a.html": b'<img src="data:image/jpeg;base64,' + base64.b64encode(data) + b'">',
        "b.bin": b"xx" + data,
        "c.json.gz": gzip.compress(b'{"product_id": "p007"}'),
        "d.npy": vector(7).tobytes(),
        "e.txt": b"only p0077",
    }
    for name, content in files.items():
        (place / name).write_bytes(content)
    np.savez_compressed(place / "f.npz", vector(7))
    pq.write_table(pa.table({"deep": [[{"product_id": "p007"}]]}), place / "g.parquet", compression="zstd")
    pq.write_table(pa.table({"vector": pa.array([vector(7)], pa.list_(pa.float32()))}), place / "h.parquet", compression="zstd")
    found = {p.name[0]: in_file(str(p), plan.sought) for p in place.iterdir()}
    assert found == {
        "a": "picture",
        "b": "picture",
        "c": "name",
        "d": "vector",
        "e": None,
        "f": "vector",
        "g": "name",
        "h": "vector",
    }
    assert replace(plan, shared=1) == flow.Plan.from_json(replace(plan, shared=1).to_json())
    assert job.Config(store="s").search
