import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from w2w import storage
from w2w.errors import JobFailed, StorageFailed, UsageError
from w2w.index import publish as publishing
from w2w.index.gate import gate, gate_queries
from w2w.index.manifest import GateResult, index_uri, manifest_bytes
from w2w.index.publish import (
    collect_garbage,
    current_version,
    held,
    publish,
    published,
    read_held,
    read_manifest,
    release,
    rollback,
    versions,
)
from w2w.index.search import open_index, open_manifest
from w2w.index.shard import build_shard, kept_template, plan_groups, plan_shards, sample, sorted_rows, train_template
from w2w.index.spec import IndexConfig

from .conftest import Catalog, make_catalog, run_job

CFG = IndexConfig(max_rows_per_shard=100)


def without(catalog: Catalog, product: str) -> Catalog:
    keep = np.array([p != product for p in catalog.rows["product_id"].to_pylist()])
    return replace(catalog, rows=catalog.rows.filter(pa.array(keep)))


def test_a_rerun_builds_nothing_and_a_deletion_only_its_shard(tmp_path, catalog):
    first = run_job(str(tmp_path), catalog, CFG)
    assert len(first.built) == len(first.manifest.shards) > 8
    again = run_job(str(tmp_path), catalog, CFG)
    assert (again.built, again.trained) == ([], [])
    assert again.manifest.shards == first.manifest.shards
    fewer = run_job(str(tmp_path), without(catalog, "tops-00007"), CFG)
    assert (len(fewer.built), fewer.trained) == (1, [])
    changed = (
        set(fewer.manifest.shards)
        if False
        else {s.name for s in fewer.manifest.shards} - {s.name for s in first.manifest.shards}
    )
    assert changed == set(fewer.built)
    hits = open_index(str(tmp_path)).search(catalog.vectors["tops-00007-0"][None], 5, "tops")
    assert "tops-00007" not in hits["product_id"].to_pylist()


def test_row_order_of_the_table_does_not_matter(tmp_path, catalog):
    run_job(str(tmp_path), catalog, CFG)
    shuffled = catalog.rows.take(np.random.default_rng(0).permutation(catalog.rows.num_rows))
    assert run_job(str(tmp_path), replace(catalog, rows=shuffled), CFG).built == []


def test_another_model_config_or_twice_the_rows_retrain(tmp_path, catalog):
    cfg = replace(CFG, exact_below_rows=0)
    first = run_job(str(tmp_path), catalog, cfg)
    assert first.trained == ["category hats", "category shoes", "category tops"]
    assert len(run_job(str(tmp_path), catalog, cfg, model_version="m2").trained) == 3
    assert len(run_job(str(tmp_path), catalog, replace(cfg, target_recall=0.9), model_version="m2").trained) == 3
    grown = make_catalog({"tops": 700, "shoes": 130, "hats": 7}, images=2)
    [tops] = [g for g in plan_groups(grown.rows, cfg, first.manifest) if g.name == "category tops"]
    [shoes] = [g for g in plan_groups(grown.rows, cfg, first.manifest) if g.name == "category shoes"]
    assert kept_template(first.uri, first.manifest, tops, "m1", cfg) is None
    assert kept_template(first.uri, first.manifest, shoes, "m1", cfg) is not None


def test_bucket_count_grows_at_the_limit_and_shrinks_late(tmp_path):
    def buckets(size: int, previous=None) -> int:
        catalog = make_catalog({"tops": size})
        [group] = plan_groups(catalog.rows, CFG)
        template, _ = train_template(str(tmp_path), catalog.of(sample(catalog.rows, group, CFG)), group, "m", CFG)
        return plan_shards(catalog.rows, {group.name: template}, "m", CFG, previous)[0].num_buckets

    assert [buckets(100), buckets(101), buckets(399)] == [1, 2, 4]
    run = run_job(str(tmp_path / "index"), make_catalog({"tops": 210}), CFG)
    assert [buckets(190, run.manifest), buckets(110, run.manifest), buckets(90, run.manifest)] == [4, 4, 2]


def test_gate_below_target_keeps_current(tmp_path, catalog):
    good = run_job(str(tmp_path), catalog, CFG)
    with pytest.raises(JobFailed, match=r"not published: recall@10 is 0\.\d+, below target_recall"):
        run_job(str(tmp_path), catalog, IndexConfig(factory="PQ2x4fs"))
    assert current_version(str(tmp_path)) == good.manifest.version
    assert versions(str(tmp_path)) == [good.manifest.version]


