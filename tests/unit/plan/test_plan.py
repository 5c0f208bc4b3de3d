"""The plan finds the costs of nights that were made up from known ones, and says what it cannot know."""

import json

import numpy as np
import pytest

from tests.unit.nightly.test_morning import run_night
from w2w import storage
from w2w.errors import UsageError
from w2w.index.manifest import index_uri
from w2w.index.publish import read_manifest
from w2w.nightly.flow import NIGHT
from w2w.plan import job as plan
from w2w.plan.compared import pair_cpu_s
from w2w.plan.rules import Point, Rate, Upgrade, fit, need, points, upgrade
from w2w.similar.flow import SimilarConfig
from w2w.table import bridges


@pytest.fixture
def made_up():
    """Nights of index: 2 s, .004 CPU seconds a changed row, with 3 % of noise; and 3 ms a product where more than a tenth have
    changed."""
    rng = np.random.default_rng(7)
    rows = [100_000, 0, 10, 1000, 10_000, 500, 20, 5000, 50_000]
    return [Point(n, 100_000, 4, (2 + 0.004 * n / 4 + 300 * (n > 10_000)) * rng.normal(1, 0.03)) for n in rows]


def test_known_costs_are_found(made_up):
    apart = [Point(p.rows / 10, 10_000, 4, 2 + 0.004 * p.rows / 10 / 4 + 30 * (p.rows > 10_000)) for p in made_up]
    rate = fit("index", made_up + apart)
    assert rate.cpu_s == pytest.approx(0.004, rel=0.1)
    assert rate.fixed_s == pytest.approx(2, rel=0.1)
    assert rate.driver_s == pytest.approx(3e-3, rel=0.1)
    assert rate.error < 0.05
    assert rate.seconds(1e6, 1e6, 40) == pytest.approx(2 + 0.004 * 1e6 / 40 + 3000, rel=0.1)
    assert rate.seconds(1e5, 1e6, 40) == pytest.approx(2 + 0.004 * 1e5 / 40, rel=0.1)
    assert rate.seconds(0, 1e6, 40) == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize("pair", [0.0, 2e-9, 1.0])
def test_what_is_compared_grows_with_the_catalog(pair):
    """Nights of `similar` in one catalog: 1e-4 CPU seconds a changed row, 2e-5 s a product, 2e-9 a pair; .2 s with nothing."""
    num, cpus = 10_000, 2
    rows = [num, 0, 10, 100, 1000, 0]
    took = [2e-5 * num + (1e-4 * n + 2e-9 * n * num) / cpus if n else 0.2 for n in rows]
    rate = fit("similar", [Point(n, num, cpus, s) for n, s in zip(rows, took)], pair)
    assert rate.seconds(0, 100 * num, cpus) == pytest.approx(0.2)
    assert rate.pair_cpu_s <= 2e-9 + (1e-4 + 0.8) / num, "no night took less"
    if pair == 2e-9:
        assert rate.seconds(100 * num, 100 * num, 4) == pytest.approx(20 + (100 + 2000) / 4, rel=0.05)
        assert need({"similar": rate}, {"similar": 1e6}, 1e6, 4, 1000).seconds == rate.seconds(1e6, 1e6, 4)
        assert need({"similar": rate}, {"similar": 0.0}, 1e6, 4, 1000).seconds == pytest.approx(0.2)
    assert rate.error < 0.05 or pair == 1


def test_comparisons_are_measured():
    small, large = (pair_cpu_s(64, rows) for rows in (500, 40_000))
    assert min(small, large) > 0


def test_one_size_of_night_is_all_work(made_up):
    rate = fit("embed", [Point(1000, 1000, 2, 50.0), Point(1200, 1000, 2, 60.0)])
    assert (rate.fixed_s, rate.driver_s, rate.cpu_s) == (0, 0, pytest.approx(0.1))
    assert fit("embed", [Point(0, 1000, 2, 0.1)]) is None
    assert fit("embed", []) is None


def test_nodes_share_what_can_be_shared():
    rates = {"embed": Rate(10, 0.1, 0, 0, 5, 100), "index": Rate(9, 0, 1.02e-3, 0, 5, 100, read_above=0.1)}
    found = need(rates, {"embed": 1e6, "index": 1e6}, 1e6, node_cpus=8, hours=2)
    assert found.nodes == 3  # 100,000 CPU seconds in 2 h but for 1,030 s, 8 at a time
    assert found.steps["embed"] == pytest.approx(10 + 1e5 / 24)
    assert found.seconds <= 7200 < need(rates, {"embed": 1e6, "index": 1e6}, 1e6, 8, 1000).seconds
    assert need(rates, {"embed": 1.0, "index": 2e8}, 1e9, 8, 2).nodes is None


def test_nights_are_read_as_they_are_written_and_anything_else_is_passed_over():
    good = {
        "exit": 0,
        "cpus": 2.0,
        "told": {"new": 3, "changed": 4, "rejected": 9},
        "embed": {"seconds": 5.0, "counts": {"read": 11}},
        "index": {"seconds": 1.0, "counts": {"read": 100}},
    }
    strange = [{}, {"exit": 0, "embed": [], "told": 5}, good | {"exit": 1}, {"exit": 0, "embed": {"seconds": "x"}}]
    strange += [{"exit": 0, "embed": {"seconds": float("nan"), "counts": {"read": True}}}]
    assert points([good, *strange], 8) == {"embed": [Point(11, 100, 2, 5)], "index": [Point(7, 100, 2, 1)]}


