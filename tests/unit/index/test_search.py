from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from w2w import storage
from w2w.errors import JobFailed, UsageError
from w2w.index.search import HITS, open_index
from w2w.index.spec import IndexConfig

from .conftest import DIM, Catalog, make_catalog, run_job

FACTORIES = [
    *("Flat", "SQfp16", "SQ8", "SQ4", "PCA16,SQ8", "OPQ8_16,PQ8", "HNSW16,Flat", "HNSW16,SQ8"),
    *("IVF8,SQ8", "PCA16,IVF8,SQfp16", "PCAR16,IVF8,RaBitQ4", "IVF8,PQ8"),
    *("IVF8,PQ16x4fs,Refine(SQfp16)", "PQ16x4fs,Refine(Flat)"),
]


def brute(catalog: Catalog, query: np.ndarray, category: str | None) -> list[tuple[str, float]]:
    rows = [r for r in catalog.rows.to_pylist() if category in (None, r["category"])]
    x = np.stack([catalog.vectors[r["image_id"]] for r in rows]).astype(np.float64)
    scores = (x / np.linalg.norm(x, axis=1, keepdims=True)) @ (query / np.linalg.norm(query))
    return sorted(((r["image_id"], s) for r, s in zip(rows, scores, strict=True)), key=lambda p: (-round(p[1], 6), p[0]))


def test_flat_equals_brute_force_over_shards(tmp_path, catalog):
    run = run_job(str(tmp_path), catalog, IndexConfig(max_rows_per_shard=100))
    assert len(run.manifest.shards) > 6
    index = open_index(run.uri, "m1")
    queries = np.random.default_rng(1).standard_normal((9, DIM)).astype(np.float32)
    wanted = ["tops", None, "hats"] * 3
    hits = index.search(queries, 12, wanted)
    assert hits.schema == HITS
    for q, category in enumerate(wanted):
        mine = hits.filter(pa.array(hits["query"].to_numpy() == q))
        exact = brute(catalog, queries[q], category)[:12]
        assert mine["image_id"].to_pylist() == [i for i, _ in exact]
        assert mine["rank"].to_pylist() == list(range(1, len(exact) + 1))
        np.testing.assert_allclose(mine["score"].to_numpy(), [s for _, s in exact], atol=2e-6)


@pytest.mark.parametrize("factory", FACTORIES)
def test_every_factory_finds_most_neighbours_and_all_rows(tmp_path, factory):
    catalog = make_catalog({"tops": 900, "shoes": 300})
    # recall of the coarse codes is a matter of budget: here only that search, re-ranking and stored files agree
    run = run_job(str(tmp_path), catalog, IndexConfig(factory=factory, nprobe=4, max_rows_per_shard=500, target_recall=0.4))
    assert run.gate.recall > 0.4
    index = open_index(run.uri)
    query = np.random.default_rng(5).standard_normal((2, DIM)).astype(np.float32)
    assert index.search(query, 5).num_rows == 10
    if "HNSW" not in factory:  # a graph may leave rows unreached
        hits = index.search(query, 5000, "shoes")
        assert hits.num_rows == 600
        assert len(set(hits["image_id"].to_pylist())) == 300


def test_refine_gives_better_scores_than_the_codes(tmp_path, catalog):
    query = np.random.default_rng(5).standard_normal((8, DIM)).astype(np.float32)
    error = {}
    for factory in ("PQ16x4fs", "PQ16x4fs,Refine(Flat)"):
        run = run_job(str(tmp_path / factory), catalog, IndexConfig(factory=factory, target_recall=0.2))
        hits = open_index(run.uri).search(query, 3, "tops").to_pylist()
        unit = query / np.linalg.norm(query, axis=1, keepdims=True)
        true = [unit[h["query"]] @ (v := catalog.vectors[h["image_id"]]) / np.linalg.norm(v) for h in hits]
        error[factory] = np.abs(np.array(true) - [h["score"] for h in hits]).max()
    assert error["PQ16x4fs,Refine(Flat)"] < 1e-5 < error["PQ16x4fs"]


