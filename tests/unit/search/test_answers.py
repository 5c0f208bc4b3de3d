"""What people judged: the page's file is read as it is saved, all else is refused by its place, the newest word counts."""

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from tests.unit.search.test_pictures import fill, product, query
from tests.unit.table.test_sink import lineage
from w2w import schema
from w2w.errors import JobFailed, UsageError
from w2w.metrics.retrieval import evaluate
from w2w.search import job_judge_answers as judge
from w2w.search.answers import FORM, read_answers
from w2w.search.pictures import relevance
from w2w.table import delta
from w2w.table.judgements import Judgements, read_judgements
from w2w.table.parts import Output
from w2w.table.sink import append_rows

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


def said(verdict="same", product="p1", query="q1", at="2026-05-01T10:00:00Z"):
    return {"query": query, "product": None if verdict == "not_ours" else product, "verdict": verdict, "at": at}


def saved(*judged, **changes):
    return json.dumps({"form": FORM, "kind": "feed", "judged": list(judged)} | changes).encode()


def test_a_file_is_read(tmp_path):
    kind, rows = read_answers(saved(said(), said(), said("similar", "p2"), said("not_ours", query="q2")), "f.json", NOW)
    assert (kind, rows.num_rows) == ("feed", 3)  # the same word twice is one
    assert rows.column(schema.VERDICT).to_pylist() == ["same", "similar", "not_ours"]
    assert rows.column(schema.PRODUCT_ID).to_pylist() == ["p1", "p2", None]
    assert rows.column(schema.JUDGED_AT).to_pylist()[0] == datetime(2026, 5, 1, 10, tzinfo=UTC)
    assert read_answers(saved(), "f.json", NOW)[1].num_rows == 0


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"\xff\xfe", "f.json: is not JSON"),
        (b"[" * 100_000, "f.json: is not JSON"),
        (b"[]", "is not what a page of w2w saves"),
        (saved(form="other"), "is not what a page of w2w saves"),
        (saved(kind="posts"), "kind='posts': must be one of feed, garments, photos"),
        (saved(kind=["feed"]), "kind="),
        (saved(judged={"0": said()}), "'judged' is not a list"),
        (saved(said(), "x"), r"judged\[1\]: must have exactly the fields at, product, query, verdict"),
        (saved(said() | {"more": 1}), r"judged\[0\]: must have exactly"),
        (saved(said("sme")), r"judged\[0\]: verdict='sme'"),
        (saved(said() | {"verdict": ["same"]}), r"judged\[0\]: verdict="),
        (saved(said() | {"product": None}), r"judged\[0\]: 'product' is null for not_ours"),
        (saved(said("not_ours") | {"product": "p"}), r"judged\[0\]: 'product' is null for not_ours"),
        (saved(said("same"), said("similar")), r"judged\[0\] says same and judged\[1\] similar of the same query and product"),
        (saved(said(query="")), r"judged\[0\]: query: is not text of 1 to 2048"),
        (saved(said(query="q" * 2049)), r"judged\[0\]: query: is not text of 1 to 2048"),
        (saved(said() | {"query": 7}), r"judged\[0\]: query: is not text"),
        (saved(said() | {"query": None}), r"judged\[0\]: query: is not text"),
        (saved(said(product="\ud800")), r"judged\[0\]: product: is not Unicode text"),
        (saved(said(at="yesterday")), r"judged\[0\]: at='yesterday': is not a time"),
        (saved(said(at="2026-05-01T10:00:00")), r"judged\[0\]: at=.*is not a time with a zone"),
        (saved(said(at=7)), r"judged\[0\]: at='7'"),
        (saved(said(at="9999-12-31T23:59:59-23:00")), r"judged\[0\]: at="),
        (saved(said(at="2026-05-03T10:00:00Z")), r"judged\[0\]: at=.*lies in the future"),
    ],
)
def test_what_no_page_saves_is_refused_by_its_place(data, told):
    with pytest.raises(UsageError, match=told):
        read_answers(data, "f.json", NOW)


def store_of(tmp_path):
    products = [product("a", sku="1"), product("b", sku="1"), product("c", sku="2"), product("d", "image-c", "3")]
    lists = [products[i] for i in (2, 0, 1)]
    fill(tmp_path, products, [])
    return str(tmp_path), products, lists


def told(tmp_path, *judged, kind="feed"):
    file = tmp_path / "judgements.json"
    file.write_bytes(saved(*judged, kind=kind))
    return judge.main(judge.Config(store=str(tmp_path), file=str(file)))


