"""Plan: bytes, hours, nodes and cost of a larger shop, from what this store's nights took."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow.compute as pc

from w2w import schema, storage
from w2w.engine.job import new_run_id
from w2w.errors import UsageError
from w2w.index.manifest import index_uri
from w2w.index.publish import current_version, read_manifest
from w2w.index.spec import IndexConfig
from w2w.nightly.flow import earlier
from w2w.plan.compared import pair_cpu_s
from w2w.plan.rules import SIMILAR, UPGRADE, Need, Point, Rate, fit, need, points, rows_of, upgrade
from w2w.results import Figure, Summary
from w2w.table import bridges, delta
from w2w.table.current import CurrentRows

_NIGHTS = 90
_COMMITS = 50  # of table `similar` that are looked through for its options
_WITHIN = 10  # times as large as the store, the figures hold


@dataclass(frozen=True)
class Config:
    """What a catalog of --products would need: bytes by table, memory of a search, seconds of each step in the first night and
    in those after it, nodes, cost. All figures come from this store and its nights, by the formulae of jobs/README.md."""

    PLACES = {"STORE": "store"}
    LEAST = {"products": 1, "node_cpus": 1, "measured_cpus": 1, "nights": 1}

    store: str
    """The store whose nights are measured: a local path or an s3:// prefix."""
    products: int
    """Products on sale."""
    changed: float = 0.01
    """Share of them that is new or changed in a night."""
    nights: int = 365
    """Nights whose changes the tables hold."""
    hours: float = 6.0
    """In which a night has to end."""
    node_cpus: int = 8
    """CPUs of a node."""
    node_price: float = 0.0
    """Of a node, an hour."""
    gb_price: float = 0.0
    """Of a gigabyte, a month."""
    upgrade_minutes: float | None = None
    """Of a night, for a new model's vectors: says how many nights they take, and from which on a bridge is worth it."""
    measured_cpus: int | None = None
    """CPUs that the nights ran on, where they do not say. Default: those of this machine."""


@dataclass(frozen=True, kw_only=True)
class Result(Summary):
    """Of one size. Seconds are of a cluster with the nodes that are named beside them."""

    products: int
    measured_products: int
    pictures_per_product: float
    nights_measured: int
    gigabytes: dict[str, float] = field(default_factory=dict)
    """By table, and of the index."""
    gigabytes_in_all: float = 0.0
    search_memory_gb: float | None = None
    """Of a process that has opened the whole index."""
    first_night_s: dict[str, float] = field(default_factory=dict)
    first_night_hours: float | None = None
    first_night_nodes: int | None = None
    night_s: dict[str, float] = field(default_factory=dict)
    night_hours: float | None = None
    night_nodes: int | None = None
    too_slow: str | None = None
    warning: str | None = None
    error: dict[str, float] = field(default_factory=dict)
    """Of the formula on the nights that it is fitted to: median relative error, by step."""
    not_measured: tuple[str, ...] = ()
    """Steps that no night has run on any row."""
    upgrade_nights: int | None = None
    """Until all pictures have vectors of a new model."""
    bridge_from_night: int | None = None
    """From which the store's newest bridge has saved more than it cost; none where the change is over before."""
    bridge_recall: dict[str, Figure] = field(default_factory=dict)
    """What that bridge keeps."""
    cost_of_the_first_night: float | None = None
    cost_a_month: float | None = None
    """30 nights and the bytes."""

    OF_ROWS = False


def main(config: Config) -> Result:
    store = storage.absolute(config.store)
    if not 0 <= config.changed <= 1:
        raise UsageError(f"--changed={config.changed}: a share between 0 and 1")
    if config.upgrade_minutes is not None and not config.upgrade_minutes:
        raise UsageError("--upgrade_minutes=0: nothing is done in no time")
    if not config.hours:
        raise UsageError("--hours=0: no night ends in no time")
    delta.need_table(store, schema.PRODUCTS, "ingest")
    measured, pictures, alike = _catalog(store)
    if not measured:
        raise UsageError(f"the store at {store!r} has no active product: there is nothing to measure")
    nights = [night for night in earlier(store, "", _NIGHTS) if night.get("exit") == 0]
    found = points(nights, config.measured_cpus or os.cpu_count() or 1)
    rates = {step: rate for step, some in found.items() if step != SIMILAR and (rate := fit(step, some)) is not None}
    if rate := _similar(store, found.get(SIMILAR, []), measured, config.products, alike):
        rates[SIMILAR] = rate
    sizes = (config.products, config.node_cpus, config.hours)
    new_model = rates.pop(UPGRADE, None)
    first, later = (need(rates, rows_of(rates, config.products, pictures, n), *sizes) for n in (1.0, config.changed))
    held = _bytes(store, config, measured)
    told: dict[str, Any] = {}
    if rates:
        told = {
            "first_night_s": _rounded(first),
            "first_night_hours": first.seconds / 3600,
            "first_night_nodes": first.nodes or 1,
            "night_s": _rounded(later),
            "night_hours": later.seconds / 3600,
            "night_nodes": later.nodes or 1,
            "error": {step: round(rate.error, 3) for step, rate in rates.items()},
        }
        if later.nodes is None:
            told["too_slow"] = f"what one process does takes more than {config.hours:g} h: no number of nodes helps"
    if rates and config.products > _WITHIN * measured:
        told["warning"] = (
            f"more than {_WITHIN} times the {measured:,} products that were measured: seconds may be several times less"
        )
    if config.upgrade_minutes is not None and "embed" in rates:
        told |= _upgrade(store, config, pictures, rates["embed"], new_model, (later.nodes or 1) * config.node_cpus)
    month = 0.0
    if config.node_price and rates:
        told["cost_of_the_first_night"] = first.seconds / 3600 * (first.nodes or 1) * config.node_price
        month += 30 * later.seconds / 3600 * (later.nodes or 1) * config.node_price
    month += sum(held.values()) * config.gb_price
    index = _index_bytes(store)
    not_measured = tuple(step for step in ("ingest", "embed", "index") if step not in rates)
    return Result(
        job="plan",
        run_id=new_run_id("plan"),
        products=config.products,
        measured_products=measured,
        pictures_per_product=pictures,
        nights_measured=len(nights),
        gigabytes={name: round(gb, 3) for name, gb in sorted(held.items(), key=lambda kv: -kv[1])},
        gigabytes_in_all=sum(held.values()),
        search_memory_gb=index * config.products / measured / 1e9 if index else None,
        not_measured=not_measured + ((UPGRADE,) if config.upgrade_minutes is not None and new_model is None else ()),
        cost_a_month=month or None,
        **told,
    )


