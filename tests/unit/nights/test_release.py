"""The gate on what shoppers see, in whole nights: feed, vectors, index."""

import csv
import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from tests import chromium
from tests.unit.nights.nights import jpeg
from w2w import schema
from w2w.errors import JobFailed, UsageError
from w2w.index import flow_golden
from w2w.index import job as index
from w2w.index.manifest import index_uri
from w2w.index.publish import published, read_manifest
from w2w.index.spec import IndexConfig
from w2w.ingest.feed import FeedConfig
from w2w.models.config import EncoderConfig
from w2w.nightly import job as nightly
from w2w.stage import Pool
from w2w.table.current import current_products

pytestmark = pytest.mark.usefixtures("clock")


@dataclass
class Store:
    """A shop of forty products of two classes, its feed and its store."""

    folder: Path
    rows: dict[str, list[str]] = field(default_factory=dict)

    @property
    def uri(self) -> str:
        return str(self.folder / "store")

    @property
    def published(self) -> bytes | None:
        return published(index_uri(self.uri, "default")).current

    def feed(self) -> str:
        path = self.folder / "feed.csv"
        with path.open("w", newline="") as file:
            lines = [[product, *row] for product, row in self.rows.items()]
            csv.writer(file).writerows([["product_id", "title", "category", "image", "availability"], *lines])
        return str(path)

    def pin(self, *lines: str, name: str = "golden.csv") -> IndexConfig:
        (self.folder / name).write_text("\n".join(lines) + "\n")
        return IndexConfig(golden=str(self.folder / name))

    def night(self, config: IndexConfig | None = None, **more) -> nightly.Result:
        source = FeedConfig(uri=self.feed(), full=True)
        options = {"max_withdrawn_rate": 1, "encoder": EncoderConfig(), "pool": Pool(workers=1)} | more
        return nightly.main(nightly.Config(store=self.uri, feed=source, index=config or IndexConfig(), **options))


@pytest.fixture
def shop(tmp_path) -> Store:
    made = Store(tmp_path)
    for n in range(40):
        (tmp_path / f"{n}.jpg").write_bytes(jpeg(n))
        made.rows[f"p{n}"] = [f"a shirt, {n}", ("top", "bottom")[n % 2], f"{n}.jpg", "in stock"]
    return made


def test_stock_that_is_wrong_stops_a_night_whose_rows_are_the_same(shop):
    first = shop.night()
    assert first.index.shoppers_see["out_of_stock"] == 0
    for row in shop.rows.values():
        row[3] = "out of stock"
    with pytest.raises(
        JobFailed, match=r"1.000 of the answers are out of stock, 0.000 last night.*p\d+ \(.*more;.*--accept"
    ) as failed:
        shop.night()
    assert "index.html" in str(failed.value)
    accepted = shop.night(accept=True).index
    assert accepted.unchanged
    assert "Published all the same" in Path(accepted.sheet).read_text()
    again = shop.night()
    assert (again.index.unchanged, again.index.shoppers_see["out_of_stock"]) == (True, 1.0)
    assert again.index.accepted == ()


def test_a_shifted_feed_is_not_published(shop):
    shop.night()
    served = shop.published
    names = [row[2] for row in shop.rows.values()]
    for n, row in enumerate(shop.rows.values()):
        if n < 12:
            row[2] = names[(n + 1) % 12]
    with pytest.raises(JobFailed, match=r"12 of 40 sampled products have given their picture to another product.*now of p"):
        shop.night()
    assert shop.published == served
    (page,) = (Path(shop.uri) / "reports" / "index").glob("index-*/index.html")
    assert "Not published" in page.read_text()
    rows = [json.loads(line) for line in page.with_name("rows.jsonl").read_text().splitlines()]
    assert {row["product_id"] for row in rows} == {f"p{n}" for n in range(12)}
    shifted = [row[2] for row in shop.rows.values()]
    for name, row in zip(names, shop.rows.values()):
        row[2] = name
    assert shop.night().index.unchanged, "a feed that is right again passes by itself"
    for name, row in zip(shifted, shop.rows.values()):
        row[2] = name
    done = shop.night(accept=True).index
    assert len(done.accepted) == 1
    assert shop.published != served
    gate = read_manifest(index_uri(shop.uri, "default")).gate
    assert gate.passed
    assert gate.reasons == done.accepted
    assert gate.seen["swapped"] == 0.3


