"""What pictures may be used for, from night to night: what places say, what they said, and what the owner says."""

from dataclasses import replace

import numpy as np
import pytest

from tests.unit.nights.nights import Clock, Item, Shop, jpeg, night, products, without_ray
from tests.unit.recommend.stores import append
from tests.unit.web.webs import Page, Web, serve
from w2w import ids, schema
from w2w.errors import JobFailed, UsageError
from w2w.export import job as export
from w2w.gallery import job as gallery
from w2w.index import job as index
from w2w.index.manifest import index_uri
from w2w.index.publish import read_manifest, versions
from w2w.index.search import open_index
from w2w.ingest.loading import FeedFetchConfig
from w2w.models.config import EncoderConfig
from w2w.models.encoder import model_version
from w2w.recommend import job as recommend
from w2w.similar import job as similar
from w2w.table import delta, sink
from w2w.table.permitted import SEARCH, TRAINING, permitted
from w2w.web.permission import UseConfig

FETCH = FeedFetchConfig(allow_private_hosts=("127.0.0.1",), requests_per_s=1000, retries=0)
JPEG = {"Content-Type": "image/jpeg"}


@pytest.fixture(autouse=True)
def here(monkeypatch):
    without_ray(monkeypatch)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


@pytest.fixture
def shop(tmp_path):
    (tmp_path / "shop").mkdir()
    return Shop(tmp_path / "shop")


@pytest.fixture
def store(tmp_path):
    return str(tmp_path / "store")


@pytest.fixture
def web():
    with serve({f"/{n}.jpg": Page(jpeg(n), headers=JPEG | {"ETag": f'"{n}"'}) for n in range(4)}) as web:
        yield web


def say(web: Web, path: str, **lines: str) -> None:
    page = web.pages[path]
    kept = {name: page.headers[name] for name in ("Content-Type", "ETag") if name in page.headers}
    web.pages[path] = replace(page, headers=kept | {name.replace("_", "-"): line for name, line in lines.items()})


def ledger(store: str) -> list[tuple]:
    """Every row in the order of its writing: picture, search, training, reason."""
    rows = delta.read(store, schema.PERMISSIONS, schema.PERMISSIONS.schema.names).sort_by(schema.FETCHED_AT).to_pylist()
    number = {ids.image_id(jpeg(n)): n for n in range(30)}
    return [(number[row[schema.IMAGE_ID]], row[schema.SEARCH], row[schema.TRAINING], row[schema.REASON]) for row in rows]


def refused(store: str) -> tuple[set[int], set[int]]:
    number = {ids.image_id(jpeg(n)): n for n in range(30)}
    return tuple({number[i] for i in permitted(store, use).refused.to_pylist()} for use in (SEARCH, TRAINING))


def test_a_night_writes_down_what_was_said_and_the_next_only_what_has_changed(store, shop, web, clock):
    shop.items = {"a": Item(f"{web.url}/0.jpg", more=(f"{web.url}/1.jpg",)), "b": Item(f"{web.url}/2.jpg")}
    say(web, "/1.jpg", TDM_Reservation="1", TDM_Policy="https://x.test/policy")
    say(web, "/2.jpg", X_Robots_Tag="noindex")
    night(store, shop, fetch=FETCH)
    assert sorted(ledger(store)) == [
        (0, True, True, ""),
        (1, True, False, "training: TDM-Reservation: 1"),
        (2, False, True, "search: X-Robots-Tag: noindex"),
    ]
    assert refused(store) == ({2}, {1})
    assert sorted(web.paths()) == ["/.well-known/tdmrep.json", "/0.jpg", "/1.jpg", "/2.jpg", "/robots.txt"]
    clock.sleep()
    night(store, shop, fetch=FETCH)
    assert len(ledger(store)) == 3
    say(web, "/0.jpg", Content_Signal="ai-train=no")  # with a 304
    say(web, "/2.jpg")
    clock.sleep()
    night(store, shop, fetch=FETCH)
    assert ledger(store)[3:] == [(0, True, False, "training: Content-Signal: ai-train=no")]
    assert refused(store) == ({2}, {0, 1}), "a 304 without headers takes nothing back"
    web.pages["/2.jpg"].headers["ETag"] = '"new"'
    clock.sleep()
    night(store, shop, fetch=FETCH)
    assert ledger(store)[4:] == [(2, True, True, "")]
    assert refused(store) == (set(), {0, 1})


