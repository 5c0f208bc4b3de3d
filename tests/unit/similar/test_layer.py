"""Nights of `w2w similar` that write a layer: the table as it counts equals that of a store that is computed at once."""

from dataclasses import replace

import numpy as np
import pytest

import w2w
from tests.unit.recommend.stores import add_vectors, append, fill, product
from tests.unit.similar.test_job import config, first_row
from w2w import schema, storage
from w2w.engine import snapshot
from w2w.erase import job as erase
from w2w.errors import JobFailed
from w2w.export import job as export
from w2w.similar import base, flow, job
from w2w.similar.job import main
from w2w.table import delta, layered, maintain

LAYERS = {"collapse": False, "layer_from": 1, "layer_share": 100.0}


def rows(store: str, name: str = "default") -> dict[str, dict]:
    columns = [schema.PRODUCT_ID, schema.SIMILAR_LIST, *flow.rules.STATE]
    read = layered.read(store, schema.SIMILAR_PRODUCTS, columns, source=name)
    assert len(set(read.column(0).to_pylist())) == read.num_rows
    return {row[schema.PRODUCT_ID]: row for row in read.to_pylist()}


def anew(folder, now: dict, with_vector: list[int], **more) -> dict[str, dict]:
    fresh = str(folder)
    append(fresh, schema.PRODUCTS, list(now.values()))
    add_vectors(fresh, with_vector)
    main(config(fresh, **(more | {"layer_share": 0.0})))
    return rows(fresh)


class Shop:
    """A store of which anything may change in a night."""

    def __init__(self, store: str, seed: int, num: int = 40):
        self.store, self.rng, self.night = store, np.random.default_rng(seed), 0
        fill(store, range(num), pictures=False)
        self.now, self.with_vector = {n: product(n) for n in range(num)}, list(range(num))

    def change(self) -> None:
        self.night += 1
        changed = {}
        for n in self.rng.choice(sorted(self.now), 3, replace=False):
            what, row = self.rng.integers(6), self.now[int(n)]
            told = {
                0: {"active": not row["active"]},
                1: {"category": "bag" if row["category"] != "bag" else "top"},
                2: {"image_id": product(int(self.rng.choice(self.with_vector)))["image_id"]},
                3: {"price": 99.0 if row["price"] < 60 else 5.0},
                4: {"title": f"Another {self.night}"},
                5: {"active": False},
            }[int(what)]
            changed[int(n)] = row | told | {"fetched_at": self.night, "row_digest": f"d{self.night}"}
        new = int(self.rng.choice(np.setdiff1d(np.arange(200), sorted(self.now))))  # its id is anywhere among the others
        changed[new] = product(new, fetched_at=self.night)
        self.now |= changed
        append(self.store, schema.PRODUCTS, list(changed.values()), f"night{self.night}")
        if self.rng.random() < 0.8:
            add_vectors(self.store, [new])
            self.with_vector.append(new)


