"""Every tag becomes the right pair or the right reject, whatever the order of the rows and the buckets they came in."""

import dataclasses

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.gallery import stores
from w2w import schema
from w2w.errors import UsageError
from w2w.mining.pairs import flow, gate
from w2w.mining.pairs.gate import Sample, compare_at
from w2w.mining.pairs.rules import (
    COSINE,
    LIKENESS,
    SHARE,
    Limits,
    PairRules,
    boxes_of,
    claims_of,
    edges_of,
    matches_by_rule,
    matches_by_similarity,
    pair_id,
    pairs_of,
    products_of,
    sample_of,
    with_judgements,
)
from w2w.mining.tags import CATALOG_SCHEMA, newest_posts, tags_of

SPLIT_OF_P = pa.table({schema.POST_ID: ["p"], schema.SPLIT: ["train"]})
SEEN_A = pa.table({schema.IMAGE_ID: ["a"]})
NOTHING_TAGGED = pl.DataFrame(schema={"photo": pl.String, "category": pl.String, "num_products": pl.UInt32})
LIMITS = Limits(max_share=0.25, margin=0.05, least_similarity=-1.0, singles=False)


def catalog(*rows: tuple) -> pa.Table:
    """product_id, category and what differs from a product that can be mined."""
    full = []
    for product_id, category, *others in rows:
        row = [product_id, product_id, category, "a word", f"image-{product_id}", 300, "train"]
        for name, value in (others[0] if others else {}).items():
            row[CATALOG_SCHEMA.names.index(name)] = value
        full.append(row)
    return pa.table([list(c) for c in zip(*full)], schema=CATALOG_SCHEMA)


def posts(*rows: tuple[str, str, list[str]]) -> pa.Table:
    ids, photos, tagged = zip(*rows)
    urls = [f"https://shop.example/{i}" for i in ids]
    names = [schema.POST_ID, schema.URL, schema.IMAGE_ID, schema.PRODUCT_IDS]
    return pa.table([list(ids), urls, list(photos), pa.array(list(tagged), pa.list_(pa.string()))], names=names)


def garments(*rows: tuple) -> pa.Table:
    """garment_id, photo, category, score and, where it matters, the box; others lie far from each other."""
    full = [(*r, [100.0 * i, 0, 100.0 * i + 50, 50]) if len(r) == 4 else r for i, r in enumerate(rows)]
    fields = [schema.GARMENTS.schema.field(c) for c in ("garment_id", "image_id", "category", "score", "box_xyxy")]
    return pa.table([list(c) for c in zip(*full)] or [[]] * 5, schema=pa.schema(fields))


def mined(
    tagged: pa.Table, found: pa.Table, known: pa.Table, rules=PairRules(), splits=None, seen=None, alike=None, limits=LIMITS
):
    """(pairs, rejects, tags read). ``alike``: (garment, product) -> likeness, for a gate; what is not named is 0."""
    splits = splits or dict.fromkeys(tagged.column(schema.POST_ID).to_pylist(), "train")
    splits = pa.table([list(splits), list(splits.values())], names=[schema.POST_ID, schema.SPLIT])
    seen = pa.table([tagged.column(schema.IMAGE_ID) if seen is None else pa.array(seen, pa.string())], names=[schema.IMAGE_ID])
    tags = tags_of(tagged, known, splits, seen, rules.thumbnail_px)
    tagged = products_of(tags)
    boxes = boxes_of(found, tagged, rules)
    claims = claims_of(tagged, boxes)
    if alike is None:
        return pairs_of(tags, matches_by_rule(claims, boxes, rules))
    edges = edges_of(claims, boxes, limits.singles)
    ids = zip(edges["garment_id"].to_list(), edges["product_key"].to_list())
    likeness = pl.Series(LIKENESS, [alike.get(i, 0.0) for i in ids], dtype=pl.Float32)
    edges = edges.with_columns(
        likeness, likeness.alias(COSINE), pl.Series(SHARE, [1 - v if v is not None else None for v in likeness])
    )
    return pairs_of(tags, matches_by_similarity(claims, boxes, edges, limits))


