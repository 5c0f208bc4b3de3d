"""The policy of a night: what fails it and what does not, what is withdrawn and when, which pictures are asked for again."""

import json
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pyarrow as pa
import pytest

from tests.unit.nights.nights import Item, Shop, jpeg, night, num_rows, products
from tests.unit.recommend.stores import append
from w2w import ids, schema
from w2w.check.job import CheckConfig
from w2w.engine import run
from w2w.engine.job import start
from w2w.errors import BadInput, JobFailed, TooManyRejects, UsageError
from w2w.export.job import ExportConfig
from w2w.index import job as index
from w2w.index.manifest import index_uri
from w2w.index.publish import read_manifest
from w2w.ingest import flow_load as ingesting
from w2w.ingest import job as ingest
from w2w.ingest.feed import FeedConfig
from w2w.ingest.loading import FeedFetchConfig
from w2w.models import job as embed
from w2w.models.config import EncoderConfig
from w2w.nightly import job as nightly
from w2w.recommend import job as recommend
from w2w.recommend.job import Wanted
from w2w.recommend.rules import OutfitConfig
from w2w.similar.flow import SimilarConfig
from w2w.stage import Pool
from w2w.style import job as style
from w2w.table import delta, sink
from w2w.table.current import CurrentRows
from w2w.training.tags.job import TagConfig
from w2w.web.hosts import WELL_KNOWN


def reject_codes(store: str) -> list[tuple[str, str]]:
    rows = delta.read(store, schema.REJECTS, [schema.KEY, schema.REJECT_CODE]).to_pylist()
    return [(r[schema.KEY].partition("@")[0], r[schema.REJECT_CODE]) for r in rows]


def test_a_product_goes_in_the_second_night_without_it_and_nothing_else_is_needed(store, shop, clock):
    night(store, shop)
    before = num_rows(store)
    item = shop.items.pop("p3")
    clock.sleep()
    first = night(store, shop)
    assert (first.missing, first.withdrawn) == (1, 0)
    clock.sleep(3)
    again = night(store, shop)  # the same night
    assert (again.missing, again.withdrawn) == (1, 0)
    clock.sleep(21)
    said = night(store, shop, dry_run=True)
    assert (said.withdrawn, "p3" in products(store)) == (1, True)
    assert night(store, shop).withdrawn == 1
    assert set(products(store)) == set(shop.items)
    assert num_rows(store) == before | {"products": before["products"] + 1}
    clock.sleep()
    assert (night(store, shop).versions, delta.read(store, schema.ABSENCES, ["nights"]).num_rows) == ({}, 0)
    shop.items["p3"] = item
    night(store, shop)
    assert set(products(store)) == set(shop.items)


def test_nights_are_counted_in_a_row(store, shop, clock):
    night(store, shop)
    item = shop.items["p3"]
    for hours in (24, 24, 24, -48, 24):  # a clock that was set back is a night, and not a reason to wait for it
        clock.sleep(hours)
        shop.items.pop("p3", None)
        assert night(store, shop).withdrawn == 0
        clock.sleep()
        shop.items["p3"] = item
        assert night(store, shop).missing == 0
    assert "p3" in products(store)


@pytest.mark.parametrize("bad", [",torn", "rejects"])
def test_whom_a_bad_night_lists_has_not_been_missing_twice_in_a_row(store, shop, clock, bad):
    """The night between fails, or withdraws nothing as it has a row without an id: what it lists is there all the same."""
    night(store, shop)
    items = {n: shop.items.pop(n) for n in ("p3", "p4")}
    clock.sleep()
    night(store, shop)  # both are missing
    shop.items["p3"] = items["p3"]
    clock.sleep()
    if bad == "rejects":
        for n in range(10, 16):
            shop.say(f"p{n}", image="nowhere.jpg")
        with pytest.raises(JobFailed, match="rejected"):
            night(store, shop)
        for n in range(10, 16):
            shop.say(f"p{n}", image=f"{n}.jpg")
    else:
        shop.extra.append(bad)
        assert night(store, shop).held_back
        shop.extra.clear()
    del shop.items["p3"]
    clock.sleep()
    assert night(store, shop).withdrawn == 1  # p4, missing in two good nights, of which the bad one is none
    assert set(products(store)) - set(shop.items) == {"p3"}
    clock.sleep()
    assert night(store, shop).withdrawn == 1
    assert set(products(store)) == set(shop.items)