def test_gate_counts_rows_and_reports_categories(tmp_path, catalog):
    run = run_job(str(tmp_path), catalog, CFG, publish_it=False)
    assert run.gate.passed
    assert run.gate.per_category["hats"] == {"rows": 14, "queries": 14, "recall": 1.0}
    short = replace(run.manifest, shards=run.manifest.shards[1:])
    queries = gate_queries(catalog.rows, CFG)
    expected = run.manifest.rows_by_category() | {"bags": 3}
    result = gate(open_manifest(run.uri, short), queries, catalog.of(queries), [], expected, CFG)
    assert not result.passed
    assert result.reasons[0] == "category 'bags': 0 rows, expected 3"
    assert "'hats'" in result.reasons[1]
    assert current_version(run.uri) is None


def test_publish_is_one_atomic_write_of_current(tmp_path, catalog, monkeypatch):
    first = run_job(str(tmp_path), catalog, CFG)
    second = run_job(str(tmp_path), without(catalog, "hats-00000"), CFG, publish_it=False)
    written = []
    real = storage.write_bytes

    def write(uri: str, data: bytes) -> None:
        if uri.endswith("CURRENT"):
            raise OSError("the machine died here")
        written.append(uri)
        real(uri, data)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "write_bytes", write)
        with pytest.raises(OSError, match="died"):
            publish(second.uri, second.manifest, second.gate, second.base)
    assert written == [f"{second.uri}/generations/{second.manifest.version}/manifest.json"]
    assert open_index(second.uri).manifest.version == first.manifest.version
    publish(second.uri, second.manifest, second.gate, second.base)
    assert open_index(second.uri).manifest == replace(second.manifest, gate=second.gate)


def test_rollback_and_versions(tmp_path, catalog):
    uri = str(tmp_path)
    with pytest.raises(UsageError, match="no index is published there"):
        rollback(uri)
    first = run_job(uri, catalog, CFG).manifest.version
    second = run_job(uri, without(catalog, "hats-00000"), CFG).manifest.version
    assert versions(uri) == [first, second]
    assert rollback(uri) == first
    assert open_index(uri).manifest.num_rows == catalog.rows.num_rows
    assert rollback(uri, second) == second == current_version(uri)
    with pytest.raises(UsageError, match="there is no version 'x'"):
        rollback(uri, "x")
    with pytest.raises(UsageError, match="there is no version"):
        read_manifest(uri, "x")


def test_garbage_keeps_what_versions_need_and_young_shards(tmp_path, catalog):
    uri = str(tmp_path)
    runs = [run_job(uri, without(catalog, f"tops-0000{i}"), CFG) for i in range(3)]
    assert collect_garbage(uri, 1) == [f"generations/{r.manifest.version}" for r in runs[:2]]
    gone = {f"shards/{s.name}" for r in runs[:2] for s in r.manifest.shards} - {
        f"shards/{s.name}" for s in runs[2].manifest.shards
    }
    assert len(gone) >= 2
    assert set(collect_garbage(uri, 1, young_s=0.0)) == gone
    assert open_index(uri).manifest.version == runs[2].manifest.version
    assert collect_garbage(uri, 1, young_s=0.0) == []


def test_a_shard_without_its_last_file_is_built_again(tmp_path, catalog):
    run = run_job(str(tmp_path), catalog, CFG)
    name = run.manifest.shards[0].name
    Path(run.uri, "shards", name, "shard.json").unlink()
    assert run_job(str(tmp_path), catalog, CFG).built == [name]


def test_bad_rows_and_vectors_are_refused_with_a_sentence(tmp_path, catalog):
    with pytest.raises(UsageError, match="no rows to index"):
        sorted_rows(catalog.rows.slice(0, 0))
    with pytest.raises(UsageError, match="2 rows to index are duplicates"):
        sorted_rows(pa.concat_tables([catalog.rows, catalog.rows.slice(0, 2)]))
    holes = catalog.rows.set_column(2, "category", pa.array([None] * catalog.rows.num_rows, pa.string()))
    with pytest.raises(UsageError, match="have no category"):
        sorted_rows(holes)
    run = run_job(str(tmp_path), catalog, CFG)
    templates = {t.group: t for t in run.manifest.templates}
    task = plan_shards(catalog.rows, templates, "m1", CFG)[0]
    vectors = catalog.of(task.rows)
    vectors[3, 0] = np.nan
    with pytest.raises(UsageError, match=r"category 'hats', bucket 0: 1 of 14 vectors hold NaN.* row 3"):
        build_shard(run.uri, task, vectors)
    with pytest.raises(UsageError, match="14 rows but 13 vectors"):
        build_shard(run.uri, task, vectors[:-1])