def test_a_hosts_files_speak_for_all_its_pictures(store, shop, web, clock):
    shop.items = {"a": Item(f"{web.url}/0.jpg"), "b": Item(f"{web.url}/1.jpg")}
    web.pages["/robots.txt"] = Page(b"User-agent: *\nContent-Signal: search=no\nDisallow: /\n")
    web.pages["/.well-known/tdmrep.json"] = Page(b'[{"location": "/1", "tdm-reservation": 1}]')
    night(store, shop, fetch=FETCH)
    assert refused(store) == ({0, 1}, {1})
    (row, _) = delta.read(store, schema.PERMISSIONS, [schema.ROBOTS_RULE, schema.ROBOTS_SIGNAL]).to_pylist()
    assert row == {schema.ROBOTS_RULE: "*: disallow / (listed)", schema.ROBOTS_SIGNAL: "search=no"}
    web.pages["/robots.txt"] = web.pages["/.well-known/tdmrep.json"] = Page(status=503)
    clock.sleep()
    night(store, shop, fetch=FETCH)
    assert refused(store) == ({0, 1}, {1}), "nobody knows: what was said holds"
    del web.pages["/robots.txt"], web.pages["/.well-known/tdmrep.json"]
    clock.sleep()
    night(store, shop, fetch=FETCH)
    assert refused(store) == (set(), set())


def test_noai_is_refused_and_for_what_is_there_it_is_written_down(store, shop, web, clock):
    shop.items = {"a": Item(f"{web.url}/0.jpg", more=(f"{web.url}/1.jpg",)), "b": Item(f"{web.url}/2.jpg")}
    say(web, "/2.jpg", X_Robots_Tag="noai")
    assert night(store, shop, fetch=FETCH).counts.rejects == {"disallowed": 1}
    assert set(products(store)) == {"a"}
    for path in ("/0.jpg", "/1.jpg"):
        say(web, path, X_Robots_Tag="noimageai")
        web.pages[path].headers["ETag"] = '"other"'
    clock.sleep()
    night(store, shop, fetch=FETCH)
    assert refused(store) == ({0, 1}, {0, 1})
    for path in ("/0.jpg", "/1.jpg"):
        say(web, path)
    clock.sleep()
    night(store, shop, fetch=FETCH)
    assert refused(store) == (set(), set())


def test_the_strictest_place_counts_and_an_older_picture_keeps_its_no(store, shop, web, clock):
    web.pages["/3.jpg"] = replace(web.pages["/0.jpg"], headers=JPEG | {"TDM-Reservation": "1"})  # the same picture
    shop.items = {"a": Item(f"{web.url}/0.jpg"), "b": Item(f"{web.url}/3.jpg")}
    night(store, shop, fetch=FETCH)
    assert refused(store) == (set(), {0})
    web.pages["/3.jpg"] = Page(jpeg(9), headers=JPEG)
    clock.sleep()
    night(store, shop, fetch=FETCH)
    assert refused(store) == (set(), {0})


def test_the_owner_says_it_of_files_too_and_may_take_it_back(store, shop, web, clock):
    shop.draw("7.jpg", 7)
    shop.items = {"a": Item(f"{web.url}/0.jpg"), "b": Item("7.jpg")}
    say(web, "/0.jpg", TDM_Reservation="1")
    night(store, shop, fetch=FETCH)
    assert [row[0] for row in ledger(store)] == [0], "a file is the shop's own"
    for use, found in (
        (UseConfig(training="allowed"), (set(), set())),
        (UseConfig(training="refused"), (set(), {0, 7})),
        (UseConfig(search="refused"), ({0, 7}, {0})),
        (UseConfig(), (set(), {0})),
    ):
        clock.sleep()
        night(store, shop, {"use": use}, fetch=FETCH)
        assert refused(store) == found, use
        rows = len(ledger(store))
        night(store, shop, {"use": use}, fetch=FETCH)
        assert len(ledger(store)) == rows
    clock.sleep()
    night(store, shop, {"use": UseConfig(training="granted")}, fetch=FETCH)
    assert refused(store) == (set(), {0, 7})
    say(web, "/0.jpg", Content_Signal="ai-train=yes", TDM_Reservation="0")
    clock.sleep()
    night(store, shop, {"use": UseConfig(training="granted")}, fetch=FETCH)
    assert refused(store) == (set(), {7})


def test_a_night_without_anything_on_the_web_has_no_ledger(store, shop):
    shop.stock(3)
    night(store, shop)
    assert not delta.count_rows(delta.open_table(store, schema.PERMISSIONS))
    assert permitted(store, SEARCH).told == ()


