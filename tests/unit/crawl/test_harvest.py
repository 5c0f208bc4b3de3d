"""Products and posts out of page rows: the rows that changed, however often it is done."""

import json

import pyarrow as pa
import pytest

from w2w import schema
from w2w.crawl import frontier
from w2w.crawl.harvest import harvest
from w2w.crawl.profile import Profile
from w2w.table import delta
from w2w.table.current import current_posts, current_products
from w2w.table.parts import Output
from w2w.table.sink import Lineage, append_rows

SITE = Profile("x", start=["http://h/"], category_map={"coats": "outer"})
LINEAGE = Lineage("crawl", "run", "crawl", "x-v", {}, {}, "test")
OTHER = Lineage("ingest", "other", "ingest", "v", {}, {}, "test")


class Store:
    """Page rows are added by hand, a visit each."""

    def __init__(self, uri: str):
        self.uri, self._visits = uri, {}

    def add(self, url: str, state: str = "fetched", kind: str = "product", record: dict | None = None, **values) -> None:
        visit = self._visits[url] = self._visits.get(url, -1) + 1
        base = dict.fromkeys(f.name for f in schema.PAGES.schema if f.nullable)
        base |= {"site": "x", "key": f"{url}@{visit}", "url_id": frontier.url_id(url), "url": url, "kind": kind, "depth": 0}
        base |= {"redirects": 0, "visit": visit, "state": state, "reason": "ok", "attempts": 1, "failures": 0, "unchanged": 0}
        base |= {"links": [], "records": [json.dumps(record, sort_keys=True)] if record else [], "read_by": "v", "run_id": "r"}
        row = base | {"fetched_at": 0} | values
        append_rows(self.uri, Output(schema.PAGES), pa.Table.from_pylist([row], schema=schema.PAGES.schema), LINEAGE)

    def product(self, number: int, **fields) -> None:
        values = {"record": "product", "product_id": [f"p{number}"], "title": [f"coat {number}"], "category": ["Coats"]}
        values |= {"price": ["9.90"], "url": [f"http://h/p/{number}"], "image": [f"http://h/{number}.jpg"], "colour": ["red"]}
        self.add(f"http://h/p/{number}", record=values | fields)

    def image(self, number: int, image_id: str | None = None) -> None:
        self.add(f"http://h/{number}.jpg", kind="image", image_id=image_id or f"{number:064d}")

    def post(self, *product_urls: str, **fields) -> None:
        values = {"record": "post", "post_id": ["a"], "url": ["http://h/style/a"], "image": ["http://h/9.jpg"]}
        self.add("http://h/style/a", kind="post", record=values | {"product_urls": list(product_urls)} | fields)

    def harvest(self):
        return harvest(self.uri, SITE, LINEAGE)

    def products(self) -> dict[str, dict]:
        return {row["product_id"]: row for row in current_products(self.uri, schema.PRODUCTS.schema.names).to_pylist()}

    def rows(self, table: schema.Table) -> int:
        return delta.count_rows(delta.open_table(self.uri, table))


@pytest.fixture
def store(tmp_path) -> Store:
    made = Store(str(tmp_path))
    for number in (1, 2, 9):
        made.image(number)
    made.product(1)
    made.product(2)
    made.post("http://h/p/1", "http://elsewhere/p/3")
    return made


def test_records_become_rows_of_the_common_tables(store):
    done = store.harvest()
    assert (done.products, done.posts, done.rejects) == (2, 1, {})
    row = store.products()["p1"]
    assert (row["title"], row["category"], row["price"], row["active"]) == ("coat 1", "outer", 9.9, True)
    assert (row["image_id"], row["image_uri"]) == (f"{1:064d}", "http://h/1.jpg")
    assert dict(row["attributes"]) == {"colour": "red"}
    (post,) = current_posts(store.uri).to_pylist()
    assert (post["product_ids"], post["product_urls"]) == (["p1"], ["http://elsewhere/p/3", "http://h/p/1"])
    assert post["image_id"] == f"{9:064d}"


