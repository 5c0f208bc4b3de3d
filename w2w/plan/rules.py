"""The formulae of the plan.

Each step's seconds in one night are modelled as

    s = a + b x / cpus + q n + p x n / cpus

with x the rows that the step worked on (for index and similar the products that changed), n the products of the catalog, and
a, b, q >= 0 fitted to the nights by non-negative least squares on relative errors (Lawson, Hanson 1974, chapter 23). b x and
p x n are work that more machines share; a and q n are the driver's. a and q are zero unless the nights differ tenfold in x,
since one size of night cannot tell them from b.

q is zero but for index and similar, which work in one of several ways. Where nothing changed, they take what they took in such
nights (the median). Where more than a share of the catalog did, they read what is there, q n in place of a: index above the
share at which layers are built into shards, similar always.

p is zero but for similar, which compares what changed with the products of its category: the sum of the squared shares of the
categories, times what one comparison costs. Nights of one size of catalog cannot tell p from b, so that is measured where the
plan is made, on random vectors in categories as large as those of the catalog; no night may have taken less.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import nnls

from w2w.index.spec import IndexConfig

SIMILAR, UPGRADE = "similar", "upgrade"
_READ_ABOVE = {"index": IndexConfig().layer_share, SIMILAR: 0.0}  # share of changed products, above which all are read
_OF_PICTURES = ("embed", "detect", "segment", "tag")
STEPS = ("ingest", "detect", "segment", "embed", "tag", "index", "recommend", "similar", "check", "export", UPGRADE)
_APART = 10.0  # times, between the smallest and the largest night, for a fixed part to be told
_LEAST_S = 0.05  # shorter steps weigh as if they took this


@dataclass(frozen=True)
class Point:
    """One step of one night."""

    rows: float
    catalog: float
    cpus: float
    seconds: float


@dataclass(frozen=True)
class Rate:
    """A fitted step: ``fixed_s``, ``cpu_s`` a row, ``pair_cpu_s`` a row and product of the catalog. In place of ``fixed_s``: if
    ``read_above`` is given, ``driver_s`` a product of the catalog where there are more rows than this share of it, and
    ``idle_s`` where there are none. ``error``: median relative error on the ``nights`` that it was fitted to; ``most_rows``:
    the largest of these."""

    fixed_s: float
    cpu_s: float
    driver_s: float
    error: float
    nights: int
    most_rows: float
    pair_cpu_s: float = 0.0
    idle_s: float = 0.0
    read_above: float | None = None

    def alone_s(self, rows: float, catalog: float) -> float:
        """What one process does."""
        if self.read_above is None:
            return self.fixed_s
        if not rows:
            return self.idle_s
        return self.driver_s * catalog if rows > self.read_above * catalog else self.fixed_s

    def shared_cpu_s(self, rows: float, catalog: float) -> float:
        return (self.cpu_s + self.pair_cpu_s * catalog) * rows

    def seconds(self, rows: float, catalog: float, cpus: float) -> float:
        return self.alone_s(rows, catalog) + self.shared_cpu_s(rows, catalog) / cpus


def points(nights: Sequence[Mapping[str, Any]], cpus: float) -> dict[str, list[Point]]:
    """Of each step, from the nights' JSON; what no night would write is passed over. ``cpus``: where a night does not say."""
    found: dict[str, list[Point]] = {}
    for night in nights:
        if night.get("exit") != 0:
            continue
        told = night.get("told")
        changed = sum(n for word, n in _numbers(told).items() if word != "rejected")
        catalog = _numbers(_of(night, "index").get("counts")).get("read", 0.0)
        had = _numbers({"cpus": night.get("cpus")}).get("cpus", cpus) or cpus
        for step in STEPS:
            one = _numbers(_of(night, step))
            if "seconds" in one:
                read = _numbers(_of(night, step).get("counts")).get("read", 0.0)
                rows = changed if step in _READ_ABOVE else read
                found.setdefault(step, []).append(Point(rows, catalog, had, one["seconds"]))
    return found