def outcome(result) -> dict[str, str]:
    """post|product -> the garment, or the reject's code."""
    pairs, rejects, read = result
    found = {f"{p['post_id']}|{p['product_id']}": p["garment_id"] for p in pairs.to_pylist()}
    refused = {r["key"]: r["code"] for r in rejects.to_pylist()}
    assert read == len(found) + len(refused) == pairs.num_rows + rejects.num_rows
    return found | refused


TOP, SHOE, OTHER = ("t", "top"), ("s", "shoes"), ("t2", "top")


def test_a_pair_says_where_it_comes_from():
    pairs, rejects, read = mined(posts(("p1", "photo", ["t"])), garments(("g", "photo", "top", 0.5)), catalog(TOP))
    assert (read, rejects.num_rows) == (1, 0)
    assert pairs.schema == schema.PAIRS.schema
    assert pairs.to_pylist() == [
        {
            "pair_id": pair_id("g", "t"),
            "garment_id": "g",
            "anchor_image_id": "photo",
            "post_id": "p1",
            "product_id": "t",
            "image_id": "image-t",
            "category": "top",
            "score": 0.5,
            "similarity": None,
            "rule": "single",
            "split": "train",
            "source": "own",
        }
    ]


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"category": None}, "no_category"),
        ({"image_id": None, "side_px": None}, "no_photo"),
        ({"side_px": 199}, "too_small"),
        ({"side_px": 200}, "g"),
        ({"split": None}, "no_split"),
        ({"split": "test"}, "crosses_split"),
        ({"split": "test", "side_px": 199}, "too_small"),
    ],
)
def test_a_product_that_can_be_no_pair(changed, code):
    found = mined(posts(("p", "photo", ["t"])), garments(("g", "photo", "top", 0.5)), catalog(("t", "top", changed)))
    assert outcome(found) == {"p|t": code}
    for reject in found[1].to_pylist():
        assert reject["source"] == "https://shop.example/p"
        assert len(reject["detail"]) > 15


def test_tags_without_product_garment_or_detection():
    known, found = catalog(TOP, SHOE), garments(("g", "a", "top", 0.5), ("h", "b", "top", 0.5))
    tagged = posts(("p", "a", ["t", "s", "gone"]), ("q", "b", ["t"]))
    got = mined(tagged, found, known, seen=["a"])
    assert outcome(got) == {"p|t": "g", "p|s": "not_detected", "p|gone": "unknown_product", "q|t": "not_detected"}
    sentences = {r["key"]: r["detail"] for r in got[1].to_pylist()}
    assert sentences["p|s"] == "no shoes was found in the photo"
    assert "has not seen the photo" in sentences["q|t"]
    assert outcome(mined(posts(("p", "a", ["t"])), found, known, splits={"q": "train"})) == {"p|t": "no_split"}


def test_the_best_box_of_a_class_that_counts():
    found = garments(("worse", "a", "shoes", 0.3), ("best", "a", "shoes", 0.6), ("low", "b", "shoes", 0.49))
    tagged = posts(("p", "a", ["s"]), ("q", "b", ["s"]))
    assert outcome(mined(tagged, found, catalog(SHOE))) == {"p|s": "best", "q|s": "low"}
    assert outcome(mined(tagged, found, catalog(SHOE), PairRules(least_score=0.49))) == {"p|s": "best", "q|s": "low"}
    assert outcome(mined(tagged, found, catalog(SHOE), PairRules(least_score=0.5)))["q|s"] == "not_detected"


@pytest.mark.parametrize(("height", "gone"), [(75, False), (76, True)])
def test_of_two_boxes_that_overlap_the_worse_goes_whatever_its_class(height, gone):
    """IoU .75 stays, .76 goes: the limit itself is allowed."""
    found = garments(("coat", "a", "outer", 0.9, [0, 0, 10, 100]), ("g", "a", "top", 0.5, [0, 0, 10, height]))
    far = garments(("x", "b", "top", 0.4, [0, 0, 10, 100]))
    got = mined(posts(("p", "a", ["t"]), ("q", "b", ["t"])), pa.concat_tables([found, far]), catalog(TOP))
    assert outcome(got) == {"p|t": "not_detected" if gone else "g", "q|t": "x"}