def test_one_per_product_takes_the_best_image(tmp_path, catalog):
    run = run_job(str(tmp_path), catalog, IndexConfig(max_rows_per_shard=100))
    query = np.random.default_rng(2).standard_normal((4, DIM)).astype(np.float32)
    hits = open_index(run.uri).search(query, 20, "shoes", one_per_product=True).to_pylist()
    for q in range(4):
        expected = list(dict.fromkeys(i.rsplit("-", 1)[0] for i, _ in brute(catalog, query[q], "shoes")))[:20]
        assert [h["product_id"] for h in hits if h["query"] == q] == expected


def test_more_hits_than_rows_gives_all_rows_without_padding(tmp_path, catalog):
    run = run_job(str(tmp_path), catalog, IndexConfig())
    index = open_index(run.uri)
    query = catalog.vectors["hats-00000-0"][None]
    assert index.search(query, 1000, "hats").num_rows == 14
    assert index.search(query, 1000, "hats", one_per_product=True).num_rows == 7
    assert index.search(query[:0], 3).num_rows == 0


def test_equal_scores_come_in_id_order_whatever_the_shards(tmp_path):
    catalog = make_catalog({"tops": 400})
    same = next(iter(catalog.vectors.values()))
    catalog = replace(catalog, vectors=dict.fromkeys(catalog.vectors, same))
    for max_rows in (1000, 60):
        run = run_job(str(tmp_path / str(max_rows)), catalog, IndexConfig(max_rows_per_shard=max_rows))
        hits = open_index(run.uri).search(np.stack([same, same + 0.1]), 5)
        assert hits["product_id"].to_pylist() == [f"tops-{i:05d}" for i in range(5)] * 2


@settings(max_examples=8, deadline=None)
@given(k=st.integers(1, 60), size=st.integers(1, 40))
def test_batch_size_and_k_do_not_change_the_order(tmp_path_factory, k, size):
    catalog = make_catalog({"tops": size, "hats": 3})
    run = run_job(str(tmp_path_factory.mktemp("i")), catalog, IndexConfig(max_rows_per_shard=10))
    index = open_index(run.uri)
    queries = np.random.default_rng(k).standard_normal((5, DIM)).astype(np.float32)
    together = index.search(queries, k)
    assert together.num_rows == 5 * min(k, size + 3)
    for q in range(5):
        alone = index.search(queries[q : q + 1], min(k, 3))
        assert (
            alone["image_id"].to_pylist()
            == together.filter(pa.array(together["query"].to_numpy() == q))["image_id"].to_pylist()[:3]
        )


@pytest.mark.parametrize(
    ("vectors", "k", "categories", "says"),
    [
        (np.ones((1, DIM), np.float32), 0, None, "k=0"),
        (np.ones((1, DIM), np.float32), True, None, "k=True"),
        (np.ones((1, DIM + 1), np.float32), 1, None, f"{DIM + 1} dimensions: expected {DIM}"),
        (np.ones((1, DIM), np.int64), 1, None, "int64"),
        (np.ones(DIM, np.float32), 1, None, "shape"),
        (np.full((2, DIM), np.nan, np.float32), 1, None, "2 of 2 vectors hold NaN"),
        (np.zeros((1, DIM), np.float32), 1, None, "only zeros"),
        (np.ones((1, DIM), np.float32), 1, "shoe", "Did you mean 'shoes'"),
        (np.ones((1, DIM), np.float32), 1, ["tops", "tops"], "2 categories for 1 queries"),
    ],
)
def test_wrong_queries_are_refused_with_a_sentence(tmp_path, vectors, k, categories, says):
    run = run_job(str(tmp_path), make_catalog({"tops": 5, "shoes": 5}), IndexConfig())
    with pytest.raises(UsageError, match=says):
        open_index(run.uri).search(vectors, k, categories)


def test_another_model_version_is_refused_by_name(tmp_path, catalog):
    run = run_job(str(tmp_path), catalog, IndexConfig(), model_version="m1")
    with pytest.raises(UsageError, match=r"m2 .*m1.*run 'w2w index' for m2"):
        open_index(run.uri, "m2")
    with pytest.raises(UsageError, match="no index is published"):
        open_index(str(tmp_path / "elsewhere"))


