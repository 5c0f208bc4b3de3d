"""The planner: measures candidate factories on a sample and picks the cheapest one within the budgets.

Rules of extrapolation, from n sampled rows to the N rows of the group:
- Memory is arithmetic (``Spec.memory_mb``); what cannot fit is never built.
- Scan time grows with the rows: x M / n, where M is the rows of the largest category, since a search stays inside one.
- IVF uses the number of lists chosen for M. At equal nprobe the probed share of the rows is the same at M as in the sample,
  so latency = (time to rank the lists, as measured) + (the rest) x M / n.
- Recall falls as neighbours get denser. A row's k nearest of M are, in a random sample of n, its k n / M nearest: so
  recall@k at M is measured as recall@(k n / M) in the sample, interpolated between two whole numbers. Below one
  (M > k n) it is recall@1, and optimistic: the gate decides.
- HNSW: latency x log(M) / log(n), build time x M log(M) / (n log(n)).
"""

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

import faiss
import numpy as np

from w2w.errors import UsageError
from w2w.index.spec import IndexConfig, Spec
from w2w.index.template import Codes, Sample, Template, fill, fit, nearest_lists, rerank, search_codes, set_threads

QUERIES = 500
FILLED = 0.65  # of the latency budget, since the estimate is a tenth to a third too low (200,000 x 1280)
TIMED_QUERIES, LEAST_TIMED, TIMING_S = 24, 6, 0.5  # one by one, on one thread; fewer if they are slow
_ROWS_PER_LIST = 12
MARGIN = 0.005  # the sample's estimate must exceed the target by this much, or the gate would be a coin toss


@dataclass(frozen=True)
class Candidate:
    """One row of the plan's table: figures for the whole group, extrapolated from the sample."""

    spec: Spec
    memory_mb: float
    recall: float = math.nan
    latency_ms: float = math.nan
    build_s: float = math.nan
    note: str = ""  # why it was not measured


@dataclass(frozen=True)
class Plan:
    """The chosen spec, its trained template, and every candidate considered."""

    spec: Spec
    template: bytes
    recall: float | None  # None: chosen without measuring
    measured: tuple[Candidate, ...]
    plan_s: float

    def table(self) -> list[dict]:
        """Plain rows for a report."""
        rows = [{**asdict(c.spec), **{k: v for k, v in asdict(c).items() if k != "spec"}} for c in self.measured]
        return [{**row, "chosen": c.spec == self.spec} for row, c in zip(rows, self.measured, strict=True)]


