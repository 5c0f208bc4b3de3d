"""Leaks by id, of every kind; and who is compared with whom on the pictures."""

import numpy as np
import pyarrow as pa
import pytest

from w2w import schema
from w2w.errors import UsageError
from w2w.mining.audit.rules import (
    USES,
    check_tables,
    counts,
    grouped,
    identity_leaks,
    picture_leaks,
    uses_of_outfits,
    uses_of_pairs,
    uses_of_splits,
)
from w2w.mining.duplicates.rules import Confirmed


def uses(*rows: tuple[str, str, str, str | None, str]) -> pa.Table:
    return pa.table([pa.array([r[i] for r in rows], pa.string()) for i in range(5)], schema=USES)


def leaks_of(found: pa.Table) -> list[tuple]:
    return [(r["kind"], r["id"], tuple(r["splits"]), tuple(r["images"])) for r in found.to_pylist()]


def test_an_id_in_two_splits_leaks():
    some = uses(
        ("splits", "product", "p", "i", "train"),
        ("pairs", "product", "p", "j", "test"),
        ("pairs", "post", "p", "k", "test"),  # a post of that name is another thing
        ("splits", "post", "x", "k", "test"),
        ("splits", "product", "q", None, "val"),
        ("pairs", "product", "q", None, "test"),
    )
    assert leaks_of(identity_leaks(some)) == [
        ("product", "p", ("test", "train"), ("j", "i")),
        ("product", "q", ("test", "val"), (None, None)),
    ]


def test_an_image_in_two_splits_leaks_once():
    some = uses(
        ("splits", "product", "p", "i", "train"), ("splits", "post", "x", "i", "test"), ("splits", "post", "y", "j", "val")
    )
    duplicates = pa.table({schema.IMAGE_ID: ["i", "j", "k"], schema.CLUSTER_ID: ["i", "j", "k"]})
    assert leaks_of(identity_leaks(some, duplicates)) == [("image", "i", ("test", "train"), ("i", "i"))]


def test_a_cluster_in_two_splits_leaks():
    some = uses(("splits", "product", "p", "i", "train"), ("splits", "product", "q", "j", "test"))
    duplicates = pa.table({schema.IMAGE_ID: ["i", "j"], schema.CLUSTER_ID: ["i", "i"]})
    assert leaks_of(identity_leaks(some, duplicates)) == [("near-duplicate cluster", "i", ("test", "train"), ("j", "i"))]
    assert identity_leaks(some).num_rows == 0


def test_what_the_tables_use():
    products = pa.table({schema.PRODUCT_ID: ["a", "b", "c"], schema.IMAGE_ID: ["i", "j", "k"]})
    posts = pa.table({schema.POST_ID: ["x"], schema.IMAGE_ID: ["l"]})
    splits = pa.table(
        {
            schema.OWNER_ID: ["red", "x", "gone"],
            schema.OWNER_KIND: ["product", "post", "product"],
            schema.SPLIT: ["train", "test", "val"],
        }
    )
    found = uses_of_splits(splits, products, pa.chunked_array([["red", "red", "new"]]), posts)
    assert [tuple(r.values()) for r in found.to_pylist()] == [
        ("splits", "product", "red", "i", "train"),
        ("splits", "product", "red", "j", "train"),
        ("splits", "product", "gone", None, "val"),
        ("splits", "post", "x", "l", "test"),
    ]
    names = [schema.POST_ID, schema.ANCHOR_IMAGE_ID, schema.PRODUCT_ID, schema.IMAGE_ID, schema.SPLIT]
    found = uses_of_pairs(pa.table([[v] for v in ("x", "photo", "p", "shot", "val")], names=names))
    assert [tuple(r.values()) for r in found.to_pylist()] == [
        ("pairs", "post", "x", "photo", "val"),
        ("pairs", "product", "p", "shot", "val"),
    ]
    items = [[{"slot": "top", "item_id": "1", "image_id": i, "category": "top"} for i in some] for some in (["m", "n"], ["o"])]
    outfits = pa.table(
        {schema.ITEMS: pa.array(items, schema.OUTFITS.schema.field(schema.ITEMS).type), schema.SPLIT: ["train", "test"]}
    )
    assert [(r["id"], r["split"]) for r in uses_of_outfits(outfits).to_pylist()] == [
        ("m", "train"),
        ("n", "train"),
        ("o", "test"),
    ]


def test_images_in_groups():
    found = grouped(
        uses(
            ("s", "post", "x", "b", "val"),
            ("s", "post", "y", "a", "test"),
            ("p", "post", "y", "a", "train"),
            ("s", "post", "z", None, "val"),
        )
    )
    assert found.image_ids.to_pylist() == ["a", "b"]
    assert [found.splits[g] for g in found.group_N] == ["test", "val"]


def test_pictures_that_leak():
    confirmed = Confirmed(np.array([[0, 2], [1, 2]]), np.array([1, 2], np.int8), np.array([0.5, 0.25], np.float32))
    found = picture_leaks(pa.array(["a", "b", "c"]), np.array(["train", "train", "val"], object), confirmed)
    assert leaks_of(found) == [
        ("picture", "b c", ("train", "val"), ("b", "c")),
        ("picture", "a c", ("train", "val"), ("a", "c")),
    ]
    assert found.column("how").to_pylist() == ["flipped", "cropped"]
    assert counts(found) == {("picture: cropped", "train and val"): 1, ("picture: flipped", "train and val"): 1}


@pytest.mark.parametrize(
    ("asked", "there", "sentence"), [(["images"], ["images"], "has no splits"), (["pairs"], [], "w2w split")]
)
def test_tables_without_splits(asked, there, sentence):
    with pytest.raises(UsageError, match=sentence):
        check_tables(asked, there)
