"""Watermarks: a night looks at what came since the last one, and finds the same pending rows as a comparison of all keys."""

import logging
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tests.unit.index.test_s3 import bucket  # noqa: F401
from tests.unit.nights.nights import without_ray
from tests.unit.nights.test_random_nights import Crash, Crashes
from tests.unit.table.test_sink import EMBEDDINGS, IMAGES, images, vectors
from w2w import ids, schema
from w2w.engine.run import run_stages
from w2w.engine.source import Source, pending_rows
from w2w.errors import Reject, RejectCode
from w2w.models.stage import EMBED_GIVES
from w2w.stage import Pool, Stage, with_rejects
from w2w.table import changes, delta, maintain, marks, purge
from w2w.table.pending import rejected_keys, table_keys
from w2w.table.sink import Lineage, append_mark, append_rows
from w2w.table.tolerance import Tolerance

BAD, LATER = Reject(RejectCode.MALFORMED_ROW, ""), Reject(RejectCode.FETCH_FAILED, "")


@dataclass
class Store:
    """A store, and what becomes of its images: by id a Reject, or nothing if it becomes a vector."""

    path: str
    fate: dict[str, Reject] = field(default_factory=dict)
    added: int = 0
    runs: int = 0

    def add(self, num: int, rng: random.Random) -> None:
        numbers = list(range(self.added, self.added + num))
        self.added += num
        for n in numbers:
            if fate := rng.choices([None, BAD, LATER], [8, 1, 1])[0]:
                self.fate[ids.image_id(b"%d" % n)] = fate
        append_rows(self.path, IMAGES, images(numbers), self.lineage("ingest"))

    def lineage(self, job: str, version: str = "m1", seen: delta.FirstSeen | None = None) -> Lineage:
        self.runs += 1
        return Lineage(job, f"{job}-{self.runs}", job, version, {}, {}, "test", seen={} if seen is None else seen)

    def due(self, full_scan: bool = False, limit: int | None = None, job: str = "embed", version: str = "m1") -> Source:
        done = [
            table_keys(self.path, schema.EMBEDDINGS, schema.OWNER_ID, model_version=version),
            rejected_keys(self.path, job, version),
        ]
        columns = [schema.IMAGE_ID]
        return pending_rows(self.path, schema.IMAGES, columns, done, None, 5, limit=limit, full_scan=full_scan)

    def work(self, limit: int | None = None, job: str = "embed", version: str = "m1") -> None:
        seen = delta.FirstSeen()
        due = self.due(limit=limit, job=job, version=version)
        if due.num_rows:
            stages = [Stage("embed", self._embed, (schema.IMAGE_ID,), EMBED_GIVES, {"version": version})]
            lineage = self.lineage(job, version, seen)
            pool = Pool(workers=1, batch_rows=3)
            how = {"pool": pool, "tolerance": Tolerance(1, 10**6), "commit_every_s": 0, "rows_per_part": 4}
            run_stages(self.path, due, stages, [EMBEDDINGS], lineage, **how)

    def mark(self, after: Callable[[], None] = lambda: None) -> dict[str, int]:
        """As a run that has found nothing to do; ``after``: what another one does once it has looked."""
        seen = delta.FirstSeen()
        due = self.due()
        after()
        lineage = self.lineage("embed", seen=seen)
        return {} if due.num_rows or not due.mark else append_mark(self.path, EMBEDDINGS, lineage, due.mark)

    def _embed(self, rows: pa.Table, version: str) -> pa.Table:
        keys = rows.column(schema.IMAGE_ID).to_pylist()
        for column in (c for c in vectors(keys, version).column_names if c not in rows.column_names):
            rows = rows.append_column(column, vectors(keys, version).column(column))
        return with_rejects(rows, [self.fate.get(key) for key in keys])

    def compact(self, table: schema.Table) -> None:
        if delta.open_table(self.path, table) is not None:
            maintain.compact(self.path, table)

    def erase(self, key: str, *tables: schema.Table) -> None:
        def without(rows: pa.Table) -> pa.Table | None:
            hit = pc.equal(rows.column(0), key)
            return rows.filter(pc.invert(hit)) if pc.any(hit).as_py() else None

        for table in tables:
            if delta.open_table(self.path, table) is not None:
                purge.rewrite(self.path, table, table.schema.names, without)


