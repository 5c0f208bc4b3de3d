"""Products with several pictures, night after night: each is stored, embedded and indexed; a broken one costs only itself."""

import csv
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from tests.unit.nights.nights import jpeg, num_rows
from tests.unit.nights.nights import products as active
from w2w import ids, schema
from w2w.index import job as index
from w2w.index.manifest import index_uri
from w2w.index.search import open_index
from w2w.ingest import flow as ingesting
from w2w.ingest import job as ingest
from w2w.ingest.feed import FeedConfig
from w2w.ingest.loading import FeedFetchConfig
from w2w.models import job as embed
from w2w.stage import Pool
from w2w.table import delta, maintain, parts, sink

Rows = dict[str, list[str]]  # product -> its pictures, the front first


@pytest.fixture
def shop(tmp_path) -> Path:
    folder = tmp_path / "shop"
    folder.mkdir()
    for n in range(12):
        (folder / f"{n}.jpg").write_bytes(jpeg(n))
    return folder


def night(store: str, shop: Path, rows: Rows, price: str = "5", feed: dict | None = None, **options) -> ingest.Result:
    with (shop / "feed.csv").open("w", newline="") as file:
        lines = [[product, price, "top", pictures[0], ", ".join(pictures[1:])] for product, pictures in rows.items()]
        csv.writer(file).writerows([["product_id", "price", "category", "image", "images"], *lines])
    source = FeedConfig(uri=str(shop / "feed.csv"), full=True, **(feed or {}))
    return ingest.main(ingest.Config(store=store, feed=source, pool=Pool(workers=1), max_reject_rate=1, **options))


def pictures(store: str) -> dict[str, list[tuple[int, str, str, str]]]:
    """(position, role, name, image_id) of every picture of the active products."""
    names = (schema.POSITION, schema.ROLE, schema.URI, schema.IMAGE_ID)
    return {
        product: [(p[names[0]], p[names[1]], p[names[2]].rpartition("/")[2], p[names[3]]) for p in row[schema.IMAGE_LIST]]
        for product, row in active(store).items()
    }


def of(shop: Path, *names: str) -> list[tuple[int, str, str, str]]:
    """``pictures`` of a product, as it should be."""
    return [
        (n, "front" if n == 1 else "additional", name, ids.image_id((shop / name).read_bytes()))
        for n, name in enumerate(names, 1)
    ]


def warnings(store: str) -> list[tuple[str, str, str]]:
    current = {(p, row[schema.ROW_DIGEST]) for p, row in active(store).items()}
    rows = delta.read(store, schema.WARNINGS, schema.WARNINGS.schema.names).to_pylist()
    said = [r for r in rows if (r[schema.PRODUCT_ID], r[schema.ROW_DIGEST]) in current]
    return sorted((r[schema.PRODUCT_ID], r[schema.COLUMN], r[schema.REJECT_CODE]) for r in said)


def test_every_picture_is_stored_once_and_a_night_without_changes_does_nothing(store, shop, clock):
    rows = {"a": ["0.jpg", "1.jpg", "2.jpg"], "b": ["3.jpg"], "c": ["1.jpg", "4.jpg", "1.jpg", "4.jpg"]}
    first = night(store, shop, rows)
    assert (first.counts.read, first.counts.out, first.pending) == (3, 3, 3)
    said = {"a": of(shop, "0.jpg", "1.jpg", "2.jpg"), "b": of(shop, "3.jpg"), "c": of(shop, "1.jpg", "4.jpg")}
    assert pictures(store) == said
    assert all(row[schema.IMAGE_ID] == said[p][0][3] for p, row in active(store).items())
    assert num_rows(store) == {"products": 3, "images": 5, "rejects": 0}
    clock.sleep()
    assert (night(store, shop, rows).pending, num_rows(store)) == (0, {"products": 3, "images": 5, "rejects": 0})


def test_only_what_changed_of_a_products_pictures_is_read_again(store, shop, clock, monkeypatch):
    rows = {"a": ["0.jpg", "1.jpg", "2.jpg"], "b": ["3.jpg", "4.jpg"]}
    night(store, shop, rows)
    read: list[str] = []
    load = ingesting.load_more.__globals__["load_image"]
    monkeypatch.setitem(
        ingesting.load_more.__globals__, "load_image", lambda uri, **limits: (read.append(uri[-5:]), load(uri, **limits))[1]
    )
    clock.sleep()
    (shop / "2.jpg").write_bytes(jpeg(20))
    said = night(store, shop, {"a": ["0.jpg", "5.jpg", "2.jpg", "1.jpg"], "b": ["3.jpg", "4.jpg"]})
    assert (said.pending, sorted(read)) == (1, ["2.jpg", "5.jpg"])
    assert pictures(store)["a"] == of(shop, "0.jpg", "5.jpg", "2.jpg", "1.jpg")
    assert num_rows(store)["images"] == 7
    night(store, shop, {"a": ["0.jpg"], "b": ["3.jpg", "4.jpg"]})
    assert pictures(store) == {"a": of(shop, "0.jpg"), "b": of(shop, "3.jpg", "4.jpg")}