def indexed(store: str) -> tuple[set[str], index.Result]:
    """What an index of vectors that stand for the pictures has, and what the job says."""
    there = delta.read(store, schema.IMAGES, [schema.IMAGE_ID]).column(0).to_pylist()
    known = delta.read(store, schema.EMBEDDINGS, [schema.OWNER_ID]).column(0).to_pylist()
    told = {"owner_kind": "image", "model_version": model_version(EncoderConfig())}
    new = [told | {"owner_id": i, "vector": np.eye(16)[int(i[:4], 16) % 16].tolist()} for i in there if i not in known]
    append(store, schema.EMBEDDINGS, new)
    done = index.main(index.Config(store=store))
    opened = open_index(index_uri(store, "default"))
    found = opened.search(np.ones((1, 16), np.float32), 20)
    return set(found.column(schema.PRODUCT_ID).to_pylist()), done


def test_what_is_withdrawn_leaves_the_next_index_and_comes_back(store, shop, web, clock):
    shop.items = {f"p{n}": Item(f"{web.url}/{n}.jpg") for n in range(4)}
    say(web, "/0.jpg", X_Robots_Tag="noindex")
    night(store, shop, fetch=FETCH)
    there, done = indexed(store)
    assert (there, done.not_permitted, done.counts.out) == ({"p1", "p2", "p3"}, 1, 3)
    assert index.main(index.Config(store=store, dry_run=True)).not_permitted == 1
    assert indexed(store)[1].unchanged
    say(web, "/0.jpg", X_Robots_Tag="index")
    web.pages["/0.jpg"].headers["ETag"] = '"again"'
    say(web, "/1.jpg", Content_Signal="search=no")
    clock.sleep()
    assert night(store, shop, fetch=FETCH).permissions_written == 2
    assert indexed(store)[0] == {"p0", "p2", "p3"}
    clock.sleep()
    night(store, shop, {"use": UseConfig(search="refused")}, fetch=FETCH)
    before = index.main(index.Config(store=store, dry_run=True)).withdrawn
    with pytest.raises(UsageError, match="nothing is published, as no picture of an active product may be used for search"):
        indexed(store)
    assert before in versions(index_uri(store, "default"))
    again = index.main(index.Config(store=store))
    assert again.nothing_to_index.endswith("use.search=refused), so that 4 products are not found")
    assert (again.withdrawn, again.not_permitted) == (None, 4)
    with pytest.raises(UsageError, match="not rolled back, as no picture"):
        index.main(index.Config(store=store, rollback_to=before))
    clock.sleep()
    night(store, shop, {"use": UseConfig(search="allowed")}, fetch=FETCH)
    assert indexed(store)[0] == {"p0", "p1", "p2", "p3"}


def nothing_is_left(store: str) -> index.Result:
    """What the index says where no product may be found; the jobs behind it do their work."""
    done = index.main(index.Config(store=store))
    with pytest.raises(UsageError, match="nothing is published, as no "):
        read_manifest(index_uri(store, "default"))
    for job in (similar, recommend, gallery):
        assert job.main(job.Config(store=store)).products == 0
    return done


def test_where_all_are_refused_or_withdrawn_nothing_is_found_and_the_night_goes_on(store, shop, clock):
    shop.stock(4)
    night(store, shop)
    there, first = indexed(store)
    assert len(there) == 4
    clock.sleep()
    night(store, shop, {"use": UseConfig(search="refused")})
    done = nothing_is_left(store)
    assert (done.withdrawn, done.not_permitted) == (first.published, 4)
    assert export.main(export.Config(store=store)).counts.read == 4, "the rows, without vectors"
    clock.sleep()
    night(store, shop, {"use": UseConfig(search="allowed")})
    assert indexed(store)[1].published
    gone = [row | {"active": False, "fetched_at": clock.now + 1} for row in products(store).values()]
    append(store, schema.PRODUCTS, gone)
    assert nothing_is_left(store).nothing_to_index == "no product is active"
    assert export.main(export.Config(store=store)).deletions == 4


def test_an_empty_table_of_products_is_told_as_such(store):
    delta.create_table(store, schema.PRODUCTS)
    why = index.main(index.Config(store=store)).nothing_to_index
    assert why == "no product is active: table 'products' is empty ('w2w tables --rejects' says what was rejected)"