def keys_of(store: str, due: Source) -> list[str]:
    names = delta.parts(delta.open_table(store, schema.IMAGES))
    rows = {p.path: pa.concat_tables(delta.read_batches(store, schema.IMAGES, [schema.IMAGE_ID], [p])) for p in names}
    found: list[str] = []
    for item in (row for table in due.items for row in table.to_pylist()):
        assert item["row_group"] == 0
        part = rows[item["path"]].column(0)
        found += part.to_pylist() if item["rows"] is None else part.take(pa.array(item["rows"])).to_pylist()
    return sorted(found)


def check_equal(store: Store, **of) -> Source:
    """By the watermark and by all keys, the same is pending."""
    quick, full = store.due(**of), store.due(full_scan=True, **of)
    assert keys_of(store.path, quick) == keys_of(store.path, full)
    told = [(s.num_rows, s.skipped, s.rejected, s.in_all) for s in (quick, full)]
    assert told[0] == told[1]
    return quick


@pytest.fixture
def store(tmp_path, monkeypatch) -> Store:
    without_ray(monkeypatch)
    return Store(str(tmp_path / "store"))


def act(store: Store, rng: random.Random, crashes: Crashes) -> str:
    """Something that happens to a store."""
    kind = rng.choices(
        [
            "add",
            "work",
            "crash",
            "limit",
            "compact",
            "other",
            "succeed",
            "erase",
            "dedupe",
            "recreate",
            "restore",
            "vacuum",
            "mark",
        ],
        [8, 8, 4, 2, 4, 2, 3, 1, 1, 0.4, 0.6, 1, 4],
    )[0]
    tables = (schema.IMAGES, schema.EMBEDDINGS, schema.REJECTS)
    here = delta.read(store.path, schema.IMAGES, [schema.IMAGE_ID]).column(0).to_pylist()
    if kind == "add":
        store.add(rng.randint(1, 9), rng)
    elif kind == "work":
        store.work()
    elif kind == "mark":
        store.mark()
    elif kind == "limit":
        store.work(limit=rng.randint(1, 4))
    elif kind == "crash":
        crashes.at(rng.randint(1, 9), rng.random() < 0.5)
        try:
            store.work()
        except Crash:
            pass
        crashes.left = None
    elif kind == "compact":
        store.compact(rng.choice(tables))
    elif kind == "other":  # another stage writes to the same tables
        store.work(job=rng.choice(["embed", "embed-other"]), version="m2")
    elif kind == "succeed":
        for key in rng.sample(sorted(store.fate), min(len(store.fate), 2)):
            if store.fate[key] is LATER:
                store.fate[key] = rng.choice([BAD, None])
    elif kind == "erase" and here:
        store.erase(rng.choice(here), *rng.sample(tables, rng.randint(1, 3)))
    elif kind == "dedupe":
        maintain.mend(store.path, schema.EMBEDDINGS) if delta.open_table(store.path, schema.EMBEDDINGS) else None
    elif kind == "recreate":
        table = rng.choice(tables)
        shutil.rmtree(Path(store.path, table.name), ignore_errors=True)
        if table is schema.IMAGES:
            store.add(3, rng)
    elif kind == "restore":  # to an older version, and written to since
        table = rng.choice(tables)
        if opened := delta.open_table(store.path, table):
            for version in range(opened.version(), max(0, opened.version() - rng.randint(1, 3)), -1):
                Path(store.path, table.name, "_delta_log", f"{version:020d}.json").unlink()
            if table is schema.IMAGES and rng.random() < 0.7:
                store.add(rng.randint(1, 4), rng)
    elif kind == "vacuum" and delta.open_table(store.path, table := rng.choice(tables)):
        maintain.vacuum(store.path, table, 10**6, dry_run=False)
    return kind