def test_a_broken_further_picture_is_a_warning_and_is_asked_for_again(store, shop, clock):
    (shop / "torn.jpg").write_bytes(jpeg(30)[:300])
    rows = {"a": ["0.jpg", "gone.jpg", "1.jpg"], "b": ["2.jpg", "torn.jpg", "/etc/passwd"]}
    first = night(store, shop, rows)
    assert (first.counts.out, first.counts.rejected, num_rows(store)["rejects"]) == (2, 0, 0)
    assert [(p[0], p[2]) for p in pictures(store)["a"]] == [(1, "0.jpg"), (3, "1.jpg")]
    assert [p[2] for p in pictures(store)["b"]] == ["2.jpg"]
    assert warnings(store) == [("a", "images", "not_found"), ("b", "images", "blocked_url"), ("b", "images", "truncated")]
    clock.sleep()
    again = night(store, shop, rows)  # a's may be there tonight; b's bytes are what they were
    assert (again.pending, num_rows(store)["products"], len(warnings(store))) == (1, 2, 3)
    (shop / "gone.jpg").write_bytes(jpeg(31))
    assert night(store, shop, rows).pending == 1
    assert pictures(store)["a"] == of(shop, "0.jpg", "gone.jpg", "1.jpg")
    assert [w[0] for w in warnings(store)] == ["b", "b"]
    (shop / "gone.jpg").unlink()
    night(store, shop, rows, price="6")
    assert [p[2:] for p in pictures(store)["a"]] == [p[2:] for p in [*of(shop, "0.jpg")]] + [
        ("gone.jpg", ids.image_id(jpeg(31))), ("1.jpg", ids.image_id(jpeg(1))),
    ]  # fmt: skip
    assert (active(store)["a"][schema.PRICE], [w[0] for w in warnings(store)]) == (6.0, ["a", "b", "b"])


def test_a_broken_front_keeps_all_earlier_pictures(store, shop, clock):
    night(store, shop, {"a": ["0.jpg", "1.jpg"]})
    clock.sleep()
    said = night(store, shop, {"a": ["gone.jpg", "2.jpg"]}, price="7")
    assert said.counts.rejects == {"not_found": 1}
    assert (pictures(store)["a"], active(store)["a"][schema.PRICE]) == (of(shop, "0.jpg", "1.jpg"), 7.0)


def test_a_product_has_so_many_pictures_and_the_rest_are_counted(store, shop, clock):
    rows = {"a": [f"{n}.jpg" for n in range(6)], "b": ["7.jpg"]}
    assert night(store, shop, rows, feed={"max_pictures": 4}).pictures_beyond_the_most == 2
    assert pictures(store)["a"] == of(shop, "0.jpg", "1.jpg", "2.jpg", "3.jpg")


def test_a_withdrawn_product_keeps_its_pictures_and_has_them_when_it_is_back(store, shop, clock):
    rows = {"a": ["0.jpg", "1.jpg"], "b": ["2.jpg"]}
    night(store, shop, rows)
    clock.sleep()
    night(store, shop, {"b": ["2.jpg"]}, withdraw_missing=1)
    assert set(active(store)) == {"b"}
    night(store, shop, rows)
    assert pictures(store)["a"] == of(shop, "0.jpg", "1.jpg")
    assert maintain.compact(store, schema.PRODUCTS)
    assert pictures(store)["a"] == of(shop, "0.jpg", "1.jpg")


def test_all_pictures_of_active_products_are_indexed_and_an_answer_is_a_product(store, shop, clock):
    rows = {"a": ["0.jpg", "1.jpg", "2.jpg"], "b": ["3.jpg", "2.jpg"], "c": ["4.jpg"]}
    night(store, shop, rows)
    embed.main(embed.Config(store=store, pool=Pool(workers=1)))
    index.main(index.Config(store=store))
    opened = open_index(index_uri(store, "default"))
    assert sum(s.info.num_rows for s in opened.shards) == 6
    assert {r[schema.PRODUCT_ID] for s in opened.shards for r in s.rows.to_pylist()} == set(rows)
    wanted = ids.image_id((shop / "1.jpg").read_bytes())
    [vector] = [
        r[schema.VECTOR]
        for r in delta.read(store, schema.EMBEDDINGS, [schema.OWNER_ID, schema.VECTOR]).to_pylist()
        if r[schema.OWNER_ID] == wanted
    ]
    hits = opened.search(np.float32([vector]), 10, one_per_product=True).to_pylist()
    assert hits[0][schema.PRODUCT_ID] == "a"
    assert (len(hits), hits[0][schema.IMAGE_ID]) == (3, wanted)
    clock.sleep()
    night(store, shop, {"a": ["0.jpg"], "b": ["3.jpg", "2.jpg"], "c": ["4.jpg"]})
    index.main(index.Config(store=store))
    assert sum(s.info.num_rows for s in open_index(index_uri(store, "default")).shards) == 4


