"""Which hits are right answers: by attributes that are there, and by pictures, not by the product that was found."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import simplejpeg
from bs4 import BeautifulSoup

from tests.unit.table.test_sink import lineage
from w2w import schema
from w2w.errors import UsageError
from w2w.metrics.retrieval import evaluate, ndcg_at_k, nearest_class
from w2w.models.config import EncoderConfig
from w2w.models.reasons import Reasons
from w2w.search.pictures import Answers, Found, check_match, relevance, write_contact_sheet
from w2w.search.worst import worst_classes, worst_queries
from w2w.table.parts import Output
from w2w.table.sink import append_rows


def product(name: str, image: str | None = None, sku: str | None = None, category: str = "top", active: bool = True) -> dict:
    given = {"product_id": name, "category": category, "image_id": image or f"image-{name}", "active": active}
    given |= {"attributes": None if sku is None else [("sku", sku)], "fetched_at": 0, "row_digest": name}
    return {f.name: None if f.nullable else "" for f in schema.PRODUCTS.schema} | given


def query(name: str, hits: list[dict], sku: str | None = None, category: str = "top") -> dict:
    near = [
        {
            "rank": i + 1,
            "product_id": h["product_id"],
            "image_id": h["image_id"],
            "category": h["category"],
            "score": 1 - i / 99,
        }
        for i, h in enumerate(hits)
    ]
    given = {"key": name, "query_id": name, "category": category, "neighbours": near, "search_version": "v"}
    given |= {"attributes": None if sku is None else [("sku", sku)]}
    return {f.name: "" for f in schema.NEIGHBOURS.schema} | given


def parsed(page: str) -> BeautifulSoup:
    return BeautifulSoup(Path(page).read_text(encoding="utf-8"), "html.parser")


def fill(store, products: list[dict], queries: list[dict]) -> Found:
    for table, rows in ((schema.PRODUCTS, products), (schema.NEIGHBOURS, queries)):
        append_rows(str(store), Output(table), pa.Table.from_pylist(rows, schema=table.schema), lineage("1"))
    return Found(str(store), "v", pa.chunked_array([[q["key"] for q in queries]]))


def test_a_picture_of_several_products_is_a_hit_for_each_of_them(tmp_path):
    """Ten shops list one picture; each is asked for by its own sku, and the search names the first product first."""
    products = [product(f"p{i}", "shared", f"sku{i}") for i in range(10)] + [product("q", sku="sku-q")]
    found = fill(tmp_path, products, [query(f"q{i}", products, f"sku{i}") for i in range(10)])
    relevant, num_relevant, categories, _, num_without = relevance(found, ["sku"], 20)
    assert relevant[:, 0].all()
    assert relevant.sum() == 10  # once each: the picture is one answer, however often it is listed
    assert (num_relevant.tolist(), num_without) == ([1] * 10, 0)
    rows = evaluate(relevant, num_relevant, categories, (1,), np.random.default_rng(0)).to_pylist()
    assert {r["metric"]: r["value"] for r in rows if r["group"] is None} == {"recall": 1, "MRR": 1, "nDCG": 1}


def test_several_pictures_of_the_right_product_all_count(tmp_path):
    products = [product("a", sku="1"), product("b", sku="1"), product("c", sku="2"), product("d", "image-a", "1")]
    found = fill(tmp_path, products, [query("x", [products[i] for i in (3, 0, 2, 1)], "1")])
    relevant, num_relevant, *_ = relevance(found, ["sku"], 4)
    assert relevant.tolist() == [[True, False, False, True]]
    assert num_relevant.tolist() == [2]
    assert (ndcg_at_k(relevant, num_relevant, 10) <= 1).all()


def test_a_product_with_another_picture_since_the_index_was_built_is_itself(tmp_path):
    old = product("a", "before", "1")
    found = fill(tmp_path, [product("a", "after", "1"), product("gone", "before", "2", active=False)], [query("x", [old], "1")])
    assert relevance(found, ["sku"], 1)[0].all()


@pytest.mark.parametrize("nothing", [None, "", "  "])
def test_what_is_not_said_is_like_nothing(tmp_path, nothing):
    products = [product("a", sku=nothing), product("b", sku="1")]
    found = fill(tmp_path, products, [query("x", products, nothing), query("y", products, "1"), query("z", products, "9")])
    relevant, num_relevant, _, _, num_without = relevance(found, ["sku"], 2)
    assert relevant.tolist() == [[False, False], [False, True], [False, False]]
    assert (num_relevant.tolist(), num_without) == ([0, 1, 0], 1)
    both = relevance(found, ["sku", "category"], 2)
    assert (both[0].tolist(), both[4]) == (relevant.tolist(), 1)
    # the page frames no product of a query of which nothing is known
    page = write_contact_sheet(found, str(tmp_path / "page.html"), lambda wanted: {}, 9, {}, ["sku"])
    assert len(parsed(page).select(".query .mark")) == 1
    answers = Answers(pa.Table.from_pylist(products, schema=schema.PRODUCTS.schema), ["sku"])
    assert not answers.right({"product_id": "a", "image_id": "image-a"}, None)


def test_a_query_whose_right_product_is_not_among_the_hits_is_a_miss_on_the_page_too(tmp_path):
    products = [product("a", sku="1"), product("b", sku="2"), product("gone", sku="3", active=False)]
    asked = [query("hit", products[:1], "1"), query("miss", products[:1], "2"), query("none", [], "2")]
    found = fill(tmp_path, products, [*asked, query("unanswered", products[:1], "3")])
    page = write_contact_sheet(found, str(tmp_path / "page.html"), lambda wanted: {}, 9, {}, ["sku"])
    text = Path(page).read_text(encoding="utf-8")
    assert (relevance(found, ["sku"], 1)[1] > 0).sum() == 3
    assert "<b>1 / 3</b>" in text
    assert text.count('data-miss="1"') == 2
    assert "Not counted: 1 of the shown queries" in text


def test_near_duplicates_are_one_card_and_one_of_them_may_be_the_right_answer(tmp_path):
    products = [product("a", "one", "2"), product("b", "one", "2"), product("c", "two", "1"), product("d", "three", "3")]
    found = fill(tmp_path, products, [query("x", products, "1")])
    rows = [{"image_id": i, "cluster_id": "one", "cluster_size": 2} for i in ("one", "two")]
    append_rows(str(tmp_path), Output(schema.DUPLICATES), pa.Table.from_pylist(rows, schema.DUPLICATES.schema), lineage("1"))
    cards = parsed(write_contact_sheet(found, str(tmp_path / "page.html"), lambda wanted: {}, 9, {}, ["sku"])).select(
        ".product"
    )
    assert [("sought" in c["class"], "2 more with this picture" in c.get_text()) for c in cards] == [
        (True, True),
        (False, False),
    ]


def test_the_page_says_why_the_nearest_look_like_a_query(tmp_path):
    rng = np.random.default_rng(0)
    encoded = [simplejpeg.encode_jpeg(rng.integers(0, 255, (40, 40, 3), np.uint8)) for _ in "abc"]
    products = [product(name) for name in "ab"]
    found = fill(tmp_path, products, [query("x", products), query("blank", products)])
    rows = [{f.name: "" for f in schema.IMAGES.schema} | {"width": 40, "height": 40, "phash": 0, "fetched_at": 0} for _ in "ab"]
    rows = [row | {"image_id": p["image_id"], "bytes": data} for row, p, data in zip(rows, products, encoded)]
    append_rows(str(tmp_path), Output(schema.IMAGES), pa.Table.from_pylist(rows, schema.IMAGES.schema), lineage("1"))
    told = (9, {}, [], 1, Reasons(EncoderConfig()))
    page = parsed(write_contact_sheet(found, str(tmp_path / "page.html"), lambda wanted: {"x": encoded[2]}, *told))
    (why,) = page.select("details.why")  # what cannot be read is not explained
    assert why.find_parent("section").select_one(".id")["title"] == "x"
    assert [i["alt"] for i in why.select("img")] == ["what matters in the query", "what matters in a"]
    asked = [Reasons(EncoderConfig()), [encoded[0], b"none", None, encoded[1]], list("abcd")]
    assert [r.title for r in asked[0](encoded[2], *asked[1:])] == ["a", "d"]
    assert asked[0](b"none", *asked[1:]) == []


def test_without_named_attributes_the_class_is_counted_and_nothing_is_marked(tmp_path):
    products = [product("a"), product("b")]
    found = fill(tmp_path, products, [query("x", products)])
    soup = parsed(write_contact_sheet(found, str(tmp_path / "page.html"), lambda wanted: {}, 9, {}, []))
    assert "1 / 1" in soup.select_one(".tiles").get_text()
    assert soup.select(".mark, .sought") == []


def test_colours_of_a_design_are_one_card_unless_one_of_them_may_be_the_right_answer(tmp_path):
    products = [product("a"), product("b")]
    for row, colour in zip(products, ("Red", "Blue")):
        row |= {"title": f"Fjord Linen Shirt {colour}", "brand": "Fjord", "attributes": [("sku", colour), ("colour", colour)]}
    found = fill(tmp_path, products, [query("x", products, "Blue")])
    cards = parsed(write_contact_sheet(found, str(tmp_path / "page.html"), lambda wanted: {}, 9, {}, [])).select(".product")
    assert [card.select_one("summary").get_text() for card in cards] == ["2 colours"]
    cards = parsed(write_contact_sheet(found, str(tmp_path / "page.html"), lambda wanted: {}, 9, {}, ["sku"])).select(
        ".product"
    )
    assert [bool(card.select(".mark")) for card in cards] == [False, True]


def test_the_worst_queries_are_the_latest_found_then_the_surest_and_show_what_was_sought(tmp_path):
    products = [product(c, sku=c) for c in "abcd"] + [product("gone", sku="e", active=False)]
    a, b, c = products[:3]
    lists = {"right": [a, b], "third": [b, c, a], "second": [b, a], "never": [b, c], "unanswered": [a], "empty": []}
    skus = {"never": "d", "unanswered": "e", "empty": "d"}
    found = fill(tmp_path, products, [query(name, hits, skus.get(name, "a")) for name, hits in lists.items()])
    relevant, num_relevant, *_ = relevance(found, ["sku"], 3)
    shown = worst_queries(found, ["sku"], relevant, num_relevant, lambda wanted: {}, 9)
    assert [f.query_id for f in shown] == ["never", "empty", "third", "second"]
    assert [f.said for f in shown] == ["not among the first 3"] * 2 + ["found at rank 3", "found at rank 2"]
    assert [(h.product_id, h.mark) for h in shown[2].hits] == [("a", "sought"), ("b", ""), ("c", ""), ("a", "right answer")]
    assert [len(f.hits) for f in shown] == [3, 1, 4, 3]
    assert len(worst_queries(found, ["sku"], relevant, num_relevant, lambda wanted: {}, 1)) == 1
    assert worst_queries(found, ["sku"], relevant, num_relevant * 0, lambda wanted: {}) == []


def test_the_worst_classes_are_the_surest_mistakes_and_show_what_was_found(tmp_path):
    products = [product("a"), product("b", category="shoes"), product("c", category="shoes"), product("d", category="hat")]
    a, b, c = products[:3]
    near = {"x": query("x", [b, a, c]), "sure": query("sure", [c, b, a]), "right": query("right", [a, b]), "not sold": None}
    near["not sold"] = query("not sold", [b], category="bag")
    near["sure"]["neighbours"][0]["score"] = 1.5
    found = fill(tmp_path, products, [*near.values(), query("none", [])])
    relevant, num_relevant, _, classes, _ = relevance(found, ["category"], 3)
    predicted = nearest_class(classes, 1)
    shown = worst_classes(found, predicted, relevant, num_relevant, lambda wanted: {})
    assert [(f.query_id, f.said) for f in shown] == [
        ("sure", "taken for shoes"),
        ("x", "taken for shoes"),
        ("none", "taken for nothing"),
    ]
    assert [(h.product_id, h.mark) for h in shown[1].hits] == [("b", ""), ("a", "right answer"), ("c", "")]
    assert [f.query_id for f in worst_classes(found, predicted, relevant, num_relevant, lambda wanted: {}, 1)] == ["sure"]


def test_where_nothing_is_said_at_all_it_is_a_mistake(tmp_path):
    found = fill(tmp_path, [product("a", sku="1"), product("b")], [query("x", [product("a")]), query("y", [], "")])
    with pytest.raises(UsageError, match="no query has an attribute 'sku'"):
        relevance(found, ["sku"], 1)
    check_match(str(tmp_path), ["sku"])
    for names, said in ((["colour"], "'colour'"), (["sku", "colour"], "'colour'")):
        with pytest.raises(UsageError, match=f"no product has an attribute {said}"):
            check_match(str(tmp_path), names)


def test_values_that_look_alike_when_joined_differ():
    rows = [product("a"), product("b")]
    rows[0]["attributes"], rows[1]["attributes"] = [("x", "1\x1f2"), ("y", "3")], [("x", "1"), ("y", "2\x1f3")]
    answers = Answers(pa.Table.from_pylist(rows, schema=schema.PRODUCTS.schema), ["x", "y"])
    hit = {"product_id": "a", "image_id": "image-a"}
    assert answers.right(hit, ("1\x1f2", "3"))
    assert not answers.right(hit, ("1", "2\x1f3"))
