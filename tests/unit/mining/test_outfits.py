"""Which photos are outfits, where they are, and what may be put into them."""

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from w2w import schema
from w2w.mining.outfits import rules as outfits
from w2w.mining.splits.shares import split_of

TOP, LOW, FEET = [0.0, 0, 10, 10], [0.0, 10, 10, 20], [0.0, 20, 10, 30]


def slot(name: str, box=TOP, source: str = "boxes") -> dict:
    return {"slot": name, "box_xyxy": box, "crop_source": source}


def test_slots():
    rows = pa.Table.from_pylist(
        [
            {"image_id": "plain", "slots": [slot("top"), slot("bottom", LOW), slot("shoes", FEET, source="ratios")]},
            {"image_id": "dress", "slots": [slot("shoes", FEET), slot("bottom", LOW, "dress"), slot("top", source="dress")]},
            {"image_id": "coat over a dress", "slots": [slot("top"), slot("bottom", LOW, "dress"), slot("shoes", FEET)]},
            {"image_id": "a dress for a top", "slots": [slot("top", source="dress"), slot("bottom", LOW), slot("shoes", FEET)]},
            {"image_id": "old", "slots": [slot("top"), slot("bottom", [2.0, 5, 4, 20]), slot("shoes", FEET)]},
            {"image_id": "ratios", "slots": [slot("top", source="ratios"), slot("bottom", source="ratios"), slot("shoes")]},
            {"image_id": "half", "slots": [slot("shoes")]},
            {"image_id": "none", "slots": []},
        ],
        schema=outfits.SLOTS_SCHEMA,
    )
    assert outfits.slots_of(rows, outfits.CROP_SOURCES).rows() == [
        ("plain", "", False, False, 0),
        ("dress", "", True, True, 0),
        ("coat over a dress", "", True, False, 0),
        ("a dress for a top", "", False, False, 0),
        ("old", "", False, False, pytest.approx(1 / 3)),  # 2 by 5 of the bottom's 2 by 15
        ("ratios", "", False, False, 1),
        ("half", "top, bottom", False, False, 0),
        ("none", "top, bottom, shoes", False, False, 0),
    ]
    boxed = [r[1] for r in outfits.slots_of(rows, ["boxes"]).rows()]
    assert boxed == ["shoes", "", "", "", "", "top, bottom", "top, bottom", "top, bottom, shoes"]
    assert outfits.sources_of(rows) == {"boxes", "ratios", "dress"}
    assert outfits.sources_of(rows.slice(7)) == set()
    assert outfits.slots_of(rows.slice(0, 0), ["boxes"]).height == 0


def test_splits_are_those_of_the_near_duplicates_owners():
    photos = pl.DataFrame({"image_id": ["a", "a2", "b", "c", "c2", "free", "free2"]})
    clusters = pl.DataFrame(
        {"image_id": ["a", "a2", "shown", "c", "c2", "free2", "free"], "cluster_id": ["a", "a", "b", "c", "c", "free", "free"]}
    )
    owned = pl.DataFrame({"image_id": ["a", "a", "c", "c2", "b"], "split": ["val", "val", "train", "test", "test"]})
    found = outfits.with_splits(photos, clusters, owned, 0.3, 0.3)
    assert found.columns == ["image_id", "cluster_id", "split", "splits"]
    drawn = split_of(pa.array(["free"]), 0.3, 0.3)[0]
    assert found.rows() == [
        ("a", "a", "val", 1),
        ("a2", "a", "val", 1),  # no post shows it, and its near-duplicate is there
        ("b", "b", "test", 1),
        ("c", "c", "test", 2),
        ("c2", "c", "test", 2),
        ("free", "free", drawn, 0),
        ("free2", "free", drawn, 0),
    ]


def test_photos_are_outfits_or_rejects():
    photos = pl.DataFrame(
        {"image_id": ["c", "a", "b", "d"], "missing": ["", "shoes", "", "top, shoes"], "splits": [1, 1, 2, 2]},
    )
    worn, rejected = outfits.judged(photos)
    assert worn.get_column("image_id").to_list() == ["c"]
    assert rejected == [
        ("a", "missing_slot", "no shoes"),
        ("d", "missing_slot", "no top, shoes"),
        ("b", "crosses_split", "its posts and near-duplicates are in 2 splits"),
    ]


def wardrobe(rows: list[tuple[int, str, bool]]) -> pl.DataFrame:
    """Worn outfits of (cluster, split, dressed); a cluster is in one split."""
    return pl.DataFrame(
        {
            "image_id": [f"{i:03d}" for i in range(len(rows))],
            "cluster_id": [f"{split}-{cluster}" for cluster, split, _ in rows],
            "split": [split for _, split, _ in rows],
            "dressed": [dressed for _, _, dressed in rows],
            "one_box": [dressed and i % 2 == 0 for i, (_, _, dressed) in enumerate(rows)],
        },
        schema={
            "image_id": pl.String,
            "cluster_id": pl.String,
            "split": pl.String,
            "dressed": pl.Boolean,
            "one_box": pl.Boolean,
        },
    )


def table(worn: pl.DataFrame, copies: int, seed: int = 0) -> list[dict]:
    tables = [*outfits.worn_rows(worn), *outfits.modified_rows(worn, outfits.modify(worn, copies, seed))]
    return [r for t in tables for r in t.to_pylist()]