def test_per_class_a_coat_hides_no_top():
    found = garments(
        *(("coat", "a", "outer", 0.9, [0, 0, 10, 100]), ("g", "a", "top", 0.5, [0, 0, 10, 100])),
        ("twin", "a", "top", 0.4, [0, 0, 10, 99]),
    )
    got = mined(posts(("p", "a", ["t"])), found, catalog(TOP), PairRules(nms_per_class=True))
    assert outcome(got) == {"p|t": "g"}


def test_an_unsure_garment_counts_where_a_tag_names_it():
    """The photo's unsure top is the tagged one; its unsure shoes, which nobody tags, and a second top beside a sure one are
    not there."""
    rules = PairRules(sure_score=0.3)
    unsure = garments(("g", "a", "top", 0.2), ("h", "a", "top", 0.15), ("s", "a", "shoes", 0.29))
    assert outcome(mined(posts(("p", "a", ["t"])), unsure, catalog(TOP), rules)) == {"p|t": "g"}
    tagged = products_of(tags_of(posts(("p", "a", ["t"])), catalog(TOP), SPLIT_OF_P, SEEN_A, 200))
    assert boxes_of(unsure, tagged, rules)["garment_id"].to_list() == ["g"]
    both = garments(("g", "a", "top", 0.3), ("h", "a", "top", 0.29))
    assert boxes_of(both, tagged, rules)["garment_id"].to_list() == ["g"]
    assert boxes_of(both, tagged, PairRules())["num_boxes"].to_list() == [2, 2]


def test_suppression_is_greedy():
    """The middle box goes by the best one, so that the third, which only the middle one overlaps, stays."""
    boxes = [("a", 0.9, 0), ("b", 0.8, 10), ("c", 0.7, 20)]
    rows = garments(*((n, "p", "top", s, [x, 0, x + 100, 100]) for n, s, x in boxes))
    found = boxes_of(rows, NOTHING_TAGGED, PairRules(max_iou=0.7))
    assert found["garment_id"].to_list() == ["a", "c"]
    assert found["num_boxes"].to_list() == [2, 2]


def test_too_many_of_a_class_make_the_photo_doubtful():
    pair = [("s1", "a", "shoes", 0.5), ("s2", "a", "shoes", 0.4), ("g", "a", "top", 0.5)]
    tagged, known = posts(("p", "a", ["t", "s"])), catalog(TOP, SHOE)
    assert outcome(mined(tagged, garments(*pair), known)) == {"p|t": "g", "p|s": "s1"}
    third = garments(*pair, ("s3", "a", "shoes", 0.3))
    got = mined(tagged, third, known)
    assert outcome(got) == {"p|t": "ambiguous", "p|s": "ambiguous"}
    assert "3 of class shoes" in {r["key"]: r["detail"] for r in got[1].to_pylist()}["p|t"]
    assert outcome(mined(tagged, third, known, PairRules(whole_post=False))) == {"p|t": "g", "p|s": "ambiguous"}


def test_two_tags_of_a_class_are_ambiguous_even_where_one_can_be_no_pair():
    found = garments(("g", "a", "top", 0.5))
    tagged = posts(("p", "a", ["t", "t2"]))
    assert outcome(mined(tagged, found, catalog(TOP, OTHER))) == {"p|t": "ambiguous", "p|t2": "ambiguous"}
    small = catalog(TOP, ("t2", "top", {"side_px": 50}))
    assert outcome(mined(tagged, found, small)) == {"p|t": "ambiguous", "p|t2": "too_small"}


