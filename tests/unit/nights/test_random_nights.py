"""Random nights, every third with a crash at a random write: after each, the store holds what one made from scratch holds."""

import os
import random
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from tests.unit.nights.nights import Clock, Crash, Crashes, Item, Shop, jpeg, products, without_ray
from w2w import ids, schema
from w2w.images.decode import DecodeLimits, decode
from w2w.index import flow as index_flow
from w2w.index import job as index_job
from w2w.index import rows as index_rows
from w2w.index import shard
from w2w.index.beside import plan_beside
from w2w.index.flow import KINDS, Inputs, read_rows
from w2w.index.flow_rows import seek_rows
from w2w.index.layers import layered
from w2w.index.manifest import index_uri
from w2w.index.publish import Published, read_manifest
from w2w.index.search import open_index
from w2w.index.spec import IndexConfig
from w2w.ingest.feed import FeedConfig
from w2w.models.config import EncoderConfig
from w2w.models.encoder import Encoder, load_encoder
from w2w.nightly import job as nightly
from w2w.stage import Pool
from w2w.table import delta

MODELS = (EncoderConfig(), EncoderConfig(store_dtype="float16"))
CATEGORIES = ("top", "bottom", "shoes")
GRACE_NIGHTS = 2
BROKEN = ("torn.jpg", "nowhere.jpg")


@dataclass
class Catalog:
    """What the store has to hold: by product its title, price, category and pictures; worked out from the feeds alone."""

    shop: Shop
    active: dict[str, tuple[str, float, str, tuple[str, ...]]] = field(default_factory=dict)
    last: dict[str, dict[str, str]] = field(default_factory=dict)  # the last pictures by name, also of products that are gone
    absent: dict[str, int] = field(default_factory=dict)
    seen: dict[str, bytes] = field(default_factory=dict)  # pictures by id

    def sleep(self) -> None:
        """Reads a night's feed."""
        for product_id in set(self.active) - set(self.shop.items):
            self.absent[product_id] = self.absent.get(product_id, 0) + 1
            if self.absent[product_id] == GRACE_NIGHTS:
                del self.active[product_id], self.absent[product_id]
        for product_id, item in self.shop.items.items():
            self.absent.pop(product_id, None)
            if item.image not in BROKEN:
                before = self.last.get(product_id, {})
                names = dict.fromkeys((item.image, *item.more))
                self.last[product_id] = {n: i for n in names if (i := before.get(n, "") if n in BROKEN else self._id(n))}
            if product_id in self.last:
                pictures = tuple(self.last[product_id].values())
                self.active[product_id] = (item.title, float(item.price), item.category, pictures)

    def _id(self, name: str) -> str:
        data = (self.shop.folder / name).read_bytes()
        self.seen[ids.image_id(data)] = data
        return ids.image_id(data)


def change(shop: Shop, rng: random.Random, night: int) -> None:
    """A night's worth of adds, edits, withdrawals, re-listings, shared, changed and broken pictures."""
    gone = [f"p{n}" for n in range(60) if f"p{n}" not in shop.items]
    for product_id in rng.sample(gone, min(len(gone), rng.randint(0, 2))):  # new ones, and some that were there before
        shop.items[product_id] = Item(f"{rng.randrange(12)}.jpg", category=rng.choice(CATEGORIES))
    for product_id in rng.sample(sorted(shop.items), rng.randint(0, 2) if len(shop.items) > 8 else 0):
        shop.items.pop(product_id)
    for product_id in rng.sample(sorted(shop.items), rng.randint(0, 4)):
        kind = rng.choice(("price", "title", "category", "image", "broken", "redrawn", "more"))
        if kind in ("price", "title"):
            shop.say(product_id, **{kind: f"{rng.randrange(1, 99)}.50"})
        elif kind == "category":
            shop.say(product_id, category=rng.choice(CATEGORIES))
        elif kind == "more":
            shop.say(product_id, more=tuple(rng.choices([f"{n}.jpg" for n in range(12)] + list(BROKEN), k=rng.randrange(4))))
        elif kind == "redrawn":  # the same name, another picture
            name = f"own-{product_id}.jpg"
            shop.draw(name, 1000 * night + rng.randrange(1000))
            os.utime(shop.folder / name, ns=(night * 10**9, night * 10**9))
            shop.say(product_id, image=name)
        else:
            shop.say(product_id, image=rng.choice(BROKEN) if kind == "broken" else f"{rng.randrange(12)}.jpg", price="3.00")


