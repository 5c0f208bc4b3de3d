"""The jobs of a year of nights, in this process; what a store then holds; and a store that is made of it from scratch."""

import functools
import json
import shutil
import threading
import time
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest

from tests.bench.year_encoder import FIRST, SECOND, load
from tests.bench.year_model import GRACE_NIGHTS, Catalog, Held, Product
from tests.bench.year_shop import CUT_OFF, FEED_DOWN, Night
from tests.unit.nights.nights import Clock, Crash, Crashes, without_ray
from w2w import ids, schema
from w2w.bridge import flow as bridging
from w2w.bridge import job as bridge
from w2w.engine import run
from w2w.errors import JobFailed, UsageError
from w2w.export.job import ExportConfig
from w2w.index.manifest import index_uri
from w2w.index.search import Index, open_index
from w2w.index.spec import IndexConfig
from w2w.ingest.feed import FeedConfig
from w2w.ingest.loading import FeedFetchConfig
from w2w.models import job as embedding
from w2w.models import stage as models
from w2w.models.config import EncoderConfig
from w2w.models.encoder import model_version, spaces
from w2w.models.job import Upgrade
from w2w.nightly import job as nightly
from w2w.nightly.tidy import Tidy
from w2w.similar.flow import SimilarConfig
from w2w.stage import Budget, Pool
from w2w.table import bridges, delta, layered
from w2w.table.current import current_products
from w2w.web import fetch as fetching
from w2w.web import politeness

K = 10
LEAST_RECALL = 0.3  # of the bridge: the two encoders are unlike each other
_ITEMS_A_NIGHT = 1  # what a budget stands for here, as seconds are no two times the same
_POOL = Pool(workers=1, batch_rows=8)
_LOCAL = FeedFetchConfig(allow_private_hosts=("127.0.0.1",), requests_per_s=None, retries=0)
_INDEX = IndexConfig(layer_from_rows=2, layer_share=0.3)
_SIMILAR = SimilarConfig(k=8, spare=4, collapse=False, layer_from=2, layer_share=0.3)
_WEEK = 7  # nights: as long are files of earlier versions kept


class Supplier:
    """The server of a shop: its feed and pictures, as ``night`` has them."""

    def __init__(self) -> None:
        self.night: Night | None = None
        supplier = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                status, body, more = supplier.answer(self.path)
                etag = f'"{ids.image_id(body)[:16]}"'
                if status == 200 and self.headers.get("If-None-Match") == etag:
                    status, body, more = 304, b"", 0
                self.send_response(status)
                self.send_header("ETag", etag)
                self.send_header("Content-Length", str(len(body) + more))
                self.end_headers()
                self.wfile.write(body)
                self.close_connection = bool(more)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.feed = f"http://127.0.0.1:{self._server.server_port}/feed.csv"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def answer(self, path: str) -> tuple[int, bytes, int]:
        """Status, body, and by how many bytes it says to be longer."""
        night = self.night
        assert night
        if path == "/feed.csv":
            if night.feed is None:
                return (503 if night.fault == FEED_DOWN else 404), b"", 0
            return 200, night.feed, 1000 if night.fault == CUT_OFF else 0
        name = path.removeprefix("/")
        if night.is_down(name):
            return 503, b"", 0
        data = night.files.get(name)
        return (404, b"", 0) if data is None else (200, data, 0)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def in_this_process() -> Iterator[tuple[Clock, Crashes]]:
    """No Ray, no torch, a clock of our own, and writes that may be the driver's last."""
    with pytest.MonkeyPatch.context() as patch:
        without_ray(patch)

        def alone(operator, blocks, until):
            worker = operator.work(*operator.arguments)
            return map(worker, blocks if until is None else islice(blocks, _ITEMS_A_NIGHT))

        patch.setattr(run, "run_alone", alone)
        patch.setattr(models, "load_encoder", load)
        patch.setattr(embedding, "try_encoder", lambda config: None)
        patch.setattr(bridging, "try_encoder", lambda config: None)
        patch.setattr(nightly, "show", lambda step: None)
        patch.setattr(fetching, "_BACKOFF_S", 0.001)
        patch.setattr(politeness, "_PAUSE_S", 0.001)
        yield Clock(patch), Crashes(patch)


def options(store: str, feed: FeedConfig, encoder: EncoderConfig, **more: Any) -> nightly.Config:
    what = {"similar": None if encoder.bridge else _SIMILAR, "export": ExportConfig()} | more
    return nightly.Config(
        store=store, feed=feed, encoder=encoder, fetch=_LOCAL, pool=_POOL, index=_INDEX, examples=2, **what
    )  # fmt: skip