def test_rows_of_one_product_are_one_tag():
    views = [
        ("t-front", "top", {"product_key": "t", "image_id": "i"}),
        ("t-back", "top", {"product_key": "t", "image_id": "i"}),
    ]
    got = mined(posts(("p", "a", ["t-front", "t-back"])), garments(("g", "a", "top", 0.5)), catalog(*views))
    assert outcome(got) == {"p|t": "g"}


def test_a_photo_in_two_posts_gives_a_pair_once():
    found, tagged = garments(("g", "a", "top", 0.5)), posts(("q", "a", ["t"]), ("p", "a", ["t"]))
    got = mined(tagged, found, catalog(TOP))
    assert outcome(got) == {"p|t": "g", "q|t": "repeated"}
    assert "post p" in got[1].to_pylist()[0]["detail"]
    # the first post can be no pair: the second gives it
    assert outcome(mined(tagged, found, catalog(TOP), splits={"p": "test", "q": "train"})) == {
        "p|t": "crosses_split",
        "q|t": "g",
    }
    # two posts that say different things about one photo
    differ = posts(("p", "a", ["t"]), ("q", "a", ["t2"]))
    assert outcome(mined(differ, found, catalog(TOP, OTHER))) == {"p|t": "ambiguous", "q|t2": "ambiguous"}


TWO = garments(("g1", "a", "top", 0.9), ("g2", "a", "top", 0.8))


def test_similarity_tells_two_of_a_class_apart():
    alike = {("g1", "t"): 0.2, ("g2", "t"): 0.9, ("g1", "t2"): 0.8, ("g2", "t2"): 0.3}
    got = mined(posts(("p", "a", ["t", "t2"])), TWO, catalog(TOP, OTHER), alike=alike)
    assert outcome(got) == {"p|t": "g2", "p|t2": "g1"}
    assert {p["rule"] for p in got[0].to_pylist()} == {"similarity"}
    assert [p["similarity"] for p in got[0].to_pylist()] == pytest.approx([0.9, 0.8])


@pytest.mark.parametrize(
    ("alike", "expected"),
    [
        ({("g1", "t"): 0.9, ("g2", "t"): 0.84}, "g1"),
        ({("g1", "t"): 0.9, ("g2", "t"): 0.86}, "ambiguous"),  # under the margin of .05
        ({("g1", "t"): 0.74, ("g2", "t"): 0.1}, "dissimilar"),  # share .26
        ({("g1", "t"): None, ("g2", "t"): 0.9}, "g2"),
        ({("g1", "t"): None, ("g2", "t"): None}, "no_vector"),
    ],
)
def test_similarity_must_be_clear(alike, expected):
    assert outcome(mined(posts(("p", "a", ["t"])), TWO, catalog(TOP), alike=alike)) == {"p|t": expected}


def test_similarity_must_be_mutual():
    one = garments(("g1", "a", "top", 0.9))
    alike = {("g1", "t"): 0.8, ("g1", "t2"): 0.9}
    tagged = posts(("p", "a", ["t", "t2"]))
    got = mined(tagged, one, catalog(TOP, OTHER), alike=alike)
    assert outcome(got) == {"p|t": "ambiguous", "p|t2": "g1"}
    assert "product t2" in got[1].to_pylist()[0]["detail"]
    near = mined(tagged, one, catalog(TOP, OTHER), alike={("g1", "t"): 0.88, ("g1", "t2"): 0.9})
    assert outcome(near) == {"p|t": "ambiguous", "p|t2": "ambiguous"}
    # a rival that can be no pair itself still takes its garment
    small = catalog(TOP, ("t2", "top", {"side_px": 50}))
    assert outcome(mined(tagged, one, small, alike=alike)) == {"p|t": "ambiguous", "p|t2": "too_small"}