def run(store: str, feed: str, model: EncoderConfig) -> nightly.Result:
    source = FeedConfig(uri=feed, full=True, grace_nights=GRACE_NIGHTS)
    return nightly.main(
        nightly.Config(
            store=store, feed=source, encoder=model, max_withdrawn_rate=1, max_reject_rate=1, pool=Pool(workers=1),
            index=IndexConfig(layer_from_rows=2, layer_share=0.7),
        )
    )  # fmt: skip


def held(store: str) -> dict[str, tuple[str, float, str, tuple[str, ...]]]:
    """``Catalog.active`` as the store has it."""
    found = {}
    for product_id, row in products(store).items():
        pictures = tuple(one[schema.IMAGE_ID] for one in row[schema.IMAGE_LIST])
        assert pictures[0] == row[schema.IMAGE_ID]
        found[product_id] = (row[schema.TITLE], row[schema.PRICE], row[schema.CATEGORY], pictures)
    return found


def indexed(store: str) -> set[tuple[str, str, str]]:
    """(product, image, category) of every row of the published index."""
    index = open_index(index_uri(store, "default"))
    return {(r[schema.PRODUCT_ID], r[schema.IMAGE_ID], s.info.category) for s in index.shards for r in s.rows_there.to_pylist()}


def vectors(store: str, encoder: Encoder, wanted: set[str]) -> dict[str, np.ndarray]:
    columns = [schema.OWNER_ID, schema.VECTOR]
    rows = delta.read(store, schema.EMBEDDINGS, columns, model_version=encoder.model_version)
    assert len(set(rows.column(0).to_pylist())) == rows.num_rows
    return {i: np.array(v) for i, v in zip(*(c.to_pylist() for c in rows.columns)) if i in wanted}


def pictures(store: str, wanted: set[str]) -> dict[str, bytes]:
    rows = delta.read(store, schema.IMAGES, [schema.IMAGE_ID, schema.BYTES])
    assert len(set(rows.column(0).to_pylist())) == rows.num_rows
    return {i: b for i, b in zip(*(c.to_pylist() for c in rows.columns)) if i in wanted}


def check(store: str, catalog: Catalog, encoder: Encoder) -> None:
    """The store against the catalog: products, pictures by their content, vectors by the model, the index by both."""
    assert held(store) == catalog.active
    wanted = {image_id for *_, pictures in catalog.active.values() for image_id in pictures}
    images = pictures(store, wanted)
    assert {i: ids.image_id(data) for i, data in images.items()} == {i: i for i in wanted}
    found = vectors(store, encoder, wanted)
    assert set(found) == wanted
    order = sorted(wanted)
    pixels_NHWC = np.stack([encoder.prepare(decode(images[i], DecodeLimits())) for i in order])
    mine_ND, theirs_ND = encoder.encode(pixels_NHWC), np.stack([found[i] for i in order])
    assert (mine_ND * theirs_ND).sum(1).min() > 0.999
    assert indexed(store) == {(p, i, category) for p, (_, _, category, some) in catalog.active.items() for i in some}
    hits = open_index(index_uri(store, "default")).search(theirs_ND.astype(np.float32), 1)
    assert [order.index(i) for i in hits.column(schema.IMAGE_ID).to_pylist()] == list(range(len(order)))
    assert min(hits.column(schema.SCORE).to_pylist()) > 0.99


def from_scratch(catalog: Catalog, folder: Path) -> str:
    """A feed of exactly what the catalog holds."""
    folder.mkdir()
    shop = Shop(folder)
    for product_id, (title, price, category, pictures) in catalog.active.items():
        for image_id in pictures:
            (folder / f"{image_id}.jpg").write_bytes(catalog.seen[image_id])
        front, *more = (f"{image_id}.jpg" for image_id in pictures)
        shop.items[product_id] = Item(front, str(price), title, category, tuple(more))
    return shop.write()


