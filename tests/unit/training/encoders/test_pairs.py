from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from w2w import schema
from w2w.errors import UsageError
from w2w.training.encoders.config import HeadConfig, LearnConfig
from w2w.training.encoders.pairs import PairBatches, Row, figures, gallery, listing, relevance


def table(rows: list[tuple[str, str, str, str]]) -> pa.Table:
    columns = (schema.PAIR_ID, schema.PRODUCT_ID, schema.IMAGE_ID, schema.CATEGORY)
    return pa.table(dict(zip(columns, map(list, zip(*rows)))))


def test_products_pictures_and_categories_have_codes():
    rows = table([("c", "p2", "i2", "top"), ("a", "p1", "i1", "shoes"), ("b", "p2", "i3", "top"), ("d", "p3", "i4", "shoes")])
    clusters = pa.table({schema.IMAGE_ID: ["i1", "i4", "i9"], schema.CLUSTER_ID: ["i1", "i1", "i9"]})
    found = listing(rows, clusters)
    assert found.rows.column(schema.PAIR_ID).to_pylist() == ["a", "b", "c", "d"]
    assert found.products_N.tolist() == [0, 1, 1, 2]
    assert found.clusters_N.tolist() == [0, 2, 1, 0]
    assert [found.names[c] for c in found.categories_N] == ["shoes", "top", "top", "shoes"]
    assert found.shares().tolist() == pytest.approx([2 / 3, 1 / 3])
    parts = [found.of_rank(r, 2).products_N.tolist() for r in range(2)]
    assert parts == [[0, 2], [1, 1]]
    assert len(listing(rows).clusters_N) == len(set(listing(rows).clusters_N.tolist()))


def batches(config: LearnConfig, products=range(12), rank: int = 0, num_batches: int = 400) -> PairBatches:
    """Three pairs a product; even products are of category 0, odd ones of category 1."""
    rows = [Row(f"a{p}.{i}", f"p{p}", p, p, ((f"n{p}", 99, 99),)) for p in products for i in range(3)]
    categories = np.array([r.product % 2 for r in rows])
    return PairBatches(rows, categories, np.array([0.5, 0.5]), config, num_batches, 0, rank)


def test_a_batch_has_every_product_once_and_follows_from_its_number():
    made = batches(LearnConfig(batch_pairs=5, same_category=(0, 1)))
    found = [made(i) for i in range(400)]
    assert all(len({r.product for r in rows}) == 5 for rows in found)
    assert found == [batches(LearnConfig(batch_pairs=5, same_category=(0, 1)))(i) for i in range(400)]
    alike = [len({r.product % 2 for r in rows}) == 1 for rows in found]
    assert sum(alike[:100]) < 35 < 75 < sum(alike[-100:])
    counts = Counter(r.anchor for rows in found for r in rows)
    assert len(counts) == 36
    assert max(counts.values()) < 2.5 * min(counts.values())


def test_processes_agree_on_the_category():
    config = LearnConfig(batch_pairs=3, same_category=(0.5, 0.5))
    ranks = [batches(config, range(12), 0), batches(config, range(12, 24), 1)]
    kinds = [tuple(frozenset(r.product % 2 for r in one(i)) for one in ranks) for i in range(100)]
    assert sum(a == b and len(a) == 1 for a, b in kinds) > 30
    assert not any(len(a) == len(b) == 1 and a != b for a, b in kinds[:20]) or sum(a != b for a, b in kinds) < 40


@pytest.mark.parametrize(("products", "size"), [(range(4), 3), (range(3), 5)])
def test_batches_are_filled_from_others_and_then_again(products, size):
    made = batches(LearnConfig(batch_pairs=size, same_category=(1, 1)), products)
    assert all(len(made(i)) == size for i in range(20))
    assert all(len({r.product for r in made(i)}) == min(size, len(products)) for i in range(20))


def test_negatives_are_drawn_and_who_has_none_shows_its_own_positive():
    made = batches(LearnConfig(batch_pairs=2, negatives=1))
    assert {(r.negative, r.negative_product) for r in made(0)} == {(f"n{r.product}", 99) for r in made(0)}
    bare = Row("a", "p", 3, 4).with_negative(np.random.default_rng(0))
    assert (bare.negative, bare.negative_product, bare.negative_cluster) == ("p", 3, 4)


def test_relevance_and_its_figures():
    pictures = np.eye(4)
    anchors = np.array([[1, 0.5, 0, 0], [0.6, 0.5, 0.4, 0], [0, 0, 0, 1.0]])
    relevant = relevance(anchors, pictures, [0, 2, 7], [{0}, {1}, {2}, {3}])
    assert relevant.argmax(1).tolist() == [0, 2, 0]
    assert not relevant[2].any()
    assert figures(relevant) == pytest.approx(
        {"Recall@1": 1 / 3, "Recall@5": 2 / 3, "Recall@10": 2 / 3, "Recall@20": 2 / 3, "MRR": (1 + 1 / 3) / 3}
    )


def test_a_picture_of_several_products_is_right_for_each_of_them():
    picture, other = np.array([1.0, 0]), np.array([0, 1.0])
    rows = [Row(f"a{i}", picture, i, 0) for i in range(10)] + [Row("b", other, 10, 1), Row("c", other, 3, 1)]
    pictures, shown = gallery(rows)
    assert [p.tolist() for p in pictures] == [[1, 0], [0, 1]]
    assert shown == [set(range(10)), {10, 3}]
    anchors = np.tile(picture, (10, 1))
    assert figures(relevance(anchors, np.stack(pictures), range(10), shown))["Recall@1"] == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_pairs": 1},
        {"loss": "softmax"},
        {"same": "negative"},
        {"same_category": (0.5, 2)},
        {"interpolate": 0},
        {"stay": -1},
        {"dims": [256]},
    ],
)
def test_settings_out_of_range(wrong):
    with pytest.raises(UsageError, match=f"learn.{next(iter(wrong))}"):
        LearnConfig(**wrong)
    with pytest.raises(UsageError, match=r"learn\.head\.start"):
        HeadConfig(start="zeros")
