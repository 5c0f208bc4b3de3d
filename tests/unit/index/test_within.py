"""Search under a filter: exactly where few rows pass, and in lists that hold enough of them, also where these lie elsewhere."""

import numpy as np
import pyarrow as pa
import pytest

from w2w.index import within as rule
from w2w.index.exact import Few
from w2w.index.search import open_index
from w2w.index.spec import IndexConfig, Spec
from w2w.index.template import Codes, Sample, fill, fit, holding_lists

from .conftest import DIM, Catalog, make_catalog, run_job

QUERIES = np.random.default_rng(4).standard_normal((6, DIM)).astype(np.float32)


def opened(folder, catalog: Catalog, factory: str, nprobe: int = 1):
    cfg = IndexConfig(factory=factory, nprobe=nprobe, max_rows_per_shard=150, target_recall=0.1)
    return open_index(run_job(str(folder), catalog, cfg).uri)


def best(catalog: Catalog, among: list[str], k: int) -> list[list[str]]:
    """Products of each query, by brute force."""
    x = np.stack([catalog.vectors[f"{product}-0"] for product in among])
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return [[among[i] for i in order[:k]] for order in np.argsort(-(QUERIES @ x.T), axis=1)]


def found(index, within, k: int, **asked) -> list[list[str]]:
    hits = index.search(QUERIES, k, within=within, **asked).to_pylist()
    return [[h["product_id"] for h in hits if h["query"] == q] for q in range(len(QUERIES))]


def overlap(some: list[list[str]], others: list[list[str]]) -> float:
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(some, others, strict=True)]))


@pytest.mark.parametrize("factory", ["IVF16,Flat", "HNSW16,Flat", "PQ16x4fs,Refine(Flat)", "IVF8,PQ16x4fs,Refine(Flat)"])
def test_few_rows_are_searched_exactly(tmp_path, factory):
    """Whatever lists, links and coarse codes leave out; by the codes that re-rank."""
    catalog = make_catalog({"tops": 700, "shoes": 40})
    index = opened(tmp_path, catalog, factory)
    assert sum(s.info.category == "tops" for s in index.shards) > 4
    among = [f"tops-{i:05d}" for i in range(0, 700, 3)] + ["shoes-00003"]
    within = index.rows_of(pa.array(among))
    assert sorted(map(len, within.few)) == [1, len(index.shards) - 1]
    assert found(index, within, 9) == best(catalog, among, 9)
    assert found(index, within, 9, categories="tops") == best(catalog, among[:-1], 9)
    assert found(index, within, 500) == best(catalog, among, 500)


@pytest.mark.parametrize("factory", ["IVF16,Flat", "IVF16,SQ8", "PCAR16,IVF16,RaBitQ4"])
def test_lists_are_scanned_until_they_hold_enough_that_passes(tmp_path, monkeypatch, factory):
    """Of a filter that lets through what is unlike the query, the nearest lists have nothing."""
    monkeypatch.setattr(rule, "_MB_PER_MS", 0.0)
    catalog = make_catalog({"tops": 900})
    index = opened(tmp_path, catalog, factory, nprobe=2)
    names = catalog.rows["product_id"].to_pylist()
    unlike = np.stack([catalog.vectors[f"{name}-0"] for name in names]) @ QUERIES[0]
    among = [names[i] for i in np.flatnonzero(unlike < np.quantile(unlike, 0.4))]
    within = index.rows_of(pa.array(among))
    assert not within.few
    everything = found(index, index.rows_of(pa.array(names)), 900)
    wanted = [[p for p in ranked if p in set(among)][:5] for ranked in everything]
    assert overlap(found(index, within, 5), wanted) > 0.85
    assert sum(len(f) for f in found(index, within, 900)) == len(QUERIES) * len(among)


def test_both_ways_score_alike(tmp_path, monkeypatch):
    catalog = make_catalog({"tops": 500})
    one = next(iter(catalog.vectors.values()))
    catalog.vectors.update(dict.fromkeys(list(catalog.vectors)[40:90], one))  # equal scores, in several shards
    index = opened(tmp_path, catalog, "PCA16,IVF8,SQ8", nprobe=8)
    among = pa.array([f"tops-{i:05d}" for i in range(30, 300)])
    exact = index.search(np.concatenate([QUERIES, one[None]]), 20, within=index.rows_of(among))
    monkeypatch.setattr(rule, "_MB_PER_MS", 0.0)
    scanned = index.search(np.concatenate([QUERIES, one[None]]), 20, within=index.rows_of(among))
    assert exact["product_id"].equals(scanned["product_id"])
    np.testing.assert_allclose(exact["score"].to_numpy(), scanned["score"].to_numpy(), atol=2.1e-6)