def test_a_run_that_died_before_the_withdrawal_is_repeated(store, shop, clock, monkeypatch):
    night(store, shop)
    shop.items.pop("p3")
    shop.say("p4", price="11.00")

    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(ingesting, "append_rows", die)
        with pytest.raises(KeyboardInterrupt):
            night(store, shop, {"grace_nights": 1})
    assert products(store)["p4"]["price"] == 11
    assert night(store, shop, {"grace_nights": 1}).withdrawn == 1
    assert set(products(store)) == set(shop.items)


def test_a_missing_picture_stops_no_night(store, shop, clock):
    shop.say("p5", image="nowhere.jpg")
    first = night(store, shop)
    assert first.counts.rejects == {"not_found": 1}
    for gone in ("p1", "p2"):  # quiet nights: one row is pending, the one that was rejected
        clock.sleep()
        shop.items.pop(gone)
        again = night(store, shop, {"grace_nights": 1})
        assert (again.counts.read, again.counts.rejected, again.withdrawn) == (1, 1, 1)
    assert set(products(store)) == set(shop.items) - {"p5"}


def test_a_feed_fails_as_often_as_it_is_read(store, shop, clock):
    night(store, shop)
    for n in range(6):
        shop.items.pop(f"p{n}")
        shop.extra.append(f"p{n},torn")
    shop.items["p19"] = Item("19.jpg", title="another")
    for _ in range(3):
        clock.sleep()
        with pytest.raises(JobFailed, match="6 of 20 rows were rejected"):
            night(store, shop, {"grace_nights": 1, "max_unreadable": 9}, max_withdrawn_rate=0.5)
        assert len(products(store)) == 20
    assert products(store)["p19"]["title"] == "another"


def test_nothing_is_withdrawn_while_rows_cannot_be_read(store, shop, clock):
    night(store, shop)
    shop.items.pop("p0")
    shop.extra.append("p0,torn")
    for _ in range(3):
        clock.sleep()
        assert night(store, shop).held_back.startswith("more than feed.max_unreadable")
    assert "p0" in products(store)
    assert night(store, shop, {"max_unreadable": 1, "grace_nights": 1}).withdrawn == 1


def test_a_cut_file_is_refused_every_night_until_someone_says_that_it_is_right(store, shop, clock):
    night(store, shop)
    before = num_rows(store)
    for n in range(11):
        shop.items.pop(f"p{n}")
    shop.say("p15", price="99")
    for dry_run in (True, False, False):
        clock.sleep()
        with pytest.raises(BadInput, match=r"11 of the 20 .* max_withdrawn_rate=0.1 .*--withdraw_missing=11"):
            night(store, shop, dry_run=dry_run)
    assert num_rows(store) == before
    with pytest.raises(BadInput, match="more than withdraw_missing=10"):
        night(store, shop, withdraw_missing=10)
    with pytest.raises(UsageError, match="--withdraw_missing=-1: must not be negative"):
        night(store, shop, withdraw_missing=-1)
    with pytest.raises(UsageError, match="--withdraw_missing=11: only a feed with"):
        night(store, shop, {"full": False}, withdraw_missing=11)
    assert night(store, shop, withdraw_missing=11).withdrawn == 11
    assert set(products(store)) == set(shop.items)
    assert night(store, shop).missing == 0