def _upgrade(store: str, config: Config, pictures: float, old: Rate, new: Rate | None, cpus: float) -> dict[str, Any]:
    """What the plan says of a change of models; a new model that no night has run is taken to be as fast as the old one."""
    assert config.upgrade_minutes
    bridge = max((b for _, b in bridges.listed(store)), key=lambda b: str(b.told.get("made_at")), default=None)
    sample, took_s = (bridge.number("sample"), bridge.number("seconds")) if bridge else (0.0, 0.0)
    num, budget_s = config.products * pictures, 60 * config.upgrade_minutes * cpus
    speed = old.cpu_s, (new or old).cpu_s
    found = upgrade(num, num * config.changed, *speed, budget_s, sample, took_s * cpus)
    worth = {"bridge_from_night": found.bridge_from, "bridge_recall": bridge.recall} if bridge else {}
    return {"upgrade_nights": found.nights} | worth


def _similar(store: str, nights: Sequence[Point], measured: int, products: int, alike: float) -> Rate | None:
    """The rate of `similar` in a catalog of so many ``products``. ``alike``: share of all pairs of products that are of one
    category."""
    uri, opened = index_uri(store, IndexConfig().name), delta.open_table(store, schema.SIMILAR_PRODUCTS)
    if not current_version(uri) or opened is None or not nights:
        return fit(SIMILAR, nights)
    told = next((entry["w2w"] for entry in delta.history(opened, _COMMITS) if entry["w2w"]), {})
    alike = 1.0 if told.get("config", {}).get("across") else alike
    dim = read_manifest(uri).dim
    here, there = (alike * pair_cpu_s(dim, alike * num) for num in (measured, products))
    rate = fit(SIMILAR, nights, here)
    return replace(rate, pair_cpu_s=rate.pair_cpu_s * there / here) if rate else None


def _rounded(found: Need) -> dict[str, float]:
    return {step: round(s, 1) for step, s in found.steps.items()}


def _catalog(store: str) -> tuple[int, float, float]:
    """Active products, pictures for each, and the share of all pairs of products that are of one category."""
    of = Counter[str | None]()
    for rows in CurrentRows(store, schema.PRODUCTS).batches([schema.ACTIVE, schema.CATEGORY]):
        categories = rows.filter(rows.column(schema.ACTIVE)).column(schema.CATEGORY)
        of.update({one["values"]: one["counts"] for one in pc.value_counts(categories).to_pylist()})
    active, pictures = of.total(), delta.count_rows(delta.open_table(store, schema.IMAGES))
    if not active:
        return 0, 1.0, 1.0
    return active, max(pictures / active, 1.0), sum((num / active) ** 2 for num in of.values())


def _bytes(store: str, config: Config, measured: int) -> dict[str, float]:
    """Gigabytes of each table, and of the index's published version, at the size of the plan."""
    held = {}
    for table in [*schema.TABLES.values(), *delta.own_tables(store).values()]:
        parts = delta.parts(delta.open_table(store, table))
        size, rows = sum(p.size for p in parts), sum(p.rows for p in parts)
        if size:
            more = config.changed * config.nights * size / rows if table is schema.PRODUCTS else 0.0  # a row for each change
            held[table.name] = config.products * (size / measured + more) / 1e9
    index = _index_bytes(store)
    return held | ({"index": index / measured * config.products / 1e9} if index else {})


def _index_bytes(store: str) -> int:
    uri = index_uri(store, IndexConfig().name)
    return sum(shard.num_bytes for shard in read_manifest(uri).shards) if current_version(uri) else 0