class Store:
    """A store that has nights. ``encoder``: of the index; a change of models goes over a bridge, night by night."""

    def __init__(self, uri: str, feed: str, clock: Clock, crashes: Crashes):
        self.uri, self.encoder, self.num_crashes = uri, FIRST, 0
        self._feed, self._clock, self._crashes, self._writes = feed, clock, crashes, 9

    def sleep(self, night: Night) -> tuple[nightly.Result | None, str, float]:
        """Result, error or "", and seconds of the undisturbed run of a night, which has run and died before if it says so."""
        died = night.crash is not None and self._dies(night, *night.crash)
        self._crashes.left, before = None, self._crashes.num_writes
        result, error, begun = None, "", time.monotonic()
        try:
            result = nightly.main(self._config(night))
        except (JobFailed, UsageError) as e:
            error = str(e) or type(e).__name__
        if not died and not error:
            self._writes = max(2, self._crashes.num_writes - before)
        return result, error, time.monotonic() - begun

    def _dies(self, night: Night, share: float, after: bool) -> bool:
        self._crashes.at(1 + int(share * self._writes), after)
        try:
            nightly.main(self._config(night))
        except Crash:
            self.num_crashes += 1
            self._clock.sleep(1)
            return True
        except (JobFailed, UsageError):
            pass
        return False

    def _config(self, night: Night) -> nightly.Config:
        feed = FeedConfig(uri=self._feed, full=True, grace_nights=GRACE_NIGHTS)
        upgrade = Upgrade(budget=Budget(minutes=1)) if self.encoder.bridge else None
        tidy = Tidy(parts=30, reports=3, vacuum_hours=0 if night.number % _WEEK == _WEEK - 1 else 24 * _WEEK)
        return options(self.uri, feed, self.encoder, upgrade=upgrade, tidy=tidy)

    def go_over(self, sample: int) -> bridge.Result:
        """Fits a bridge to the second model; nights then serve what it maps, and compute more of the second's vectors."""
        made = bridge.main(
            bridge.Config(store=self.uri, encoder=SECOND, old=FIRST, sample=sample, min_recall=LEAST_RECALL, pool=_POOL)
        )
        self.encoder = EncoderConfig(name=SECOND.name, bridge=made.bridge)
        return made

    def held(self) -> Held:
        return held(self.uri, self.encoder)


def held(store: str, encoder: EncoderConfig) -> Held:
    products = products_of(store)
    wanted = {image for *_, pictures in products.values() for image in pictures}
    check_pictures(store, wanted)
    index = open_index(index_uri(store, "default"))
    rows = {(r[schema.PRODUCT_ID], r[schema.IMAGE_ID]): s.info.category for s in index.shards for r in s.rows_there.to_pylist()}
    lists = layered.read(store, schema.SIMILAR_PRODUCTS, [schema.PRODUCT_ID, schema.SIMILAR_LIST], source="default").to_pylist()
    similar = {r[schema.PRODUCT_ID]: tuple(tuple(one.values()) for one in r[schema.SIMILAR_LIST]) for r in lists}
    vectors = {image: vector.tobytes() for image, vector in served(store, encoder, wanted).items()}
    return Held(products, vectors, rows, answers(index), similar, sent(store))


def products_of(store: str) -> dict[str, Product]:
    columns = [schema.TITLE, schema.PRICE, schema.CATEGORY, schema.AVAILABILITY, schema.IMAGE_ID, schema.IMAGE_LIST]
    found = {}
    for row in current_products(store, [schema.PRODUCT_ID, *columns, schema.ACTIVE]).to_pylist():
        if row[schema.ACTIVE]:
            pictures = tuple(one[schema.IMAGE_ID] for one in row[schema.IMAGE_LIST])
            assert pictures[0] == row[schema.IMAGE_ID]
            found[row[schema.PRODUCT_ID]] = (*(row[c] for c in columns[:4]), pictures)
    return found


def check_pictures(store: str, wanted: set[str]) -> None:
    """Every picture is there once, and is what its id says."""
    rows = delta.read(store, schema.IMAGES, [schema.IMAGE_ID, schema.BYTES])
    listed = rows.column(0).to_pylist()
    assert len(set(listed)) == len(listed), "a picture is stored twice"
    found = dict(zip(listed, rows.column(1).to_pylist()))
    assert all(image in found and ids.image_id(found[image]) == image for image in wanted), "a picture is missing"


def served(store: str, encoder: EncoderConfig, wanted: set[str]) -> dict[str, np.ndarray]:
    """The vector of each picture as the index has to have it: of the model, or over a bridge of the one before."""
    if not encoder.bridge:
        return _vectors(store, model_version(encoder), wanted)
    made = bridges.read(encoder.bridge)
    new = {image: made(vector[None])[0] for image, vector in _vectors(store, made.new, wanted).items()}
    return new | _vectors(store, made.old, wanted)


