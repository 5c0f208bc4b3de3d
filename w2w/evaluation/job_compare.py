"""Compare: two encoders, indexes, scorers or detectors on the same queries."""

import json
from dataclasses import asdict, dataclass, field

from w2w import storage
from w2w.engine.job import JobConfig, Run, show
from w2w.errors import JobFailed, UsageError
from w2w.evaluation import flow_compare, flow_detectors
from w2w.evaluation.compare import Gain, is_worse
from w2w.evaluation.flow import find_model, read_gallery, read_queries
from w2w.evaluation.page import compare_page
from w2w.evaluation.protocols import Retrieval, protocol_of, set_of
from w2w.garments.detector import DetectorConfig
from w2w.models.config import EncoderConfig
from w2w.report.page import page_of
from w2w.results import Figure, Summary

ENCODERS, INDEXES, SCORERS, DETECTORS = KINDS = ("encoders", "indexes", "scorers", "detectors")
_PROTOCOLS = {ENCODERS: "own", INDEXES: "own", SCORERS: "polyvore-nondisjoint", DETECTORS: ""}
_NAMED = 1000  # queries in the result, of each side; metrics.json has all


@dataclass(frozen=True)
class Config(JobConfig):
    """Is B, which would replace A, worse? Paired differences with intervals, queries won and lost with pictures, changed
    neighbours. Exit code 1 where B is worse by more than --tolerance."""

    SHOWN = "store a b of protocol source metric tolerance strict out"
    PLACES = {"A": "a", "B": "b"}

    a: str = ""
    """The current one: an encoder, scorer or detector (a name or folder), a model version of table `embeddings`, or an index
    (NAME or NAME@VERSION)."""
    b: str = ""
    """Its candidate replacement."""
    of: str = ENCODERS
    """encoders, indexes, scorers (of outfits; `cosine` is the mean cosine of the items) or detectors."""
    protocol: str = ""
    """Whose queries: see `w2w evaluate`. Default: own, the store's mined test pairs; of scorers polyvore-nondisjoint. Detectors
    run on the test photos of table `detections`."""
    source: str | None = None
    """The set's name in the tables. Default: its format; of detectors all."""
    metric: str = ""
    """The deciding metric. Default: the protocol's first, such as recall@1; FITB of scorers, F1 of detectors."""
    tolerance: float = 0.0  # type: ignore[assignment]  # that of rejects is of no use here
    """Tolerated loss: B fails if the whole interval of the difference lies below -tolerance."""
    strict: bool = False
    """B fails if the difference itself lies below -tolerance, significant or not."""
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """How encoders run; of scorers whose vectors they are asked with, of indexes what embeds queries without a vector."""
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    """How detectors run. Each has its own threshold unless one is set."""
    compute: int = 5000
    """Pictures without a vector are embedded in this process if there are no more than this."""
    seed: int = 0
    """Seed of the bootstrap."""
    out: str | None = None
    """Folder of the page and metrics.json. Default: reports/compare/<run> in the store."""


@dataclass(frozen=True, kw_only=True)
class Result(Summary):
    """A and B, and whether B is worse."""

    a: str
    b: str
    of: str
    protocol: str | None = None
    source: str | None = None
    version_a: str | None = None
    version_b: str | None = None
    metric: str | None = None
    """The deciding one."""
    queries: int | None = None
    gallery: int | None = None
    left_out: dict[str, int] = field(default_factory=dict)
    figures: dict[str, Figure] = field(default_factory=dict)
    """Of B; ``before``: of A; ``gain``: B minus A, with its paired interval."""
    before: dict[str, Figure] = field(default_factory=dict)
    gain: dict[str, Figure] = field(default_factory=dict)
    gain_by_category: dict[str, Figure] = field(default_factory=dict)
    """Of the deciding metric."""
    churn: Figure | None = None
    """Share of A's ten nearest that are not among B's, or of answers that changed."""
    won: tuple[str, ...] = field(default=(), repr=False)
    """Queries that B answers better, and those that it answers worse; the largest differences first, a thousand at most."""
    lost: tuple[str, ...] = field(default=(), repr=False)
    num_won: int | None = None
    num_lost: int | None = None
    num_tied: int | None = None
    worse: bool | None = None
    verdict: str | None = None
    report: str | None = None