def test_feeds_do_not_withdraw_each_others_products_or_write_over_them(store, shop, tmp_path, clock):
    (tmp_path / "other").mkdir()
    other = Shop(tmp_path / "other")
    other.stock(3)
    other.items = {"q0": Item("0.jpg"), "q1": Item("1.jpg"), "p19": Item("2.jpg", title="not mine")}
    night(store, shop, {"id": "a"})
    for _ in range(3):
        clock.sleep()
        assert night(store, other, {"id": "b"}).missing == 0
        assert night(store, shop, {"id": "a"}).versions == {}
    assert set(products(store)) == {*shop.items, "q0", "q1"}
    assert reject_codes(store) == [(f"{other.folder}/feed.csv:4", "duplicate_key")]
    shop.items.pop("p19")
    night(store, shop, {"id": "a", "grace_nights": 1})
    assert "p19" not in products(store)
    night(store, other, {"id": "b"})  # it may have it now
    assert (products(store)["p19"]["title"], products(store)["p19"]["feed"]) == ("not mine", "b")


def test_a_store_of_an_older_version_goes_on(store, shop, clock):
    old = pa.schema([f for f in schema.PRODUCTS.schema if f.name != schema.FEED])
    night(store, shop)
    rows = delta.read(store, schema.PRODUCTS, old.names)
    older = store + "-old"
    table = schema.Table("products", old, schema.PRODUCTS.key)
    lineage = sink.Lineage("ingest", "old", "ingest", "v0", {}, {}, "test")
    sink.append_rows(older, sink.Output(table), rows, lineage)
    shop.items.pop("p3")
    shop.say("p4", price="11")
    assert night(older, shop, {"grace_nights": 1}).withdrawn == 1
    assert set(products(older)) == set(shop.items)
    assert {row["feed"] for row in products(older).values()} == {"main"}
    assert night(older, shop).versions == {}


def test_a_broken_picture_holds_back_none_of_its_rows_other_news(store, shop, clock):
    night(store, shop)
    good = products(store)["p2"]
    (shop.folder / "torn.jpg").write_bytes(jpeg(99)[:300])
    shop.say("p2", image="torn.jpg", price="5.00")
    shop.say("p3", image="nowhere.jpg", price="6.00", title="new")
    for turn in range(2):
        found = night(store, shop)
        assert found.counts.rejects == ({"truncated": 1, "not_found": 1} if turn == 0 else {"not_found": 1})
        now = products(store)
        assert (now["p2"]["price"], now["p3"]["price"], now["p3"]["title"]) == (5, 6, "new")
        assert (now["p2"]["image_id"], now["p2"]["image_uri"]) == (good["image_id"], good["image_uri"])
        assert num_rows(store)["products"] == 22
        clock.sleep()
    shop.say("p2", price="7.00")  # again, while the picture is still broken
    night(store, shop)
    assert products(store)["p2"]["price"] == 7
    shop.draw("torn.jpg", 99)
    shop.draw("nowhere.jpg", 98)
    night(store, shop)
    assert products(store)["p2"]["image_id"] == ids.image_id(jpeg(99))
    assert products(store)["p3"]["image_id"] == ids.image_id(jpeg(98))
    assert night(store, shop).versions == {}


def test_the_news_of_a_broken_picture_survive_a_crash(store, shop, clock, monkeypatch):
    night(store, shop)
    (shop.folder / "torn.jpg").write_bytes(jpeg(99)[:300])
    shop.say("p2", image="torn.jpg", price="5.00")

    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(ingesting, "append_rows", die)
        with pytest.raises(KeyboardInterrupt):
            night(store, shop)
    again = night(store, shop)
    assert (again.counts.read, products(store)["p2"]["price"]) == (0, 5)
    assert night(store, shop).versions == {}


