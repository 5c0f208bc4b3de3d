"""A search whose shards are scanned somewhere else, some of them at a time."""

from dataclasses import replace

import numpy as np
import pytest

from w2w.index.flow_shards import grouped
from w2w.index.scan import Scanned
from w2w.index.search import Index, open_index
from w2w.index.spec import IndexConfig

from .conftest import DIM, make_catalog, run_job
from .test_layers import CFG, Nights
from .test_search import FACTORIES


def elsewhere(uri: str, at_least: int) -> tuple[Index, list[list]]:
    """An index that another one scans for, in groups of shards; and the groups."""
    other, index, asked = open_index(uri), open_index(uri), []

    def scanner(unit_ND: np.ndarray, fetch: int, effort: float, parts: list[tuple[int, ...]]) -> Scanned:
        groups = grouped(parts, [s.num_bytes / 2**20 for s in other.manifest.shards], 1.0, at_least)
        asked.extend(groups)
        return Scanned.join([other.scan(unit_ND, fetch, effort, group) for group in groups])

    return replace(index, scanner=scanner), asked


@pytest.mark.parametrize("factory", FACTORIES)
def test_what_tasks_over_shards_find_is_what_one_process_finds(tmp_path, factory):
    catalog = make_catalog({"tops": 300, "hats": 40}, images=2)
    cfg = IndexConfig(factory=factory, nprobe=1, max_rows_per_shard=100, target_recall=0.05)
    run = run_job(str(tmp_path), catalog, cfg)
    here, (there, asked) = open_index(run.uri), elsewhere(run.uri, 3)
    queries = np.random.default_rng(1).standard_normal((20, DIM)).astype(np.float32)
    for k, categories, one_per_product in ((3, None, False), (60, "tops", True), (500, ["hats", None] * 10, False)):
        found = there.search(queries, k, categories, one_per_product)
        assert found.equals(here.search(queries, k, categories, one_per_product))
    assert max(map(len, asked)) < len(run.manifest.shards)


def test_dropped_rows_are_not_found_by_tasks_either(tmp_path):
    catalog = make_catalog({"tops": 200})
    nights = Nights(str(tmp_path), replace(CFG, max_rows_per_shard=100))
    nights.run(catalog)
    nights.run(replace(catalog, rows=catalog.rows.slice(3)))
    here, (there, _) = open_index(str(tmp_path)), elsewhere(str(tmp_path), 2)
    assert any(s.dropped for s in here.manifest.shards)
    queries = np.stack([catalog.vectors[f"tops-{i:05d}-0"] for i in range(6)])
    found = there.search(queries, 5)
    assert found.equals(here.search(queries, 5))
    assert not {f"tops-{i:05d}" for i in range(3)} & set(found["product_id"].to_pylist())


def test_a_filter_is_searched_in_this_process(tmp_path, catalog):
    run = run_job(str(tmp_path), catalog, IndexConfig(max_rows_per_shard=100))
    here, (there, asked) = open_index(run.uri), elsewhere(run.uri, 2)
    some = catalog.rows["product_id"].slice(0, 50)
    query = np.ones((2, DIM), np.float32)
    assert there.search(query, 5, within=there.rows_of(some)).equals(here.search(query, 5, within=here.rows_of(some)))
    assert not asked


@pytest.mark.parametrize(
    ("most_mb", "at_least", "expected"),
    [
        (100, 1, [[0, 1, 2, 3, 4, 5]]),
        (100, 3, [[0, 1], [2, 3], [4, 5]]),
        (3, 1, [[0, 1, 2], [3, 4, 5]]),
        (0.5, 1, [[i] for i in range(6)]),
    ],
)
def test_groups_keep_the_order_and_are_neither_too_few_nor_too_large(most_mb, at_least, expected):
    groups = grouped([(i,) for i in range(6)], [1.0] * 6, most_mb, at_least)
    assert groups == [[(i,) for i in group] for group in expected]