def plan(
    sample_ND: np.ndarray, num_rows: int, scan_rows: int, cfg: IndexConfig, memory_mb: float | None = None, num_threads: int = 1
) -> Plan:
    """A trained template for ``num_rows`` rows like the unit vectors of the sample, the largest category having ``scan_rows``.

    Among candidates within budget that exceed the target by ``MARGIN``, the one with the smallest product of build time, memory
    and latency; if there is none, the highest recall, and on ties the most rows scanned. A target above 1 - ``MARGIN`` is more
    than a sample can show: the only candidates are then lossless codes, if they fit. Raises UsageError if no factory fits the
    memory budget.
    """
    started = time.perf_counter()
    set_threads(num_threads)
    memory_mb = memory_mb or cfg.memory_budget_mb
    dim = sample_ND.shape[1]
    if cfg.factory:
        spec = Spec(cfg.factory)
        spec = replace(spec, nprobe=cfg.nprobe or -(-spec.num_lists // 16), ef_search=64, k_factor=8 if spec.refine else 1)
        return _done(spec, fit(spec, Sample(sample_ND, cfg.seed)), None, (), started)
    if scan_rows <= cfg.exact_below_rows:
        for factory in ("Flat", "SQfp16"):
            if Spec(factory).memory_mb(num_rows, dim) <= memory_mb:
                return _done(Spec(factory), fit(Spec(factory), Sample(sample_ND, cfg.seed)), None, (), started)

    lossless = _goal(cfg) > 1 and Spec("Flat").memory_mb(num_rows, dim) <= memory_mb
    if lossless:  # only the lists are trained, and fewer rows need fewer of them
        sample_ND = sample_ND[:: max(1, len(sample_ND) // (_ROWS_PER_LIST * _num_lists(scan_rows)))]
    bench = _Bench(sample_ND, num_rows, scan_rows, cfg, num_threads)
    seen: list[Candidate] = []
    for spec in [Spec("Flat")] if lossless else _codecs(dim, num_rows, memory_mb):
        note = _misfit(spec, dim, num_rows, memory_mb, len(bench.rows_ND))
        seen.append(Candidate(spec, spec.memory_mb(num_rows, dim), note=note) if note else bench.measure(spec))
    fitting = [c for c in seen if not c.note]
    if not fitting:
        least = min(seen, key=lambda c: c.memory_mb)
        raise UsageError(
            f"memory_budget_mb: {memory_mb:.1f} MiB is this group's share, and the smallest index of its {num_rows} rows, "
            f"{least.spec.factory}, takes {least.memory_mb:.1f}; raise the budget"
        )
    for tier, enough in ((_inverted, _goal(cfg)), (_graphs, min(_goal(cfg), cfg.target_recall - MARGIN))):
        in_time = (c for c in seen if c.latency_ms <= cfg.latency_budget_ms)
        if any(_holds(c, cfg) or c.recall >= enough for c in in_time) or scan_rows <= cfg.exact_below_rows:
            break
        for spec in tier(fitting, bench, memory_mb):
            note = _misfit(spec, dim, num_rows, memory_mb, len(bench.rows_ND))
            seen += [Candidate(spec, spec.memory_mb(num_rows, dim), note=note)] if note else bench.sweep(spec)
    best = _choose([c for c in seen if not c.note], cfg)
    return _done(best.spec, bench.template(best.spec), best.recall, tuple(seen), started)


def _done(spec: Spec, template: Template, recall: float | None, seen: tuple[Candidate, ...], started: float) -> Plan:
    blob = replace(template, spec=spec).to_bytes()
    return Plan(spec, blob, recall, seen, time.perf_counter() - started)


def _goal(cfg: IndexConfig) -> float:
    return cfg.target_recall + MARGIN


def _clears(c: Candidate, cfg: IndexConfig) -> bool:
    return c.recall >= _goal(cfg) or c.spec.factory == "Flat"


def _holds(c: Candidate, cfg: IndexConfig) -> bool:
    return not c.note and c.latency_ms <= cfg.latency_budget_ms and _clears(c, cfg)


def _choose(measured: list[Candidate], cfg: IndexConfig) -> Candidate:
    in_time = [c for c in measured if c.latency_ms <= cfg.latency_budget_ms]
    good = [c for c in in_time if _holds(c, cfg)]
    if good:
        return min(good, key=lambda c: c.build_s * c.memory_mb * c.latency_ms)
    if in_time:
        return max(in_time, key=lambda c: (c.recall, c.latency_ms))
    return min(measured, key=lambda c: c.latency_ms)


def _misfit(spec: Spec, dim: int, num_rows: int, memory_mb: float, trained_on: int) -> str:
    if spec.memory_mb(num_rows, dim) > memory_mb:
        return f"needs {spec.memory_mb(num_rows, dim):.0f} of {memory_mb:.0f} MiB"
    if trained_on < max(256 if spec.num_parts else 1, spec.num_lists):
        return f"{trained_on} sampled rows are too few to train on"
    return ""


def _largest(transform: str, codec: str, dim: int, num_rows: int, memory_mb: float) -> int:
    """Most leading axes, a multiple of 16, whose codes fit the budget with their axes and centroids; 0 if none do."""
    lists = _num_lists(num_rows)
    kept = range(dim // 16 * 16, 0, -16)
    return next((d for d in kept if Spec(f"{transform}{d},IVF{lists},{codec}").memory_mb(num_rows, dim) <= memory_mb), 0)


def _codecs(dim: int, num_rows: int, memory_mb: float) -> list[Spec]:
    """Codecs from exact to small; the last ones fill the budget."""
    specs = [Spec("Flat"), Spec("SQfp16"), Spec("SQ8")]
    specs += [Spec(f"PCA{dim // share // 16 * 16},SQ8") for share in (2, 4) if dim // share >= 64]
    for codec in ("SQ8", "SQ6", "SQ4"):
        kept = _largest("PCA", codec, dim, num_rows, memory_mb)
        if kept:
            specs.append(Spec(f"PCA{kept},{codec}" if kept < dim else codec))
    row_bytes = memory_mb * 2**20 / num_rows
    parts = min(64, int(row_bytes) // 16 * 8)
    if parts >= 8 and row_bytes < 96:  # too few bytes for scalar codes of enough axes
        specs.append(Spec(f"OPQ{parts}_{min(dim // parts, 4) * parts},PQ{parts}"))
    return list(dict.fromkeys(specs))


def _num_lists(rows: int, trained_on: int | None = None) -> int:
    """About 2 sqrt(rows), a power of two, at least 16 sampled rows each."""
    lists = round(math.log2(2 * math.sqrt(rows)))
    return 2 ** max(2, min(lists, int(math.log2(trained_on / 16))) if trained_on and trained_on > 64 else lists)


def _leaders(fitting: list[Candidate], cfg: IndexConfig) -> list[Candidate]:
    """The two smallest codecs whose full scan exceeds the target, otherwise the two with the highest recall."""
    good = sorted((c for c in fitting if _clears(c, cfg)), key=lambda c: c.memory_mb)
    return (good or sorted(fitting, key=lambda c: -c.recall))[:2]


def _inverted(fitting: list[Candidate], bench: "_Bench", memory_mb: float) -> Iterator[Spec]:
    """The leading codecs and, if full-length codes do not fit, RaBitQ at 4 bits per axis (20,000 x 1280, IVF256: recall@10
    0.971 with 560 rotated axes in 308 bytes, 0.935 with SQ8 of 288 axes in 296)."""
    lists = f"IVF{_num_lists(bench.scan_rows, len(bench.rows_ND))}"
    kept = _largest("PCAR", "RaBitQ4", bench.rows_ND.shape[1], bench.num_rows, memory_mb)
    leaders = _leaders(fitting, bench.cfg)
    if kept >= 32 and not any(_clears(c, bench.cfg) for c in leaders):
        yield Spec(f"PCAR{kept},{lists},RaBitQ4")
    for leader in leaders:
        head, _, codec = leader.spec.factory.rpartition(",")
        yield Spec(",".join(filter(None, (head, lists, codec))))


def _graphs(fitting: list[Candidate], bench: "_Bench", _: float) -> Iterator[Spec]:
    """Last resort, slow to build: a graph, or 4-bit scans re-ranked with the leader's codes."""
    leader = _leaders(fitting, bench.cfg)[0]
    head, _, codec = leader.spec.factory.rpartition(",")
    if leader.spec.num_parts:
        return
    lists = f"IVF{_num_lists(bench.scan_rows, len(bench.rows_ND))}"
    yield Spec(",".join(filter(None, (head, "HNSW32", codec))))
    inner = leader.spec.inner_dim(bench.rows_ND.shape[1])
    if inner % 4 == 0:
        yield Spec(",".join(filter(None, (head, lists, f"PQ{inner // 4}x4fs", f"Refine({codec})"))), k_factor=8)


class _Bench:
    """A sample split into held-out queries and rows, its exact neighbours, and the templates fitted so far."""

    def __init__(self, sample_ND: np.ndarray, num_rows: int, scan_rows: int, cfg: IndexConfig, num_threads: int):
        order = np.random.default_rng(cfg.seed).permutation(len(sample_ND))
        num_queries = max(1, min(QUERIES, len(sample_ND) // 5))
        self.queries_ND, self.rows_ND = sample_ND[order[:num_queries]], sample_ND[order[num_queries:]]
        if not len(self.rows_ND):
            raise UsageError("cannot plan an index from a sample of one row")
        self.num_rows, self.scan_rows, self.cfg, self.num_threads = num_rows, scan_rows, cfg, num_threads
        share = min(1.0, len(self.rows_ND) / scan_rows)
        self.recall_at = max(1.0, min(cfg.recall_at, len(self.rows_ND)) * share)
        self.k = math.ceil(self.recall_at)
        self.exact = faiss.knn(self.queries_ND, self.rows_ND, self.k, metric=faiss.METRIC_INNER_PRODUCT)[1]
        self._sample = Sample(self.rows_ND, cfg.seed)
        self._lists_s: dict[int, float] = {}
        self._fitted: dict[str, tuple[Template, float]] = {}

    def template(self, spec: Spec) -> Template:
        return self._fit(spec)[0]

    def _fit(self, spec: Spec) -> tuple[Template, float]:
        if spec.factory not in self._fitted:
            lists_s = self._time_clusters(spec.num_lists)
            started = time.perf_counter()
            template = fit(spec, self._sample)
            self._fitted[spec.factory] = template, lists_s + time.perf_counter() - started
        return self._fitted[spec.factory]

    def _time_clusters(self, num_lists: int) -> float:
        """Seconds of clustering, charged to every spec though it is done once."""
        _ = self._sample.principal  # needed by every build: not charged
        if num_lists and num_lists not in self._lists_s:
            started = time.perf_counter()
            self._sample.clusters(num_lists)
            self._lists_s[num_lists] = time.perf_counter() - started
        return self._lists_s.get(num_lists, 0.0)

    def measure(self, spec: Spec) -> Candidate:
        """A codec under a full scan."""
        template, codes, build_s = self._filled(spec)
        exact = spec.factory == "Flat"
        recall = 1.0 if exact else self._recall(_scanned(codes.base, template.inner(self.queries_ND), self.k))
        return Candidate(
            spec, spec.memory_mb(self.num_rows, template.dim), recall, self._latency_ms(spec, template, codes), build_s
        )

    def sweep(self, spec: Spec) -> list[Candidate]:
        """One candidate for each search effort, until recall stops rising or the latency budget is exceeded. If the target is
        more than the sample can show, lists of whole vectors: a few of them, and as many as fill the latency budget."""
        template, codes, build_s = self._filled(spec)
        if spec.num_lists and spec.codec == "Flat" and _goal(self.cfg) > 1:
            few = self._at(replace(spec, nprobe=max(1, spec.num_lists // 32)), template, codes, build_s)
            nprobe = int(few.spec.nprobe * FILLED * self.cfg.latency_budget_ms / few.latency_ms)
            return [few, self._at(replace(spec, nprobe=max(1, min(nprobe, spec.num_lists))), template, codes, build_s)]
        found: list[Candidate] = []
        options = (
            [replace(spec, nprobe=2**i) for i in range(int(math.log2(spec.num_lists)) - 1)]
            if spec.num_lists
            else [replace(spec, ef_search=ef) for ef in (32, 64, 128, 256)]
        )
        for option in options:
            found.append(self._at(option, template, codes, build_s))
            flat = len(found) > 2 and found[-1].recall - found[-2].recall < 0.001
            if flat or found[-1].latency_ms > self.cfg.latency_budget_ms or _holds(found[-1], self.cfg):
                break
        return found

    def _filled(self, spec: Spec) -> tuple[Template, Codes, float]:
        template, fit_s = self._fit(spec)
        started = time.perf_counter()
        codes = fill(template, self.rows_ND)
        fill_s = (time.perf_counter() - started) * self.num_rows / len(self.rows_ND)
        if "HNSW" in spec.base:
            fill_s *= math.log(self.num_rows) / math.log(len(self.rows_ND) + 1)
        return template, codes, fit_s + fill_s

    def _at(self, spec: Spec, template: Template, codes: Codes, build_s: float) -> Candidate:
        inner_QE = template.inner(self.queries_ND)
        recall = self._recall(self._top(spec, codes, inner_QE, nearest_lists(template, inner_QE, spec.nprobe)))
        return Candidate(
            spec, spec.memory_mb(self.num_rows, template.dim), recall, self._latency_ms(spec, template, codes), build_s
        )

    def _latency_ms(self, spec: Spec, template: Template, codes: Codes) -> float:
        n = len(self.rows_ND)
        faiss.omp_set_num_threads(1)
        timed, until = [], time.perf_counter() + TIMING_S
        for query in range(min(TIMED_QUERIES, len(self.queries_ND))):
            timed.append(min(self._time(spec, template, codes, query) for _ in range(3)))
            if len(timed) >= LEAST_TIMED and time.perf_counter() > until:
                break
        faiss.omp_set_num_threads(self.num_threads)
        all_s, fixed_s = np.median(timed, axis=0)
        growth = math.log(self.scan_rows) / math.log(n + 1) if "HNSW" in spec.base else self.scan_rows / n
        return 1e3 * float(fixed_s + (all_s - fixed_s) * growth)

    def _time(self, spec: Spec, template: Template, codes: Codes, query: int) -> tuple[float, float]:
        """Seconds of one query, and the part of it that does not grow with the rows: processor time of this thread, which other
        jobs on the machine do not distort as they do wall-clock time."""
        started = time.thread_time()
        one_1E = template.inner(self.queries_ND[query : query + 1])
        lists = nearest_lists(template, one_1E, spec.nprobe)
        fixed_s = time.thread_time() - started
        self._top(spec, codes, one_1E, lists)
        return time.thread_time() - started, fixed_s

    def _recall(self, found: np.ndarray) -> float:
        """recall@``recall_at``, which may be fractional."""
        at = [
            float((found[:, :k, None] == self.exact[:, None, :k]).any(axis=1).mean())
            for k in (math.floor(self.recall_at), self.k)
        ]
        return at[0] + (at[1] - at[0]) * (self.recall_at % 1.0)

    def _top(self, spec: Spec, codes: Codes, inner_QE: np.ndarray, lists: tuple[np.ndarray, np.ndarray] | None) -> np.ndarray:
        scores, rows = search_codes(spec, codes, inner_QE, self.k * spec.k_factor, lists)
        if codes.refine is None:
            return rows
        real = rows.ravel() >= 0
        of = np.repeat(np.arange(len(rows)), rows.shape[1])
        scores = np.full(rows.size, -np.inf, np.float32)
        scores[real] = rerank(codes, inner_QE, of[real], rows.ravel()[real])
        best = np.argsort(-scores.reshape(rows.shape), axis=1, kind="stable")[:, : self.k]
        return np.take_along_axis(rows, best, axis=1)


def _scanned(codes: faiss.Index, inner_QE: np.ndarray, k: int) -> np.ndarray:
    """Rows (q, k) with the highest scores overall: by matrix products with the decoded rows, equivalent to a scan of the codes
    and 5 times as fast."""
    scores = np.empty((len(inner_QE), 0), np.float32)
    rows = np.empty((len(inner_QE), 0), np.int64)
    for start in range(0, codes.ntotal, 10_000):
        part = inner_QE @ codes.reconstruct_n(start, min(10_000, codes.ntotal - start)).T
        scores = np.concatenate([scores, part], axis=1)
        rows = np.concatenate([rows, np.tile(np.arange(start, start + part.shape[1]), (len(part), 1))], axis=1)
        best = np.argpartition(-scores, min(k, scores.shape[1]) - 1, axis=1)[:, :k]
        scores, rows = np.take_along_axis(scores, best, axis=1), np.take_along_axis(rows, best, axis=1)
    return np.take_along_axis(rows, np.argsort(-scores, axis=1, kind="stable"), axis=1)