def test_a_second_time_there_is_nothing_to_do(store):
    store.harvest()
    versions = {t.name: delta.open_table(store.uri, t).version() for t in (schema.PRODUCTS, schema.POSTS)}
    store.add("http://h/p/1", state="unchanged")
    store.add("http://h/p/2", state="failed")
    again = store.harvest()
    assert (again.products, again.posts, again.withdrawn, again.versions) == (0, 0, 0, {})
    assert versions == {t.name: delta.open_table(store.uri, t).version() for t in (schema.PRODUCTS, schema.POSTS)}


def test_only_what_changed_is_written(store):
    store.harvest()
    store.product(1, price=["12.00"])
    store.image(2, "f" * 64)  # another picture under the same URL
    done = store.harvest()
    assert (done.products, done.posts) == (2, 0)
    assert store.products()["p1"]["price"] == 12.0
    assert store.products()["p2"]["image_id"] == "f" * 64
    assert store.rows(schema.PRODUCTS) == 4


def test_gone_products_are_withdrawn_and_come_back(store):
    store.harvest()
    store.add("http://h/p/1", state="gone", reason="not_found")
    done = store.harvest()
    assert done.withdrawn == 1
    assert not store.products()["p1"]["active"]
    assert store.harvest().withdrawn == 0
    store.product(1)
    assert store.harvest().products == 1
    assert store.products()["p1"]["active"]


def test_a_product_that_moved_stays_and_posts_find_it(store):
    store.harvest()
    links = [{"url": "http://h/p/one", "kind": "product"}]
    store.add("http://h/p/1", state="redirected", reason="moved", links=links)
    store.add(
        "http://h/p/one",
        record={"record": "product", "product_id": ["p1"], "url": ["http://h/p/one"], "image": ["http://h/1.jpg"]},
    )
    done = store.harvest()
    assert (done.products, done.withdrawn, done.posts) == (1, 0, 1)
    (post,) = current_posts(store.uri).to_pylist()
    assert (post["product_ids"], post["product_urls"]) == (["p1"], ["http://elsewhere/p/3", "http://h/p/one"])


def test_a_post_that_moved_stays_and_one_that_is_gone_does_not(store):
    store.post()
    store.harvest()
    record = {"record": "post", "post_id": ["a"], "url": ["http://h/style/b"], "image": ["http://h/9.jpg"], "product_urls": []}
    store.add("http://h/style/b", kind="post", record=record)
    store.add("http://h/style/a", kind="post", state="gone", reason="not_found")
    assert store.harvest().withdrawn == 0
    assert current_posts(store.uri).column("active").to_pylist() == [True]
    store.add("http://h/style/b", kind="post", state="gone", reason="not_found")
    assert store.harvest().withdrawn == 1
    assert current_posts(store.uri).column("active").to_pylist() == [False]
    assert store.harvest().withdrawn == 0


def test_images_without_success_are_rejects_once_and_unvisited_ones_wait(store):
    store.add("http://h/3.jpg", kind="image", state="rejected", reason="truncated", detail="ends early")
    store.product(3)
    store.product(4)
    done = store.harvest()
    assert (done.products, done.waiting, done.rejects) == (2, 1, {"truncated": 1})
    (row,) = delta.read(store.uri, schema.REJECTS, ["key", "code", "detail", "source", "stage"]).to_pylist()
    assert row["key"].startswith("p3@")
    assert (row["code"], row["source"], row["stage"]) == ("truncated", "http://h/p/3", "crawl")
    assert store.harvest().rejects == {"truncated": 1}
    assert store.rows(schema.REJECTS) == 1
    store.image(3)
    assert store.harvest().products == 1


def test_two_pages_of_one_product_keep_the_first_by_url(store):
    record = {"record": "product", "product_id": ["p1"], "url": ["http://h/a"], "image": ["http://h/2.jpg"]}
    store.add("http://h/a", record=record)
    done = store.harvest()
    assert done.rejects == {"duplicate_key": 1}
    assert store.products()["p1"]["url"] == "http://h/a"
    assert store.harvest().products == 0


