"""A dry run says how many pictures search and training may not use, and the run then says the same."""

import itertools
import random

import pytest

from tests.unit.nights.nights import Item, Shop, night
from tests.unit.nights.test_permissions import FETCH, clock, here, say, shop, store, web  # noqa: F401
from tests.unit.web.webs import Web
from w2w.ingest import job as ingest
from w2w.web.permission import UseConfig

WORDS = ("stated", "granted", "allowed", "refused")
SIGNALS = (
    {},
    {"X_Robots_Tag": "noindex"},
    {"TDM_Reservation": "1"},
    {"Content_Signal": "search=yes, ai-train=no"},
    {"X_Robots_Tag": "unavailable_after: 2020-01-01"},
)


def both(store: str, shop: Shop, feed: dict | None = None, **options) -> tuple[ingest.Result, ingest.Result]:  # noqa: F811
    told = night(store, shop, feed, fetch=FETCH, dry_run=True, **options)
    return told, night(store, shop, feed, fetch=FETCH, **options)


@pytest.mark.parametrize("seed", [0, 3, *(pytest.param(n, marks=pytest.mark.slow) for n in range(10, 16))])
def test_what_is_told_is_what_the_run_finds(store, shop, web: Web, clock, seed):  # noqa: F811
    """Of few products all are tried, so that nothing is unknown."""
    rng = random.Random(seed)
    shop.draw("7.jpg", 7)
    words = list(itertools.product(WORDS, WORDS))
    for number in range(5):
        for n in range(4):
            if rng.random() < 0.4:
                say(web, f"/{n}.jpg", **rng.choice(SIGNALS))
                web.pages[f"/{n}.jpg"].headers["ETag"] = f'"{number}"'
        places = [f"{web.url}/{n}.jpg" for n in range(4)] + ["7.jpg"]
        chosen = [rng.sample(places, rng.randint(1, 3)) for _ in range(rng.randint(1, 4))]
        shop.items = {f"p{n}": Item(front, more=tuple(sorted(more))) for n, (front, *more) in enumerate(chosen)}
        use = UseConfig(*(rng.choice(words) if rng.random() < 0.6 else ("stated", "stated")))
        told, done = both(store, shop, {"use": use, "grace_nights": 1}, max_withdrawn_rate=1)
        assert told.not_permitted == done.not_permitted, (number, use)
        assert told.why_not_permitted == done.why_not_permitted
        assert (told.use_not_known, done.use_not_known) == (None, None)
        assert len(done.why_not_permitted) == len(done.not_permitted)
        clock.sleep()


def test_it_is_told_with_the_option_that_changes_it(store, shop, web: Web, clock):  # noqa: F811
    shop.items = {f"p{n}": Item(f"{web.url}/{n}.jpg") for n in range(4)}
    for n in range(3):
        say(web, f"/{n}.jpg", X_Robots_Tag="noindex")
    told, done = both(store, shop)
    why = "search may not use 3 pictures (X-Robots-Tag: noindex); if they are your own, feed.use.search: allowed says so"
    assert told.why_not_permitted == done.why_not_permitted == [why]
    told, done = both(store, shop, {"use": UseConfig(search="allowed")})
    assert told.not_permitted == done.not_permitted == {}
    told, done = both(store, shop, {"use": UseConfig(training="refused")})
    assert done.not_permitted == {"search": 3, "training": 4}
    assert done.why_not_permitted == told.why_not_permitted == [why, "training may not use 4 pictures (use.training=refused)"]


def test_of_new_pictures_on_the_web_ten_products_are_known(store, shop, web: Web, clock):  # noqa: F811
    for n in range(30):
        web.pages[f"/{n}.jpg"] = web.pages[f"/{n % 4}.jpg"]
    for n in range(30):
        say(web, f"/{n}.jpg", TDM_Reservation="1")
    shop.items = {f"p{n}": Item(f"{web.url}/{n}.jpg") for n in range(30)}
    told, done = both(store, shop)
    assert 0 < told.not_permitted["training"] <= done.not_permitted["training"] == 4  # the same four
    assert (told.use_not_known, done.use_not_known) == (20, None)
    assert both(store, shop)[0].not_permitted == {"training": 4}
    told, done = both(f"{store}-refused", shop, {"use": UseConfig(search="refused")})
    assert 20 < told.not_permitted["search"] <= 4 + 20, "a new picture is its address"
    assert done.not_permitted["search"] == 4
    assert told.use_not_known == 20, "what training may use is not known"
    assert both(f"{store}-both", shop, {"use": UseConfig("allowed", "allowed")})[0].use_not_known is None


def test_what_another_feed_says_of_the_same_picture_counts(store, shop, web: Web, clock):  # noqa: F811
    shop.draw("7.jpg", 7)
    shop.items = {"other": Item("7.jpg")}
    night(store, shop, {"id": "other", "use": UseConfig(training="refused")})
    shop.items = {"mine": Item("7.jpg"), "free": Item(f"{web.url}/1.jpg")}
    shop.folder.joinpath("copy").mkdir()
    shop.draw("copy/7.jpg", 7)
    shop.items["mine"] = Item("copy/7.jpg")
    told, done = both(store, shop)
    assert told.not_permitted == done.not_permitted == {"training": 1}
    assert done.why_not_permitted == ["training may not use 1 picture (use.training=refused)"]
