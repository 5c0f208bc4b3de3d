"""`w2w search` with the garments of the store itself: every one that has a vector, or the anchors of pairs alone."""

import shutil

import pytest

import w2w
from tests.cluster.streets import append
from tests.unit.nights.nights import without_ray
from w2w import schema

ONE = {"workers": 1}


def test_garments_and_anchors(shop, tmp_path, monkeypatch):
    without_ray(monkeypatch)
    store = str(tmp_path / "store")
    shutil.copytree(shop.store, store)
    asked = {"store": store, "pool": ONE, "shown": 0, "search": {"k": 2, "own_category": True}}
    with pytest.raises(w2w.UsageError, match="detect"):
        w2w.search(of="garments", **asked)
    w2w.detect(store=store, pool=ONE)
    with pytest.raises(w2w.UsageError, match=r"no garment has a vector of model version .*: run 'w2w embed --of garments'"):
        w2w.search(of="garments", **asked)
    with pytest.raises(w2w.UsageError, match="mine"):
        w2w.search(of="anchors", **asked)
    found = w2w.open(store).table("garments").polars(["garment_id", "category", "image_id"]).to_dicts()
    w2w.embed(store=store, of="garments", pool=ONE, limit=len(found) - 1)
    every = w2w.search(of="garments", **asked)
    sold = set(w2w.open(store).index().manifest.rows_by_category())
    assert (every.queries, every.counts.read) == (len(found) - 1, len(found) - 1)
    answers = w2w.open(store).table("neighbours").polars(["query_id", "category", "neighbours", "run_id"])
    rows = answers.filter(answers["run_id"] == every.run_id).to_dicts()  # other tests have searched in the shop, too
    assert {r["query_id"] for r in rows} <= {g["garment_id"] for g in found}
    assert {r["category"] for r in rows} <= sold
    assert {n["category"] == r["category"] for r in rows for n in r["neighbours"]} == {True}
    one = next(g for g in found if g["garment_id"] in {r["query_id"] for r in rows})
    pair = dict.fromkeys(["pair_id", "post_id", "product_id", "image_id", "rule", "split", "source"], "x")
    append(
        store,
        schema.PAIRS,
        [pair | {"garment_id": one["garment_id"], "anchor_image_id": "x", "category": one["category"], "score": 1.0}],
    )
    anchors = w2w.search(of="anchors", **asked)
    assert (anchors.queries, anchors.skipped, anchors.anchors_without_a_vector) == (1, 1, None)
    assert w2w.search(of="garments", **asked).queries == len(found) - 1