def test_a_store_is_planned_for(store, shop, clock):
    for n in range(3):
        shop.say("p1", price=f"{n + 1}.00")
        run_night(store, shop)
        clock.sleep()
    for n, run in enumerate(storage.list_folders(f"{store}/reports/nightly")):
        uri = f"{store}/reports/nightly/{run}/{NIGHT}"
        night = json.loads(storage.read_bytes(uri)) | {"cpus": 1.0}
        night["embed"] |= {"seconds": 0.0, "counts": {"read": 0}} if n else {"seconds": 3600.0, "counts": {"read": 36_000}}
        storage.write_bytes(uri, json.dumps(night).encode())
    result = plan.main(plan.Config(store=store, products=720_000, changed=0.1, node_cpus=10, hours=1, node_price=2, gb_price=1))
    assert (result.measured_products, result.pictures_per_product, result.nights_measured) == (20, 1.0, 3)
    assert result.warning.startswith("more than 10 times the 20 products")
    assert result.first_night_nodes >= 2  # 72,000 CPU seconds, 10 at a time
    assert result.night_s["embed"] == pytest.approx(720, rel=0.01)  # .1 s a picture
    assert result.gigabytes["images"] > 0
    assert result.gigabytes["index"] == pytest.approx(result.search_memory_gb, abs=1e-3)
    nights = 30 * result.night_hours * result.night_nodes * 2
    assert result.cost_a_month == pytest.approx(nights + result.gigabytes_in_all, rel=0.01)
    twice = plan.main(plan.Config(store=store, products=1_440_000, changed=0.1))
    assert twice.gigabytes_in_all == pytest.approx(2 * result.gigabytes_in_all)


def test_lists_of_similar_products_are_planned_for(store, shop, clock, monkeypatch):
    """Half of all pairs are of one category: the shop has two."""
    for n in range(10):
        shop.say(f"p{n}", category="shoes")
    run_night(store, shop, similar=SimilarConfig())
    asked = []
    monkeypatch.setattr(plan, "pair_cpu_s", lambda dim, rows: asked.append((dim, rows)) or 1.0 / rows)
    result = plan.main(plan.Config(store=store, products=2_000_000))
    dim = read_manifest(index_uri(store, "default")).dim
    assert asked == [(dim, 10.0), (dim, 1e6)]
    assert result.night_s["similar"] > 0


def test_a_change_of_models_ends_and_a_bridge_pays_from_a_night_on():
    change = {"pictures": 1e6, "new": 1000, "old_s": 0.02, "new_s": 0.05, "budget_s": 5000, "sample": 4000, "bridge_s": 30}
    assert upgrade(**change) == Upgrade(10, 2)  # 49,800 CPU seconds; 20 saved a night
    assert upgrade(**change | {"bridge_s": 300}) == Upgrade(10, None)
    assert upgrade(**change | {"new": 0}) == Upgrade(10, None)
    assert upgrade(**change | {"bridge_s": 0.0, "sample": 2e6}) == Upgrade(1, 1)


def test_a_store_says_when_its_change_of_models_is_over(store, shop, clock):
    run_night(store, shop)
    (run,) = storage.list_folders(f"{store}/reports/nightly")
    uri = f"{store}/reports/nightly/{run}/{NIGHT}"
    night = json.loads(storage.read_bytes(uri)) | {"cpus": 1.0}
    night["embed"] |= {"seconds": 10.0, "counts": {"read": 100}}
    night["upgrade"] = {"seconds": 40.0, "counts": {"read": 100}}
    storage.write_bytes(uri, json.dumps(night).encode())
    asked = plan.Config(store=store, products=90_000, changed=0.001, node_cpus=4, upgrade_minutes=60)
    result = plan.main(asked)
    assert (result.upgrade_nights, result.bridge_from_night, result.bridge_recall) == (3, None, {})  # 36,000 s, 14,400 a night
    assert "upgrade" not in result.not_measured
    assert set(result.night_s) == {"ingest", "embed", "index"}
    recall = {"of old": {"value": 0.8, "low": 0.7, "high": 0.9, "num": 50}}
    told = {"made_at": "2026", "sample": 9000, "seconds": 4.0, "recall_at_10": recall}
    bridge = bridges.Bridge("a" * 16, "b" * 16, np.eye(2, dtype=np.float32), np.zeros(2, np.float32), told)
    bridges.write(bridges.uri_of(store, "x"), bridge)
    result = plan.main(asked)
    assert (result.upgrade_nights, result.bridge_from_night) == (3, 2)  # 16 CPU seconds; 9 saved a night
    assert result.bridge_recall["of old"].value == 0.8


def test_without_nights_there_are_bytes_alone(store, shop, clock):
    run_night(store, shop, until="embed")
    storage.delete(f"{store}/reports/nightly")
    result = plan.main(plan.Config(store=store, products=1000))
    assert (result.night_s, result.nights_measured, result.not_measured) == ({}, 0, ("ingest", "embed", "index"))
    assert result.gigabytes_in_all > 0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"upgrade_minutes": 0.0}, "--upgrade_minutes=0"),
        ({"changed": 2.0}, "--changed=2.0: a share"),
        ({"hours": 0.0}, "--hours=0"),
        ({}, "there is no table"),
    ],
)
def test_mistakes(store, options, says):
    with pytest.raises(UsageError, match=says):
        plan.main(plan.Config(store=store, products=5, **options))