@pytest.mark.parametrize(
    ("seed", "more"),
    [(0, {}), (1, {"across": True, "filter": {"price": "..60"}}), (2, {"spare": 0}), (3, {"copy_mb": 0})],
)
def test_any_nights_equal_a_store_that_is_computed_at_once(tmp_path, monkeypatch, seed, more):
    read: list[str] = []
    monkeypatch.setattr(job, "read_catalog", lambda *args: read.append("read") or flow.read_catalog(*args))
    monkeypatch.setattr(snapshot, "_ROWS_PER_PART", 20)
    shop, more = Shop(str(tmp_path / "nights"), seed), LAYERS | more
    main(config(shop.store, **more))
    nights, layers = 12, 0
    for night in range(nights):
        if night == 5:
            maintain.compact(shop.store, schema.PRODUCTS)
        shop.change()
        if night == 8:  # all in one part: read whole, and written anew
            maintain.compact(shop.store, schema.SIMILAR_PRODUCTS)
        read.clear()
        said = main(replace(config(shop.store, **more), dry_run=True))
        assert len(read) == int(night == 8)
        result = main(config(shop.store, **more))
        for name in ("new", "gone", "came", "products", "without_a_vector", "not_allowed"):
            assert getattr(said, name) == getattr(result, name)
        layers += not read
        expected = anew(tmp_path / f"fresh{night}", shop.now, shop.with_vector, **more)
        assert rows(shop.store) == expected
        assert result.products == len(expected)
        assert result.without_a_vector == (sum(r["active"] for r in shop.now.values()) - len(expected) or None)
    assert layers == nights - 1
    opened = w2w.open(shop.store)
    assert opened.table("similar").arrow(current=True).num_rows == len(expected) < opened.table("similar").arrow().num_rows
    for name, row in expected.items():
        if row[schema.SIMILAR_LIST]:
            assert opened.similar(name)[schema.PRODUCT_ID].to_pylist() == [e["product_id"] for e in row[schema.SIMILAR_LIST]]
    gone = next(row["product_id"] for row in shop.now.values() if row["product_id"] not in expected)
    with pytest.raises(w2w.UsageError, match="no list"):
        opened.similar(gone)


class Cards(Shop):
    """One in which products share pictures, groups and designs, and cease to."""

    TITLES = ("Long linen summer dress", "Warm wool winter coat", "Plain", "")
    HASHES = (0x0F0F0F0F0F0F0F, 0x3333333333333333, 3)  # the last one is that of a picture without anything in it

    def __init__(self, store: str, seed: int):
        super().__init__(store, seed)
        self.images: dict[str, int] = {}
        append(store, schema.PRODUCTS, [self.another(n, 0) for n in range(0, 40, 2)], "cards")
        self.look([product(n)["image_id"] for n in range(30)])

    def another(self, n: int, night: int) -> dict:
        title, colour = self.rng.choice(self.TITLES), self.rng.choice(["red", "Blue", "green", "black", ""])
        group = [None, None, "g", "h"][self.rng.integers(4)]
        told = {"title": f"{title} {colour}", "attributes": [("colour", colour), ("x", "y")], "group_id": group}
        told |= {"fetched_at": night + 1, "row_digest": f"c{night}"}
        self.now[n] = self.now[n] | told
        return self.now[n]

    def look(self, images: list[str]) -> None:
        """Tells how they look."""
        new = {image: int(self.rng.choice([*self.HASHES, int(self.rng.integers(2**40))])) for image in images}
        self.images |= new
        told = {"width": 32, "height": 40, "format": "jpeg", "bytes": b"x", "source_uri": "u", "fetched_at": 0}
        append(self.store, schema.IMAGES, [told | {"image_id": one, "phash": code} for one, code in new.items()])

    def change(self) -> None:
        super().change()
        some = self.rng.choice(sorted(self.now), 2, replace=False).tolist()
        append(self.store, schema.PRODUCTS, [self.another(n, self.night) for n in some], f"cards{self.night}")
        unknown = sorted({row["image_id"] for row in self.now.values()} - self.images.keys())
        self.look(unknown[:2])


def whole_cards(folder, shop: Cards, **more) -> dict[str, dict]:
    told = {"width": 32, "height": 40, "format": "jpeg", "bytes": b"x", "source_uri": "u", "fetched_at": 0}
    append(str(folder), schema.IMAGES, [told | {"image_id": one, "phash": code} for one, code in shop.images.items()])
    return anew(folder, shop.now, shop.with_vector, **more)