def test_manifest_says_where_it_comes_from(tmp_path, catalog):
    run = run_job(index_uri(str(tmp_path), "default"), catalog, CFG)
    plain = json.loads(Path(tmp_path, "index", "default", "generations", run.manifest.version, "manifest.json").read_text())
    assert plain["tables"] == {"products": 3}
    assert (plain["model_version"], plain["encoder"], plain["dim"], plain["metric"]) == ("m1", "tiny", 32, "cosine")
    assert plain["gate"]["passed"] is True
    assert run.manifest.memory_mb() > catalog.rows.num_rows * 32 * 4 / 2**20
    with pytest.raises(JobFailed):
        publish(run.uri, run.manifest, GateResult(False, ("no",), 0.0, {}), run.base)
    Path(run.uri, "generations", run.manifest.version, "manifest.json").write_text("{}")
    with pytest.raises(UsageError, match="not a manifest"):
        read_manifest(run.uri)


def files_of(uri: str) -> list[Path]:
    return sorted(p for folder in ("shards", "templates") for p in Path(uri, folder).rglob("*") if p.is_file())


@pytest.mark.parametrize("how", ["gone", "empty", "half", "another byte"])
def test_whatever_file_is_damaged_the_next_run_builds_it_again(tmp_path, how):
    catalog = make_catalog({"tops": 60, "hats": 5})
    run = run_job(str(tmp_path), catalog, CFG)
    query = catalog.vectors["tops-00001-0"][None]
    before = open_index(run.uri).search(query, 5)
    assert {p.name for p in files_of(run.uri)} >= {"base.faiss", "rows.arrow", "shard.json"}
    for path in files_of(run.uri):
        data = path.read_bytes()
        {
            "gone": path.unlink,
            "empty": lambda path=path: path.write_bytes(b""),
            "half": lambda path=path, data=data: path.write_bytes(data[: len(data) // 2]),
            "another byte": lambda path=path, data=data: path.write_bytes(data[:-9] + b"?" + data[-8:]),
        }[how]()
        again = run_job(str(tmp_path), catalog, CFG)
        assert again.built or again.trained or path.name in ("shard.json", "checked.json"), path
        assert open_index(run.uri).search(query, 5).equals(before), path


@pytest.mark.parametrize("what", ["CURRENT", "manifest"])
@pytest.mark.parametrize("data", [b"", b"../../../etc", b"\xff\xfe", b"20260101T000000000000-deadbeef", b"[[["])
def test_a_damaged_pointer_is_a_sentence_and_ends_with_the_next_run(tmp_path, catalog, what, data):
    run = run_job(str(tmp_path), catalog, CFG)
    manifest = Path(run.uri, "generations", run.manifest.version, "manifest.json")
    (Path(run.uri, "CURRENT") if what == "CURRENT" else manifest).write_bytes(data)
    with pytest.raises((UsageError, JobFailed), match=r"damaged|there is no version|not a manifest"):
        open_index(run.uri)
    found = published(run.uri)
    assert found.manifest is None
    assert found.damage
    again = run_job(str(tmp_path), catalog, CFG)
    assert open_index(run.uri).manifest.version == again.manifest.version


def test_a_slow_run_does_not_put_its_older_index_over_a_newer_one(tmp_path, catalog):
    slow = run_job(str(tmp_path), catalog, CFG, publish_it=False)
    fast = run_job(str(tmp_path), without(catalog, "tops-00007"), CFG)
    with pytest.raises(JobFailed, match=f"another run published {fast.manifest.version}"):
        publish(slow.uri, slow.manifest, slow.gate, slow.base)
    assert current_version(slow.uri) == fast.manifest.version
    assert versions(slow.uri) == [fast.manifest.version]


def test_an_index_of_older_tables_is_not_published(tmp_path, catalog):
    first = run_job(str(tmp_path), catalog, CFG)
    late = run_job(str(tmp_path), without(catalog, "tops-00007"), CFG, publish_it=False)
    older = replace(late.manifest, tables={"products": 2})
    with pytest.raises(JobFailed, match=r"was made from version 3 of table 'products', this run from version 2"):
        publish(late.uri, older, late.gate, late.base)
    assert current_version(late.uri) == first.manifest.version
    publish(late.uri, replace(older, table_ids={"products": "made anew"}), late.gate, late.base)
    assert current_version(late.uri) == late.manifest.version


def test_what_is_rolled_back_from_is_held_back_until_it_is_released(tmp_path, catalog):
    uri = str(tmp_path)

    def hold(run):
        return held(uri, run.manifest.rows_digest, run.manifest.model_version)

    first = run_job(uri, catalog, CFG)
    second = run_job(uri, without(catalog, "hats-00000"), CFG)
    assert hold(second) is None
    rollback(uri)
    assert hold(second).version == second.manifest.version
    assert hold(first) is None
    other = run_job(uri, without(catalog, "hats-00001"), CFG, publish_it=False)
    assert hold(other) is None  # other rows, the same model as the version that was gone back to
    with pytest.raises(UsageError, match="is not held back"):
        release(uri, first.manifest.version)
    release(uri, second.manifest.version)
    assert hold(second) is None
    rollback(uri, second.manifest.version)  # forward: nothing is held
    assert read_held(uri) == []
    rollback(uri)
    rollback(uri, second.manifest.version)  # asked for by name, it is released
    assert read_held(uri) == []


def test_a_model_that_was_rolled_back_from_is_held_back_with_other_rows_too(tmp_path, catalog):
    uri = str(tmp_path)
    run_job(uri, catalog, CFG)
    bad = run_job(uri, catalog, CFG, model_version="m2")
    rollback(uri)
    changed = run_job(uri, without(catalog, "hats-00000"), CFG, model_version="m2", publish_it=False)
    assert held(uri, changed.manifest.rows_digest, "m2").version == bad.manifest.version
    assert held(uri, changed.manifest.rows_digest, "m1") is None
    third = run_job(uri, without(catalog, "hats-00000"), CFG)
    assert rollback(uri) < third.manifest.version != bad.manifest.version  # over the one that is held back
    assert current_version(uri) < bad.manifest.version


def test_back_from_a_version_that_was_published_twice(tmp_path, catalog):
    uri = str(tmp_path)
    first = run_job(uri, catalog, CFG)
    bad = [run_job(uri, without(catalog, "hats-00000"), CFG) for _ in range(2)]
    assert rollback(uri) == first.manifest.version
    assert held(uri, bad[0].manifest.rows_digest, "m1").version == bad[1].manifest.version
    with pytest.raises(UsageError, match="no other version older than"):
        rollback(uri)


def of_an_earlier_w2w(run) -> None:
    edited(run, lambda m: [m.pop(name) for name in ("rows_digest", "table_ids")])


def test_a_version_of_an_earlier_w2w_is_held_back_too(tmp_path, catalog):
    uri = str(tmp_path)
    for run in (run_job(uri, catalog, CFG), run_job(uri, without(catalog, "hats-00000"), CFG)):
        of_an_earlier_w2w(run)
    rollback(uri)
    assert held(uri, run.manifest.rows_digest, "m1").version == run.manifest.version


def test_back_from_a_version_whose_manifest_is_damaged(tmp_path, catalog):
    uri = str(tmp_path)
    first = run_job(uri, catalog, CFG)
    second = run_job(uri, without(catalog, "hats-00000"), CFG)
    Path(uri, "generations", second.manifest.version, "manifest.json").write_bytes(b"{")
    assert rollback(uri) == first.manifest.version == current_version(uri)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("CURRENT")])