def _vectors(store: str, model: str, wanted: set[str]) -> dict[str, np.ndarray]:
    rows = delta.read(store, schema.EMBEDDINGS, [schema.OWNER_ID, schema.VECTOR], model_version=model)
    listed = rows.column(0).to_pylist()
    assert len(set(listed)) == len(listed), "a vector is stored twice"
    return {i: np.array(v, np.float32) for i, v in zip(listed, rows.column(1).to_pylist()) if i in wanted}


@functools.cache
def queries(dim: int, num: int = 32) -> np.ndarray:
    """Unit vectors of garments that are not sold, as the encoder of that length sees them, float32 (num, dim)."""
    from tests.bench.year_encoder import DIMS
    from tests.bench.year_shop import drawn
    from w2w.images.decode import DecodeLimits, decode
    from w2w.wardrobe.garment import make_garment

    encoder = load({DIMS["first"]: FIRST, DIMS["second"]: SECOND}[dim])
    pictures = [decode(drawn(make_garment(10**6, n)), DecodeLimits()) for n in range(num)]
    return encoder.encode(np.stack([encoder.prepare(picture) for picture in pictures]))


def answers(index: Index) -> dict[tuple[int, int], tuple[str, str, float]]:
    """The K nearest pictures of each query, and behind them its K nearest products."""
    asked, found = queries(index.manifest.dim), {}
    for n, one_per_product in enumerate((False, True)):
        columns = ("query", "rank", schema.PRODUCT_ID, schema.IMAGE_ID, "score")
        hits = index.search(asked, K, one_per_product=one_per_product)
        for query, rank, *hit in zip(*(hits.column(c).to_pylist() for c in columns)):
            found[query, n * K + rank] = tuple(hit)
    return found


def sent(store: str) -> dict[str, dict]:
    """What a system has that took in all files of the export, without where its pictures lie."""
    found: dict[str, dict] = {}
    for file in sorted(Path(store, "exports", "default").glob("*.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines():
            said = json.loads(line)
            product = said[schema.PRODUCT_ID]
            if said.pop(schema.OP) == "delete":
                found.pop(product, None)
            else:
                found[product] = _without_places(said)
    return found


def _without_places(said: dict) -> dict:
    images = [picture[schema.IMAGE_ID] for picture in said.get(schema.IMAGE_LIST, ())]
    return {k: v for k, v in said.items() if k not in (schema.IMAGE_URI, schema.FETCHED_AT)} | {schema.IMAGE_LIST: images}


def from_scratch(folder: Path, catalog: Catalog, encoder: EncoderConfig, old: Set[str] = frozenset()) -> Held:
    """What a store holds that was made in one night. ``old``: over a bridge, the pictures that have a vector of the model
    before; that store has had two nights."""
    folder.mkdir()
    for image in {image for *_, some in catalog.active.values() for image in some}:
        (folder / f"{image}.jpg").write_bytes(catalog.seen[image])
    store = str(folder / "store")
    if encoder.bridge:
        before = {p: (*said, tuple(i for i in some if i in old)) for p, (*said, some) in catalog.active.items()}
        feed = _feed(folder / "before.csv", {p: row for p, row in before.items() if row[-1]})
        nightly.main(options(store, FeedConfig(uri=feed), FIRST, similar=None, export=None))
        copy = bridges.uri_of(store, "copy")
        Path(copy).parent.mkdir()
        encoder = replace(encoder, bridge=shutil.copy(encoder.bridge, copy))
    nightly.main(options(store, FeedConfig(uri=_feed(folder / "feed.csv", catalog.active)), encoder))
    return held(store, encoder)


def _feed(file: Path, products: Mapping[str, Product]) -> str:
    names = ["product_id", "title", "price", "category", "availability", "image", "images"]
    columns: list[list] = [[] for _ in names]
    for product_id, (title, price, category, stock, pictures) in products.items():
        front, *more = (f"{image}.jpg" for image in pictures)
        said = (product_id, title, price, category, stock.replace("_", " "), front, ",".join(more))
        for column, value in zip(columns, said):
            column.append(value)
    pa.csv.write_csv(pa.table(dict(zip(names, columns))), file)
    return str(file)


def old_pictures(store: str) -> set[str]:
    """Those with a vector of the first model."""
    return set(delta.read(store, schema.EMBEDDINGS, [schema.OWNER_ID], model_version=spaces(FIRST)[0]).column(0).to_pylist())


def files_of(store: str) -> dict[str, int]:
    """Bytes of every file."""
    return {str(file): file.stat().st_size for file in Path(store).rglob("*") if file.is_file()}