def main(config: Config) -> Result:
    protocol = _check(config)
    run = Run("compare", config)
    source = config.source or (set_of(protocol_of(protocol)) if protocol else None)
    result = run.result(Result, a=config.a, b=config.b, of=config.of, protocol=protocol or None, source=source)
    settings = flow_compare.Settings(
        run.store, config.encoder, protocol, source or "", config.metric, config.compute, config.max_reject_rate, config.seed
    )
    if config.of == DETECTORS:
        flow_detectors.check_detectors(config.detector, config.a, config.b)
    else:
        flow_compare.check_two(settings, config.of, config.a, config.b)
    if config.dry_run:
        return run.done(result, **_counts(settings, config))
    run.check_store()
    if config.of == DETECTORS:
        sources = [config.source] if config.source else None
        found = flow_detectors.detectors(settings, config.detector, config.a, config.b, sources)
    else:
        found = flow_compare.KINDS[config.of](settings, config.a, config.b)
    first = found.gains[0]
    worse = is_worse(first, config.tolerance, config.strict)
    verdict = _verdict(first, worse, config)
    page = storage.join(storage.absolute(config.out), "index.html") if config.out else page_of(run.store, "compare", run.run_id)
    told = {"gains": [asdict(g) for g in (*found.gains, *found.churn)], "won": found.won_b, "lost": found.won_a}
    storage.write_bytes(storage.join(page.rpartition("/")[0], "metrics.json"), json.dumps(told, indent=1).encode())
    churn = next((g for g in found.churn if g.group is None), None)
    facts: dict[str, object] = {
        "queries": found.num_queries,
        "B better": len(found.won_b),
        "A better": len(found.won_a),
        "as good": found.tied,
    }
    facts |= {g.metric: g.value for g in (churn,) if g} | {"set": source or "all", "decided by": first.metric}
    compare_page(page, verdict, worse, (config.a, config.b), facts, [*found.gains, *found.churn], found.rows[::-1])
    result = run.done(
        result,
        version_a=found.versions[0],
        version_b=found.versions[1],
        metric=first.metric,
        queries=found.num_queries,
        left_out=found.left_out,
        figures={g.metric: Figure(g.b, num=g.num) for g in found.gains if g.group is None},
        before={g.metric: Figure(g.a, num=g.num) for g in found.gains if g.group is None},
        gain={g.metric: _figure(g) for g in found.gains if g.group is None},
        gain_by_category={g.group: _figure(g) for g in found.gains if g.group and g.metric == first.metric},
        churn=_figure(churn) if churn else None,
        won=found.won_b[:_NAMED],
        lost=found.won_a[:_NAMED],
        num_won=len(found.won_b),
        num_lost=len(found.won_a),
        num_tied=found.tied,
        worse=worse,
        verdict=verdict,
        report=page,
    )
    if worse:
        show(result)
        failed = JobFailed(verdict)
        failed.result = result
        raise failed
    return result


def _check(config: Config) -> str:
    """The protocol's name, "" for detectors. Raises UsageError for incompatible options."""
    if config.of not in KINDS:
        raise UsageError(f"--of={config.of}: must be one of {', '.join(KINDS)}")
    for name in ("a", "b"):
        if not getattr(config, name):
            raise UsageError(f"--{name}: name two {config.of}: 'w2w compare A B --of={config.of}'")
    if not 0 <= config.tolerance < 1:
        raise UsageError(f"--tolerance={config.tolerance}: from 0 to below 1")
    if config.limit:
        raise UsageError("--limit: a comparison on some queries would be reported as one on all")
    if config.compute < 0:
        raise UsageError(f"--compute={config.compute}: must not be negative")
    if config.of == DETECTORS:
        if config.protocol:
            raise UsageError(f"--protocol={config.protocol}: detectors are asked the test photos of table `detections`")
        return ""
    protocol = config.protocol or _PROTOCOLS[config.of]
    protocol_of(protocol)
    flow_compare.check_protocol(config.of, protocol)
    return protocol


def _counts(settings: flow_compare.Settings, config: Config) -> dict[str, int]:
    """The size of the comparison, for a dry run. Raises UsageError, as the comparison would, for what is missing."""
    if config.of == DETECTORS:
        return {"queries": len(flow_detectors.test_photos(settings.store, [config.source] if config.source else None)[1])}
    protocol = protocol_of(settings.protocol)
    if not isinstance(protocol, Retrieval):
        return {"queries": flow_compare.count_questions(settings)}
    found = {"queries": read_queries(settings.store, protocol, settings.catalog).num_rows}
    if config.of == ENCODERS:
        for name in (config.a, config.b):
            find_model(settings.store, flow_compare.named_encoder(settings, name))
        found["gallery"] = read_gallery(settings.store, protocol, settings.catalog).num_rows
    return found


def _figure(gain: Gain) -> Figure:
    return Figure(gain.value, gain.low, gain.high, gain.num)


def _verdict(gain: Gain, worse: bool, config: Config) -> str:
    """The verdict in one sentence."""
    by = f"{gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]"
    told = f"{gain.metric} {gain.a:.3f} -> {gain.b:.3f} ({by}) on {gain.num:,} queries"
    within = f" within --tolerance={config.tolerance:g}" if config.tolerance else ""
    if worse:
        return f"B is worse: {told}; --tolerance={config.tolerance:g}" + (", --strict" if config.strict else "")
    if gain.low > 0:
        return f"B is better: {told}"
    return f"B is not {'' if config.strict else 'surely '}worse{within}: {told}"
