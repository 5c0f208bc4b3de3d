"""The jobs' own runs of stages, taken as they hand them to workers, and run in this process instead of on Ray."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import simplejpeg

from tests.unit.garments.test_stage import figure
from tests.unit.index.conftest import Catalog, run_job
from tests.unit.web.webs import Page, serve
from w2w import schema
from w2w.crawl import flow as crawling
from w2w.crawl import job as crawl
from w2w.engine import run as running
from w2w.engine.job import JobConfig, Run
from w2w.garments import classifier
from w2w.garments import job_annotate as annotate
from w2w.garments import job_detect as detect
from w2w.garments import job_segment as segment
from w2w.garments import stage as photos
from w2w.garments.detector import Found
from w2w.garments.formats import AnnotationsConfig
from w2w.garments.masked import Masked
from w2w.garments.taxonomy import CATEGORIES
from w2w.images.decode import DecodeLimits
from w2w.index.manifest import index_uri
from w2w.index.spec import IndexConfig
from w2w.index.stage import SearchConfig
from w2w.ingest import job as ingest
from w2w.ingest.feed import FeedConfig
from w2w.mining.duplicates import flow as duplicates
from w2w.mining.representatives import job as represent
from w2w.mining.sets import flow as converting
from w2w.mining.sets import rows as sets
from w2w.mining.sets.records import Anchor, Photo, Shop
from w2w.models import job as embed
from w2w.models import stage as encoding
from w2w.models.config import EncoderConfig
from w2w.models.encoder import Encoder, encoder_input, model_version
from w2w.search import job_search as search
from w2w.stage import Pool, Stage
from w2w.table import delta
from w2w.table.parts import Output
from w2w.table.sink import Lineage, append_rows
from w2w.training.classifier import job as classify
from w2w.web.doorkeeper import Doorkeeper
from w2w.web.fetch import FetchConfig
from w2w.web.politeness import PolitenessConfig

NUM = 6  # rows of most lines; one picture is broken
_DIM = 32
_ALONE = Pool(workers=1)
_PROFILE = """
name: x
start: ["{url}/"]
rules: [{{match: '/p/', kind: product}}]
kinds: {{product: {{record: product, fields: {{title: {{css: h1, required: true}}, image: {{css: img, attribute: src}}}}}}}}
"""


@dataclass(frozen=True)
class Line:
    """Stages over a source, with all that a worker is told."""

    name: str
    plan: "running._Plan"
    stages: tuple[Stage, ...]
    items: pa.Table


def operators_over(line: Line, stages: Sequence[Stage], pool: Pool, blocks: list[pa.Table], mix: Callable) -> list[pa.Table]:
    """The receipts: every block through the first operator, what comes out dealt anew by ``mix``, through the next one."""
    for operator in running._operators(line.plan, stages, pool, len(blocks)):
        work = operator.work(*operator.arguments)
        made = [work(block) for block in blocks]
        results = [t for m in made for t in ([m] if isinstance(m, pa.Table) else m)]
        blocks = mix(results) if results and "path" not in results[0].column_names else results
    return blocks


class _Detector:
    """Two garments in every photo, where ``figure`` has them."""

    def __init__(self, config):
        pass

    def __call__(self, images: Sequence[np.ndarray]) -> list[Found]:
        shapes = [np.array([i.shape[1], i.shape[0]] * 2, np.float32) for i in images]
        boxes = np.array([[0.35, 0.27, 0.65, 0.58], [0.38, 0.58, 0.62, 0.93]], np.float32)
        return [Found(boxes * s, np.array([0.9, 0.8], np.float32), ["shirt", "pants"], ["top", "bottom"]) for s in shapes]


class _Segmenter:
    """What is not the wall's colour, left of which ``figure`` stands."""

    needs_box = False

    def __call__(self, image: np.ndarray, prompts) -> list[Masked]:
        mask = (np.abs(image.astype(int) - image[2, 2]) > 40).any(axis=2)
        return [Masked(mask, 0.9)] * max(1, len(prompts))


class _Engine:
    dim = _DIM

    def __call__(self, batch_NHWC: np.ndarray) -> np.ndarray:
        return batch_NHWC.reshape(len(batch_NHWC), -1)[:, : 500 * _DIM : 500].astype(np.float32) + 1


def _encoder(config: EncoderConfig) -> Encoder:
    return Encoder(config.name, model_version(config), encoder_input(config), _Engine(), config.store_dtype)


class _Actor:
    """An object in this process, asked as an actor is."""

    def __init__(self, of: object):
        self._of = of

    def ask(self, method: str, *args):
        return getattr(self._of, method)(*args)

    def stop(self) -> None:
        pass


