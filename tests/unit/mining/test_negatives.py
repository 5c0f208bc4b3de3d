"""Hard, of the same class and split, and surely another product."""

from dataclasses import replace

import pyarrow as pa
import pytest

from w2w import schema
from w2w.errors import UsageError
from w2w.mining.negatives.rules import NegativeRules, negatives_of
from w2w.mining.tags import CATALOG_SCHEMA


def pairs(*rows: tuple[str, str, str]) -> pa.Table:
    """pair, garment, product; tops of the train split."""
    names = ["pair_id", "garment_id", "post_id", "product_id", "category", "split"]
    return pa.table([list(c) for c in zip(*((p, g, "post", k, "top", "train") for p, g, k in rows))], names=names)


def neighbours(**found: list[tuple[str, float]]) -> pa.Table:
    lists = [
        [
            {"rank": i + 1, "product_id": p, "image_id": f"image-{p}", "category": "Topwear", "score": s}
            for i, (p, s) in enumerate(row)
        ]
        for row in found.values()
    ]
    kinds = [schema.NEIGHBOURS.schema.field(c) for c in (schema.QUERY_ID, schema.NEIGHBOUR_LIST, schema.INDEX_VERSION)]
    return pa.table([list(found), pa.array(lists, kinds[1].type), ["v"] * len(found)], schema=pa.schema(kinds))


def catalog(**others: dict) -> pa.Table:
    rows = []
    for product in ("own", "a", "b", "c", "d"):
        row = dict(zip(CATALOG_SCHEMA.names, [product, product, "top", "", f"image-{product}", 300, "train"]))
        rows.append(row | others.get(product, {}))
    return pa.Table.from_pylist(rows, schema=CATALOG_SCHEMA)


def found(near: list[tuple[str, float]], rules=NegativeRules(), known=None, duplicates=None) -> list[tuple[str, float]] | str:
    """The negatives of one pair, or the sentence of its reject."""
    rows, rejected, read = negatives_of(pairs(("p", "g", "own")), neighbours(g=near), known or catalog(), duplicates, rules)
    assert rows.schema == schema.NEGATIVES.schema
    assert (read, rows.num_rows + rejected.num_rows) == (1, 1)
    if rejected.num_rows:
        assert rejected.column("code").to_pylist() == ["no_negative"]
        return rejected.column("detail")[0].as_py()
    return [(n["product_id"], round(n["score"], 3)) for n in rows.column("negatives")[0].as_py()]


NEAR = [("a", 0.99), ("own", 0.8), ("b", 0.77), ("c", 0.75), ("d", 0.5)]


def test_nothing_as_near_as_the_positive():
    assert found(NEAR) == [("c", 0.75), ("d", 0.5)]  # .95 x .8 = .76
    assert found(NEAR, NegativeRules(ratio=None)) == [("b", 0.77), ("c", 0.75), ("d", 0.5)]
    assert found(NEAR, NegativeRules(ratio=None, margin=0.1)) == [("d", 0.5)]
    assert found(NEAR, NegativeRules(ratio=0.9, margin=0.01)) == [("d", 0.5)]
    assert found(NEAR, NegativeRules(k=1)) == [("c", 0.75)]


def test_the_limit_itself_is_allowed():
    assert found([("own", 0.5), ("a", 0.25)], NegativeRules(ratio=0.5)) == [("a", 0.25)]
    assert "far enough" in found([("own", 0.5), ("a", 0.2501)], NegativeRules(ratio=0.5))


