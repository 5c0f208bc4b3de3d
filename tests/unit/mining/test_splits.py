"""Splits: nothing that hard links connect is torn apart, whatever the tags connect."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from w2w import schema
from w2w.errors import UsageError
from w2w.mining.splits import rules as splits
from w2w.mining.splits.rules import Dealt, SplitRules, check_rules, deal, summary_of
from w2w.mining.tags import PRODUCT_KEY

ALL = SplitRules(max_component=1)


def products(*rows: tuple[str, str]) -> pa.Table:
    columns = [pa.array([r[i] for r in rows], pa.string()) for i in (0, 1)]
    return pa.table({schema.PRODUCT_ID: columns[0], schema.IMAGE_ID: columns[1]})


def posts(*rows: tuple[str, str, list[str]]) -> pa.Table:
    kinds = (pa.string(), pa.string(), pa.list_(pa.string()))
    columns = [pa.chunked_array([pa.array([r[i] for r in rows], kind)]) for i, kind in enumerate(kinds)]
    return pa.table(columns, names=[schema.POST_ID, schema.IMAGE_ID, schema.PRODUCT_IDS])


def clusters(**of: str) -> list[pa.Table]:
    columns = [pa.chunked_array([pa.array(list(words), pa.string())]) for words in (of, of.values())]
    rows = pa.table(columns, names=[schema.IMAGE_ID, schema.CLUSTER_ID])
    return [rows.slice(0, 1), rows.slice(1)]


@dataclass
class Found:
    """What was dealt, with all rows in order of their owners."""

    dealt: Dealt
    rows: pa.Table

    def __getattr__(self, name: str):
        return getattr(self.dealt, name)


def dealt(prods: pa.Table, some: pa.Table, same: list[pa.Table] | None = None, rules: SplitRules = ALL, keys=None) -> Found:
    keys = prods.column(schema.PRODUCT_ID) if keys is None else pa.array(keys, pa.string())
    prods = prods.append_column(PRODUCT_KEY, keys)
    products, posts = (lambda t=t: iter([t.slice(0, t.num_rows // 2), t.slice(t.num_rows // 2)]) for t in (prods, some))
    found = deal(products, posts, clusters() if same is None else same, rules)
    rows = pa.concat_tables(found.rows)
    return Found(found, rows.sort_by([(schema.OWNER_KIND, "descending"), (schema.OWNER_ID, "ascending")]))


def by_owner(found: Found) -> dict[tuple[str, str], dict]:
    return {(r[schema.OWNER_KIND], r[schema.OWNER_ID]): r for r in found.rows.to_pylist()}


def test_what_makes_a_component():
    found = dealt(
        products(("p1", "i1"), ("p2", "i2"), ("p3", "i3"), ("p4", "i4"), ("p5", "i5"), ("p6", None), ("p7", None)),
        posts(("x", "j1", ["p1", "gone"]), ("y", "i3", []), ("z", "j3", ["p5", "p5"]), ("w", "j3", [])),
        clusters(i1="i1", i2="i1"),
    )
    # a component is called by its first product, by hash
    component = {k: r[schema.COMPONENT_ID] for k, r in by_owner(found).items()}
    assert component == {
        ("product", "p1"): "product:p1",
        ("product", "p2"): "product:p1",  # shows a near-duplicate of p1's picture
        ("product", "p3"): "product:p3",
        ("product", "p4"): "product:p4",
        ("product", "p5"): "product:p5",
        ("product", "p6"): "product:p6",  # no picture connects nothing
        ("product", "p7"): "product:p7",
        ("post", "x"): "product:p1",  # tags it
        ("post", "y"): "product:p3",  # shows its picture
        ("post", "z"): "product:p5",
        ("post", "w"): "product:p5",  # shows z's photo
    }
    assert [by_owner(found)[k][schema.COMPONENT_SIZE] for k in (("product", "p1"), ("post", "y"), ("product", "p4"))] == [
        3,
        2,
        1,
    ]
    assert (found.num_components, found.num_cut, found.num_tags, found.num_lost) == (6, 0, 2, 0)
    assert all(r[schema.CUT_FROM] is None for r in found.rows.to_pylist())


def test_rows_of_one_product_are_one_row():
    found = dealt(products(("a", "i"), ("b", "j"), ("c", "k")), posts(("x", "l", ["b"])), keys=["red", "red", "blue"])
    owners = by_owner(found)
    assert set(owners) == {("product", "red"), ("product", "blue"), ("post", "x")}
    assert owners["post", "x"][schema.COMPONENT_ID] == "product:red"


def test_a_post_and_a_product_of_one_id_are_two_owners():
    found = dealt(products(("1", "i")), posts(("1", "j", [])))
    assert {r[schema.COMPONENT_ID] for r in found.rows.to_pylist()} == {"product:1", "post:1"}


def popular(num_products: int = 300, num_posts: int = 900) -> tuple[pa.Table, pa.Table]:
    """Every post wears p0 and two others: one component."""
    rng = np.random.default_rng(1)
    some = [(f"x{i}", f"j{i}", ["p0", *(f"p{k}" for k in rng.integers(1, num_products, 2))]) for i in range(num_posts)]
    return products(*((f"p{i}", f"i{i}") for i in range(num_products))), posts(*some)


def test_a_giant_component_is_cut_at_tags_alone():
    prods, some = popular()
    same = clusters(**{f"i{i}": f"i{i // 2 * 2}" for i in range(40)}, j5="j5", j6="j5", j7="i8")
    found = dealt(prods, some, same, SplitRules())
    owners = by_owner(found)
    split = {k: r[schema.SPLIT] for k, r in owners.items()}
    assert (found.num_cut, found.largest) == (1, 1200)
    assert all(split["product", f"p{i}"] == split["product", f"p{i + 1}"] for i in range(0, 40, 2))
    assert split["post", "x5"] == split["post", "x6"]
    assert split["post", "x7"] == split["product", "p9"]
    part = {owners[k][schema.COMPONENT_ID] for k in (("post", "x7"), ("product", "p8"), ("product", "p9"))}
    assert part in ({"product:p8"}, {"product:p9"})  # whichever is the first by hash
    (whole,) = {r[schema.CUT_FROM] for r in owners.values()}
    assert whole in {f"product:p{i}" for i in range(300)}
    tags = [(p["post_id"], t) for p in some.to_pylist() for t in set(p["product_ids"])]
    lost = sum(split["post", x] != split["product", p] for x, p in tags)
    assert (found.num_tags, found.num_lost) == (len(tags), lost)
    alone = [p for p in some.to_pylist() if p["post_id"] not in ("x5", "x6", "x7")]
    assert all(split["post", p["post_id"]] in {split["product", t] for t in p["product_ids"]} for p in alone)


@pytest.mark.parametrize("shares", [(0.5, 0.1, 0.4), (0.8, 0.1, 0.1)])
def test_shares_are_met_in_tags_and_few_are_lost(shares):
    """The shape of a small shop: 150 posts with about four tags each, half of the products tagged once, one component."""
    rng = np.random.default_rng(3)
    popularity = 1 / np.arange(1, 301) ** 0.9
    some = [(f"x{i}", f"j{i}", [f"p{k}" for k in rng.choice(300, 4, False, popularity / popularity.sum())]) for i in range(150)]
    found = dealt(products(*((f"p{i}", f"i{i}") for i in range(300))), posts(*some), None, SplitRules(*shares))
    assert found.num_cut == 1
    assert found.num_lost < 0.25 * found.num_tags  # by hash, each post with one of its products: .23 to .48
    assert (found.kept / found.kept.sum()).tolist() == pytest.approx(list(shares), abs=0.03)
    told = summary_of(found.dealt)
    assert (told["tags"], told["tags_lost"]) == (found.num_tags, found.num_lost)


def test_small_components_and_a_large_one_together_meet_the_shares():
    """What is dealt whole is left where its hash puts it, and the parts of the large one bring what is lacking."""
    prods, some = popular()
    small = [(f"s{i}", f"k{i}", [f"q{i}"]) for i in range(400)]
    prods = pa.concat_tables([prods, products(*((f"q{i}", f"l{i}") for i in range(400)))])
    found = dealt(prods, pa.concat_tables([some, posts(*small)]), None, SplitRules())
    apart = {k: r for k, r in by_owner(found).items() if k[1][0] in "sq"}
    assert all(r[schema.CUT_FROM] is None and r[schema.COMPONENT_SIZE] == 2 for r in apart.values())
    assert (found.kept / found.kept.sum()).tolist() == pytest.approx([0.8, 0.1, 0.1], abs=0.03)


def test_a_split_with_no_share_gets_nothing():
    prods, some = popular()
    found = dealt(prods, some, None, SplitRules(train=0.7, val=0, test=0.3))
    assert {r[schema.SPLIT] for r in found.rows.to_pylist()} == {"train", "test"}


def test_hard_links_are_never_cut():
    prods = products(*((f"p{i}", f"i{i}") for i in range(100)))
    found = dealt(prods, posts(), clusters(**{f"i{i}": "i0" for i in range(100)}), SplitRules())
    assert len({r[schema.SPLIT] for r in found.rows.to_pylist()}) == 1
    assert (found.num_cut, found.largest_whole) == (1, 100)


def test_shares_and_salt():
    prods = products(*((f"p{i}", f"i{i}") for i in range(4000)))
    rows = dealt(prods, posts()).rows
    counts = [r[schema.SPLIT] for r in rows.to_pylist()]
    assert [counts.count(s) / 4000 for s in ("train", "val", "test")] == pytest.approx([0.8, 0.1, 0.1], abs=0.02)
    assert dealt(prods, posts()).rows == rows
    assert dealt(prods, posts(), rules=SplitRules(max_component=1, salt="2")).rows != rows
    only = dealt(prods, posts(), rules=SplitRules(train=0, val=0, test=1)).rows
    assert set(only.column(schema.SPLIT).to_pylist()) == {"test"}
    assert summary_of(dealt(products(("a", "i")), posts()))["train"]["products"] in (0, 1)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0.05, 0.3, 1.0]))
def test_nothing_hard_is_ever_in_two_splits(seed, limit):
    rng = np.random.default_rng(seed)
    n, m = int(rng.integers(1, 30)), int(rng.integers(0, 40))
    images = [f"i{k}" for k in rng.integers(0, 40, n + m)]
    prods = products(*((f"p{k}", images[k]) for k in range(n)))
    some = posts(*((f"x{k}", images[n + k], [f"p{t}" for t in rng.integers(0, n + 2, 3)]) for k in range(m)))
    same = {f"i{k}": f"i{k // 3 * 3}" for k in range(30)}
    keys = [f"k{k // 2}" for k in range(n)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(splits, "_TAGS_AT_ONCE", 7)
        found = dealt(prods, some, clusters(**same), SplitRules(max_component=limit), keys)
    split = {k: r[schema.SPLIT] for k, r in by_owner(found).items()}
    assert len(split) == len(set(keys)) + m
    shown: dict[str, set[str]] = {}
    for k, image in enumerate(images):
        owner = ("product", keys[k]) if k < n else ("post", f"x{k - n}")
        shown.setdefault(same.get(image, image), set()).add(split[owner])
    assert all(len(s) == 1 for s in shown.values())
    shuffled = rng.permutation(n)
    again = dealt(
        prods.take(pa.array(shuffled)),
        some,
        clusters(**same),
        SplitRules(max_component=limit),
        [keys[k] for k in shuffled],
    )
    assert again.rows == found.rows


@pytest.mark.parametrize("options", [{"train": 0.9}, {"val": -0.1, "train": 1.0}, {"max_component": 0}, {"max_component": 2}])
def test_shares_that_are_none(options):
    with pytest.raises(UsageError, match=r"--split\."):
        check_rules(SplitRules(**options))