def test_a_pointer_that_is_no_file_is_a_sentence(tmp_path, make):
    make(tmp_path / "CURRENT")
    for read in (current_version, published, read_manifest, rollback):
        with pytest.raises(StorageFailed, match=r"cannot read .*/CURRENT: (not a plain|Too many levels|.*is a directory)"):
            read(str(tmp_path))


@pytest.mark.parametrize(("data", "says"), [(b"", "CURRENT: damaged"), (None, "no index is published there; --rollback_to")])
def test_back_from_nowhere_is_a_sentence(tmp_path, catalog, data, says):
    run_job(str(tmp_path), catalog, CFG)
    current = tmp_path / "CURRENT"
    current.unlink() if data is None else current.write_bytes(data)
    with pytest.raises(UsageError, match=says):
        rollback(str(tmp_path))


def test_a_damaged_version_is_not_gone_back_to(tmp_path, catalog):
    uri = str(tmp_path)
    first = run_job(uri, catalog, CFG)
    second = run_job(uri, without(catalog, "hats-00000"), CFG)
    [old] = {s.name for s in first.manifest.shards} - {s.name for s in second.manifest.shards}
    Path(uri, "shards", old, "base.faiss").write_bytes(b"half")
    with pytest.raises(JobFailed, match=rf"not rolled back to {first.manifest.version}: .*base.faiss is missing or damaged"):
        rollback(uri)
    assert current_version(uri) == second.manifest.version
    assert read_held(uri) == []


