"""Fingerprints of rows of images, and rows of table `duplicates` from pairs that were confirmed."""

import numpy as np
import pyarrow as pa
import pytest

from tests.unit.images.samples import encoded, scene
from w2w import schema
from w2w.errors import UsageError
from w2w.images.decode import DecodeLimits
from w2w.images.stage import inspect
from w2w.mining.duplicates.fingerprints import FINGERPRINT_GIVES, fingerprint_version, grids_of, to_fingerprints
from w2w.mining.duplicates.rules import (
    HOW,
    Confirmed,
    LikenessRules,
    all_confirmed,
    check_rules,
    duplicate_rows,
    look_alike,
    marks_of,
)


def confirmed(*pairs: tuple[int, int, str, float]) -> Confirmed:
    rows = np.array([p[:2] for p in pairs], np.int64).reshape(-1, 2)
    return Confirmed(rows, np.array([HOW.index(p[2]) for p in pairs], np.int8), np.array([p[3] for p in pairs], np.float32))


def test_clusters_and_the_most_alike():
    found = confirmed((0, 2, "cropped", 0.5), (2, 4, "flipped", 0.25), (1, 5, "copy", 0.0))
    rows = duplicate_rows(pa.array(list("abcdef")), found)
    assert rows.schema == schema.DUPLICATES.schema
    assert [tuple(r.values()) for r in rows.to_pylist()] == [
        ("a", "a", 3, "c", "cropped", 0.5),
        ("b", "b", 2, "f", "copy", 0.0),
        ("c", "a", 3, "e", "flipped", 0.25),
        ("d", "d", 1, None, None, None),
        ("e", "a", 3, "c", "flipped", 0.25),
        ("f", "b", 2, "b", "copy", 0.0),
    ]


def test_of_equally_alike_ones_the_first():
    rows = duplicate_rows(pa.array(list("abc")), confirmed((0, 1, "copy", 0.0), (0, 2, "copy", 0.0), (1, 2, "copy", 0.0)))
    assert rows.column(schema.DUPLICATE_OF).to_pylist() == ["b", "a", "a"]


def test_nobody_has_a_duplicate():
    assert duplicate_rows(pa.array(["a", "b"]), confirmed()).column(schema.CLUSTER_SIZE).to_pylist() == [1, 1]
    assert duplicate_rows(pa.array([], pa.string()), confirmed()).num_rows == 0


def test_chunks_come_together_in_order_of_their_pairs():
    found = all_confirmed([confirmed((1, 2, "flipped", 0.5)), confirmed((0, 3, "copy", 0.1))])
    assert found.pairs.tolist() == [[0, 3], [1, 2]]
    assert found.distance_P.tolist() == pytest.approx([0.1, 0.5])
    assert all_confirmed([]).pairs.shape == (0, 2)


def test_hashes_alone_do_not_make_candidates_of_other_colours():
    looks = np.zeros((2, 54), np.float16)
    looks[1, 0] = 30
    assert look_alike(looks[[0, 0]], looks[[0, 1]], LikenessRules()).tolist() == [True, False]


def test_fingerprints_of_images_and_what_is_none():
    blobs = [encoded(scene(), "JPEG"), b"<html>", encoded(scene(), "PNG"), None]
    rows = pa.table({schema.IMAGE_ID: list("abcd"), schema.BYTES: pa.array(blobs, pa.binary())})
    found = to_fingerprints(rows, limits=DecodeLimits(), stage_version="v")
    assert found.column(schema.REJECT_CODE).to_pylist() == [None, "not_an_image", None, "empty"]
    assert found.schema.field(schema.GRID).type == FINGERPRINT_GIVES.field(schema.GRID).type
    good = found.filter(found.column(schema.REJECT_CODE).is_null())
    assert good.column(schema.IMAGE_ID).to_pylist() == ["a", "c"]
    assert schema.BYTES not in found.column_names
    grids = grids_of(good.column(schema.GRID)).astype(int)
    assert grids.shape == (2, 3, 32, 32)
    assert np.abs(grids[0] - grids[1]).max() <= 6  # JPEG and PNG of one scene
    assert grids[0, 0, :, 31].mean() - grids[0, 0, :, 0].mean() > 100  # red grows to the right
    seen = inspect(rows, limits=DecodeLimits()).column(schema.PHASH)
    assert good.column(schema.PHASH).to_pylist() == [seen[0].as_py(), seen[2].as_py()]  # as table `images` has it
    assert marks_of(good).looks_NWD.shape == (2, 10, 54)


def test_other_limits_are_another_version():
    assert fingerprint_version(DecodeLimits()) != fingerprint_version(DecodeLimits(min_side_px=99))


@pytest.mark.parametrize(
    "options", [{"hash_bits": -1}, {"hash_bits": 11}, {"num_nearest": 0}, {"look_levels": 0}, {"most_levels": 99}]
)
def test_rules_that_cannot_work(options):
    with pytest.raises(UsageError, match=f"rules.{next(iter(options))}"):
        check_rules(LikenessRules(**options))
