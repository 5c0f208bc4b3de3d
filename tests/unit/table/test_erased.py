"""The list of what must not come back: by hashes alone; and commits keep to it, whatever a job gives them."""

import pickle
from pathlib import Path

import pyarrow as pa
import pytest

from tests.unit.recommend.stores import append, product
from w2w import schema
from w2w.errors import JobFailed
from w2w.table import delta, erased


def test_keys_are_kept_as_hashes_and_taken_off_with_what_went_with_them(tmp_path):
    store = str(tmp_path)
    assert not erased.read(store).has(schema.PRODUCT_ID, "p007")
    erased.add(store, {schema.PRODUCT_ID: {"p007"}}, {schema.IMAGE_ID: {"a" * 64}, schema.URL: {"https://s.example/7"}})
    known = erased.add(store, {schema.PRODUCT_ID: {"p008"}, schema.POST_ID: {"p007"}}, {})
    text = Path(store, "erased", "keys.json").read_text()
    assert not any(key in text for key in ("p007", "p008", "aaaa", "s.example"))
    assert erased.read(store) == known == pickle.loads(pickle.dumps(known))
    assert known.mask(schema.PRODUCT_ID, pa.array(["p007", None, "p009", "p008"])).tolist() == [True, False, False, True]
    assert known.has(schema.IMAGE_ID, "a" * 64)
    assert known.has(schema.URL, "https://s.example/7")
    assert not known.has(schema.IMAGE_ID, "p007")
    left = erased.allow(store, {schema.PRODUCT_ID: {"p007"}})
    assert left == erased.read(store)
    assert not left.has(schema.IMAGE_ID, "a" * 64)
    assert left.has(schema.PRODUCT_ID, "p008")
    assert left.has(schema.POST_ID, "p007")
    again = erased.add(store, {schema.PRODUCT_ID: {"p008"}}, {})
    assert again == left


def test_a_damaged_list_lets_nothing_in(tmp_path):
    Path(tmp_path, "erased").mkdir()
    Path(tmp_path, "erased", "keys.json").write_text("{")
    with pytest.raises(JobFailed, match="damaged"):
        append(str(tmp_path), schema.PRODUCTS, [product(1)])


def test_no_commit_brings_back_what_was_erased(tmp_path):
    store = str(tmp_path)
    rows = [product(n) for n in range(4)]
    pictures = [row["image_id"] for row in rows]
    erased.add(store, {schema.PRODUCT_ID: {"p001", "p002"}, schema.IMAGE_ID: {pictures[3]}}, {})
    append(store, schema.PRODUCTS, rows)
    assert delta.read(store, schema.PRODUCTS, [schema.PRODUCT_ID]).column(0).to_pylist() == ["p000", "p003"]
    told = {"bytes": b"x", "width": 32, "height": 40, "format": "jpeg", "phash": 0, "source_uri": "u", "fetched_at": 0}
    append(store, schema.IMAGES, [told | {"image_id": picture} for picture in pictures])
    assert delta.read(store, schema.IMAGES, [schema.IMAGE_ID]).column(0).to_pylist() == pictures[:3]
    append(store, schema.PRODUCTS, [product(2, fetched_at=1)], "again")
    files = "".join(repr(p.read_bytes()) for p in Path(store).rglob("*.parquet"))
    assert "p001" not in files
    assert pictures[3] not in files
