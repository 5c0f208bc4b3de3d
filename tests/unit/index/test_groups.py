"""Variants of one group count once: with the best of them, however many of them come first."""

import numpy as np
import pyarrow as pa
import pytest

from tests.unit.index.conftest import DIM, run_job
from tests.unit.index.test_search import brute
from w2w.errors import UsageError
from w2w.find.rules import FindOptions, best_of
from w2w.index.groups import Groups
from w2w.index.search import HITS, open_index
from w2w.index.spec import IndexConfig, check_one_per


def groups(catalog, size: int) -> Groups:
    """So many products each share a group; every fifth product has none."""
    products = sorted({image.rsplit("-", 1)[0] for image in catalog.vectors})
    some = [p for n, p in enumerate(products) if n % 5]
    return Groups(pa.array(some), pa.array([f"g{n // size}" for n in range(len(some))]))


@pytest.mark.parametrize("size", [1, 3, 40])
def test_the_best_of_each_group_is_found(tmp_path, catalog, size):
    index = open_index(run_job(str(tmp_path), catalog, IndexConfig(max_rows_per_shard=100)).uri)
    query, of = np.random.default_rng(2).standard_normal((6, DIM)).astype(np.float32), groups(catalog, size)
    found = of.search(index, query, 12, ["shoes", "tops"] * 3)
    assert found.schema == HITS
    hits = found.to_pylist()
    for q in range(6):
        expected: dict = {}
        for image, score in brute(catalog, query[q], ["shoes", "tops"][q % 2]):
            product = image.rsplit("-", 1)[0]
            expected.setdefault(of.key(product), (product, image, pytest.approx(score, abs=1e-4)))
        mine = [(h["product_id"], h["image_id"], h["score"]) for h in hits if h["query"] == q]
        assert mine == list(expected.values())[:12]
        assert [h["rank"] for h in hits if h["query"] == q] == list(range(1, len(mine) + 1))


def test_fewer_groups_than_asked_for_are_all_of_them(tmp_path, catalog):
    index = open_index(run_job(str(tmp_path), catalog, IndexConfig()).uri)
    of, query = groups(catalog, 10_000), catalog.vectors["hats-00000-0"][None]
    found = of.search(index, query, 50, ["hats"])
    assert len({of.key(p) for p in found["product_id"].to_pylist()}) == found.num_rows < 7
    assert of.search(index, query[:0], 5, []).num_rows == 0


def test_products_of_a_group_in_several_lists_are_one_answer():
    of = Groups(pa.array(["a", "b"]), pa.array(["g", "g"]))
    lists = [[hit("a", 0.5), hit("c", 0.4)], [hit("b", 0.9), hit("g", 0.1)]]
    assert [h["product_id"] for h in best_of(lists, 5, key=of.key)] == ["b", "c", "g"]
    assert [h["product_id"] for h in best_of(lists, 5)] == ["b", "a", "c", "g"]
    assert of.first(["x", "b", "a", "g", "x"]) == [0, 1, 3]


def hit(product: str, score: float) -> dict:
    return {"product_id": product, "image_id": product, "score": score}


def test_what_counts_once_is_one_of_two():
    check_one_per("group")
    with pytest.raises(UsageError, match="--one_per=variant: must be product or group"):
        FindOptions(one_per="variant")
