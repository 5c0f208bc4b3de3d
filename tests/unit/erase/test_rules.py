"""What erasing leaves of a row; and that every column of every table says what it may hold."""

import json
import zlib

import numpy as np
import pyarrow as pa
import pytest

from w2w import schema
from w2w.crawl.records import record_without
from w2w.erase.rules import COLUMNS, ENTRIES, SHARED, WHOLE, Kind, Marks, json_without, leaves, left, named_in, rewritten

PICTURE, OTHER = "a" * 64, "b" * 64
MARKS = Marks(
    frozenset({"hat-001", "7"}), frozenset({"post-9"}), frozenset({PICTURE, "pair-1"}), frozenset({"https://s.example/hat"})
)


def texts(name: str, kind: pa.DataType) -> set[str]:
    """Names of the columns that hold text or bytes, however deep."""
    if pa.types.is_list(kind):
        return texts(name, kind.value_type)
    if pa.types.is_struct(kind):
        return set().union(*(texts(f.name, f.type) for f in kind))
    return {name} if pa.types.is_map(kind) or pa.types.is_string(kind) or pa.types.is_binary(kind) else set()


@pytest.mark.parametrize("table", schema.TABLES.values(), ids=lambda table: table.name)
def test_every_table_states_how_it_is_erased(table):
    """A new column of text or bytes needs a line in rules.COLUMNS: which kind of ids it may hold, or none."""
    unknown = set().union(*(texts(f.name, f.type) for f in table.schema)) - set(COLUMNS)
    assert not unknown, f"w2w/erase/rules.py, COLUMNS: what may these hold of an erased product, post or picture? {unknown}"
    named = {kind for f in table.schema for n in texts(f.name, f.type) for kind in [COLUMNS[n]]} - {Kind.DATA, Kind.NONE}
    assert named or table.name in ("rechecks", "change_files", "evaluations"), "nothing in it can be told to belong to anything"


def test_what_the_rules_name_is_there():
    columns = {(t.name, f.name) for t in schema.TABLES.values() for f in t.schema}
    inner = set().union(*(texts(f.name, f.type) for t in schema.TABLES.values() for f in t.schema))
    assert columns >= SHARED
    assert {(t, c) for t, some in WHOLE.items() for c in some} <= columns
    assert {schema.OUTFITS_LIST} == ENTRIES
    assert set(COLUMNS) - {schema.VECTOR} <= inner


def row_of(table: schema.Table, **given) -> dict:
    """A row whose other texts name nothing."""

    def value(kind):
        if pa.types.is_list(kind) or pa.types.is_map(kind):
            return []
        if pa.types.is_struct(kind):
            return {f.name: value(f.type) for f in kind}
        if pa.types.is_boolean(kind):
            return True
        return "x" if pa.types.is_string(kind) else b"x" if pa.types.is_binary(kind) else 1

    return {f.name: value(f.type) for f in table.schema} | given


def test_a_row_of_its_own_goes_and_a_list_loses_the_entry():
    post = row_of(schema.POSTS, post_id="post-8", product_ids=["hat-001", "hat-002"], product_urls=["https://s.example/hat"])
    kept = left("posts", post, MARKS)
    assert (kept["product_ids"], kept["product_urls"]) == (["hat-002"], [])
    assert left("posts", row_of(schema.POSTS, post_id="post-9"), MARKS) is None
    for table, column in (("pairs", "pair_id"), ("garments", "image_id"), ("embeddings", "owner_id"), ("negatives", "pair_id")):
        value = "pair-1" if column == "pair_id" else PICTURE
        assert left(table, row_of(schema.TABLES[table], **{column: value}), MARKS) is None
    assert left("embeddings", row_of(schema.EMBEDDINGS, owner_id=f"{PICTURE}:top"), MARKS) is None
    hits = [{"rank": n, "product_id": p, "image_id": OTHER, "category": "hat", "score": 0.5} for n, p in ((1, "7"), (2, "8"))]
    kept = left("neighbours", row_of(schema.NEIGHBOURS, neighbours=hits), MARKS)
    assert [(hit["rank"], hit["product_id"]) for hit in kept["neighbours"]] == [(1, "8")]