@pytest.mark.parametrize(("seed", "more"), [(1, {"across": True, "filter": {"price": "..60"}}), (2, {"spare": 0}), (3, {})])
def test_cards_that_part_and_join_equal_those_of_a_store_that_is_computed_at_once(tmp_path, monkeypatch, seed, more):
    read: list[str] = []
    monkeypatch.setattr(job, "read_catalog", lambda *args: read.append("read") or flow.read_catalog(*args))
    shop, more = Cards(str(tmp_path / "nights"), seed), LAYERS | more | {"collapse": True}
    main(config(shop.store, **more))
    shared, layers = set(), 0
    for night in range(6):
        shop.change()
        read.clear()
        said = main(replace(config(shop.store, **more), dry_run=True))
        result = main(config(shop.store, **more))
        layers += not read
        for name in ("new", "gone", "came", "products", "without_a_vector", "not_allowed"):
            assert getattr(said, name) == getattr(result, name)
        found = rows(shop.store)
        assert found == whole_cards(tmp_path / f"fresh{night}", shop, **more)
        shared |= {(row[schema.CARD], name) for name, row in found.items() if row[schema.CARD] != name}
        folder = storage.join(shop.store, "_similar", "default")
        assert sum(f.base_name.startswith("beside") for f in storage.list_files(folder)) <= 1
    assert layers == 6
    assert len(shared) > 20


