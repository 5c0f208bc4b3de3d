"""Merged shards answer as the shards do."""

import numpy as np
import pyarrow as pa
import pytest

from w2w.index.merge import merged
from w2w.index.search import open_index
from w2w.index.spec import IndexConfig

from .conftest import DIM, make_catalog, run_job

QUERIES = np.random.default_rng(3).standard_normal((40, DIM)).astype(np.float32)


def opened(uri, factory, catalog):
    cfg = IndexConfig(factory=factory, nprobe=3, max_rows_per_shard=100, exact_below_rows=280, target_recall=0.1)
    return open_index(run_job(str(uri), catalog, cfg).uri)


@pytest.mark.parametrize("factory", ["IVF8,SQ8", "PCA16,IVF8,SQfp16", "IVF8,PQ8", "IVF8,Flat"])
def test_answers_are_the_same(tmp_path, factory):
    catalog = make_catalog({"tops": 300, "shoes": 130, "hats": 7}, images=2)
    one = next(iter(catalog.vectors.values()))
    catalog.vectors.update(dict.fromkeys(list(catalog.vectors)[100:140], one))  # equal scores, in several shards
    before = opened(tmp_path, factory, catalog)
    after = merged(before)
    count = {s.info.category: 0 for s in before.shards}
    for shard in before.shards:
        count[shard.info.category] += 1
    assert count["tops"] > 4
    assert count["shoes"] > 1
    assert sorted(s.info.category for s in after.shards) == ["hats", "shoes", "tops"]
    asked = np.concatenate([QUERIES, one[None]])
    for categories in ("tops", "shoes", None):
        for per_product in (True, False):
            same = before.search(asked, 9, categories, per_product)
            assert after.search(asked, 9, categories, per_product).equals(same), (categories, per_product)
    some = pa.array([f"tops-{n:05d}" for n in range(0, 300, 17)] + ["shoes-00003"])
    wanted = before.search(asked, 9, "tops", within=before.rows_of(some))
    assert wanted.num_rows
    assert set(wanted["product_id"].to_pylist()) <= set(some.to_pylist())
    assert after.search(asked, 9, "tops", within=after.rows_of(some)).equals(wanted)


@pytest.mark.parametrize("factory", ["Flat", "HNSW16,SQ8", "IVF8,PQ16x4fs", "PCAR16,IVF8,RaBitQ4", "IVF8,SQ8,Refine(SQfp16)"])
def test_what_cannot_be_merged_stays(tmp_path, factory):
    before = opened(tmp_path, factory, make_catalog({"tops": 300, "shoes": 260}))
    assert merged(before).shards == before.shards


def test_the_largest_categories_that_fit_are_merged(tmp_path):
    before = opened(tmp_path, "IVF8,SQ8", make_catalog({"tops": 400, "shoes": 150}))
    bytes_of = {
        c: sum(s.info.num_bytes + s.rows.nbytes for s in before.shards if s.info.category == c) for c in ("tops", "shoes")
    }
    tops_only = merged(before, (bytes_of["tops"] + bytes_of["shoes"] - 1) / 2**20)
    assert [s.info.category for s in tops_only.shards].count("tops") == 1
    assert [s.info.category for s in tops_only.shards].count("shoes") > 1
    shoes_only = merged(before, bytes_of["shoes"] / 2**20)
    assert [s.info.category for s in shoes_only.shards].count("shoes") == 1
    assert len(merged(before, 0).shards) == len(before.shards)
