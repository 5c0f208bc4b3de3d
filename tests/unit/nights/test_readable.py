"""A feed whose values can suddenly not be read is refused; warnings about rows of before are removed."""

import time
from pathlib import Path

import pytest

from tests.unit.nights.nights import Shop, night, num_rows, products
from w2w import schema
from w2w.cli import tables
from w2w.errors import BadInput, UsageError
from w2w.table import delta, doubles

pytestmark = pytest.mark.usefixtures("clock")


def spoil(shop: Shop, num: int, price: str = "ask us") -> None:
    for n in range(num):
        shop.say(f"p{n}", price=price)


def test_prices_that_can_no_longer_be_read_are_refused(store, shop):
    night(store, shop)
    before = num_rows(store)
    spoil(shop, 18)
    said = r"18 of 20 rows have a price that cannot be read \(p0: not like .*: 'ask us'; p1: .*; p2: [^;]*\)\."
    said += r" Of the products in the store, 100% have one; of tonight's, 10%\. Nothing was done\. .*--feed\.max_unread_rate=1"
    for dry_run in (True, False):
        with pytest.raises(BadInput, match=said):
            night(store, shop, dry_run=dry_run)
    assert (num_rows(store), products(store)["p3"]["price"]) == (before, 10)
    assert not list(Path(store).glob("_work/*"))
    done = night(store, shop, {"max_unread_rate": 1})
    assert (done.values_not_read, done.values_not_compared, products(store)["p3"]["price"]) == ({"price": 18}, None, None)
    assert night(store, shop).versions == {}  # it was so last night, too


@pytest.mark.parametrize(("num", "rate", "least"), [(4, 0.1, 5), (2, 0.1, 1), (5, 0.25, 1)])
def test_a_few_are_only_warned_of(store, shop, num, rate, least):
    night(store, shop)
    spoil(shop, num)
    assert night(store, shop, {"max_unread_rate": rate}, min_rejects=least).values_not_read == {"price": num}


def test_the_first_night_has_nothing_to_compare_with(store, shop):
    spoil(shop, 20)
    done = night(store, shop)
    assert done.values_not_compared == "price: many values cannot be read, and there is no earlier night to compare with"
    shop.items = {f"q{n}": item for n, item in enumerate(shop.items.values())}
    other = night(store, shop, {"id": "other"})  # another feed's first night, though the store has products
    assert other.values_not_compared is not None


def test_empty_values_are_no_unreadable_ones(store, shop):
    night(store, shop)
    spoil(shop, 20, "")
    assert night(store, shop).counts.out == 20


def test_a_share_is_a_share(store, shop):
    with pytest.raises(UsageError, match=r"feed\.max_unread_rate=2: a share between 0 and 1"):
        night(store, shop, {"max_unread_rate": 2})


def warned(store: str) -> set[str]:
    return set(delta.read(store, schema.WARNINGS, [schema.PRODUCT_ID]).column(0).to_pylist())


def test_warnings_go_with_the_rows_that_they_are_about(store, shop, monkeypatch):
    shop.draw("new.jpg", 99)
    spoil(shop, 5)
    night(store, shop)
    shop.say("p1", price="11.00")  # mended
    shop.say("p2", price="still not", title="blue")  # another row, another warning
    shop.say("p4", title="another", image="nowhere.jpg")  # its row is new, its picture is an earlier one
    del shop.items["p3"]
    night(store, shop, {"grace_nights": 1}, withdraw_missing=1)
    assert delta.read(store, schema.WARNINGS, [schema.PRODUCT_ID]).num_rows == 7
    fresh = tables.main(tables.Config(store, compact=True))
    assert (fresh.compacted["warnings"].rows_outdated, warned(store)) == (0, {"p0", "p1", "p2", "p3", "p4"})
    now = time.time_ns()
    monkeypatch.setattr(doubles.time, "time_ns", lambda: now + 25 * 3600 * 10**9)
    would = tables.main(tables.Config(store, compact=True, dry_run=True))
    assert (would.compacted["warnings"].rows_outdated, len(warned(store))) == (4, 5)
    done = tables.main(tables.Config(store, compact=True))
    assert done.compacted["warnings"].rows_outdated == 4
    assert warned(store) == {"p0", "p2", "p4"}
    assert delta.read(store, schema.WARNINGS, [schema.PRODUCT_ID]).num_rows == 3
    assert tables.main(tables.Config(store, compact=True)).compacted["warnings"].rows_outdated == 0