@pytest.mark.parametrize("seed", [*range(6), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(6, 60))])
def test_random_nights_find_what_a_comparison_of_all_keys_finds(store, monkeypatch, seed):
    crashes, rng, did = Crashes(monkeypatch), random.Random(seed), []
    store.add(5, rng)
    for _ in range(20):
        did.append(act(store, rng, crashes))
        try:
            check_equal(store)
            check_equal(store, version="m2")
        except AssertionError as e:
            raise AssertionError(f"after {did}") from e


def plain(num: int = 0) -> random.Random:
    """Nothing is rejected."""
    rng = random.Random(num)
    rng.choices = lambda population, weights=None, k=1: [None]  # type: ignore[method-assign]
    return rng


def test_a_night_looks_at_what_came(store):
    store.add(30, plain())
    assert store.due().num_read == 30
    store.work()
    assert (store.due().num_rows, store.due().num_read) == (0, 0)
    store.add(4, plain())
    due = store.due()
    assert (due.num_rows, due.num_read, due.skipped) == (4, 4, 30)
    store.work()
    assert check_equal(store).num_read == 0
    assert store.due(full_scan=True).num_read == 34
    assert store.due(version="m2").num_rows == 34  # another stage version has no watermark


def test_transient_rejects_are_tried_again_and_others_are_not(store):
    store.add(30, plain())
    store.work()
    store.add(4, plain())
    a, b, c, _ = (ids.image_id(b"%d" % n) for n in range(30, 34))
    store.fate = {a: BAD, b: LATER, c: LATER}
    store.work()
    due = check_equal(store)
    assert keys_of(store.path, due) == sorted([b, c])
    assert (due.num_read, due.rejected) == (4, 1)
    store.fate = {b: BAD, c: LATER}
    version = delta.existing(store.path, schema.EMBEDDINGS).version()
    store.work()  # without a result: nothing is committed there, and the watermark of before goes on
    assert delta.existing(store.path, schema.EMBEDDINGS).version() == version
    due = check_equal(store)
    assert (keys_of(store.path, due), due.num_read, due.rejected) == ([c], 4, 2)
    store.fate = {}
    store.work()
    assert check_equal(store).num_read == 0


def test_compaction_changes_no_data(store):
    for _ in range(3):
        store.add(10, plain())
        store.work()
    for table in (schema.IMAGES, schema.EMBEDDINGS, schema.REJECTS):
        maintain.compact(store.path, table)
    assert len(delta.parts(delta.open_table(store.path, schema.IMAGES))) == 1
    log = delta.existing(store.path, schema.IMAGES)
    entry = changes.entries(store.path, schema.IMAGES, log.version(), log.version())[0]
    told = [action[kind]["dataChange"] for action in entry for kind in ("add", "remove") if kind in action]
    assert told == [False] * 4
    assert check_equal(store).num_read == 0
    store.add(2, plain())
    assert check_equal(store).num_read == 2
    maintain.compact(store.path, schema.IMAGES)  # the new rows with the others
    assert check_equal(store).num_read == 32


def test_a_run_that_leaves_rows_pending_moves_no_watermark(store):
    store.add(10, plain())
    store.work()
    store.add(10, plain())
    store.work(limit=4)
    assert check_equal(store).num_read == 10
    store.work()
    assert check_equal(store).num_read == 0


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("write", range(1, 9))
def test_results_and_watermark_are_there_together(store, monkeypatch, write, after):
    store.add(6, plain())
    store.work()
    store.add(6, plain())
    crashes = Crashes(monkeypatch)
    crashes.at(write, after)
    try:
        store.work()
    except Crash:
        pass
    crashes.left = None
    due = check_equal(store)
    assert due.num_read == 6 or (due.num_read, due.num_rows) == (0, 0)
    store.work()
    assert check_equal(store).num_rows == 0
    owners = delta.read(store.path, schema.EMBEDDINGS, [schema.OWNER_ID]).column(0).to_pylist()
    assert len(owners) == len(set(owners)) == 12


