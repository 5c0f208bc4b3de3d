"""`w2w similar` through tables: nights against a store that is computed at once, without Ray."""

from dataclasses import replace

import numpy as np
import pytest

import w2w
from tests.unit.recommend.stores import add_vectors, append, fill, product
from w2w import schema
from w2w.engine import snapshot
from w2w.engine.cluster import RayConfig
from w2w.errors import UsageError
from w2w.similar import flow, job
from w2w.similar.job import Config, main
from w2w.table import delta, maintain


def rows(store: str, name: str = "default") -> dict[str, dict]:
    columns = [schema.PRODUCT_ID, schema.SIMILAR_LIST, *flow.rules.STATE]
    read = delta.read(store, schema.SIMILAR_PRODUCTS, columns, source=name)
    return {row[schema.PRODUCT_ID]: row for row in read.to_pylist()}


def members(row: dict) -> list[str]:
    return [entry[schema.PRODUCT_ID] for entry in row[schema.SIMILAR_LIST]]


def config(store: str, **more) -> Config:
    return Config(**{"store": store, "k": 3, "spare": 2, "ray": RayConfig(num_cpus=2)} | more)


def first_row(listed: list[delta.Part]) -> np.ndarray:
    mask = np.zeros(sum(part.rows for part in listed), bool)
    mask[0] = True
    return mask


@pytest.mark.parametrize("more", [{}, {"across": True, "filter": {"price": "..60"}}])
def test_nights_equal_a_store_that_is_computed_at_once(tmp_path, monkeypatch, more):
    monkeypatch.setattr(snapshot, "_ROWS_PER_PART", 20)
    monkeypatch.setattr(flow, "_ROWS_WRITTEN", 8)
    by_places: list[bool] = []
    monkeypatch.setattr(flow, "_lists", lambda *args, lists=flow._lists: by_places.append(args[2]) or lists(*args))
    rng, store = np.random.default_rng(5), str(tmp_path / "nights")
    fill(store, range(60), pictures=False)
    now = {n: product(n) for n in range(60)}
    first = main(config(store, **more))
    assert (first.products, first.counts.out, first.whole, first.gone) == (60, 60, True, 0)
    kept = 0
    for night in range(1, 5):
        changed = {}
        for n in rng.choice(60, 4, replace=False):
            what, row = rng.integers(4), now[n]
            row = row | ({"active": not row["active"]} if what == 0 else {"category": "bag"} if what == 1 else {})
            row = row | ({"image_id": product(int(rng.integers(60)))["image_id"]} if what == 2 else {})
            row = row | ({"price": 99.0 if row["price"] < 60 else 5.0} if what == 3 else {})
            changed[int(n)] = row | {"fetched_at": night}
        changed[60 + night] = product(60 + night, fetched_at=night)
        now |= changed
        append(store, schema.PRODUCTS, list(changed.values()), f"night{night}")
        add_vectors(store, [60 + night])
        if night == 2:
            maintain.compact(store, schema.SIMILAR_PRODUCTS)
        if night == 3:  # as if someone had rewritten a row: places of before may no longer hold
            maintain.rewrite(store, schema.SIMILAR_PRODUCTS, first_row, lambda rows, mask: rows, "test")
        said = main(replace(config(store, **more), dry_run=True))
        result = main(config(store, **more))
        assert said.computed <= result.computed
        assert (said.new, said.gone, said.came) == (result.new, result.gone, result.came)
        assert result.products == result.skipped + result.computed == sum(row["active"] for row in now.values())
        kept += result.skipped
        fresh = str(tmp_path / f"fresh{night}")
        append(fresh, schema.PRODUCTS, list(now.values()))
        add_vectors(fresh, sorted(now))
        main(config(fresh, **more))
        assert rows(store) == rows(fresh)
    assert kept > 120
    assert by_places == [True] * 4 + [False] * 2 + [True] * 2  # each night's dry run and run
    again = main(config(store, **more))
    assert (again.unchanged, again.counts.read, again.skipped) == (True, 0, again.products)


