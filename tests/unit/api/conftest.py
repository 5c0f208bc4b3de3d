"""A store of a small shop, made by the jobs themselves in this process, without Ray."""

import pytest

import w2w
from tests.unit.nights.nights import Shop, without_ray

NUM_PRODUCTS = 50


@pytest.fixture(scope="package")
def shop(tmp_path_factory) -> Shop:
    shop = Shop(tmp_path_factory.mktemp("shop"))
    shop.stock(NUM_PRODUCTS)
    for n in range(0, NUM_PRODUCTS, 5):
        shop.say(f"p{n}", category="shoes")
    return shop


@pytest.fixture(scope="package")
def store(shop, tmp_path_factory) -> str:
    """After two nights: a price has changed, and a product is gone."""
    store = str(tmp_path_factory.mktemp("store"))
    feed = {"uri": shop.write(), "full": True, "grace_nights": 1}
    with pytest.MonkeyPatch.context() as monkeypatch:
        without_ray(monkeypatch)
        w2w.nightly(store=store, feed=feed, pool={"workers": 1})
        shop.say("p1", price="9.00")
        item = shop.items.pop("p2")
        shop.write()
        w2w.nightly(store=store, feed=feed, pool={"workers": 1})
    shop.items["p2"] = item
    return store
