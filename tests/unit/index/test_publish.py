import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from w2w import storage
from w2w.errors import JobFailed, UsageError
from w2w.index.gate import gate, gate_queries
from w2w.index.manifest import GateResult, index_uri
from w2w.index.publish import collect_garbage, current_version, publish, read_manifest, rollback, versions
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
    assert kept_template(first.manifest, tops, "m1", cfg) is None
    assert kept_template(first.manifest, shoes, "m1", cfg) is not None


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
            publish(second.uri, second.manifest, second.gate)
    assert written == [f"{second.uri}/generations/{second.manifest.version}/manifest.json"]
    assert open_index(second.uri).manifest.version == first.manifest.version
    publish(second.uri, second.manifest, second.gate)
    assert open_index(second.uri).manifest == replace(second.manifest, gate=second.gate)


def test_rollback_and_versions(tmp_path, catalog):
    uri = str(tmp_path)
    with pytest.raises(UsageError, match="no version older"):
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
    with pytest.raises(UsageError, match="2 rows to index are there twice"):
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
        publish(run.uri, run.manifest, GateResult(False, ("no",), 0.0, {}))
    Path(run.uri, "generations", run.manifest.version, "manifest.json").write_text("{}")
    with pytest.raises(UsageError, match="not a manifest"):
        read_manifest(run.uri)