def test_a_bad_price_is_null_and_said(store):
    store.product(2, price=["ask us"])
    assert store.harvest().rejects == {}
    assert store.products()["p2"]["price"] is None
    [said] = delta.read(store.uri, schema.WARNINGS, schema.WARNINGS.schema.names).to_pylist()
    assert (said["product_id"], said["column"], said["feed"]) == ("p2", "price", "site:x")
    assert said["row_digest"] == store.products()["p2"]["row_digest"]
    store.harvest()
    assert store.rows(schema.WARNINGS) == 1


def test_an_image_behind_a_redirect_is_found(store):
    store.add(
        "http://h/5.jpg", kind="image", state="redirected", reason="moved", links=[{"url": "http://h/1.jpg", "kind": "image"}]
    )
    store.product(5)
    assert store.harvest().products == 3
    assert store.products()["p5"]["image_id"] == f"{1:064d}"


def test_other_sites_are_left_alone(store):
    store.harvest()
    assert harvest(store.uri, Profile("y", start=["http://h/"]), LINEAGE).versions == {}


def test_pages_are_found_however_links_spell_their_urls(store):
    store.add("http://h/i?b=2&a=1", kind="image", image_id="f" * 64, url_id=frontier.url_id("http://h/i?a=1&b=2"))
    store.product(5, image=["http://h/i?a=1&b=2&utm_source=x"])
    store.post("http://h/p/5?utm_source=post", image=["http://h/i?a=1&b=2"])
    done = store.harvest()
    assert (done.waiting, done.rejects) == (0, {})
    assert store.products()["p5"]["image_id"] == "f" * 64
    (post,) = current_posts(store.uri).to_pylist()
    assert (post["product_ids"], post["product_urls"]) == (["p5"], ["http://h/p/5"])


def test_a_broken_picture_holds_back_none_of_the_other_news(store):
    store.harvest()
    store.product(1, price=["5.00"], image=["http://h/torn.jpg"])
    store.add("http://h/torn.jpg", kind="image", state="rejected", reason="truncated", detail="ends early")
    done = store.harvest()
    assert (done.products, done.rejects) == (1, {"truncated": 1})
    row = store.products()["p1"]
    assert (row["price"], row["image_id"], row["image_uri"]) == (5, f"{1:064d}", "http://h/1.jpg")
    assert store.harvest().products == 0
    store.add("http://h/torn.jpg", kind="image", image_id="e" * 64)
    assert store.harvest().products == 1
    assert store.products()["p1"]["image_id"] == "e" * 64


def test_a_feeds_products_are_not_the_sites_to_change_or_withdraw(store):
    store.harvest()
    assert {row["feed"] for row in store.products().values()} == {"site:x"}
    rows = current_products(store.uri, schema.PRODUCTS.schema.names)
    theirs = [row | {"feed": "main", "title": "theirs"} for row in rows.to_pylist() if row["product_id"] == "p1"]
    append_rows(store.uri, Output(schema.PRODUCTS), pa.Table.from_pylist(theirs, schema=rows.schema), OTHER)
    store.product(1, price=["5.00"])
    assert store.harvest().rejects == {"duplicate_key": 1}
    store.add("http://h/p/1", state="gone", reason="not_found")
    assert store.harvest().withdrawn == 0
    assert (store.products()["p1"]["title"], store.products()["p1"]["active"]) == ("theirs", True)


def test_a_store_of_an_older_version_gets_owners(store):
    store.harvest()
    rows = current_products(store.uri, schema.PRODUCTS.schema.names)
    nobodys = [row | {"feed": None} for row in rows.to_pylist()]
    append_rows(store.uri, Output(schema.PRODUCTS), pa.Table.from_pylist(nobodys, schema=rows.schema), OTHER)
    assert {row["feed"] for row in store.products().values()} == {None}
    assert store.harvest().products == 2
    assert {row["feed"] for row in store.products().values()} == {"site:x"}
    assert store.harvest().products == 0