class Web:
    """Pictures on the web, with ETags."""

    def __init__(self):
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, int]] = []
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                data = web.files.get(self.path)
                tag = f'"{ids.image_id(data)[:16]}"' if data else ""
                status = 404 if data is None else 304 if self.headers.get("If-None-Match") == tag else 200
                if self.path.endswith(".jpg"):  # and not the files that say what pictures may be used for
                    web.asked.append((self.path, status))
                self.send_response(status)
                self.send_header("ETag", tag)
                self.send_header("Content-Length", str(len(data)) if status == 200 else "0")
                self.end_headers()
                self.wfile.write(data if status == 200 else b"")

            def log_message(self, *args):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self):
        self._server.shutdown()
        self._server.server_close()


def test_pictures_on_the_web_are_asked_for_again_by_etag(store, shop, clock):
    web = Web()
    try:
        web.files = {f"/{n}.jpg": jpeg(n) for n in range(4)}
        rows = {"a": [f"{web.url}/0.jpg", f"{web.url}/1.jpg", f"{web.url}/2.jpg"], "b": [f"{web.url}/3.jpg"]}
        fetch = FeedFetchConfig(allow_private_hosts=("127.0.0.1",), requests_per_s=1000)
        night(store, shop, rows, fetch=fetch)
        assert [len(p) for p in pictures(store).values()] == [3, 1]
        clock.sleep()
        web.asked.clear()
        night(store, shop, rows, fetch=fetch)
        assert sorted(web.asked) == [(f"/{n}.jpg", 304) for n in range(4)]
        assert num_rows(store) == {"products": 2, "images": 4, "rejects": 0}
        web.files["/2.jpg"] = jpeg(22)
        del web.files["/1.jpg"]
        clock.sleep()
        night(store, shop, rows, fetch=fetch)
        assert [p[3] for p in pictures(store)["a"]] == [ids.image_id(jpeg(n)) for n in (0, 1, 22)]
        assert warnings(store) == [("a", "images", "not_found")]
        assert maintain.compact(store, schema.PRODUCTS)
        assert pictures(store)["a"][2][3] == ids.image_id(jpeg(22))  # a row that differs in nothing but a further picture
        before = num_rows(store)
        clock.sleep()
        night(store, shop, rows, fetch=fetch)
        assert num_rows(store) == before
    finally:
        web.close()


def test_a_store_of_an_earlier_w2w_goes_on(store, shop, clock):
    """Its tables lack the columns; its rows have a front picture, which is all that they are known to have."""
    new = {"images", "group_id", "availability", "sale_price", "regular_price", "gender", "colour", "size"}
    whole = schema.PRODUCTS
    old = schema.Table("products", pa.schema([f for f in whole.schema if f.name not in new]), whole.key)
    rows = {"a": ["0.jpg"], "b": ["1.jpg"], "c": ["2.jpg"]}
    night(store, shop, rows)
    was = delta.read(store, whole, old.schema.names)
    shutil.rmtree(Path(store, "products"))
    DeltaTable.create(f"{store}/products", old.schema)
    opened = DeltaTable(f"{store}/products")
    receipts = parts.write_part(store, parts.Output(old), was, "old")
    opened.create_write_transaction([sink.to_action(r) for r in receipts], "append", opened.schema())
    assert {r[schema.IMAGE_LIST] for r in active(store).values()} == {None}
    embed.main(embed.Config(store=store, pool=Pool(workers=1)))
    index.main(index.Config(store=store))
    assert sum(s.info.num_rows for s in open_index(index_uri(store, "default")).shards) == 3
    clock.sleep()
    assert night(store, shop, rows).pending == 0  # equal rows keep their digests
    clock.sleep()
    assert night(store, shop, rows | {"b": ["1.jpg", "3.jpg"]}).pending == 1
    assert active(store)["a"][schema.IMAGE_LIST] is None
    assert [p[schema.POSITION] for p in active(store)["b"][schema.IMAGE_LIST]] == [1, 2]
    assert delta.count_rows(delta.open_table(store, whole)) == 4