def test_an_outfit_with_it_goes_whole():
    item = {"slot": "top", "item_id": OTHER, "image_id": OTHER, "category": "top"}
    items = [item, item | {"item_id": f"{PICTURE}:top", "image_id": PICTURE}]
    assert left("outfits", row_of(schema.OUTFITS, items=items), MARKS) is None
    assert left("questions", row_of(schema.QUESTIONS, answers=items), MARKS) is None

    def outfit(product):
        pairs = [{"category": "top", "beside": "shoes", "score": 1.0}]
        return {
            "rank": 1,
            "score": 1.0,
            "items": [{"category": "top", "product_id": product, "image_id": OTHER}],
            "pairs": pairs,
        }

    kept = left("recommendations", row_of(schema.RECOMMENDATIONS, product_id="8", outfits=[outfit("7"), outfit("9")]), MARKS)
    assert [one["items"][0]["product_id"] for one in kept["outfits"]] == ["9"]


def picture(image: str, at: int, role: str = "additional") -> dict:
    return {"image_id": image, "uri": f"u/{image[0]}", "position": at, "role": role, "fingerprint": image[0]}


def test_a_product_keeps_its_other_pictures():
    both = [picture(PICTURE, 1, "front"), picture(OTHER, 2)]
    row = row_of(schema.PRODUCTS, product_id="8", image_id=PICTURE, image_uri="u/a", images=both, active=True)
    kept = left("products", row, MARKS)
    assert (kept["image_id"], kept["image_uri"], kept["image_fingerprint"], kept["active"]) == (OTHER, "u/b", "b", True)
    assert kept["images"] == [picture(OTHER, 1, "front")]
    kept = left("products", row | {"image_id": OTHER, "images": both[::-1]}, MARKS)
    assert (kept["image_id"], [one["image_id"] for one in kept["images"]]) == (OTHER, [OTHER])
    kept = left("products", row | {"images": both[:1]}, MARKS)
    assert (kept["image_id"], kept["image_uri"], kept["images"], kept["active"]) == (None, "", [], False)
    assert left("products", row | {"product_id": "hat-001"}, MARKS) is None


def test_names_that_rows_share_are_replaced_alike():
    rows = [row_of(schema.SPLITS, owner_id=o, owner_kind="product", component_id="product:hat-001") for o in ("8", "9")]
    one, two = (left("splits", row, MARKS)["component_id"] for row in rows)
    assert one == two
    assert "hat-001" not in one
    kept = left("duplicates", row_of(schema.DUPLICATES, image_id=OTHER, cluster_id=PICTURE, duplicate_of=PICTURE), MARKS)
    assert PICTURE not in kept["cluster_id"]
    assert (kept["duplicate_of"], kept["how"], kept["distance"]) == (None, None, None)
    post = row_of(schema.SPLITS, owner_id="7", owner_kind="post", component_id="product:hat-001")
    assert left("splits", post, MARKS)["owner_id"] == "7"  # a post that is called as the product
    assert left("splits", post | {"owner_kind": "product"}, MARKS) is None


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("no hat-001 here", True),
        ("hat-0012", False),
        ("my-hat-001", False),
        ("https://s.example/hat", True),
        ("https://s.example/hat/2", False),
        ("see 'https://s.example/hat'.", True),
        (f"{PICTURE}:top", True),
        ("7 of 8", False),
        ("product_id '7' was listed before", True),
        ("7@0f0f", True),
        ("17@0f0f", False),
    ],
)
def test_what_a_text_names(text, named):
    assert MARKS.in_text(text) == named
    assert left("rejects", row_of(schema.REJECTS, detail=text), MARKS) is None or not named


def test_names_of_feeds_are_no_ids():
    row = row_of(schema.ABSENCES, source="hat-001", product_id="8")
    assert left("absences", row, MARKS) == row
    assert not named_in("absences", pa.Table.from_pylist([row], schema.ABSENCES.schema), MARKS)