def test_the_table_keeps_every_word_once_and_the_newest_counts(tmp_path):
    store, *_ = store_of(tmp_path)
    first = told(tmp_path, said("same", "a"), said("similar", "b"), said("not_ours", query="q2"))
    assert (first.counts.out, first.same, first.similar, first.not_ours) == (3, 1, 1, 1)
    again = told(tmp_path, said("same", "a"), said("similar", "b"), said("not_ours", query="q2"))
    assert (again.counts.out, again.skipped, again.versions) == (0, 3, {})
    assert read_judgements(store, "feed") == Judgements({"q1": {"a"}}, {"q1": {"b"}}, {"q2"})
    assert not read_judgements(store, "garments")
    later = "2026-05-01T11:00:00+00:00"
    told(
        tmp_path,
        said("similar", "a", at=later),
        said("same", "c", query="q2", at=later),
        said("not_ours", query="q9", at=later),
    )
    assert read_judgements(store, "feed") == Judgements({"q1": set(), "q2": {"c"}}, {"q1": {"b", "a"}}, {"q9"})
    told(tmp_path, said("not_ours", at=(NOW + timedelta(minutes=1)).isoformat()))
    assert read_judgements(store, "feed") == Judgements({"q2": {"c"}}, {}, {"q9", "q1"})


def test_products_that_the_catalog_never_had_are_rejects(tmp_path):
    store, *_ = store_of(tmp_path)
    done = told(tmp_path, said("same", "a"), said("same", "nowhere"), said("not_ours", query="q2"))
    assert (done.counts.read, done.counts.out, done.counts.rejects) == (3, 2, {"unknown_product": 1})
    [row] = delta.read(store, schema.REJECTS, [schema.STAGE, schema.REJECT_CODE, schema.REJECT_DETAIL]).to_pylist()
    assert (row["stage"], row["code"], "nowhere" in row["detail"]) == ("judge-answers", "unknown_product", True)
    with pytest.raises(JobFailed):
        told(tmp_path, *(said("same", f"nowhere{n}") for n in range(6)))
    assert len(read_judgements(store, "feed").same) == 1


def test_garments_that_the_store_never_had_are_rejects(tmp_path):
    store, *_ = store_of(tmp_path)
    garment = ("g1", "image", "top", "t-shirt", 0.9, [0.0, 0.0, 9.0, 9.0], None, b"", "box", "v1")
    rows = pa.table([[value] for value in garment], schema=schema.GARMENTS.schema)
    append_rows(store, Output(schema.GARMENTS), rows, lineage("1"))
    done = told(tmp_path, said("same", "a", query="g1"), said("not_ours", query="gone"), kind="garments")
    assert (done.counts.read, done.counts.out, done.counts.rejects) == (2, 1, {"unknown_query": 1})
    assert read_judgements(store, "garments") == Judgements({"g1": {"a"}}, {}, set())


def test_mistakes_and_dry_runs(tmp_path):
    store, *_ = store_of(tmp_path)
    for file in ("", str(tmp_path / "none.json"), str(tmp_path)):
        with pytest.raises(UsageError, match="--file"):
            judge.main(judge.Config(store=store, file=file))
    file = tmp_path / "f.json"
    file.write_bytes(saved(said("same", "a")))
    assert judge.main(judge.Config(store=store, file=str(file), dry_run=True)).same == 1
    assert not read_judgements(store, "feed")


def test_what_was_judged_comes_before_what_matches(tmp_path):
    products = [product("a", sku="1"), product("b", sku="1"), product("c", sku="2"), product("d", "image-c", "3")]
    near = [products[i] for i in (2, 0, 1)]
    queries = [query(name, near, sku) for name, sku in (("q1", "1"), ("q2", "1"), ("q3", "1"), ("q4", None), ("q5", None))]
    found = fill(tmp_path, products, queries)
    judged = Judgements({"q1": {"d"}, "q4": {"b"}}, {"q1": {"b"}}, {"q3"})
    relevant, num, _, _, without = relevance(found, ["sku"], 3, judged)
    assert relevant.tolist() == [
        [True, True, False],  # d has c's picture; b was said to be similar alone
        [False, True, True],  # nobody said anything
        [False, False, False],  # not ours
        [False, False, True],
        [False, False, False],
    ]
    assert (num.tolist(), without) == ([2, 2, 0, 1, 0], 2)
    alone, num, groups, *_ = relevance(found, [], 3, judged)
    assert (alone.any(1).tolist(), num.tolist()) == ([True, False, False, True, False], [1, 0, 0, 1, 0])
    rows = evaluate(alone, num, groups, (1,), np.random.default_rng(0)).to_pylist()
    assert {r["num_queries"] for r in rows if r["group"] is None} == {2}