def test_a_night_without_change_reads_no_catalog(tmp_path, monkeypatch):
    store, cheap = str(tmp_path), {"filter": {"price": "..25"}}
    fill(store, range(20), pictures=False)
    first = main(config(store, **cheap))
    read: list[str] = []
    monkeypatch.setattr(job, "read_catalog", lambda *args: read.append("read") or flow.read_catalog(*args))

    def unread(**more) -> bool:
        read.clear()
        again = main(config(store, **(cheap | more)))
        told = ("products", "not_allowed", "without_a_vector", "similar_version", "model_version")
        assert [getattr(again, name) for name in told] == [getattr(first, name) for name in told]
        return not read

    assert unread()
    assert not unread(full_scan=True)
    maintain.compact(store, schema.PRODUCTS)
    assert unread()
    assert unread(dry_run=True)
    maintain.rewrite(store, schema.SIMILAR_PRODUCTS, first_row, lambda rows, mask: rows, "test")
    assert not unread()
    assert not unread()  # nothing to write, so the log still tells of that
    main(config(store))  # another filter
    main(config(store, **cheap))
    assert unread()
    append(store, schema.PRODUCTS, [product(3, fetched_at=9)], "night")
    assert not unread()
    append(store, schema.PRODUCTS, [product(21)], "night")
    add_vectors(store, [21])
    assert main(config(store, **cheap)).products == 21


def test_lists_have_no_inactive_filtered_or_same_looking_products(tmp_path):
    store = str(tmp_path / "store")
    fill(store, range(40), pictures=False)
    colours = {n: {"title": "Long linen summer dress", "attributes": [("colour", c)]} for n, c in ((0, "red"), (20, "blue"))}
    others = [product(n, fetched_at=1, **told) for n, told in colours.items()] + [product(5, active=False, fetched_at=1)]
    others += [product(n, fetched_at=1, group_id="g") for n in (1, 6, 11)]
    append(store, schema.PRODUCTS, [*others, product(10, fetched_at=1, price=500.0)], "late")
    append(store, schema.PRODUCTS, [product(99)], "new")  # without a vector
    result = main(config(store, filter={"price": "..400"}))
    assert (result.without_a_vector, result.not_allowed, result.products) == (1, 1, 39)
    found = rows(store)
    assert "p005" not in found
    assert "p010" in found  # has a list, and is in none
    assert found["p000"][schema.CARD] == found["p020"][schema.CARD] == "p000"
    for name, row in found.items():
        assert name not in members(row)
        assert not {"p005", "p010", "p099"} & set(members(row))
        for card in ({"p000", "p020"}, {"p001", "p006", "p011"}):
            assert len(card & {name, *members(row)}) < 2
        assert {int(m[1:]) % 5 for m in members(row)} <= {int(name[1:]) % 5}
    main(config(store, collapse=False, name="all", across=True))
    assert "p020" in members(rows(store, "all")["p000"])
    assert rows(store) == found  # names do not touch each other


def test_other_options_are_computed_anew_and_mistakes_are_told(tmp_path):
    store = str(tmp_path / "store")
    fill(store, range(20), pictures=False)
    assert main(config(store)).whole
    assert main(replace(config(store), k=2)).whole
    assert not main(replace(config(store), k=2, filter={"brand": "a"})).whole  # what a filter lets in has come and gone
    for wrong, told in (
        ({"limit": 3}, "--limit"),
        ({"filter": {"colour": []}}, "filter.colour"),
        ({"filter": {"colur": ["red"]}}, "colour"),
        ({"name": "a/b"}, "name"),
    ):
        with pytest.raises(UsageError, match=told):
            main(replace(config(store), **wrong))
    with pytest.raises(UsageError, match="w2w ingest"):
        main(config(str(tmp_path / "nothing")))


def test_a_list_is_read_by_its_product(tmp_path):
    store = str(tmp_path / "store")
    fill(store, range(20), pictures=False)
    opened = w2w.open(store)
    with pytest.raises(w2w.UsageError, match="w2w similar"):
        opened.similar("p000")
    result = w2w.similar(store=store, k=3)
    found = opened.similar("p000")
    assert found.column_names == [schema.RANK, schema.PRODUCT_ID, schema.SCORE]
    assert found[schema.RANK].to_pylist() == [1, 2, 3]
    assert found[schema.PRODUCT_ID].to_pylist() == members(rows(store)["p000"])
    assert opened.similar("p000", k=1).num_rows == 1
    for product_id, name in (("p999", "default"), ("p000", "other")):
        with pytest.raises(w2w.UsageError, match=name):
            opened.similar(product_id, name=name)
    assert result.versions == {"similar": 1}


def test_a_catalog_without_products_has_no_lists(tmp_path):
    store = str(tmp_path / "store")
    fill(store, range(3), pictures=False)
    assert main(config(store)).products == 3
    append(store, schema.PRODUCTS, [product(n, active=False, fetched_at=1) for n in range(3)], "gone")
    result = main(config(store))
    assert (result.products, result.gone) == (0, 3)
    assert rows(store) == {}
    assert main(config(store)).unchanged