def _of(night: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = night.get(name)
    return value if isinstance(value, Mapping) else {}


def _numbers(value: object) -> dict[str, float]:
    if not isinstance(value, Mapping):
        return {}
    numbers = {k: v for k, v in value.items() if isinstance(v, int | float) and not isinstance(v, bool)}
    return {str(k): float(v) for k, v in numbers.items() if math.isfinite(v) and v >= 0}


def fit(step: str, nights: Sequence[Point], pair_cpu_s: float = 0.0) -> Rate | None:
    """None where no night had a row for the step. ``pair_cpu_s``: p, as measured."""
    above = _READ_ABOVE.get(step)
    busy = [p for p in nights if p.rows or above is None]
    idle = [p.seconds for p in nights if not p.rows]
    rows = np.array([p.rows for p in busy])
    if not rows.size or not rows.max():
        return None
    cpus, catalog = np.array([p.cpus for p in busy]), np.array([p.catalog for p in busy])
    seconds, pairs = np.array([p.seconds for p in busy]), rows * catalog / cpus
    pair = min([pair_cpu_s, *(seconds[pairs > 0] / pairs[pairs > 0])])
    apart = rows.max() >= _APART * max(rows.min(), 1.0)
    reads = np.zeros(len(rows), bool) if above is None else rows > above * catalog
    columns = np.stack([1.0 * (apart & ~reads), rows / cpus, catalog * (apart & reads)], 1)
    weights = 1 / np.maximum(seconds, _LEAST_S)
    scale = np.maximum((columns * weights[:, None]).max(0), 1e-300)
    found, _ = nnls(columns * weights[:, None] / scale, (seconds - pair * pairs) * weights)
    fixed, cpu, driver = (found / scale).tolist()
    errors = np.abs(columns @ np.array([fixed, cpu, driver]) + pair * pairs - seconds) * weights
    error, most = float(np.median(errors)), float(rows.max())
    return Rate(fixed, cpu, driver, error, len(rows), most, pair, float(np.median(idle)) if idle else fixed, above)


@dataclass(frozen=True)
class Need:
    """Seconds of each step in a night, and the nodes with which it fits into the hours; None where the driver's part alone is
    longer."""

    steps: Mapping[str, float]
    nodes: int | None

    @property
    def seconds(self) -> float:
        return sum(self.steps.values())


@dataclass(frozen=True)
class Upgrade:
    """``nights`` until all vectors are of the new model; ``bridge_from``: the night from which a bridge has saved more than it
    cost, None if the change is over before."""

    nights: int
    bridge_from: int | None


def upgrade(
    pictures: float, new: float, old_s: float, new_s: float, budget_s: float, sample: float, bridge_s: float
) -> Upgrade:
    """A change of models: of N ``pictures`` in all and w ``new`` ones a night, s and s' CPU seconds a picture by both models,
    B a night for the change, and a bridge of m sampled pictures that took F to fit and measure.

        T = ceil((N - m) s' / B)        nights until the vectors of the catalog are new
        ceil(F / (w s)), if at most T   night from which the bridge is worth it

    The sample's vectors are of use anyway. Without a bridge each new picture is embedded twice until then: by the old model, to
    be found now, and by the new one; with it once, by the new one.
    """
    nights = max(1, math.ceil((pictures - min(sample, pictures)) * new_s / budget_s - 1e-9))
    saved = new * old_s
    since = max(1, math.ceil(bridge_s / saved - 1e-9)) if saved else math.inf
    return Upgrade(nights, int(since) if since <= nights else None)


def rows_of(steps: Iterable[str], products: float, pictures: float, share: float) -> dict[str, float]:
    """Rows of each step in a night in which this share of the products, each with so many pictures, is new."""
    new = products * share
    return {step: new * (pictures if step in _OF_PICTURES else 1.0) for step in steps}


def need(rates: Mapping[str, Rate], rows: Mapping[str, float], catalog: float, node_cpus: float, hours: float) -> Need:
    """``rows``: for each step, those of the night."""
    shared = sum(rate.shared_cpu_s(rows[step], catalog) for step, rate in rates.items())
    alone = sum(rate.alone_s(rows[step], catalog) for step, rate in rates.items())
    room = hours * 3600 - alone
    nodes = max(1, math.ceil(shared / (room * node_cpus) - 1e-9)) if room > 0 else None
    cpus = (nodes or 1) * node_cpus
    return Need({step: rate.seconds(rows[step], catalog, cpus) for step, rate in rates.items()}, nodes)