@pytest.mark.parametrize("data", [b"[1]", b'{"x": 1}', b"[[", b'[{"version": 1, "rows_digest": 2, "model_version": 3}]'])
def test_a_damaged_list_of_held_versions_is_a_sentence(tmp_path, catalog, data):
    run_job(str(tmp_path), catalog, CFG)
    run_job(str(tmp_path), without(catalog, "hats-00000"), CFG)
    entry = {"version": 1, "rows_digest": "", "model_version": "m1", "by_model": False, "since": ""}
    for damaged in (data, json.dumps([entry]).encode(), json.dumps([entry | {"version": "x"}]).encode()):
        (tmp_path / "HELD").write_bytes(damaged)
        with pytest.raises(JobFailed, match="HELD: damaged"):
            rollback(str(tmp_path))


def test_garbage_is_collected_around_a_damaged_manifest(tmp_path, catalog):
    uri = str(tmp_path)
    runs = [run_job(uri, without(catalog, f"hats-{n:05}"), CFG) for n in range(3)]
    Path(uri, "generations", runs[1].manifest.version, "manifest.json").write_bytes(b"{")
    Path(uri, "generations", "junk").mkdir()
    Path(uri, "generations", "junk", "manifest.json").write_bytes(b"{}")
    deleted = collect_garbage(uri, 2, young_s=0)
    assert deleted == [f"generations/{runs[0].manifest.version}"]  # whatever the damaged one is made of stays
    assert versions(uri) == [r.manifest.version for r in runs[1:]]
    assert open_index(uri).manifest.version == runs[2].manifest.version
    assert len(collect_garbage(uri, 1, young_s=0)) > 1  # it is old now, and so is what was kept for it


def edited(run, change) -> Path:
    where = Path(run.uri, "generations", run.manifest.version, "manifest.json")
    plain = json.loads(where.read_text())
    plain.pop("sha256")
    change(plain)
    where.write_text(json.dumps(plain))
    return where


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m["shards"][0].update(name="../../../outside"),
        lambda m: m["shards"][0].update(name=7),
        lambda m: m["shards"][0]["files"].update({"../../x": "0" * 64}),
        lambda m: m["shards"][0]["files"].pop("rows.arrow"),
        lambda m: m["shards"][0]["files"].update({"base.faiss": None}),
        lambda m: m["shards"][0].update(template="f" * 32),
        lambda m: m["shards"][0].update(files=["base.faiss", "rows.arrow"]),
        lambda m: m["templates"][0].update(name="/etc/passwd"),
        lambda m: m.update(version="../CURRENT"),
        lambda m: m.update(shards=None),
    ],
)
def test_a_hostile_manifest_names_no_file_of_ours(tmp_path, catalog, change):
    run = run_job(str(tmp_path), catalog, CFG)
    edited(run, change)
    with pytest.raises(UsageError, match="not a manifest"):
        read_manifest(run.uri)


def test_a_manifest_that_was_changed_is_told_by_its_checksum_and_one_without_is_read(tmp_path, catalog):
    run = run_job(str(tmp_path), catalog, CFG)
    where = Path(run.uri, "generations", run.manifest.version, "manifest.json")
    whole = where.read_text()
    where.write_text(whole.replace('"encoder": "tiny"', '"encoder": "tina"'))
    with pytest.raises(UsageError, match="checksum"):
        read_manifest(run.uri)
    where.write_text(whole)
    of_an_earlier_w2w(run)
    assert read_manifest(run.uri).version == run.manifest.version


def test_a_reader_whose_shard_is_collected_meanwhile_reads_current_again(tmp_path, catalog, monkeypatch):
    uri = str(tmp_path)
    old = run_job(uri, catalog, CFG)
    new = run_job(uri, without(catalog, "tops-00007"), CFG)
    real, asked = publishing.current_version, []

    def stale(where: str) -> str:
        asked.append(where)
        return old.manifest.version if len(asked) == 1 else real(where)

    collect_garbage(uri, 1, young_s=0.0)
    where = Path(uri, "generations", old.manifest.version, "manifest.json")
    where.parent.mkdir()
    where.write_bytes(manifest_bytes(replace(old.manifest, gate=old.gate)))
    monkeypatch.setattr(publishing, "current_version", stale)
    assert open_index(uri).manifest.version == new.manifest.version
    with pytest.raises(JobFailed, match="missing"):
        open_index(uri, version=old.manifest.version)