def test_the_smallest_categories_are_held_in_memory(tmp_path, monkeypatch):
    catalog = make_catalog({"tops": 300, "shoes": 150, "hats": 60})
    index = opened(tmp_path, catalog, "IVF8,Flat")
    everything = pa.array(catalog.rows["product_id"].to_pylist())
    row_mb = 4 * DIM / 2**20

    def held() -> set[str]:
        few = index.rows_of(everything).few
        return {index.shards[i].info.category for part in few for i in part}

    for rows, categories in ((59, set()), (60, {"hats"}), (209, {"hats"}), (210, {"hats", "shoes"}), (510, set("hst"))):
        monkeypatch.setattr(rule, "_FEW_MB", rows * row_mb)
        assert {c[0] for c in held()} == {c[0] for c in categories}
    monkeypatch.setattr(rule, "_MB_PER_MS", 149 * row_mb / index.manifest.config.latency_budget_ms)
    assert held() == {"hats"}


def test_a_plain_scan_stays_one(tmp_path):
    """It scores what passes and nothing else; and RaBitQ's scores are not those of a vector."""
    for factory in ("Flat", "PCAR16,IVF8,RaBitQ4", "IVF8,PQ16x4fs"):
        index = opened(tmp_path / factory[:4], make_catalog({"tops": 300}), factory)
        assert not index.rows_of(pa.array(["tops-00001"])).few
    with pytest.raises(ValueError, match="estimates"):
        Few.of(Spec("PCAR16,IVF8,RaBitQ4"), {0: index.shards[0].codes}, {0: np.arange(2)})


@pytest.mark.parametrize("rows", [3, 200, 41_000])
def test_nearest_of_few(rows):
    """The largest products, whatever the number of queries; equal vectors score equally wherever they stand."""
    rng = np.random.default_rng(rows)
    x = rng.standard_normal((rows, DIM)).astype(np.float32)
    x[rows // 2 :] = x[: rows - rows // 2]
    few = Few(np.zeros(rows, np.int32), np.arange(rows), x)
    scores, places = few.nearest(QUERIES, min(7, rows))
    everything = QUERIES.astype(np.float64) @ x.T.astype(np.float64)
    wanted = -np.sort(-everything, axis=1)[:, : min(7, rows)]
    np.testing.assert_allclose(-np.sort(-scores, axis=1), wanted, rtol=1e-5)
    np.testing.assert_allclose(np.take_along_axis(everything, places, axis=1), scores, rtol=1e-4, atol=1e-5)
    one_by_one = [few.nearest(q[None], min(7, rows))[0][0] for q in QUERIES]
    np.testing.assert_array_equal(np.sort(scores, axis=1), np.sort(one_by_one, axis=1))
    assert few.nearest(QUERIES[:0], 2)[0].shape == (0, 2)


def test_lists_that_hold_a_share():
    vectors = make_catalog({"tops": 400}).vectors
    x = np.stack(list(vectors.values()))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    template = fit(Spec("IVF8,Flat", nprobe=1), Sample(x))
    codes: Codes = fill(template, x)
    assert codes.base.ntotal == 400
    order = template.quantizer.search(QUERIES, 8)[1]
    rows_L = np.array([0, 5, 0, 1, 10, 0, 4, 0])
    for share, least in ((0.01, 1), (0.5, 10), (1, 20), (7, 20)):
        scores, lists = holding_lists(template, QUERIES, rows_L, share)
        assert scores.shape == lists.shape
        for mine, ranked in zip(lists, order, strict=True):
            kept = mine[mine >= 0].tolist()
            holding = [i for i in ranked.tolist() if rows_L[i]]
            assert kept == holding[: len(kept)]
            assert rows_L[kept].sum() >= least
            assert rows_L[kept[:-1]].sum() < max(1, share * 20)