def test_results_of_another_run_meanwhile_move_no_watermark(store, monkeypatch):
    store.add(6, plain())
    embed = store._embed

    def meanwhile(rows: pa.Table, version: str) -> pa.Table:
        append_rows(store.path, EMBEDDINGS, vectors([f"x{store.runs}"], version), store.lineage("embed-garments"))
        return embed(rows, version)

    monkeypatch.setattr(store, "_embed", meanwhile)
    store.work()
    monkeypatch.setattr(store, "_embed", embed)
    assert check_equal(store).num_read == 6
    store.add(1, plain())
    store.work()
    assert check_equal(store).num_read == 0


def test_a_mark_without_rows_tells_what_is_done(store):
    store.add(6, plain())
    store.work()
    store.add(2, plain())
    append_rows(store.path, EMBEDDINGS, vectors([ids.image_id(b"6"), ids.image_id(b"7")], "m1"), store.lineage("by hand"))
    due = check_equal(store)
    assert (due.num_rows, due.num_read) == (0, 2)
    version = delta.existing(store.path, schema.EMBEDDINGS).version()
    assert store.mark() == {"embeddings": version + 1}
    assert check_equal(store).num_read == 0
    assert store.mark(after=lambda: store.work(version="m2")) == {}  # another run wrote meanwhile
    assert check_equal(store).num_read == 0


def test_a_store_of_before_says_why_all_is_read(store, caplog):
    caplog.set_level(logging.INFO, "w2w")
    store.add(6, plain())
    store.work()
    older = Path(store.path, "images-then")
    shutil.copytree(Path(store.path, "images"), older)
    store.add(2, plain())
    store.work()
    assert check_equal(store).num_read == 0
    assert not caplog.messages
    shutil.rmtree(Path(store.path, "images"))
    older.rename(Path(store.path, "images"))
    assert check_equal(store).num_read == 6
    assert "table 'images' is at version 1, before that of the watermark, 2: was it restored?" in caplog.text
    store.add(3, plain())
    due = check_equal(store)
    assert (due.num_rows, due.num_read) == (3, 9)
    assert "version 2 of table 'images' is another one than at the watermark" in caplog.text
    store.work()
    assert check_equal(store).num_read == 0


def test_rows_taken_out_of_results_are_pending_again(store, caplog):
    caplog.set_level(logging.INFO, "w2w")
    store.add(6, plain())
    store.work()
    store.erase(ids.image_id(b"3"), schema.EMBEDDINGS)
    assert keys_of(store.path, check_equal(store)) == [ids.image_id(b"3")]
    assert "rows were taken out of table 'embeddings', or changed, since the watermark" in caplog.text


def test_a_table_made_anew_has_no_watermark(store):
    store.add(6, plain())
    store.work()
    shutil.rmtree(Path(store.path, "embeddings"))
    assert check_equal(store).num_rows == 6
    store.work()
    shutil.rmtree(Path(store.path, "images"))
    store.add(4, plain())
    assert check_equal(store).num_rows == 4


def test_a_log_that_is_too_long_or_gone_is_not_read(store, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "w2w")
    store.add(3, plain())
    store.work()
    for _ in range(4):
        store.add(1, plain())
    assert check_equal(store).num_read == 4
    monkeypatch.setattr(changes, "MOST_ENTRIES", 3)
    assert check_equal(store).num_read == 7
    assert "the log of table 'images' does not reach back to the watermark" in caplog.text


def test_keys_that_come_several_times_have_no_watermark(store):
    opened = delta.create_table(store.path, schema.PRODUCTS)
    done = [table_keys(store.path, schema.TAGGED, schema.OWNER_ID), rejected_keys(store.path, "x", "1")]
    assert marks.Work.of(store.path, schema.PRODUCTS, opened, [], {}, done) is None
    opened = delta.create_table(store.path, schema.IMAGES)
    assert marks.Work.of(store.path, schema.IMAGES, opened, [], {}, done) is not None
    assert marks.Work.of(store.path, schema.IMAGES, opened, [], {}, done[:1]) is None


@pytest.mark.slow
def test_watermarks_on_s3(bucket, monkeypatch):  # noqa: F811
    without_ray(monkeypatch)
    store = Store(f"{bucket}/w2w")
    store.add(6, plain())
    store.work()
    store.add(2, plain())
    assert check_equal(store).num_read == 2
    store.work()
    assert check_equal(store).num_read == 0