def check(worn: pl.DataFrame, rows: list[dict], copies: int) -> int:
    """Everything that a modified outfit promises; returns how many there are."""
    of_photo = {r["image_id"]: r for r in worn.to_dicts()}
    by_id = {r["outfit_id"]: r for r in rows}
    assert len(by_id) == len(rows)
    num = 0
    for row in rows:
        slots = {i["slot"]: i for i in row["items"]}
        assert list(slots) == ["top", "bottom", "shoes"]
        assert all(i["item_id"] == f"{i['image_id']}:{s}" for s, i in slots.items())
        dressed = {s: of_photo[i["image_id"]]["dressed"] for s, i in slots.items()}
        assert slots["bottom"]["category"] == ("dress" if dressed["bottom"] else "bottom")
        assert slots["top"]["category"] == ("dress" if of_photo[slots["top"]["image_id"]]["one_box"] else "top")
        assert slots["shoes"]["category"] == "shoes"
        assert all(of_photo[i["image_id"]]["split"] == row["split"] for i in slots.values())
        if dressed["top"] or dressed["bottom"]:  # a dress is whole
            assert slots["top"]["image_id"] == slots["bottom"]["image_id"]
        if row["modified_of"] is None:
            assert len({i["image_id"] for i in slots.values()}) == 1
            assert row["replaced"] == []
            continue
        num += 1
        base = by_id[row["modified_of"]]
        own = {i["slot"]: i["item_id"] for i in base["items"]}
        assert row["replaced"] == [s for s, i in slots.items() if i["item_id"] != own[s]]
        assert len(row["replaced"]) == 2
        mine = of_photo[base["items"][0]["image_id"]]["cluster_id"]
        assert all(of_photo[slots[s]["image_id"]]["cluster_id"] != mine for s in row["replaced"])
    assert sum(r["modified_of"] is None for r in rows) == worn.height
    return num


ROWS = st.lists(st.tuples(st.integers(0, 6), st.sampled_from(["train", "test"]), st.booleans()), max_size=24)


@settings(max_examples=60, deadline=None)
@given(ROWS, st.integers(0, 3), st.integers(0, 2**63))
def test_modified_outfits(rows, copies, seed):
    worn = wardrobe(rows)
    made = outfits.modify(worn, copies, seed)
    assert check(worn, table(worn, copies, seed), copies) == copies * worn.height - made.unmade


@pytest.mark.parametrize("copies", [1, 3])
def test_a_large_wardrobe_leaves_none_unmade(copies):
    rng = np.random.default_rng(0)
    worn = wardrobe([(int(rng.integers(0, 200)), ("train", "test")[i % 2], bool(rng.random() < 0.2)) for i in range(400)])
    assert outfits.modify(worn, copies, 0).unmade == 0
    assert check(worn, table(worn, copies), copies) == 400 * copies


def test_every_slot_is_replaced_about_as_often_and_donors_are_drawn_evenly():
    worn = wardrobe([(i, "train", False) for i in range(300)])
    made = outfits.modify(worn, 20, 0)
    other = made.items != made.base[:, None]
    assert np.abs(other.mean(axis=0) - 2 / 3).max() < 0.02
    counts = np.bincount(made.items[other], minlength=300)
    assert counts.sum() == 12_000
    assert 15 < counts.min() < counts.max() < 70  # 40 each, Poisson


def test_the_same_rows_whatever_the_order_and_others_with_another_seed():
    worn = wardrobe([(i % 90, "train", i % 7 == 0) for i in range(100)])
    one = outfits.judged(worn.with_columns(missing=pl.lit(""), splits=pl.lit(1)))[0]
    other = outfits.judged(worn.sample(fraction=1.0, shuffle=True, seed=3).with_columns(missing=pl.lit(""), splits=pl.lit(1)))[
        0
    ]
    assert table(one, 2) == table(other, 2)
    assert table(one, 2) != table(one, 2, seed=1)
    assert table(one, 1) == table(one, 2)[:200]  # a further copy changes nothing of those before


def test_ids_are_the_same_for_ever():
    (first, second, *_) = table(wardrobe([(0, "train", False), (1, "train", False)]), 1)
    assert first["outfit_id"] == "a5f2a562ca6532fb517507696305f113"  # sha256 of |000|000|000
    assert first["outfit_id"] != second["outfit_id"]


def test_a_dress_says_nothing_of_whether_an_outfit_was_worn():
    worn = wardrobe([(i, "train", i % 8 == 0) for i in range(400)])
    made = outfits.modify(worn, 2, 0)
    dressed = worn.get_column("dressed").to_numpy()
    assert (dressed[made.items[:, 1]] == dressed[made.base]).all()
    lonely = wardrobe([(i, "train", i == 0) for i in range(20)])  # no other dress: top and bottom come in its place
    assert outfits.modify(lonely, 2, 0).unmade == 0


def test_a_near_duplicate_is_no_stranger():
    worn = wardrobe([(0, "train", False)] * 5)
    assert outfits.modify(worn, 2, 0).unmade == 10
    assert outfits.modify(wardrobe([(0, "train", False), (0, "test", False)]), 1, 0).unmade == 2


def test_nobody():
    worn = wardrobe([])
    assert table(worn, 2) == []
    assert outfits.modify(worn, 0, 0).unmade == 0


def test_batches_make_no_difference():
    worn = wardrobe([(i, "train", i % 5 == 0) for i in range(37)])
    made = outfits.modify(worn, 2, 0)
    whole, pieces = (pa.concat_tables([*outfits.worn_rows(worn, n), *outfits.modified_rows(worn, made, n)]) for n in (1000, 10))
    assert whole.equals(pieces)
    assert whole.schema.equals(schema.OUTFITS.schema)
