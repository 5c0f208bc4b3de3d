"""The release gate: before a version is published, what shoppers would see is compared with what they see now."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from w2w import schema, storage
from w2w.engine.shuffle import Vectors
from w2w.errors import JobFailed
from w2w.index import manifest as m
from w2w.index import rules_release as rules
from w2w.index import seen
from w2w.index.flow_golden import encode_photos, pinned
from w2w.index.flow_shown import write_sheet
from w2w.index.manifest import GateResult, Manifest
from w2w.index.rows import Rows
from w2w.index.rules_release import Found, Release
from w2w.index.search import Index, open_manifest
from w2w.index.seen import GOLDEN, SAMPLE, Here, Query
from w2w.index.spec import IndexConfig
from w2w.models.config import EncoderConfig


class NotReleased(JobFailed):
    """The gate on what shoppers see was not passed; ``page`` shows it."""

    def __init__(self, name: str, reasons: Sequence[str], release: Release, page: str | None, figures: Mapping[str, float]):
        way = f"before and after: {page}; to publish it all the same: {release.command} --accept"
        super().__init__(f"index {name!r} is not published: {'; '.join(reasons)}; {way}")
        self.reasons, self.page, self.figures = tuple(reasons), page, dict(figures)


@dataclass(frozen=True)
class Released:
    """``gate``: with what was found, failed unless it may be published; ``seen`` and ``stock``: for the next night."""

    gate: GateResult
    seen: bytes
    stock: bytes
    found: Found
    page: str | None = None


def check_release(
    release: Release,
    uri: str,
    served: Manifest | None,
    index: Index,
    gate: GateResult,
    truth: pa.Table,
    rows: Rows,
    vectors: Vectors,
) -> Released:
    """Compares the version that was built, ``index``, with the one that is ``served``. ``gate``: of recall and counts;
    ``truth``: its queries with their vectors, and what was found; ``rows``: all that was indexed."""
    cfg, same_model = index.manifest.config, served is not None and served.model_version == vectors.version
    stored = seen.read_seen(uri, served)
    images = [*truth[schema.IMAGE_ID].to_pylist(), *(one.asked for one in release.golden if one.kind == schema.IMAGE_ID)]
    products = [one.asked for one in release.golden if one.kind == schema.PRODUCT_ID]
    products += [product for one in release.golden for product in one.expected]
    last = seen.queries_in(stored, SAMPLE)
    images += [q.image for q in last.values() if q.image]
    products += [q.product for q in last.values() if q.product]
    here = Here.of(rows, products, images)
    photos = release.photos or {}
    asked = pinned(release.golden, photos, stored if same_model else None, here, vectors, gate.per_category)
    sample = seen.sample_queries(stored, truth, here, cfg, same_model)
    before = _before(uri, served, stored, asked, sample, release, cfg, same_model)
    deepest = max([cfg.recall_at, *(one.k for one in release.golden)])
    now = pa.concat_tables(
        [
            seen.ask(index, sample, cfg.recall_at, release.num_threads, truth),
            seen.ask(index, asked, deepest, release.num_threads),
        ]
    ).combine_chunks()
    then, tonight = ({kind: seen.queries_in(t, kind) for kind in (SAMPLE, GOLDEN)} for t in (before, now))
    hits = [hit for q in (*then[SAMPLE].values(), *then[GOLDEN].values()) for hit in q.hits]
    here = Here.of(rows, [*products, *(hit[0] for hit in hits)], [*images, *(hit[1] for hit in hits)])
    same = _kept_templates(served, index.manifest)
    stock = rules.stock_of(tonight[SAMPLE], _availability(rows, tonight[SAMPLE]), cfg.recall_at)
    again = _again(index, stored if same_model else None, here, release.num_threads)
    parts = [
        rules.churn(then[SAMPLE] if same_model else {}, tonight[SAMPLE], here, cfg, same),
        rules.swapped(last, again, here, cfg),
        rules.golden(release.golden, then[GOLDEN], tonight[GOLDEN], here, cfg, same_model, same),
        rules.stock(seen.read_stock(uri, served.version) if served else None, stock, cfg),
        Found(dict(seen.drift(index, sample)), said=_idle_floors(cfg, gate.per_category)),
    ]
    found = rules.together(parts)
    page = None
    if found.faults or release.sheet:
        page = write_sheet(release, found, then, tonight | {SAMPLE: again | tonight[SAMPLE]})
    reasons = tuple(fault.sentence for fault in found.faults)
    per_category = {c: figures | found.by_category.get(c, {}) for c, figures in gate.per_category.items()}
    gate = replace(
        gate,
        passed=gate.passed and (release.accept or not reasons),
        reasons=gate.reasons + reasons,
        per_category=per_category,
        seen=found.figures,
    )
    return Released(gate, seen.to_bytes(now), seen.to_bytes(stock), found, page)


def _before(
    uri: str,
    served: Manifest | None,
    stored: pa.Table | None,
    golden: pa.Table,
    sample: pa.Table,
    release: Release,
    cfg: IndexConfig,
    same_model: bool,
) -> pa.Table | None:
    """What the served version answered, as stored; what is not stored is asked of it, where its vectors are of this model."""
    if served is None or not same_model:
        return stored
    known = stored[schema.KEY] if stored is not None else pa.array([], pa.string())
    new = golden.filter(pc.invert(pc.is_in(golden[schema.KEY], value_set=known)))
    due = [(new, max([1, *(one.k for one in release.golden)]))] if new.num_rows else []
    due += [(sample, cfg.recall_at)] if stored is None else []
    if not due:
        return stored
    try:
        index = open_manifest(uri, served)
        asked = [seen.ask(index, queries, k, release.num_threads) for queries, k in due]
    except JobFailed:  # damaged: it is built anew
        return stored
    return pa.concat_tables([*([stored] if stored is not None else []), *asked]).combine_chunks()


def _idle_floors(cfg: IndexConfig, categories: Mapping[str, object]) -> tuple[str, ...]:
    named = {c: option for option in ("recall_floors", "golden_floors") for c in getattr(cfg, option) if c not in categories}
    return tuple(f"index.{option}: the index has no category {category!r}" for category, option in sorted(named.items()))


def _again(index: Index, stored: pa.Table | None, here: Here, num_threads: int) -> dict[str, Query]:
    """What is found with the pictures that sampled products had last night and have no more."""
    queries = seen.changed_queries(stored, here)
    return (
        {}
        if queries is None
        else seen.queries_in(seen.ask(index, queries, index.manifest.config.recall_at, num_threads), SAMPLE)
    )


def _kept_templates(served: Manifest | None, now: Manifest) -> set[str]:
    """Categories whose codes are those of last night."""
    before = {s.category: s.template for s in served.shards} if served else {}
    return {s.category for s in now.shards if before.get(s.category) == s.template}


def _availability(rows: Rows, queries: Mapping[str, Query]) -> dict[str, str | None]:
    mine = rows.having({hit[0] for q in queries.values() for hit in q.hits})
    if schema.AVAILABILITY not in mine.column_names:
        return {}
    return dict(zip(mine[schema.PRODUCT_ID].to_pylist(), mine[schema.AVAILABILITY].to_pylist()))


def check_served(
    release: Release, uri: str, served: Manifest, rows: Rows, vectors: Vectors, encoder: EncoderConfig, cfg: IndexConfig
) -> tuple[Found, str | None]:
    """Of the version that stays published, because its rows are the same: whether what it answers is in stock, and its golden
    queries, which may be new; and the page, if one was written. Raises NotReleased for what fails and is not accepted; else the
    stock is noted for the next night."""
    stored = seen.read_seen(uri, served)
    answers = seen.queries_in(stored, SAMPLE)
    now = rules.stock_of(answers, _availability(rows, answers), cfg.recall_at)
    before = seen.read_stock(uri, served.version)
    parts = [rules.stock(before, now, cfg)] if answers else []
    kept = seen.queries_in(stored, GOLDEN)
    if release.golden:
        images = [one.asked for one in release.golden if one.kind == schema.IMAGE_ID]
        products = [one.asked for one in release.golden if one.kind == schema.PRODUCT_ID]
        here = Here.of(rows, [*products, *(product for one in release.golden for product in one.expected)], images)
        new = tuple(one for one in release.golden if one.key not in kept)
        if new:
            photos = encode_photos(uri, served, vectors.version, new, encoder) if release.photos is None else release.photos
            queries = pinned(new, photos, None, here, vectors, served.rows_by_category())
            asked = seen.ask(open_manifest(uri, served), queries, max(one.k for one in new), release.num_threads)
            kept |= seen.queries_in(asked, GOLDEN)
        parts.append(rules.golden(release.golden, {}, kept, here, cfg))
    found, now_and_then, page = rules.together(parts), {SAMPLE: answers, GOLDEN: kept}, None
    if found.faults or release.sheet:
        page = write_sheet(release, found, now_and_then, now_and_then)
    if found.faults and not release.accept:
        raise NotReleased(served.name, tuple(fault.sentence for fault in found.faults), release, page, found.figures)
    if answers and (before is None or not before.equals(now)):
        storage.write_bytes(m.stock_uri(uri, served.version), seen.to_bytes(now))
    return found, page