def pictures(num: int = NUM) -> list[bytes]:
    """People whose shirts differ; the third file is none."""
    made = []
    for i in range(num):
        image = figure()[::2, ::2].copy()
        image[55:115, 52:98] = (170, 20 * i, 40 + 10 * i)
        made.append(simplejpeg.encode_jpeg(np.ascontiguousarray(image), 95))
    made[2] = b"<!doctype html>"
    return made


def _feed(folder: Path, blobs: Sequence[bytes]) -> FeedConfig:
    folder.mkdir()
    lines = ["product_id,title,category,image"]
    for i, blob in enumerate(blobs):
        (folder / f"{i}.jpg").write_bytes(blob)
        lines.append(f"p{i},product {i},{('top', 'hat')[i % 2]},{i}.jpg")
    lines.append("p0,again,top,0.jpg")  # a row that the feed's reader rejects
    (folder / "products.csv").write_text("\n".join(lines) + "\n")
    return FeedConfig(uri=str(folder / "products.csv"))


def _stage_version(*parts) -> Lineage:
    return Lineage("fill", "fill", "fill", "v", {"product_key": []}, {}, "x")


@contextmanager
def all_lines(folder: Path) -> Iterator[dict[str, Line]]:
    """Runs the jobs over a small shop, and gives what each handed to workers: of a crawl, the level with most URLs."""
    with pytest.MonkeyPatch.context() as patch, _site(pictures()) as url:
        taken = _taken(folder, patch, url)
        yield {line.name: line for line in sorted(taken, key=lambda line: pc.sum(line.items.column("num_rows")).as_py())}