@pytest.mark.parametrize("positive", [0.8, 0.1, 0.0, -0.1, -0.6, -1.0])
@pytest.mark.parametrize(
    "rules", [NegativeRules(), NegativeRules(ratio=0.5), NegativeRules(ratio=1.0), NegativeRules(ratio=None)]
)
def test_nothing_nearer_than_the_positive_whatever_the_sign_of_its_score(positive, rules):
    """The bound never lies above the positive, and rises with it."""
    scores = sorted({round(positive + d, 4) for d in (0.3, 0.05, 0.04, 0.001, -0.02, -0.04, -0.31)}, reverse=True)
    names = [f"n{i}" for i in range(len(scores))]
    row = dict(zip(CATALOG_SCHEMA.names, ["own", "own", "top", "", "image-own", 300, "train"]))
    others = [row | dict.fromkeys(("product_id", "product_key", "image_id"), name) for name in names]
    known = pa.Table.from_pylist([row, *others], schema=CATALOG_SCHEMA)
    near = sorted([("own", positive), *zip(names, scores)], key=lambda n: -n[1])
    taken = found(near, replace(rules, k=20), known)
    share = 1 - (1 if rules.ratio is None else rules.ratio)
    limit = positive - share * abs(positive)
    right = [s for s in scores if s <= limit]
    assert [s for _, s in taken] == pytest.approx(right, abs=1e-3) if right else "far enough below" in taken
    assert all(s <= positive for s in right)


def test_a_product_is_as_near_as_its_nearest_picture():
    known = catalog(c={"product_key": "a"})  # a and c are rows of one product, which is nearer than the positive by row a
    assert found(NEAR, known=known) == [("d", 0.5)]
    # a row of another class or split is a picture of that product all the same
    assert found(NEAR, known=catalog(c={"product_key": "a"}, a={"split": "test", "category": "bag"})) == [("d", 0.5)]


def test_only_the_class_and_the_split_of_the_pair():
    known = catalog(c={"category": "bag"}, d={"split": "test"})
    assert "of its class and split" in found(NEAR, known=known)
    assert found(NEAR, NegativeRules(same_split=False), known=known) == [("d", 0.5)]


def test_the_same_product_under_another_row_is_a_positive():
    known = catalog(a={"product_key": "own"}, d={"product_key": "c"})
    # the best row of the product is its score; a product counts once, and by its nearest row
    assert found(NEAR, known=known) == [("b", 0.77), ("c", 0.75)]


def test_a_copy_of_the_product_is_no_negative():
    known = catalog(b={"image_id": "x"}, c={"image_id": "y"})
    clusters = pa.table([["image-own", "y", "x", "z"], ["1", "1", "2", "2"]], names=["image_id", "cluster_id"])
    assert found(NEAR, known=known, duplicates=clusters) == [("d", 0.5)]


def test_a_product_with_the_very_same_image_is_no_negative():
    known = catalog(c={"image_id": "image-own"})
    near = [("own", 0.8), ("c", 0.7), ("d", 0.5)]  # found by another of its images
    clusters = pa.table([["z", "y"], ["1", "1"]], names=["image_id", "cluster_id"])
    for duplicates in (None, clusters):
        assert found(near, known=known, duplicates=duplicates) == [("d", 0.5)]


def test_a_product_that_is_no_longer_sold_is_left_out():
    assert found(NEAR, known=catalog().filter(pa.array([True, True, True, False, True]))) == [("d", 0.5)]


def test_why_there_is_none():
    assert "not among the neighbours" in found([("a", 0.9), ("b", 0.5)])
    assert "far enough below" in found([("own", 0.9), ("b", 0.89)])
    _, rejected, _ = negatives_of(pairs(("p", "g", "own")), neighbours(other=NEAR), catalog(), None, NegativeRules())
    assert "was not searched" in rejected.column("detail")[0].as_py()


def test_every_pair_by_its_own_positive():
    both = pairs(("p2", "g2", "d"), ("p1", "g1", "own"))
    rows, _, read = negatives_of(both, neighbours(g1=NEAR, g2=[("d", 0.6), ("own", 0.5)]), catalog(), None, NegativeRules())
    got = {r["pair_id"]: [n["product_id"] for n in r["negatives"]] for r in rows.to_pylist()}
    assert (read, got) == (2, {"p1": ["c", "d"], "p2": ["own"]})
    assert rows.column("pair_id").to_pylist() == ["p1", "p2"]


@pytest.mark.parametrize("options", [{"k": 0}, {"ratio": 0.0}, {"ratio": 1.1}, {"margin": -0.1}])
def test_wrong_rules_are_named(options):
    with pytest.raises(UsageError, match=f"rules.{next(iter(options))}="):
        NegativeRules(**options)
