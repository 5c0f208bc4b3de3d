"""Rows that are looked up where they are stored, against the same rows in memory."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from w2w import storage
from w2w.index import rows as r
from w2w.index.rows import Rows, ToStore, delete_others, read_stored, stored, sum_of

CATEGORIES = ("top", "dress", "bag")


def some(rng: np.random.Generator, products: list[str]) -> pa.Table:
    listed = []
    for product in sorted(products):
        category = str(rng.choice(CATEGORIES))
        for image in rng.choice(90, rng.integers(1, 4), replace=False):
            listed.append((product, f"i{image:02d}", category, str(rng.choice(["in_stock", "out_of_stock"]))))
    columns = list(zip(*listed)) or [()] * 4
    table = pa.table([pa.array(c, pa.string()) for c in columns], names=["product_id", "image_id", "category", "availability"])
    return stored(table, rng.random(table.num_rows) < 0.8)


def there(rows: pa.Table) -> Rows:
    return Rows.of(rows.filter(rows[r.HAS]).drop_columns([r.HAS]))


def all_of(rows: pa.Table) -> ToStore:
    now = there(rows)
    return ToStore.all_of(rows, now.counts, now.total)


@pytest.mark.parametrize("seed", range(3))
def test_stored_rows_are_found_as_those_in_memory(tmp_path, monkeypatch, seed):
    monkeypatch.setattr(r, "_MOST_BESIDE", 0.5)
    rng, uri = np.random.default_rng(seed), str(tmp_path)
    rows, anew = some(rng, [f"p{n:02d}" for n in range(40)]), 0
    told = all_of(rows)
    told.write(uri)
    for _ in range(12):
        before = read_stored(uri, told.told)
        changed = [f"p{n:02d}" for n in rng.choice(60, 4, replace=False)]
        fresh = some(rng, changed[:3])  # the last one goes, if it was there
        left = rows.filter(pc.invert(pc.is_in(rows["product_id"], value_set=pa.array(changed))))
        rows = pa.concat_tables([left, fresh]).sort_by([("product_id", "ascending")])
        now, expected = before.with_changed(pa.array(changed), fresh), there(rows)
        told = ToStore.changed(now)
        anew += told.rows is not None
        told.write(uri)
        delete_others(uri, told.told)
        for found in (now, read_stored(uri, told.told)):
            assert (found.counts, found.total, found.num_rows) == (expected.counts, expected.total, expected.num_rows)
            assert found.missing == rows.num_rows - expected.num_rows
            assert found.all.to_pylist() == expected.all.to_pylist()
            for asked in (([], []), (["p01", "p33", "nobody"], []), ([], ["i03", "i77"]), (changed, ["i10"])):
                mine, theirs = (one.having(*asked).to_pylist() for one in (found, expected))
                assert sorted(map(str, mine)) == sorted(map(str, theirs))
                fronts = [{row["product_id"]: row["image_id"] for row in reversed(one)} for one in (mine, theirs)]
                assert fronts[0] == fronts[1]
    assert 0 < anew < 12
    assert len(storage.list_folders(storage.join(uri, r.FOLDER))) == 1


def test_the_sum_of_rows_depends_on_each_of_them_and_not_on_their_order():
    rows = there(some(np.random.default_rng(0), [f"p{n}" for n in range(9)])).all
    assert sum_of(rows) == sum_of(rows.take(pa.array(np.random.default_rng(1).permutation(rows.num_rows))))
    assert sum_of(rows.slice(0, 0)) == (0, 0)
    for name in ("product_id", "image_id", "category"):
        other = rows.set_column(rows.schema.get_field_index(name), name, pa.array(["x", *rows[name].to_pylist()[1:]]))
        assert sum_of(other) != sum_of(rows)
    turned = rows.rename_columns(["image_id", "product_id", "category", "availability"])
    assert sum_of(turned) != sum_of(rows)
    assert sum_of(pa.concat_tables([rows, rows.slice(0, 1)])) != sum_of(rows)


@pytest.mark.parametrize("damage", ["rows.npy", "image_id_order.npy", "about.json", "beside"])
def test_rows_that_are_damaged_or_gone_are_not_read(tmp_path, damage):
    rng, uri = np.random.default_rng(0), str(tmp_path)
    told = all_of(some(rng, [f"p{n:02d}" for n in range(40)]))
    told.write(uri)
    told = ToStore.changed(read_stored(uri, told.told).with_changed(pa.array(["p07"]), some(rng, ["p07"])))
    told.write(uri)
    assert read_stored(uri, told.told)
    files = [f.path for f in storage.list_files(uri) if damage in f.path]
    data = storage.read_bytes(files[0])
    for wrong in (data[: len(data) // 2], bytes([data[0] ^ 1]) + data[1:], None):
        storage.delete(files[0])
        if wrong is not None:
            storage.write_bytes(files[0], wrong)
        assert read_stored(uri, told.told) is None
    storage.write_bytes(files[0], data)
    assert read_stored(uri, told.told)
    assert read_stored(uri, told.told | {"code": 0}) is None
    assert read_stored(uri, None) is None