def _taken(folder: Path, patch: pytest.MonkeyPatch, url: str) -> list[Line]:
    taken: list[Line] = []
    name = ""

    def stream(plan, stages, pool, blocks, until):
        items = pa.concat_tables(blocks)
        kept = folder / f"kept-{len(taken)}"
        places = {}
        for at in ("root", "beside"):
            where = getattr(plan, at)
            if where and "_work" in where:
                shutil.copytree(where, kept / at)
                places[at] = str(kept / at)
        taken.append(Line(name, replace(plan, **places), tuple(stages), items))
        yield from operators_over(taken[-1], stages, replace(pool, workers=1), blocks, lambda results: results)

    patch.setattr(running, "_stream", stream)
    patch.setattr(Run, "begin", Run.check_store)
    patch.setattr(photos, "Detector", _Detector)
    patch.setattr(photos, "load_segmenter", lambda config: _Segmenter())
    patch.setattr(encoding, "load_encoder", _encoder)
    store, blobs = str(folder / "store"), pictures()
    common = {"store": store, "max_reject_rate": 1.0, "pool": replace(_ALONE, batch_rows=4)}

    name, feed = "ingest", _feed(folder / "shop", blobs)
    ingest.main(ingest.Config(feed=feed, **common))
    images = [p for p in pictures(NUM) if p.startswith(b"\xff")]
    append_rows(
        store,
        Output(schema.IMAGES),
        pa.Table.from_pylist(
            [
                {"image_id": f"{i:064x}", "bytes": b, "width": 150, "height": 200, "format": "jpeg", "phash": 0}
                | {"source_uri": "x", "fetched_at": 0}
                for i, b in enumerate([b"GIF89a broken", *images[:2]])
            ],
            schema=schema.IMAGES.schema,
        ),
        _stage_version(),
    )
    name = "detect"
    detect.main(detect.Config(**common))
    name = "segment"
    segment.main(segment.Config(guide_score=0.85, **common))
    name = "segment, no guide"
    segment.main(segment.Config(guide="none", **common))
    for of in ("images", "garments", "slots"):
        name = f"embed {of}"
        embed.main(embed.Config(of=of, decode=DecodeLimits(min_side_px=2), **common))
    name, version = "classify", model_version(EncoderConfig())
    rng = np.random.default_rng(0)
    layer = (rng.standard_normal((len(CATEGORIES), _DIM)).astype(np.float32), np.zeros(len(CATEGORIES), np.float32))
    ones = np.ones(_DIM, np.float32)
    classifier.save(classifier.Classifier(CATEGORIES, version, ones, ones, (layer,)), str(folder / "head"), {})
    classify.main(classify.Config(classifier=str(folder / "head"), **common))
    name = "fingerprint"
    due = duplicates.fingerprints_due(store, DecodeLimits(), 1024)
    job = JobConfig(store=store, max_reject_rate=1)
    duplicates.make_fingerprints(Run("deduplicate", job), due, DecodeLimits(), _ALONE)
    name = "represent"
    patch.setattr(represent, "represent", lambda *_: (running.Counts(), {}))
    represent.main(represent.Config(**common))

    name, rows = (
        "search feed",
        pa.table([[f"q{i}" for i in range(9)]] * 2 + [["top"] * 9], ["product_id", "image_id", "category"]),
    )
    vectors = dict(zip(rows.column(0).to_pylist(), rng.standard_normal((9, _DIM)).astype(np.float32)))
    run_job(index_uri(store, "default"), Catalog(rows, vectors), IndexConfig(), version)
    looked = search.Config(feed=feed, shown=0, search=SearchConfig(k=3, own_category=True), out=str(folder / "out"), **common)
    search.main(looked)
    name = "search garments"
    found = _garments(store)
    pairs = [dict.fromkeys(schema.PAIRS.schema.names, "x") | {"similarity": None, "score": 1.0, **f} for f in found]
    append_rows(store, Output(schema.PAIRS), pa.Table.from_pylist(pairs, schema=schema.PAIRS.schema), _stage_version())
    search.main(replace(looked, of="garments"))

    name = "annotate"
    for i, blob in enumerate(blobs):
        for kind, suffix, data in (
            ("images", "jpg", blob),
            ("labels", "txt", b"0 0.5 0.5 0.25 %.1f\n" % (0.5 if i != 1 else 0)),
        ):
            (folder / "yolo" / kind / "train").mkdir(parents=True, exist_ok=True)
            (folder / "yolo" / kind / "train" / f"{i}.{suffix}").write_bytes(data)
    (folder / "yolo" / "data.yaml").write_text("path: .\ntrain: images/train\nnames: {0: top}\n")
    annotate.main(annotate.Config(annotations=AnnotationsConfig(str(folder / "yolo"), "yolo"), **common))

    reading = converting.Reading("set", "set", "v", 64, DecodeLimits(), FetchConfig(), replace(_ALONE, batch_rows=3))
    uris = [str(folder / "shop" / f"{i}.jpg") for i in range(NUM)]
    name = "convert products"
    shops = [Shop(f"s{i}", None, u, "shirt", "top", None, (10, 10, 50 + i, 90) if i % 2 else None) for i, u in enumerate(uris)]
    parts = [(schema.PRODUCTS, sets.shop_rows(shops, "set", "v"), sets.SHOP_SCHEMA)]
    anchors = (Anchor("p", ("s0",), "shirt", "top", (20, 20, 60, 80)), Anchor("p", ("s1",), "shirt", "top", None))
    people = [Photo(f"f{i}", u, "train", anchors[: 1 + i % 2]) for i, u in enumerate(uris)]
    parts.append((schema.POSTS, sets.photo_rows(people, "set", "v"), sets.PHOTO_SCHEMA))
    for table, made, kind in parts:
        name = f"convert {table.name}"
        part = converting.Pictures(Run("convert", job), reading, table, made, kind)
        part.write(job)
        part.load(job, _stage_version())

    name = "crawl"
    (folder / "profile.yaml").write_text(_PROFILE.format(url=url))
    politeness = PolitenessConfig(requests_per_s=None, max_wait_s=1.0)
    patch.setattr(crawling, "_start_doorkeeper", lambda *_: _Actor(_Keeper(politeness)))
    patch.setattr(crawling, "cluster_cpus", lambda: 1)
    fetch = FetchConfig(allow_private_hosts=("127.0.0.1",))
    common |= {"store": str(folder / "crawled"), "profile": str(folder / "profile.yaml")}
    crawl.main(crawl.Config(fetch=fetch, politeness=politeness, **common))
    return taken


def _garments(store: str) -> list[dict]:
    rows = delta.read(store, schema.GARMENTS, [schema.GARMENT_ID, schema.IMAGE_ID, schema.CATEGORY]).to_pylist()
    return [
        {"pair_id": str(i), "garment_id": r["garment_id"], "anchor_image_id": r["image_id"], "category": r["category"]}
        for i, r in enumerate(rows)
    ]


@contextmanager
def _site(blobs: Sequence[bytes]) -> Iterator[str]:
    """A page a picture, but for the last one, which is missing."""
    links = "".join(f'<a href="/p/{i}">x</a>' for i in range(len(blobs)))
    pages = {"/": Page(links.encode())}
    pages |= {f"/p/{i}": Page(f'<h1>coat {i}</h1><img src="/{i}.jpg">'.encode()) for i in range(len(blobs) - 1)}
    pages |= {f"/{i}.jpg": Page(b, headers={"Content-Type": "image/jpeg"}) for i, b in enumerate(blobs)}
    with serve(pages) as web:
        yield web.url


class _Keeper(crawling._Doorkeeper):
    def __init__(self, config: PolitenessConfig):
        self._doorkeeper = Doorkeeper(config, "w2w", 60.0)