def test_a_killed_night_is_an_undisturbed_one(store, shop, web, clock, monkeypatch):
    """Killed after the permissions are written and before the products are."""
    shop.items = {"a": Item(f"{web.url}/0.jpg"), "b": Item(f"{web.url}/1.jpg")}
    say(web, "/1.jpg", TDM_Reservation="1")
    commit_parts = sink.commit_parts

    def dying(store, table, *args, **more):
        if table is schema.PRODUCTS:
            raise KeyboardInterrupt
        return commit_parts(store, table, *args, **more)

    monkeypatch.setattr(sink, "commit_parts", dying)
    with pytest.raises(KeyboardInterrupt):
        night(store, shop, fetch=FETCH)
    monkeypatch.setattr(sink, "commit_parts", commit_parts)
    assert refused(store) == (set(), {1})
    night(store, shop, fetch=FETCH)
    assert set(products(store)) == {"a", "b"}
    assert refused(store) == (set(), {1})


def test_what_one_feeds_owner_says_is_not_anothers(store, shop, clock):
    for n in range(2):
        shop.draw(f"{n}.jpg", n)
        shop.items = {f"p{n}": Item(f"{n}.jpg")}
        night(store, shop, {"id": f"feed{n}", "use": UseConfig(training="refused")})
    assert refused(store) == (set(), {0, 1})
    night(store, shop, {"id": "feed1"})
    assert refused(store) == (set(), {0})


def test_a_picture_that_products_share_is_written_down_once(store, shop, web, clock):
    shop.draw("7.jpg", 7)
    shop.items = {f"p{n}": Item(f"{web.url}/0.jpg", more=(f"{web.url}/1.jpg",)) for n in range(5)}
    shop.items |= {f"q{n}": Item("7.jpg") for n in range(5)}
    night(store, shop, {"use": UseConfig(training="refused")}, fetch=FETCH)
    assert delta.count_rows(delta.open_table(store, schema.PERMISSIONS)) == 3


def found(store: str, k: int = 20) -> set[str]:
    hits = open_index(index_uri(store, "default")).search(np.ones((1, 16), np.float32), k)
    return set(hits.column(schema.PRODUCT_ID).to_pylist())


def withdraw(web: Web, clock: Clock, store: str, shop: Shop, *numbers: int) -> None:
    for n in numbers:
        say(web, f"/{n}.jpg", X_Robots_Tag="noindex")
    clock.sleep()
    night(store, shop, fetch=FETCH)


@pytest.mark.parametrize("why", ["gate", "killed", "not embedded"])
def test_what_search_may_not_use_is_gone_where_nothing_new_is_published(store, shop, web, clock, monkeypatch, why):
    shop.items = {f"p{n}": Item(f"{web.url}/{n}.jpg") for n in range(4)}
    night(store, shop, fetch=FETCH)
    there, first = indexed(store)
    withdraw(web, clock, store, shop, 2)
    assert (index.main(index.Config(store=store, dry_run=True)).taken_out, found(store)) == (1, there), "as it was"

    def fail(*args, **kwargs):
        raise KeyboardInterrupt if why == "killed" else JobFailed("the gate was not passed")

    if why == "not embedded":
        monkeypatch.setattr(index, "read_rows", fail)
    else:
        monkeypatch.setattr(index, "build_index", fail)
        shop.items["p9"] = Item(f"{web.url}/0.jpg", title="new")
        clock.sleep()
        night(store, shop, fetch=FETCH)
    with pytest.raises((KeyboardInterrupt, JobFailed)):
        index.main(index.Config(store=store))
    assert found(store) == {"p0", "p1", "p3"}
    monkeypatch.undo()
    without_ray(monkeypatch)
    now = read_manifest(index_uri(store, "default"))
    assert (now.num_rows, now.gate.recall, now.version[:20]) == (3, 1.0, first.published[:20])
    assert indexed(store)[0] == {"p0", "p1", "p3"} | set(shop.items) - {"p2"}


def test_who_rolls_back_does_not_bring_back_what_search_may_not_use(store, shop, web, clock):
    shop.items = {f"p{n}": Item(f"{web.url}/{n}.jpg") for n in range(3)}
    night(store, shop, fetch=FETCH)
    _, first = indexed(store)
    shop.items["p3"] = Item(f"{web.url}/3.jpg")
    clock.sleep()
    night(store, shop, fetch=FETCH)
    there, second = indexed(store)
    assert len(there) == 4
    withdraw(web, clock, store, shop, 1)
    done = index.main(index.Config(store=store, rollback=True))
    assert found(store) == {"p0", "p2"}
    assert done.published.partition("-")[0] == first.published.partition("-")[0]
    assert done.held_back_versions == (second.published,)
    with pytest.raises(UsageError, match="no other version older than"):
        index.main(index.Config(store=store, rollback=True))
    withdraw(web, clock, store, shop, 0, 2)
    with pytest.raises(UsageError, match="search may not use any of its pictures"):
        index.main(index.Config(store=store, rollback_to=first.published))
    assert indexed(store)[0] == {"p3"}