@pytest.mark.parametrize("stopped_after", [1000, 2])  # rows after which a run is seen to be hopeless
def test_a_night_of_broken_pictures_fails_and_the_other_news_are_there(store, shop, clock, monkeypatch, stopped_after):
    monkeypatch.setattr(run, "_EARLY_REJECTS", stopped_after)
    night(store, shop)
    (shop.folder / "torn.jpg").write_bytes(jpeg(99)[:300])
    for n in range(19):
        shop.say(f"p{n}", image="torn.jpg", price="5.00", title="new")
    shop.items.pop("p19")
    options = {"max_withdrawn_rate": 0.1, "pool": Pool(workers=1, batch_rows=2), "item_rows": 2}
    with monkeypatch.context() as patched:
        patched.setattr(ingesting, "append_rows", lambda *_: sys.exit("killed"))
        with pytest.raises(SystemExit):
            night(store, shop, {"grace_nights": 1}, **options)
    for _ in range(2):
        with pytest.raises(JobFailed, match="of 19 rows were rejected"):
            night(store, shop, {"grace_nights": 1}, **options)
        now = products(store)
        assert {(p["price"], p["title"]) for i, p in now.items() if i != "p19"} == {(5, "new")}
        assert now["p19"]["price"] == 10
        assert num_rows(store)["products"] == 39


class Pictures:
    """An HTTP server of pictures with ETags; ``asked`` are the requests: (path, If-None-Match, status)."""

    def __init__(self):
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str | None, int]] = []
        pictures = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                data, known = pictures.files.get(self.path), self.headers.get("If-None-Match")
                etag = f'"{ids.image_id(data)[:8]}"' if data else ""
                status = 404 if data is None else 304 if etag == known else 200
                if self.path not in ("/robots.txt", WELL_KNOWN):
                    pictures.asked.append((self.path, known, status))
                self.send_response(status)
                body = data if status == 200 else b""
                if data:
                    self.send_header("ETag", etag)
                if status != 304:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def pictures():
    made = Pictures()
    yield made
    made.close()


def test_pictures_on_the_web_are_asked_for_again_every_night(store, shop, clock, pictures):
    for n in range(20):
        pictures.files[f"/{n}.jpg"] = jpeg(n)
        shop.say(f"p{n}", image=f"{pictures.url}/{n}.jpg")
    pictures.files["/7.jpg"] = b"<html>"
    fetch = {"fetch": FeedFetchConfig(allow_private_hosts=("127.0.0.1",), requests_per_s=None, retries=0)}
    night(store, shop, **fetch)
    before = num_rows(store)
    assert night(store, shop, **fetch).versions == {}  # the same night
    assert len(pictures.asked) == 20
    clock.sleep()
    quiet = night(store, shop, **fetch)
    assert (quiet.pictures_asked_for_again, quiet.pictures_unchanged) == (20, 19)
    assert sorted(status for *_, status in pictures.asked[20:]) == [200] + [304] * 19
    assert num_rows(store) == before | {"rejects": 2}
    clock.sleep()
    pictures.asked.clear()
    pictures.files |= {"/7.jpg": jpeg(77), "/8.jpg": jpeg(88), "/9.jpg": b"<html>"}
    del pictures.files["/10.jpg"]
    shop.say("p11", price="3.00")
    changed = night(store, shop, **fetch)
    now = products(store)
    assert [now[p]["image_id"] for p in ("p7", "p8", "p9", "p10")] == [ids.image_id(jpeg(n)) for n in (77, 88, 9, 10)]
    assert changed.counts.rejects == {"not_an_image": 1, "not_found": 1}
    assert sorted(status for *_, status in pictures.asked) == [200, 200, 200, *[304] * 16, 404]
    assert num_rows(store) == {"products": before["products"] + 3, "images": before["images"] + 2, "rejects": 4}
    clock.sleep()
    pictures.asked.clear()
    shop.say("p19", price="4.00")
    some = night(store, shop, limit=1, **fetch)  # what has changed, and nothing else
    assert (some.counts.out, products(store)["p19"]["price"], len(pictures.asked)) == (1, 4, 1)
    pictures.asked.clear()
    rarely = {"fetch": FeedFetchConfig(allow_private_hosts=("127.0.0.1",), requests_per_s=None, retries=0, recheck_nights=3)}
    assert night(store, shop, **rarely).versions == {}
    assert pictures.asked == []


