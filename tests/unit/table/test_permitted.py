"""What may not be used is chosen by no job: each place that chooses pictures, with some of them refused."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from tests.unit.gallery.stores import append
from tests.unit.mining.test_negatives import NEAR, catalog, neighbours, pairs
from tests.unit.recommend.stores import fill, picture, product
from w2w import ids, schema
from w2w.errors import UsageError
from w2w.export import flow as export
from w2w.gallery import flow as gallery
from w2w.mining.negatives.rules import NegativeRules, negatives_of
from w2w.mining.outfits.flow import without_refused
from w2w.mining.tags import tags_of
from w2w.models.config import EncoderConfig
from w2w.models.encoder import model_version
from w2w.recommend import flow as recommend
from w2w.similar import flow as similar
from w2w.table.permitted import SEARCH, TRAINING, Permitted, Said, counted, explained, permitted, why_refused
from w2w.training.classifier.flow import labelled_products
from w2w.training.detectors.flow import list_photos
from w2w.training.encoders.config import PairConfig
from w2w.training.encoders.flow import TRAIN, pair_table
from w2w.training.encoders.flow import _negatives as negatives_for
from w2w.training.encoders.flow_looks import look_table
from w2w.training.outfits.flow import read_outfits
from w2w.training.tags.flow import labelled

MODEL = model_version(EncoderConfig())


def image(number: int) -> str:
    return ids.image_id(picture(number))


def say(store: str, image_id: str, search: bool = True, training: bool = True, place: str = "a", **more) -> None:
    row = {"permission_id": f"{image_id}@{place}", "image_id": image_id, "uri": place, "search": search, "training": training}
    append(store, schema.PERMISSIONS, [{"fetched_at": 1} | row | more])


@pytest.fixture
def store(tmp_path) -> str:
    """Products 0 to 9, of which search may not use 1 and 2, training not 2 and 3."""
    place = str(tmp_path / "store")
    fill(place, range(10), pictures=False)
    for number, search, training in ((1, False, True), (2, False, False), (3, True, False), (4, True, True)):
        say(place, image(number), search, training)
    return place


def of(*numbers: int) -> set[str]:
    return {f"p{number:03d}" for number in numbers}


ALL = range(10)
FOUND, TRAINED = of(*(n for n in ALL if n not in (1, 2))), of(*(n for n in ALL if n not in (2, 3)))


def test_the_newest_row_of_each_place_counts_and_any_no(tmp_path):
    store, now = str(tmp_path), datetime.now(UTC)
    assert permitted(store, SEARCH).told == ()
    say(store, "x", training=False)
    say(store, "x", fetched_at=2)
    say(store, "y")
    say(store, "y", search=False, place="b")
    say(store, "old", until=now - timedelta(hours=1))
    say(store, "new", until=now + timedelta(hours=1))
    search, training = permitted(store, SEARCH), permitted(store, TRAINING)
    assert search.refused.to_pylist() == ["old", "y"]
    assert training.refused.to_pylist() == []
    assert search.mask(pa.array(["x", "y", None, "new", "never seen"])).tolist() == [True, False, True, True, True]
    assert (search.num, training.num) == (2, None)
    assert [search.allows(image) for image in ("x", "y", None)] == [True, False, True]
    assert search.told
    assert search.told == permitted(store, SEARCH).told
    say(store, "y", place="b", fetched_at=3)
    assert permitted(store, SEARCH).told != search.told
    lists = pa.table({"items": [[{"image_id": "x"}, {"image_id": "y"}], [{"image_id": "x"}], []]})
    assert search.of_lists(lists, "items").column(0).to_pylist() == [[{"image_id": "x"}], []]
    both = pa.table({"a": ["x", "y", "x"], "image_id": ["x", "x", "old"]})
    assert search.of(both, ("a", "image_id")).num_rows == 1
    assert search.of(both).num_rows == 2


def test_what_is_found_and_shown(store):
    found = similar.read_catalog(store, MODEL, "e", similar.SimilarConfig(collapse=False))
    assert (set(found.now.column(schema.PRODUCT_ID).to_pylist()), found.refused) == (FOUND, 2)
    rows, refused = gallery.read_catalog(store)
    assert ({row[schema.PRODUCT_ID] for row in rows}, refused) == (FOUND, 2)
    shelf = recommend.read_catalog(store, EncoderConfig(), None, "none", [])
    assert (set(shelf.shelf.rows.column(schema.PRODUCT_ID).to_pylist()), shelf.refused) == (FOUND, 2)
    assert recommend.why_absent(store, "p001", "none").startswith("has a picture that search may not use")
    sent = export.Catalog(store, MODEL, "default", only_with_vector=False)
    has = {p: m for b in sent.batches() for p, m in zip(*(b.column(c).to_pylist() for c in ("product_id", "model_version")))}
    assert {p for p, model in has.items() if model} == FOUND
    assert set(has) == of(*ALL)
    assert (sent.without.refused, sent.without.missing) == (2, 0)
    whole = pa.concat_tables(map(sent.with_vectors, sent.batches()))
    assert set(whole.filter(whole.column(schema.VECTOR).is_valid()).column(schema.PRODUCT_ID).to_pylist()) == FOUND
    only = export.Catalog(store, MODEL, "default", only_with_vector=True)
    assert {p for batch in only.batches() for p in batch.column(schema.PRODUCT_ID).to_pylist()} == FOUND


def test_posts_that_search_may_not_use_are_not_shown(store):
    rows = [{"post_id": f"o{n}", "image_id": image(n), "active": True, "url": f"u{n}"} for n in ALL]
    append(store, schema.POSTS, rows)
    looks, _ = gallery.read_looks(store, [], 20)
    assert {look.url for look in looks} == {f"u{n}" for n in ALL if n not in (1, 2)}
    items = [[{"slot": "top", "item_id": image(n), "image_id": image(n), "category": "top"}] for n in ALL]
    append(store, schema.OUTFITS, [{"outfit_id": f"f{n}", "items": one, "source": "own"} for n, one in enumerate(items)])
    assert len(gallery.read_outfits(store, [], 20)[0]) == 8


def test_what_heads_are_trained_on(store):
    products, refused = labelled_products(store, 100)
    assert ({row[schema.PRODUCT_ID] for row in products}, refused) == (TRAINED, 2)
    rows, refused = labelled(store, ["colour"], 100)
    assert ({row[schema.IMAGE_ID] for row in rows}, refused) == ({image(n) for n in ALL if n not in (2, 3)}, 2)


def test_what_encoders_are_trained_on(store):
    split = ("train", "val", "test")
    told = [
        {"pair_id": f"{n}{s}", "garment_id": f"g{n}", "anchor_image_id": image(n), "product_id": f"p{n}"}
        | {"image_id": image(n + 1), "category": "top", "split": s, "source": "own"}
        for n in range(8)
        for s in split
    ]
    append(store, schema.PAIRS, told)
    near = [{"rank": 1, "image_id": image(n), "product_id": f"p{n}", "category": "top", "score": 0.5} for n in (2, 3, 7)]
    append(store, schema.NEGATIVES, [{"pair_id": "5train", "negatives": near}])
    append(store, schema.REPRESENTATIVES, [{"product_id": f"p{n}", "image_id": image(n)} for n in ALL])
    append(store, schema.SPLITS, [{"owner_id": f"p{n}", "owner_kind": "product", "split": "test"} for n in ALL])
    table = pair_table(store, None, None)
    read = table.read(TRAIN)
    assert read.rows.column(schema.PAIR_ID).to_pylist() == [f"{n}train" for n in (0, 4, 5, 6, 7)]
    assert table.num_refused() == 3 * len(split)
    assert [found[0] for found in negatives_for(table, read, 2)["5train"]] == [image(7)]
    assert set(table.gallery()) == {image(n) for n in ALL if n not in (2, 3)}


def test_what_looks_are_trained_on(store):
    rows = [{"post_id": f"o{n}", "image_id": image(n), "active": True, "url": f"https://x.test/{n}"} for n in ALL]
    append(store, schema.POSTS, [row | {"style": "street"} for row in rows])
    append(store, schema.IMAGES, [{"image_id": image(n), "bytes": b"x"} for n in ALL])
    append(store, schema.SPLITS, [{"owner_id": f"o{n}", "owner_kind": "post", "split": "train"} for n in ALL])
    table = look_table(store, PairConfig(same=["style"]), None)
    read = table.read(TRAIN).rows
    used = {one for name in (schema.GARMENT_ID, schema.IMAGE_ID) for one in read.column(name).to_pylist()}
    assert used
    assert not used & {image(2), image(3)}
    assert table.num_refused() == 2


def test_what_scorers_are_trained_on(store):
    def item(n: int, slot: str) -> dict:
        return {"slot": slot, "item_id": image(n), "image_id": image(n), "category": "top"}

    worn = [{"outfit_id": f"f{n}", "items": [item(n, "top"), item(n + 1, "shoes")], "split": "train"} for n in range(9)]
    append(store, schema.OUTFITS, [one | {"source": "own"} for one in worn])
    splits, left_out = read_outfits(store, MODEL)
    assert (len(splits["train"].worn), left_out) == (6, 3)
    cut = f"{image(3)}:top"
    vector = {"owner_kind": "slot", "model_version": MODEL, "vector": np.zeros(16, np.float32)}
    append(store, schema.EMBEDDINGS, [{"owner_id": cut} | vector])
    slot = [item(0, "shoes"), item(3, "top") | {"item_id": cut}]
    append(store, schema.OUTFITS, [{"outfit_id": "cut", "items": slot, "split": "train", "source": "own"}])
    assert read_outfits(store, MODEL)[1] == 4
    assert read_outfits(store, MODEL, may=Permitted(TRAINING))[1] == 0


def test_what_detectors_are_trained_on(store):
    rows = [{"key": f"k{n}", "source": "s", "split": "train", "image_id": image(n), "bytes": b"x"} for n in ALL]
    append(store, schema.DETECTIONS, [row | {"stage_version": "1"} for row in rows])
    photos = list_photos(store, None, 0.0)
    assert (set(photos.train), photos.refused) == ({f"k{n}" for n in ALL if n not in (2, 3)}, 2)


def test_tags_of_a_photo_or_product_that_may_not_be_used_are_rejects():
    posts = pa.table({"post_id": ["p", "q"], "url": ["u", "u"], "image_id": ["a", "b"], "product_ids": [["own", "c"], ["d"]]})
    splits = pa.table({schema.POST_ID: ["p", "q"], schema.SPLIT: ["train", "train"]})
    seen = pa.table({schema.IMAGE_ID: ["a", "b"]})
    told = tags_of(posts, catalog(), splits, seen, 10, pa.array(["b", "image-c"]))
    code = dict(zip(told[schema.PRODUCT_ID].to_list(), told[schema.REJECT_CODE].to_list()))
    assert code == {"own": None, "c": "not_permitted", "d": "not_permitted"}
    assert not tags_of(posts, catalog(), splits, seen, 10)[schema.REJECT_CODE].drop_nulls().len()


def test_no_negative_and_no_pair_with_negatives_is_refused():
    known = pairs(("p", "g", "own"), ("q", "g", "own"))
    for name, values in (("anchor_image_id", ["x", "y"]), ("image_id", ["image-own"] * 2)):
        known = known.append_column(name, pa.array(values))
    refused = pa.array(["image-c", "y"])
    rows, rejected, read = negatives_of(known, neighbours(g=NEAR), catalog(), None, NegativeRules(), refused)
    assert [n["product_id"] for n in rows.column("negatives")[0].as_py()] == ["d"]
    assert rows.column("pair_id").to_pylist() == ["p"]
    assert [(r["key"], r["code"]) for r in rejected.to_pylist()] == [("q", "not_permitted")]
    assert read == 2


def test_photos_that_may_not_be_worn_are_rejects():
    photos, rejected = without_refused(pl.DataFrame({"image_id": ["a", "b"]}), Permitted(TRAINING, pa.array(["b"])))
    assert photos["image_id"].to_list() == ["a"]
    assert [one[:2] for one in rejected] == [("b", "not_permitted")]


def test_the_scorer_worn_learns_from_no_refused_picture(store):
    rows = [{"post_id": f"o{n}", "image_id": image(n), "active": True, "product_ids": ["p000", f"p{n:03d}"]} for n in ALL]
    append(store, schema.POSTS, rows)
    words = {product(n)["category"]: product(n)["category"] for n in ALL}
    worn = recommend._of_posts(store, MODEL, words, [])
    assert len(worn) == 8


def test_what_is_missing_for_want_of_permission_is_not_blamed_on_the_data(store):
    for number in ALL:
        say(store, image(number), training=False, fetched_at=2)
    why = r"10 of 10 pictures may not be used for training \(table `permissions`, feed.use.training\)"
    with pytest.raises(UsageError, match=f"^--learn=category: {why}$"):
        labelled(store, ["category"], 100)
    with pytest.raises(UsageError, match=f"^{why}$"):
        labelled_products(store, 100)
    with pytest.raises(UsageError, match=r"--learn=categry: no product has it.*category"):
        labelled(store, ["categry"], 100)


def test_an_error_for_too_few_examples_says_how_many_were_left_out():
    for refused, said in ((7, r"too few; 7 of 9 pictures may not be used for training \(table .*"), (0, "too few")):
        with pytest.raises(UsageError, match=f"^{said}$"), explained(lambda num=refused: why_refused(num, 9)):
            raise UsageError("too few")


def test_verdicts_are_counted_by_reason_as_they_stand(tmp_path):
    store = str(tmp_path)
    say(store, "a", search=False, reason="search: x")
    say(store, "a", reason="", fetched_at=2)
    say(store, "b", until=5, reason="")
    for name in ("c", "d"):
        say(store, name, training=False, reason="training: y")
    found = [Said(True, False, "training: y", 2), Said(False, True, "", 1), Said(True, True, "", 1)]
    assert counted(store) == found