def compared_by_logs(monkeypatch: pytest.MonkeyPatch) -> tuple[list[int], list[bool]]:
    """Where the logs told what may have changed in a category, how many products; what is read and found then equals what is
    where all rows are compared."""
    told: list[int] = []

    def both(now, bases, cfg, touched=None):
        found, whole = (layered(now, bases, cfg, some) for some in (touched, None))
        assert (found is None) == (whole is None)
        if found and whole:
            assert found.fresh.equals(whole.fresh)
            assert all((a[2] == b[2]).all() and a[1].equals(b[1]) for a, b in zip(found.kept, whole.kept, strict=True))
        told.extend([] if touched is None else [len(touched)])
        return found

    def read(*inputs, by_logs):
        found, whole = (read_rows(*inputs, by_logs=way) for way in (by_logs, False))
        same(found, whole)
        return found

    def same(found, whole):
        assert found.rows.all.to_pylist() == whole.rows.all.to_pylist()
        assert (found.rows.counts, found.rows.total) == (whole.rows.counts, whole.rows.total)
        assert (found.missing, sorted(found.without)) == (whole.missing, sorted(whole.without))
        places = [some.vectors.find(whole.rows.all[schema.IMAGE_ID]) for some in (found, whole)]
        assert (places[0] == places[1]).all()

    def seek(store, uri, version, served, standing, allowed):
        found = seek_rows(store, uri, version, served, standing, allowed)
        asked.append(found is not None)
        if found is None or len(asked) % 3 == 0:  # as on the night after an upgrade
            return None
        base = Published(None, served)
        same(found, read_rows(store, version, KINDS["products"].rows(store), base, Inputs({}, {}, standing), by_logs=False))
        told.append(len(found.touched))
        return found

    def plan(uri, rows, changed, templates, model_version, cfg, previous):
        found = plan_beside(uri, rows, changed, templates, model_version, cfg, previous)
        whole = shard.plan_shards(rows.all, templates, model_version, cfg, previous, uri)
        planned.append(found is not None)
        if found is not None:
            assert sorted(t.content for t in found) == sorted(t.content for t in whole)
            assert all(t.rows.equals(next(o.rows for o in whole if o.name == t.name)) for t in found if t.told)
        return found

    asked, planned = list[bool](), list[bool]()
    monkeypatch.setattr(index_rows, "_MOST_BESIDE", 0.6)
    monkeypatch.setattr(shard, "layered", both)
    monkeypatch.setattr(index_job, "read_rows", read)
    monkeypatch.setattr(index_job, "seek_rows", seek)
    monkeypatch.setattr(index_flow, "plan_beside", plan)
    return told, planned


@pytest.mark.parametrize(
    ("num_nights", "every"), [(6, 6), pytest.param(60, 20, marks=[pytest.mark.slow])], ids=["a handful", "sixty"]
)
def test_every_night_is_as_one_from_scratch(num_nights, every, tmp_path, monkeypatch):
    without_ray(monkeypatch)
    by_logs, planned = compared_by_logs(monkeypatch)
    seed = int(os.environ.get("W2W_SEED", "1"))
    rng, clock, crashes = random.Random(seed), Clock(monkeypatch), Crashes(monkeypatch)
    (tmp_path / "shop").mkdir()
    shop, store = Shop(tmp_path / "shop"), str(tmp_path / "store")
    shop.stock(12)
    (shop.folder / "torn.jpg").write_bytes(jpeg(0)[:200])
    catalog, model, typical, num_crashes, layers = Catalog(shop), 0, 9, 0, 0
    encoders = [load_encoder(m) for m in MODELS]
    for night in range(num_nights):
        if night:
            change(shop, rng, night)
            clock.sleep()
        model = (model + (rng.random() < 0.15 or night == 3)) % len(MODELS)
        catalog.sleep()
        if night % 3 == 2:
            crashes.at(rng.randint(1, typical), rng.random() < 0.5)
            try:
                run(store, shop.write(), MODELS[model])
            except Crash:
                num_crashes += 1
                clock.sleep(1)
        crashes.left, before = None, crashes.num_writes
        run(store, shop.write(), MODELS[model])
        typical = max(2, crashes.num_writes - before) if night % 3 != 2 else typical
        check(store, catalog, encoders[model])
        layers += any(s.layer or s.dropped for s in read_manifest(index_uri(store, "default")).shards)
        if night % every == every - 1:
            fresh = str(tmp_path / f"fresh-{night}")
            run(fresh, from_scratch(catalog, tmp_path / f"feed-{night}"), MODELS[model])
            assert held(fresh) == held(store)
            assert indexed(fresh) == indexed(store)
            wanted = {image_id for *_, some in catalog.active.values() for image_id in some}
            assert pictures(fresh, wanted) == pictures(store, wanted)
            mine, theirs = (vectors(s, encoders[model], wanted) for s in (store, fresh))
            assert all(mine[i] @ theirs[i] > 0.999 for i in wanted)
    assert num_crashes >= num_nights // 6
    assert layers >= num_nights // 6, "changes beside the shards"
    assert len(by_logs) >= num_nights // 6
    assert sum(planned) >= num_nights // 8