@pytest.mark.parametrize("file", ["base.faiss", "rows.arrow"])
def test_a_damaged_or_missing_file_is_named_before_it_is_read(tmp_path, catalog, file):
    run = run_job(str(tmp_path), catalog, IndexConfig())
    shard, query = run.manifest.shards[0], np.ones((1, DIM), np.float32)
    path = Path(run.uri, "shards", shard.name, file)
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    index = open_index(run.uri)
    for _ in range(2):
        with pytest.raises(JobFailed, match=rf"{shard.name}/{file}: damaged"):
            index.search(query, 3)
    with pytest.raises(JobFailed, match="damaged"):
        index.search(query, 3, shard.category)
    assert index.search(query, 3, "shoes").num_rows == 3
    path.unlink()
    with pytest.raises(JobFailed, match="missing"):
        index.search(query, 3)
    with pytest.raises(JobFailed, match="missing"):
        open_index(run.uri)


def test_a_damaged_template_is_found(tmp_path, catalog):
    run = run_job(str(tmp_path), catalog, IndexConfig())
    path = Path(run.uri, "templates", f"{run.manifest.templates[0].name}.npz")
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(JobFailed, match="damaged"):
        open_index(run.uri)


def test_opening_reads_no_shard_and_a_search_only_those_of_its_category(tmp_path, catalog, monkeypatch):
    run = run_job(str(tmp_path), catalog, IndexConfig(max_rows_per_shard=50))
    for noted in tmp_path.rglob("checked.json"):
        noted.unlink()
    read, hashed = [], []
    real_read, real_sha256 = storage.read_bytes, storage.sha256
    monkeypatch.setattr(storage, "read_bytes", lambda uri: read.append(uri) or real_read(uri))
    monkeypatch.setattr(storage, "sha256", lambda uri: hashed.append(uri) or real_sha256(uri))
    index = open_index(run.uri)
    assert not hashed
    assert {Path(uri).parent.name for uri in read} == {"templates", run.manifest.version, Path(run.uri).name}
    query, before = np.ones((1, DIM), np.float32), len(read)
    shoes = {s.name for s in run.manifest.shards if s.category == "shoes"}
    for _ in range(2):
        index.search(query, 3, "shoes")
        assert len(hashed) == 2 * len(shoes)
        assert {Path(uri).parent.name for uri in hashed} == shoes
    index.search(query, 3)
    assert len(hashed) == 2 * len(run.manifest.shards)
    assert {Path(uri).name for uri in read[before:]} == {"checked.json"}
    open_index(run.uri).search(query, 3)
    assert len(hashed) == 2 * len(run.manifest.shards)  # noted


@pytest.mark.parametrize("factory", ["Flat", "IVF8,SQ8", "HNSW16,SQ8", "PQ16x4fs,Refine(Flat)"])
@pytest.mark.parametrize("one_per_product", [False, True])
def test_the_best_of_a_rare_few_are_found(tmp_path, catalog, factory, one_per_product):
    """However deep they lie: every 40th product, and among those of them that a category has."""
    config = IndexConfig(factory=factory, nprobe=1, max_rows_per_shard=150, target_recall=0.1)
    index = open_index(run_job(str(tmp_path), catalog, config).uri)
    few = sorted(set(catalog.rows["product_id"].to_pylist()))[::40]
    queries = np.random.default_rng(2).standard_normal((4, DIM)).astype(np.float32)
    within = index.rows_of(pa.array(few))
    asked = {"one_per_product": one_per_product, "within": within}
    of_product = 1 if one_per_product else 2
    for category in (None, "tops", "hats"):
        among = {p for p in few if category is None or p.startswith(category)}
        hits = index.search(queries, 1000, category, **asked)
        found = hits.to_pylist()
        assert {h["product_id"] for h in found} == among
        assert hits.num_rows == 4 * of_product * len(among)
        if "Refine" not in factory:  # whose candidates are a matter of budget
            first = index.search(queries, 3, category, **asked).to_pylist()
            assert [(h["query"], h["image_id"]) for h in first] == [
                (h["query"], h["image_id"]) for h in found if h["rank"] <= 3
            ]
    assert index.search(queries, 5, "tops", within=index.rows_of(pa.array([], pa.string()))).num_rows == 0