def test_both_shoes_are_no_rivals_and_a_third_is():
    alike = {("s1", "s"): 0.9, ("s2", "s"): 0.89, ("s3", "s"): 0.2}
    rows = [(n, "a", "shoes", 0.9 - i / 10) for i, n in enumerate(("s1", "s2", "s3"))]
    tagged, known = posts(("p", "a", ["s"])), catalog(SHOE)
    assert outcome(mined(tagged, garments(*rows[:2]), known, alike=alike)) == {"p|s": "s1"}
    assert outcome(mined(tagged, garments(*rows), known, alike=alike)) == {"p|s": "s1"}
    assert outcome(mined(tagged, garments(*rows), known, alike=alike | {("s3", "s"): 0.88})) == {"p|s": "ambiguous"}


def test_single_matches_are_gated_where_asked():
    tagged, one, alike = posts(("p", "a", ["t"])), garments(("g", "a", "top", 0.9)), {("g", "t"): 0.1}
    got = mined(tagged, one, catalog(TOP), alike=alike)
    assert outcome(got) == {"p|t": "g"}
    assert got[0].column("similarity").to_pylist() == [None]
    strict = dataclasses.replace(LIMITS, singles=True)
    got = mined(tagged, one, catalog(TOP), alike=alike, limits=strict)
    assert outcome(got) == {"p|t": "dissimilar"}
    assert "90 % of other products of class top" in got[1].to_pylist()[0]["detail"]
    assert outcome(mined(tagged, one, catalog(TOP), alike={("g", "t"): 0.8}, limits=strict)) == {"p|t": "g"}
    cosine = dataclasses.replace(strict, least_similarity=0.85)
    assert outcome(mined(tagged, one, catalog(TOP), alike={("g", "t"): 0.8}, limits=cosine)) == {"p|t": "dissimilar"}


CATEGORIES = ("top", "shoes", "bag")


@st.composite
def worlds(draw):
    products = [
        (f"c{i}", draw(st.sampled_from([*CATEGORIES, None])), {"side_px": draw(st.sampled_from([100, 300])),
         "split": draw(st.sampled_from(["train", "test"]))})
        for i in range(6)
    ]  # fmt: skip
    tagged = [
        (f"p{i}", f"photo{draw(st.integers(0, 3))}", draw(st.lists(st.sampled_from([f"c{j}" for j in range(7)]), max_size=4)))
        for i in range(5)
    ]
    found = [
        (f"g{i}", f"photo{draw(st.integers(0, 3))}", draw(st.sampled_from(CATEGORIES)), draw(st.sampled_from([0.3, 0.5, 0.9])),
         [float(draw(st.integers(0, 3))), 0.0, 10.0, 10.0])
        for i in range(draw(st.integers(0, 9)))
    ]  # fmt: skip
    alike = {(f"g{i}", f"c{j}"): draw(st.sampled_from([0.1, 0.8, 0.9, None])) for i in range(9) for j in range(6)}
    return products, tagged, found, draw(st.sampled_from([None, alike])), draw(st.randoms(use_true_random=False))


@given(worlds())
@settings(max_examples=60, deadline=None)
def test_every_tag_ends_once_whatever_the_order_and_the_buckets(world):
    products, tagged, found, alike, random = world
    known = catalog(*products)
    whole = mined(posts(*tagged), garments(*found), known, alike=alike)
    expected = outcome(whole)
    wanted = {f"{p}|{t}" for p, _, tags in tagged for t in tags}
    assert set(expected) == wanted
    ids = whole[0].column("pair_id").to_pylist()
    assert len(set(ids)) == len(ids)
    shuffled_posts, shuffled = random.sample(tagged, len(tagged)), random.sample(found, len(found))
    assert outcome(mined(posts(*shuffled_posts), garments(*shuffled), known, alike=alike)) == expected
    by_photo: dict[str, str] = {}
    for photo in {p[1] for p in tagged}:
        some = posts(*(p for p in tagged if p[1] == photo))
        by_photo |= outcome(mined(some, garments(*(g for g in found if g[1] == photo)), known, alike=alike))
    assert by_photo == expected