def nightly_config(store: str, shop: Shop, **options) -> nightly.Config:
    feed = FeedConfig(uri=shop.write(), full=True, grace_nights=1)
    return nightly.Config(store=store, feed=feed, pool=Pool(workers=1), **options)


def test_a_dry_run_says_what_would_happen(store, shop, clock, tmp_path):
    told = nightly.main(nightly_config(store, shop, dry_run=True))
    assert (told.ingest.pending, told.embed, told.then) == (20, None, "embed, index: of what the steps before them bring")
    nightly.main(nightly_config(store, shop))
    told = nightly.main(nightly_config(store, shop, dry_run=True))
    assert (told.ingest.pending, told.embed.pending, told.index.categories, told.then) == (0, 0, 1, None)
    told = nightly.main(nightly_config(store, shop, dry_run=True, encoder=EncoderConfig(store_dtype="float16")))
    assert (told.embed.pending, told.index, told.then) == (20, None, "index: of what the steps before them bring")
    shop.items.pop("p3")
    told = nightly.main(nightly_config(store, shop, dry_run=True, withdraw_missing=1))
    assert (told.ingest.withdrawn, told.embed.pending, told.index) == (1, 0, None)
    assert told.then == "index: of what the steps before them bring"
    shop.items["p3"] = Item("3.jpg")
    with pytest.raises(JobFailed, match=r"20 of 20 rows were rejected \(20 duplicate_key\)"):  # all are another feed's
        night(store, shop, {"id": "other"}, dry_run=True)
    before = num_rows(store)
    for feed in (b"product_id,image\n", b"", b"product_id,image\nx\ny\n"):
        (shop.folder / "bad.csv").write_bytes(feed)
        for dry_run in (True, False):
            with pytest.raises((UsageError, JobFailed)):
                night(store, shop, {"uri": str(shop.folder / "bad.csv")}, dry_run=dry_run)
    assert num_rows(store) == before


def test_a_night_with_a_few_broken_pictures_comes_to_its_index(store, shop, clock):
    for name in ("3.jpg", "4.jpg"):
        (shop.folder / name).write_bytes(b"<html>")
    nightly.main(nightly_config(store, shop))
    assert len(products(store)) == 18
    shop.items.pop("p5")
    assert nightly.main(nightly_config(store, shop)).index.counts.out == 17
    assert nightly.main(nightly_config(store, shop)).index.unchanged
    assert (embed.Config.min_rejects, index.Config.min_rejects, ingest.Config.min_rejects) == (5, 5, 5)


def test_a_night_fails_where_what_was_rolled_back_to_is_damaged(store, shop, clock):
    nightly.main(nightly_config(store, shop))
    shop.say("p5", category="shoes")
    bad = nightly.main(nightly_config(store, shop)).index
    index.main(index.Config(store=store, rollback=True))
    assert nightly.main(nightly_config(store, shop)).index.held_back == bad.published
    kept = read_manifest(index_uri(store, "default")).shards[0].name
    for name in ("CURRENT", f"shards/{kept}/base.faiss"):
        path = shop.folder.parent / "store" / "index" / "default" / name
        whole = path.read_bytes()
        path.write_bytes(b"")
        with pytest.raises(JobFailed, match=rf"{name}.*damaged.*--release {bad.published}, or --rollback_to"):
            nightly.main(nightly_config(store, shop))
        path.write_bytes(whole)
    nightly.main(nightly_config(store, shop))


def whole(store: str, shop: Shop, **options) -> nightly.Config:
    """A night with all its steps, recommendations of few candidates."""
    few = Wanted(outfit=OutfitConfig(candidates=2, answers=2))
    more = {"recommend": few, "similar": SimilarConfig(k=3), "tag": TagConfig(), "check": CheckConfig()}
    more["export"] = ExportConfig(batch_rows=100)
    return nightly_config(store, shop, looks=True, withdraw_missing=1, **more, **options)