def test_cards_by_deduplicate_go_on_until_that_runs_again(tmp_path, monkeypatch):
    read: list[str] = []
    monkeypatch.setattr(job, "read_catalog", lambda *args: read.append("read") or flow.read_catalog(*args))
    shop = Cards(str(tmp_path / "nights"), 1)
    images = [product(n)["image_id"] for n in range(30)]
    told = {"cluster_size": 2, "duplicate_of": None, "how": None, "distance": None}
    same = [told | {"image_id": image, "cluster_id": images[n // 3 * 3]} for n, image in enumerate(images)]
    append(shop.store, schema.DUPLICATES, same)
    more = LAYERS | {"collapse": True}
    main(config(shop.store, **more))

    def night() -> bool:
        read.clear()
        main(config(shop.store, **more))
        is_small = not read
        fresh = tmp_path / f"fresh{shop.night}"
        append(str(fresh), schema.DUPLICATES, same)
        assert rows(shop.store) == anew(fresh, shop.now, shop.with_vector, **more)
        return is_small

    for _ in range(4):
        shop.change()
        assert night()
    shop.night += 1
    same.append(told | {"image_id": product(31)["image_id"], "cluster_id": images[0]})
    append(shop.store, schema.DUPLICATES, same[-1:])
    assert not night()
    shop.change()
    assert night()
    folder = storage.join(shop.store, "_similar", "default")
    (beside,) = [f.path for f in storage.list_files(folder) if f.base_name.startswith("beside")]
    storage.write_bytes(beside, b"damaged")
    shop.change()
    assert not night()


def test_another_attribute_that_tells_colours_makes_all_cards_anew(tmp_path, monkeypatch):
    read: list[str] = []
    monkeypatch.setattr(job, "read_catalog", lambda *args: read.append("read") or flow.read_catalog(*args))
    store, more = str(tmp_path / "nights"), LAYERS | {"collapse": True}
    fill(store, range(10), pictures=False)
    told = {"title": "Long linen summer dress", "brand": "a", "category": "dress"}
    now = {n: product(n, attributes=[("colour", str(n))], **told) for n in range(10)}
    append(store, schema.PRODUCTS, [row | {"fetched_at": 1} for row in now.values()], "titles")
    main(config(store, **more))
    for n in range(10):
        now[n] |= {"attributes": [("farbe", "rot" if n < 8 else "blau")], "fetched_at": n + 2}
        append(store, schema.PRODUCTS, [now[n]], f"night{n}")
        read.clear()
        main(config(store, **more))
        assert bool(read) == (n == 5)  # as many of each before
        assert rows(store) == anew(tmp_path / f"fresh{n}", now, list(range(10)), **more)


def test_what_is_not_a_small_night_is_read_whole_and_written_anew(tmp_path, monkeypatch):
    read: list[str] = []
    monkeypatch.setattr(job, "read_catalog", lambda *args: read.append("read") or flow.read_catalog(*args))
    shop = Shop(str(tmp_path / "nights"), 7)

    def whole(**more) -> bool:
        read.clear()
        result = main(config(shop.store, **(LAYERS | more)))
        is_whole = bool(read)
        assert is_whole == (result.beside is None)
        assert rows(shop.store) == anew(tmp_path / f"fresh{shop.night}", shop.now, shop.with_vector, collapse=False)
        return is_whole

    def withdraw(n: int) -> None:
        shop.night += 1
        shop.now[n] |= {"active": False, "fetched_at": shop.night}
        append(shop.store, schema.PRODUCTS, [shop.now[n]], f"night{shop.night}")

    assert whole()
    withdraw(1)
    assert not whole()
    withdraw(2)
    assert whole(full_scan=True)
    withdraw(3)
    assert not whole()
    withdraw(4)
    assert whole(layer_share=0.01)
    withdraw(5)
    storage.delete(storage.join(shop.store, "_similar", "default"))
    assert whole()
    withdraw(6)
    assert not whole()
    withdraw(7)
    maintain.rewrite(shop.store, schema.SIMILAR_PRODUCTS, first_row, lambda rows, mask: rows, "test")
    assert whole()
    shop.change()
    whole()
    maintain.compact(shop.store, schema.EMBEDDINGS)
    withdraw(8)
    assert whole()
    withdraw(9)
    assert not whole()
    assert len(storage.list_folders(storage.join(shop.store, "_similar", "default"))) == 1


def test_a_small_night_reads_what_came_and_its_own_layers(tmp_path, monkeypatch):
    shop, read = Shop(str(tmp_path / "nights"), 8), []

    def batches(store, table, columns, listed, *args, read_batches=delta.read_batches):
        read.extend((table.name, part.path) for part in listed)
        return read_batches(store, table, columns, listed, *args)

    monkeypatch.setattr(delta, "read_batches", batches)
    tables = schema.EMBEDDINGS, schema.SIMILAR_PRODUCTS
    for copy_mb in (2048, 0):
        shop.change()
        main(config(shop.store, **LAYERS, copy_mb=copy_mb, full_scan=True))
        first = {(t.name, part.path) for t in tables for part in delta.parts(delta.open_table(shop.store, t))}
        for _ in range(3):
            shop.change()
            read.clear()
            assert main(config(shop.store, **LAYERS, copy_mb=copy_mb)).beside
            assert {name for name, _ in first & set(read)} == (set() if copy_mb else {"embeddings"})
        assert rows(shop.store) == anew(tmp_path / f"fresh{copy_mb}", shop.now, shop.with_vector, collapse=False)


def test_the_lists_that_a_product_is_in_are_found(monkeypatch):
    monkeypatch.setattr(base, "_SORTED", 50)
    rng = np.random.default_rng(0)
    for num, width in ((60, 5), (3, 2), (1, 1), (0, 3)):
        member_NW = np.full((num, width), -1, np.int32)
        for place in range(num):
            others = rng.permutation(np.delete(np.arange(num), place))[: rng.integers(width + 1)]
            member_NW[place, : len(others)] = others
        holders = base.Holders.of(member_NW)
        for some in (np.arange(0), np.arange(num), rng.integers(0, num + 3, 4)):
            found = np.unique(holders.find(some))
            assert found.tolist() == np.flatnonzero(np.isin(member_NW, some).any(axis=1)).tolist()


def test_a_night_that_is_killed_leaves_the_lists_and_is_run_again(tmp_path, monkeypatch):
    shop = Shop(str(tmp_path / "nights"), 3)
    main(config(shop.store, **LAYERS))
    for step in ("write_part", "add_layer"):
        shop.change()
        before = rows(shop.store)
        module = snapshot if step == "write_part" else snapshot.snapshot

        def killed(*args, **more):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(module, step, killed)
            with pytest.raises(KeyboardInterrupt):
                main(config(shop.store, **LAYERS))
        assert rows(shop.store) == before
        assert main(config(shop.store, **LAYERS)).beside
        assert rows(shop.store) == anew(tmp_path / step, shop.now, shop.with_vector, collapse=False)
    shop.change()
    with monkeypatch.context() as patch:  # a whole run, killed between its files and its commit
        patch.setattr(job, "replace_rows", killed)
        with pytest.raises(KeyboardInterrupt):
            main(config(shop.store, **LAYERS, full_scan=True))
    assert main(config(shop.store, **LAYERS)).beside
    assert rows(shop.store) == anew(tmp_path / "last", shop.now, shop.with_vector, collapse=False)


def test_of_two_runs_at_once_the_second_fails(tmp_path, monkeypatch):
    shop = Shop(str(tmp_path / "nights"), 4)
    main(config(shop.store, **LAYERS))
    shop.change()
    add = job.add_rows

    def meanwhile(*args):
        monkeypatch.setattr(job, "add_rows", add)
        main(config(shop.store, **LAYERS))
        return add(*args)

    monkeypatch.setattr(job, "add_rows", meanwhile)
    with pytest.raises(JobFailed, match="another run of 'similar'"):
        main(config(shop.store, **LAYERS))
    assert rows(shop.store) == anew(tmp_path / "fresh", shop.now, shop.with_vector, collapse=False)


def test_an_export_sends_the_lists_that_changed_once(tmp_path):
    shop = Shop(str(tmp_path / "nights"), 5)
    sent = export.Config(store=shop.store, to="jsonl", out=str(tmp_path / "out"))
    main(config(shop.store, **LAYERS))
    export.main(sent)
    for _ in range(3):
        before, was = rows(shop.store), dict(shop.now)
        shop.change()
        assert main(config(shop.store, **LAYERS)).beside
        now = rows(shop.store)
        active = {row["product_id"] for row in shop.now.values() if row["active"]}
        others = {row["product_id"] for n, row in shop.now.items() if was.get(n) != row}
        others |= {name for name in active if before.get(name, {}).get("similar") != now.get(name, {}).get("similar")}
        assert export.main(sent).upserts == len(others & active)
        assert export.main(sent).upserts == 0


@pytest.mark.parametrize("seed", range(3))
def test_what_is_erased_goes_from_all_layers(tmp_path, seed):
    shop = Shop(str(tmp_path / "nights"), seed)
    for _ in range(3):
        main(config(shop.store, **LAYERS))
        shop.change()
    assert main(config(shop.store, **LAYERS)).beside
    before = rows(shop.store)
    gone = set(shop.rng.choice(sorted(shop.now), 5, replace=False).tolist())
    names = {product(n)["product_id"] for n in gone}
    erase.main(erase.Config(store=shop.store, product=sorted(names)))
    assert not storage.list_folders(storage.join(shop.store, "_similar"))
    stored = delta.read(
        shop.store, schema.SIMILAR_PRODUCTS, [schema.PRODUCT_ID, schema.SIMILAR_LIST, schema.SPARE, schema.CARD]
    )
    assert not any(name in repr(row) for row in stored.to_pylist() for name in names)
    assert rows(shop.store).keys() <= before.keys() - names
    main(config(shop.store, **LAYERS))
    left = {n: row for n, row in shop.now.items() if n not in gone}
    assert rows(shop.store) == anew(tmp_path / "fresh", left, shop.with_vector, collapse=False)


@pytest.mark.parametrize("more", [{"layer_share": 0.0}, {"layer_from": 400}])
def test_numbers_that_no_night_would_look_up_are_not_written(tmp_path, more):
    shop = Shop(str(tmp_path / "nights"), 6)
    main(config(shop.store, **LAYERS))
    where = storage.join(shop.store, "_similar", "default")
    assert storage.list_folders(where)
    for _ in range(2):
        shop.change()
        assert main(config(shop.store, **(LAYERS | more))).beside is None
        assert not storage.list_folders(where)