def test_only_the_newest_row_of_an_active_post():
    rows = [("p", 1, True), ("p", 2, True), ("q", 1, True), ("q", 2, False), ("r", 1, True)]
    names = [schema.POST_ID, schema.FETCHED_AT, schema.ACTIVE]
    table = pa.table([list(c) for c in zip(*rows)], names=names).set_column(
        1, names[1], pa.array([r[1] for r in rows], schema.TIME)
    )
    old = table.take(pa.array([0, 2])).select(names[:2])
    assert newest_posts(table, old).select(names[:1]).to_pydict() == {schema.POST_ID: ["p", "r"]}


def unit(vectors) -> np.ndarray:
    vectors = np.asarray(vectors, np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_likeness_forgets_what_all_garments_share():
    """Garments are products plus one large common direction; after centring the right product is nearest again."""
    rng = np.random.default_rng(0)
    products = unit(rng.normal(size=(60, 16)))
    garments_ = unit(products + 3 * np.eye(16)[0] + 0.2 * rng.normal(size=(60, 16)))
    both = np.concatenate([garments_, products])
    of, at = np.arange(60), np.arange(60) + 60
    cosine, likeness, share = compare_at(both, of, at, np.array(["top"] * 60), {"top": Sample(garments_, products)})
    assert cosine == pytest.approx(np.sum(garments_ * products, axis=1), abs=1e-5)
    assert (likeness > cosine).mean() > 0.95
    assert (share == 0).mean() > 0.95
    _, _, wrong = compare_at(both, of, np.roll(at, 7), np.array(["top"] * 60), {"top": Sample(garments_, products)})
    assert 0.35 < wrong.mean() < 0.65


def test_share_counts_what_is_more_alike_and_small_samples_are_not_centred(monkeypatch):
    products = unit([[1, 0], [0.8, 0.6], [0, 1]])
    both = np.concatenate([unit([[1, 0.1]]), products])
    sample = {"bag": Sample(both[:1], products)}
    cosine, likeness, share = compare_at(both, np.zeros(3, int), np.array([1, 2, 3]), np.array(["bag"] * 3), sample)
    assert likeness == pytest.approx(cosine)
    assert share == pytest.approx([0, 1 / 3, 2 / 3])
    monkeypatch.setattr(gate, "_AT_ONCE", 2)
    again = compare_at(both, np.zeros(3, int), np.array([1, 2, 3]), np.array(["bag"] * 3), sample)
    assert again[2] == pytest.approx(share)


def test_a_sample_does_not_depend_on_buckets():
    edges = pl.DataFrame({"category": ["top"] * 5 + ["bag"], "garment_id": list("abcdef")})
    hashes = [5, 4, 3, 2, 1, 9]
    whole = sample_of(edges, hashes, 2)
    parts = pl.concat([sample_of(edges[:3], hashes[:3], 2), sample_of(edges[3:], hashes[3:], 2)])
    merged = parts.sort("hash").group_by("category", maintain_order=True).head(2)
    assert sorted(merged["garment_id"].to_list()) == sorted(whole["garment_id"].to_list()) == ["d", "e", "f"]


@pytest.mark.parametrize("options", [{"least_score": 1.1}, {"max_iou": -0.1}, {"thumbnail_px": 0}])
def test_wrong_rules_are_named(options):
    with pytest.raises(UsageError, match=f"rules.{next(iter(options))}="):
        PairRules(**options)


def judged_pairs(said: list[tuple], tags: list[str], found: list[tuple], **changes):
    """The pairs and rejects of one photo after what was said of its garments: (garment, product or None, verdict)."""
    known = catalog(*((p, "top") for p in "xyz"), ("s", "shoes"))
    tagged = posts(("p", "a", tags))
    tags_ = tags_of(tagged, known, SPLIT_OF_P, SEEN_A, 200)
    products = products_of(tags_)
    boxes = boxes_of(garments(*found), products, PairRules())
    claims = matches_by_rule(claims_of(products, boxes), boxes, PairRules(whole_post=False))
    columns = [
        pl.Series(n, c, dtype=pl.String)
        for n, c in zip(("garment_id", "verdict", "product_key"), zip(*((g, v, p) for g, p, v in said)))
    ]
    pairs, rejects, _ = pairs_of(tags_, with_judgements(claims, boxes, pl.DataFrame(columns)))
    made = {(r["garment_id"], r["product_id"]): r["rule"] for r in pairs.to_pylist()}
    return made, {r["key"].rpartition("|")[2]: (r["code"], r["detail"]) for r in rejects.to_pylist()}


TWO_TOPS = [("g1", "a", "top", 0.9), ("g2", "a", "top", 0.8)]


def test_a_judgement_decides_what_rules_leave_open():
    assert judged_pairs([("g9", "x", "same")], ["x", "y"], TWO_TOPS)[0] == {}  # of another photo's garment: two tops, two tags
    made, rejects = judged_pairs([("g2", "x", "same")], ["x", "y"], TWO_TOPS)
    assert made == {("g2", "x"): "judged"}
    assert rejects["y"][0] == "ambiguous"  # which is not said
    made, _ = judged_pairs([("g2", "x", "same"), ("g1", "y", "same")], ["x", "y"], TWO_TOPS)
    assert made == {("g2", "x"): "judged", ("g1", "y"): "judged"}


def test_a_garment_that_is_only_similar_or_not_ours_is_no_pair():
    one = [("g1", "a", "top", 0.9)]
    assert judged_pairs([("g1", "y", "similar")], ["x"], one)[0] == {("g1", "x"): "single"}  # said of another product
    assert judged_pairs([("g1", "x", "similar")], ["x"], one) == (
        {},
        {"x": ("judged_other", "judged: the garment is only similar to the product")},
    )
    assert judged_pairs([("g1", None, "not_ours")], ["x"], one)[1]["x"][0] == "judged_other"
    assert judged_pairs([("g1", "z", "same")], ["x"], one)[1]["x"] == ("judged_other", "judged: the garment is another product")
    assert judged_pairs([("g1", "z", "same"), ("g1", "x", "same")], ["x"], one)[0] == {("g1", "x"): "judged"}


def test_what_a_judgement_cannot_mend_stays_a_reject():
    made, rejects = judged_pairs([("g1", "s", "same")], ["gone", "x"], [("g1", "a", "top", 0.9)])
    assert (made, rejects["gone"][0], rejects["x"][0]) == ({}, "unknown_product", "judged_other")


def test_a_bucket_is_told_what_was_said_of_its_garments(tmp_path, monkeypatch):
    """From the table of judgements to the pairs of a bucket; products are judged by the feed's ids, and paired by mining's."""
    stores.append(
        str(tmp_path),
        schema.JUDGEMENTS,
        [
            {
                "key": str(n),
                "kind": kind,
                "query_id": garment,
                "product_id": product,
                "verdict": verdict,
                "judged_at": stores.NOW,
            }
            for n, (kind, garment, product, verdict) in enumerate(
                [("garments", "g2", "x", "same"), ("garments", "g1", None, "not_ours"), ("feed", "g2", "y", "same")]
            )
        ],
    )
    known = catalog(("x", "top", {"product_key": "style-1"}), ("y", "top", {"product_key": "style-2"}))
    nothing = pa.table({schema.POST_ID: pa.array([], pa.string()), schema.FETCHED_AT: pa.array([], schema.TIME)})
    told = flow.Known(known, SPLIT_OF_P, nothing, flow._said(str(tmp_path)))
    monkeypatch.setattr(flow, "shared", lambda one: one)
    tagged = posts(("p", "a", ["x", "y"])).append_column(schema.ACTIVE, pa.array([True]))
    tagged = tagged.append_column(schema.FETCHED_AT, pa.array([stores.NOW], schema.TIME))
    made = flow._by_rule([tagged, garments(*TWO_TOPS), SEEN_A], told, PairRules())
    assert [(r["garment_id"], r["product_id"], r["rule"]) for r in made.rows.to_pylist()] == [("g2", "style-1", "judged")]
    assert len(made.rejected) == 1