def recommended(store: str) -> dict[str, list]:
    columns = [schema.PRODUCT_ID, schema.OUTFITS_LIST, schema.ACTIVE]
    rows = [row for batch in CurrentRows(store, schema.RECOMMENDATIONS).batches(columns) for row in batch.to_pylist()]
    return {row[schema.PRODUCT_ID]: row[schema.OUTFITS_LIST] for row in rows if row[schema.ACTIVE]}


def crawl_posts(store: str, shop: Shop, numbers: range) -> None:
    """Posts with pictures that the store has."""
    told = {"url": None, "image_uri": "u", "product_urls": [], "product_ids": [], "active": True, "row_digest": "d"}
    pictures = {n: ids.image_id((shop.folder / f"{n}.jpg").read_bytes()) for n in numbers}
    append(store, schema.POSTS, [told | {"post_id": f"post-{n}", "image_id": i, "fetched_at": 0} for n, i in pictures.items()])


@pytest.mark.slow  # seven nights
def test_every_step_comes_with_the_night_that_asks_for_it(store, shop, clock):
    for n, item in enumerate(list(shop.items)):
        shop.say(item, category=("top", "bottom", "shoes")[n % 3])
    with pytest.raises(UsageError, match="posts"):
        nightly.main(whole(store, shop))
    assert delta.open_table(store, schema.PRODUCTS) is None, "it is said before the feed is read"
    nightly.main(nightly_config(store, shop))
    assert delta.open_table(store, schema.RECOMMENDATIONS) is None
    crawl_posts(store, shop, range(4))
    plan = nightly.main(whole(store, shop, dry_run=True))
    assert (plan.recommend.new, plan.embed_looks.pending, plan.then) == (
        20,
        4,
        "index of looks, export: of what the steps before them bring",
    )
    first = nightly.main(whole(store, shop))
    assert first.similar.computed == plan.similar.computed == 20
    assert (first.tag.counts.out, first.export.upserts) == (20, 20)
    assert (first.check.products, first.check.findings["tiny"]) == (20, 20)
    assert (first.recommend.new, first.embed_looks.counts.out, first.index.unchanged) == (20, 4, True)
    assert read_manifest(index_uri(store, "looks")).version == first.index_looks.published
    assert all(len(outfits) == 2 for outfits in recommended(store).values())

    (answer,) = style.main(style.Config(store=store, photos=[str(shop.folder / "2.jpg")], k=2, shown=0)).answers
    assert answer.looks[0].post_id == "post-2"

    clock.sleep()
    assert nightly.main(whole(store, shop, dry_run=True)).recommend.pending == 0
    quiet = nightly.main(whole(store, shop))
    assert quiet.similar.unchanged
    assert (quiet.tag.pending, quiet.export.upserts, quiet.export.deletions) == (0, 0, 0)
    assert (quiet.recommend.pending, quiet.index_looks.unchanged, quiet.counts.read) == (0, True, 24), (
        "only indexes are looked at"
    )
    assert set(quiet.versions) <= {"absences", "checks"}, "which notes when it looked"

    clock.sleep()
    shop.items.pop("p3")  # a night that only withdraws
    told = nightly.main(whole(store, shop, dry_run=True))
    assert (told.ingest.withdrawn, told.index, told.recommend) == (1, None, None)
    assert told.then == "index, recommend, similar, check, export: of what the steps before them bring"
    missed = {p for p, outfits in recommended(store).items() if p != "p3" and '"p3"' in json.dumps(outfits)}
    with pytest.MonkeyPatch.context() as dying:  # killed when nothing of it is committed
        dying.setattr(recommend, "run_pending", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            nightly.main(whole(store, shop))
    night = nightly.main(whole(store, shop))
    assert (night.similar.gone, night.similar.products) == (1, 19)
    assert night.export.deletions == 1
    assert (night.recommend.gone, night.recommend.new, night.ingest.withdrawn) == (1, 0, 0)
    assert night.recommend.counts.out == night.recommend.changed + 1 >= len(missed) + 1 > 1
    assert '"p3"' not in json.dumps(recommended(store))


def test_what_an_export_or_check_lacks_is_said_before_the_feed_is_read(store, shop, clock):
    with pytest.raises(UsageError, match=r"--export.to=qdrant: what it stores are vectors"):
        nightly.main(nightly_config(store, shop, export=ExportConfig(to="qdrant")))
    with pytest.raises(UsageError, match="blured"):
        nightly.main(nightly_config(store, shop, check=CheckConfig(fail_on=["blured"])))
    assert delta.open_table(store, schema.PRODUCTS) is None


@pytest.mark.parametrize(
    ("wanted", "says"),
    [({"rules": "/no/rules.yaml"}, "--recommend.rules=/no/rules"), ({"scorer": "/no"}, "--recommend.scorer=/no")],
)
def test_what_recommendations_lack_is_said_before_the_feed_is_read(store, shop, clock, wanted, says):
    with pytest.raises(UsageError, match=says):
        nightly.main(nightly_config(store, shop, recommend=Wanted(**wanted)))
    assert delta.open_table(store, schema.PRODUCTS) is None


def warnings(store: str) -> list[tuple[str, str, str]]:
    """(product, column, detail) of the values that are null in products as they stand now."""
    current = {(p, row[schema.ROW_DIGEST]) for p, row in products(store).items()}
    rows = delta.read(store, schema.WARNINGS, schema.WARNINGS.schema.names).to_pylist()
    said = [r for r in rows if (r[schema.PRODUCT_ID], r[schema.ROW_DIGEST]) in current]
    return sorted((r[schema.PRODUCT_ID], r[schema.COLUMN], r[schema.REJECT_DETAIL]) for r in said)


def test_a_value_that_cannot_be_read_is_null_and_said_once(store, shop, clock):
    shop.say("p1", price="ask us")
    first = night(store, shop)
    assert (first.values_not_read, first.counts.rejected, products(store)["p1"]["price"]) == ({"price": 1}, 0, None)
    said = [("p1", "price", "not like 1299.90 or 1299.90 EUR: 'ask us'")]
    assert warnings(store) == said
    clock.sleep()
    assert (night(store, shop).values_not_read, night(store, shop, dry_run=True).values_not_read) == ({"price": 1},) * 2
    assert delta.count_rows(delta.open_table(store, schema.WARNINGS)) == 1
    shop.say("p1", price="5")
    shop.say("p2", price="x", image="gone.jpg")  # keeps its picture, and has its other changes
    night(store, shop)
    assert (products(store)["p2"]["price"], [s[:2] for s in warnings(store)]) == (None, [("p2", "price")])
    night(store, shop)
    assert delta.count_rows(delta.open_table(store, schema.WARNINGS)) == 2


def test_a_dry_run_that_fails_has_its_summary(store, shop, clock):
    shop.extra = [f"x{n},a shirt,ask,cat{n},{'' if n < 20 else '1.jpg'}" for n in range(60)]
    with pytest.raises(TooManyRejects) as caught:
        night(store, shop, dry_run=True)
    told = caught.value.result
    assert (told.dry_run, told.would_be_rejected) == (True, {"missing_field": 20})
    assert (len(told.categories), told.more_categories) == (20, 21)
    assert (told.values_not_read, len(told.examples)) == ({"price": 40}, 3)
    assert told.of_those_not_read == ["price, such as x20: not like 1299.90 or 1299.90 EUR: 'ask'"]


def test_a_failing_dry_run_is_shown_and_then_says_why(shop, store, clock, capsys):
    shop.extra = [f"x{n},a shirt,1,top," for n in range(60)]
    with pytest.raises(SystemExit) as ended:
        start(ingest.main, ingest.Config, [f"--store={store}", f"--feed.uri={shop.write()}", "--dry_run"], prog="w2w ingest")
    out, err = capsys.readouterr()
    assert ended.value.code == 1
    assert re.search("would be rejected.*60 missing_field", out)
    assert "60 of 80 rows were rejected" in err
