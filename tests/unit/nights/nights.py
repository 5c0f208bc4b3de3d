"""A shop whose feed, pictures and clock a test changes from night to night, and jobs that do their work in this process."""

import csv
import functools
import io
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from w2w import schema, storage
from w2w.engine import run
from w2w.engine.job import Run
from w2w.engine.shuffle import read_vectors
from w2w.index import flow as indexing
from w2w.ingest import job as ingest
from w2w.ingest import nights
from w2w.ingest.feed import FeedConfig
from w2w.models import stage as models
from w2w.stage import Pool
from w2w.table import delta, lease, parts, sink
from w2w.table.current import current_products

HOUR_US = 3600 * 1_000_000
COLUMNS = ("product_id", "title", "price", "category", "image", "images")


def jpeg(seed: int) -> bytes:
    """A picture that looks like no other."""
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    return simplejpeg.encode_jpeg(np.ascontiguousarray(np.kron(blocks, np.ones((12, 12, 1), np.uint8))), quality=90)


@dataclass(frozen=True)
class Item:
    """A feed row; ``image`` is what the feed says."""

    image: str
    price: str = "10.00"
    title: str = "a shirt"
    category: str = "top"
    more: tuple[str, ...] = ()


@dataclass
class Shop:
    """``items`` is what the feed lists; ``extra`` lines stand below them."""

    folder: Path
    items: dict[str, Item] = field(default_factory=dict)
    extra: list[str] = field(default_factory=list)

    def stock(self, num: int) -> None:
        for n in range(num):
            self.draw(f"{n}.jpg", n)
            self.items[f"p{n}"] = Item(f"{n}.jpg")

    def draw(self, name: str, seed: int) -> None:
        (self.folder / name).write_bytes(jpeg(seed))

    def say(self, product_id: str, **values) -> None:
        self.items[product_id] = replace(self.items[product_id], **values)

    def write(self, name: str = "feed.csv") -> str:
        text = io.StringIO()
        writer = csv.writer(text)
        columns = COLUMNS if any(item.more for item in self.items.values()) else COLUMNS[:-1]
        writer.writerow(columns)
        for i, item in self.items.items():
            writer.writerow([i, item.title, item.price, item.category, item.image, ",".join(item.more)][: len(columns)])
        path = self.folder / name
        path.write_text(text.getvalue() + "".join(f"{line}\n" for line in self.extra))
        return str(path)


class Clock:
    """What a night takes for now; ``sleep`` goes on by a day."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.now = 1_800_000_000_000_000
        monkeypatch.setattr(nights, "now_us", lambda: self.now)

    def sleep(self, hours: float = 24) -> None:
        self.now += int(hours * HOUR_US)


def night(store, shop: Shop, feed: dict | None = None, **options) -> ingest.Result:
    """One ``w2w ingest`` of the shop's feed, full unless it says otherwise."""
    source = FeedConfig(**({"uri": shop.write(), "full": True} | (feed or {})))
    config = {"pool": Pool(workers=1)} | options
    return ingest.main(ingest.Config(store=str(store), feed=source, **config))


def products(store) -> dict[str, dict]:
    """The active products."""
    rows = current_products(str(store), schema.PRODUCTS.schema.names).to_pylist()
    return {row[schema.PRODUCT_ID]: row for row in rows if row[schema.ACTIVE]}


def num_rows(store) -> dict[str, int]:
    return {t.name: delta.count_rows(delta.open_table(str(store), t)) for t in (schema.PRODUCTS, schema.IMAGES, schema.REJECTS)}


def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Operators and tasks run here and now; a model is loaded once."""
    monkeypatch.setattr(Run, "begin", Run.check_store)
    monkeypatch.setattr(run, "run_alone", lambda operator, blocks, until: map(operator.work(*operator.arguments), blocks))
    monkeypatch.setattr(models, "load_encoder", functools.cache(models.load_encoder))
    monkeypatch.setattr(indexing, "run_task", lambda work, *args, num_cpus, title: work(*args))
    monkeypatch.setattr(indexing, "share", lambda value: value)
    monkeypatch.setattr(indexing, "shared", lambda value: value)

    def gather(vectors, targets, consume, arguments, num_cpus=1, title=""):
        return [consume(*some, read_vectors(vectors, rows)) for some, rows in zip(arguments, targets)]

    monkeypatch.setattr(indexing, "gather", gather)


class Crash(BaseException):
    """The driver dies here."""


class Crashes:
    """Counts the writes of the driver, and dies at the chosen one, before it or right after it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.left: int | None = None
        self.num_writes = 0
        self._after = False
        monkeypatch.setattr(lease.Holder, "is_dead", lambda _: True)  # as the process of a run that crashed would be
        for module, name in ((sink, "_commit"), (parts, "_write"), (storage, "write_bytes"), (storage, "replace_if")):
            monkeypatch.setattr(module, name, self._dying(getattr(module, name)))

    def at(self, write: int, after: bool) -> None:
        self.left, self._after = write, after

    def _dying(self, work):
        def write(*args, **kwargs):
            self.num_writes += 1
            if self.left is None:
                return work(*args, **kwargs)
            self.left -= 1
            if self.left == 0 and not self._after:
                raise Crash
            result = work(*args, **kwargs)
            if self.left == 0:
                raise Crash
            return result

        return write