def test_pages_lose_links_records_and_what_was_kept_of_them():
    post = {"record": "post", "post_id": ["post-8"], "image": ["i"], "product_urls": ["https://s.example/hat", "o"]}
    gone = {"record": "product", "product_id": ["hat-001"], "image": ["i"]}
    links = [{"url": "https://s.example/hat", "kind": "product"}, {"url": "o", "kind": "product"}]
    content = zlib.compress(b'<a href="https://s.example/hat">')
    row = row_of(schema.PAGES, records=[json.dumps(post), json.dumps(gone)], links=links, content=content)
    assert named_in("pages", pa.Table.from_pylist([row], schema.PAGES.schema), MARKS).all()
    kept = left("pages", row, MARKS)
    assert [json.loads(r) for r in kept["records"]] == [post | {"product_urls": ["o"]}]
    assert (kept["links"], kept["content"]) == (links[1:], None)
    assert record_without("no JSON", MARKS.has) == "no JSON"
    assert left("pages", row | {"url": "https://s.example/hat"}, MARKS) is None


def test_rows_that_name_nothing_are_the_same_rows():
    rows = pa.Table.from_pylist([row_of(schema.POSTS, post_id=f"post-{n}") for n in range(20)], schema.POSTS.schema)
    now, found, gone = rewritten(schema.POSTS, rows, MARKS)
    assert found.sum() == gone == 1
    assert now.column("post_id").to_pylist() == [f"post-{n}" for n in range(20) if n != 9]
    assert now.schema == rows.schema


def test_leaves_of_slices_and_nulls():
    maps = pa.array([[("a", "1")], None, [("b", "7"), ("c", None)], []], pa.map_(pa.string(), pa.string())).slice(1)
    found = {(value, int(row)) for _, leaf, rows in leaves("attributes", maps) for value, row in zip(leaf.to_pylist(), rows)}
    assert found == {("b", 1), ("7", 1), ("c", 1), (None, 1)}
    lists = pa.array([["x"], [], None, ["y", "z"]]).slice(1)
    assert [(leaf.to_pylist(), rows.tolist()) for _, leaf, rows in leaves("l", lists)] == [(["y", "z"], [2, 2])]
    assert named_in("posts", schema.POSTS.schema.empty_table(), MARKS).shape == (0,)
    assert np.array_equal(named_in("x", pa.table({"own": ["hat-001", "hat-002"]}), MARKS), [True, False])


def test_the_log_keeps_all_but_ids():
    about = {"config": {"product": ["hat-001"], "k": 3}, "within": {"source": "7"}, "stage_version": "v"}
    line = json.dumps({"commitInfo": {"operation": "WRITE", "w2w": json.dumps(about)}})
    now = json.loads(json.loads(json_without(line, MARKS))["commitInfo"]["w2w"])
    assert now == about | {"config": {"product": ["erased"], "k": 3}}


def test_others_keep_their_rows_though_their_addresses_name_it():
    uri = "https://s.example/p/hat-001/2.jpg?variant=hat-001-L"
    both = [picture(OTHER, 1, "front") | {"uri": uri}]
    row = row_of(schema.PRODUCTS, product_id="hat-001-L", image_id=OTHER, image_uri=uri, images=both, url=uri, active=True)
    kept = left("products", row, MARKS)
    assert (kept["product_id"], kept["image_id"], kept["image_uri"], kept["url"]) == ("hat-001-L", OTHER, "", None)
    assert [one["image_id"] for one in kept["images"]] == [OTHER]
    assert "hat-001/" not in repr(kept)
    assert left("images", row_of(schema.IMAGES, image_id=OTHER, source_uri=uri), MARKS)["source_uri"] == ""
    assert left("images", row_of(schema.IMAGES, image_id=PICTURE, source_uri=uri), MARKS) is None
    assert left("frontier", row_of(schema.FRONTIER, url=uri), MARKS) is None
    assert left("posts", row_of(schema.POSTS, post_id="post-8", url=uri), MARKS)["url"] is None