@pytest.mark.skipif(chromium.program() is None, reason="there is no Chromium here")
def test_the_sheet_in_a_browser(shop):
    for product in ("p3", "p4"):
        shop.rows[product][0] = "<script>alert(1)</script> long " * 20
    shop.night()
    for row in shop.rows.values():
        row[3] = "out of stock"
    shop.rows["p5"][2] = "7.jpg"
    with pytest.raises(JobFailed):
        shop.night(shop.pin("product_id,expected,k,min_hits,note", "p3,p5,1,1,<b>ours</b>"))
    (page,) = (Path(shop.uri) / "reports" / "index").glob("index-*/index.html")
    with chromium.browser() as browser:
        for width in chromium.WIDTHS:
            shown = browser.page(width)
            shown.open(page.as_uri())
            assert shown.faults() == []


def test_a_night_asks_the_golden_queries_by_product_picture_and_photo(shop, monkeypatch):
    loaded = []
    monkeypatch.setattr(
        flow_golden, "load_encoder", lambda config, load=flow_golden.load_encoder: loaded.append(1) or load(config)
    )
    (shop.folder / "photo.jpg").write_bytes(jpeg(4))
    lines = ["product_id,image_id,photo,expected,k,min_hits,note", ",,photo.jpg,p4,1,1,a photo"]
    done = shop.night(shop.pin(*lines)).index
    assert (done.shoppers_see["golden"], loaded) == (1.0, [1])
    image = next(r[schema.IMAGE_ID] for r in _products(shop) if r[schema.PRODUCT_ID] == "p6")
    lines += [f",{image},,p6|p8|gone,40,0,", "p2,,,p0|p4,40,2,"]
    (shop.folder / "99.jpg").write_bytes(jpeg(99))
    shop.rows["p99"] = ["new", "top", "99.jpg", ""]
    done = shop.night(shop.pin(*lines)).index
    assert done.shoppers_see["golden"] == 4 / 5, "no query finds its own product"
    assert done.unknown_products == ("gone",)
    assert loaded == [1], "the photo's vector is kept"
    assert done.warning == "expected by golden queries, and not sold: gone"
    again = shop.night(shop.pin(*lines, "p8,,,p10,40,1,new")).index
    assert (again.unchanged, again.shoppers_see["golden"], again.warning) == (True, 5 / 6, done.warning)
    with pytest.raises(JobFailed, match=r"p12 \(golden.csv, line 5 \(product p8\): 0 of 1 are among its first 1\)"):
        shop.night(shop.pin(*lines, "p8,,,p12,1,1,"))
    (shop.folder / "4.jpg").write_bytes(jpeg(1004))
    with pytest.raises(
        JobFailed, match=r"1 golden query does not find the min_hits: p4 \(golden.csv, line 2 \(photo photo.jpg\)"
    ):
        shop.night(shop.pin(*lines))


def _products(shop: Store) -> list[dict]:
    return current_products(shop.uri, [schema.PRODUCT_ID, schema.IMAGE_ID]).to_pylist()


def test_a_golden_file_that_is_wrong_stops_a_night_before_its_first_step(shop):
    with pytest.raises(UsageError, match=r"golden.csv, line 3: expected='\[\]': name at least one product"):
        shop.night(shop.pin("product_id,expected", "p1,p2", "p2,"))
    assert not Path(shop.uri).exists()
    with pytest.raises(UsageError, match="the catalog never had, all of them: q1, q2"):
        shop.night(shop.pin("product_id,expected", "p1,q1|q2"))
    with pytest.raises(UsageError, match="golden queries are of products"):
        index.main(index.Config(store=shop.uri, of="looks", index=shop.pin("product_id,expected", "p1,p2")))


def test_a_withdrawn_answer_counts_for_nobody(shop, clock):
    config = shop.pin("product_id,expected,k,min_hits", "p2,p4,40,1", "p6,p4|p8,40,2", "p7,p9,40,1")
    config = replace(config, golden_floors={"top": 1.0}, recall_floors={"top": 1.0})
    first = shop.night(replace(config, recall_floors={"hat": 1.0})).index
    assert first.warning == "index.recall_floors: the index has no category 'hat'"
    del shop.rows["p4"], shop.rows["p7"]
    for _ in range(2):
        clock.sleep()
        done = shop.night(config)
    assert (done.ingest.withdrawn, done.index.shoppers_see["golden"]) == (2, 1.0)
    assert done.index.warning == (
        "expected by golden queries, and not sold: p4; golden queries that cannot be asked: golden.csv, line 4 (product p7)"
    )
