"""Index: shards of active products' vectors: built, gated, published; or rolled back."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from w2w import schema
from w2w.engine.job import JobConfig, Run
from w2w.errors import JobFailed, UsageError
from w2w.index.flow import KINDS, LOOKS, Inputs, Kind, bridged, build_index, check_bridge, draft_index, read_rows
from w2w.index.flow_golden import encode_photos, golden_queries, unknown_products
from w2w.index.flow_release import NotReleased, check_served
from w2w.index.flow_rows import Refused, refused_in, seek_rows, short
from w2w.index.golden import Golden
from w2w.index.manifest import index_uri
from w2w.index.publish import Published, published, read_held, release, rollback, versions, withdraw
from w2w.index.rules_release import Release
from w2w.index.spec import IndexConfig
from w2w.index.withheld import target_without, withhold
from w2w.models.config import EncoderConfig
from w2w.models.default import check_default, check_default_of_looks
from w2w.models.encoder import following, model_version
from w2w.report.page import page_of
from w2w.results import Summary
from w2w.stage import Counts
from w2w.table import changes
from w2w.table.delta import count_rows, need_table, open_table
from w2w.table.permitted import SEARCH, Permitted, Reasons, permitted
from w2w.table.published import made_by


@dataclass(frozen=True)
class Config(JobConfig):
    """Build and publish an index of all active products. Unchanged shards are reused; below the recall target nothing is
    published and the old version stays."""

    LEAST = {"threads_per_task": 1}

    SHOWN = "store of encoder.name index.target_recall index.memory_budget_mb index.golden accept rollback release dry_run"

    of: Literal["products", "looks"] = "products"
    """What is indexed: active products, or the looks of active posts, in an index called looks unless it has a name."""
    encoder: EncoderConfig = EncoderConfig()
    """The model whose vectors are indexed."""
    index: IndexConfig = IndexConfig()
    """What the index must meet."""
    threads_per_task: int = 1
    """CPUs of each build task."""
    accept: bool = False
    """Publish although what shoppers see has changed: golden queries, churn, pictures, stock. Recall and counts still count."""
    sheet: bool = False
    """Write the page of answers before and after where nothing fails, too."""
    rollback: bool = False
    """Publish the previous version again, and do nothing else."""
    rollback_to: str | None = None
    """Roll back to a version that --rollback --dry-run lists. The version rolled back from is blocked: it is not published
    again from the same rows, nor is its model if the older version has another."""
    release: str | None = None
    """Unblock a version that was rolled back from, and do nothing else."""


@dataclass(frozen=True, kw_only=True)
class Result(Summary):
    """What is published, and what was built for it."""

    model_version: str | None = None
    not_permitted: int | None = None
    """Pictures left out because search may not use them (table `permissions`)."""
    taken_out: int | None = None
    """Pictures that search may no longer use and that left the published version at once, before anything was built."""
    why_not_permitted: str | None = None
    """The reasons, how many products are not found for it, and the option that says that the pictures are your own."""
    templates_kept: int | None = None
    damaged: str | None = None
    """What was found damaged, and is rebuilt."""
    categories: int | None = None
    shards_built: int | None = None
    shards_reused: int | None = None
    rows_in_layers: int | None = None
    """Rows that came since their category's shards were built, beside these."""
    anew: bool = False
    """The gate refused what had been kept of the published version, and it was made without."""
    recall: float | None = None
    """Of the gate, at index.recall_at."""
    memory_mb: float | None = None
    published: str | None = None
    """The version that is published now."""
    nothing_to_index: str | None = None
    """Why nothing is left that may be found, so that nothing is published."""
    withdrawn: str | None = None
    """The version that is not published any more, as nothing is left."""
    unchanged: bool = False
    """It was published before."""
    shoppers_see: dict[str, float] = field(default_factory=dict)
    """Shares: of answers that are gone, out of stock ...; of golden answers found; how well the templates still fit."""
    refused: tuple[str, ...] = ()
    """Why it is not published: what shoppers would see."""
    accepted: tuple[str, ...] = ()
    """What --accept let pass."""
    sheet: str | None = None
    """The page of answers before and after."""
    unknown_products: tuple[str, ...] = ()
    """Of golden queries: the catalog never had them."""
    held_back: str | None = None
    """A version of the same rows that was rolled back from, so that nothing is built."""
    warning: str | None = None
    released: str | None = None
    """May be published again."""
    then: str | None = None
    """Of --rollback and --release: what the next runs do."""
    index_versions: tuple[str, ...] = ()
    """All that are kept, newest first; of --rollback and --release."""
    held_back_versions: tuple[str, ...] = ()
    bridged: int | None = None
    """Pictures whose vector is one of the new model, mapped: they have none of the model before."""
    cut_over: str | None = None
    """The option to leave out now that every indexed picture has a vector of the new model."""
    plans: dict[str, list[dict[str, Any]]] = field(default_factory=dict, repr=False)
    """By group: the candidates that the planner measured."""


def main(config: Config) -> Result:
    if config.of == LOOKS and config.index.name == IndexConfig().name:
        config = replace(config, index=replace(config.index, name=LOOKS))
    run = Run("index", config)
    uri = index_uri(run.store, config.index.name)
    if config.rollback or config.rollback_to or config.release:
        return run.result(Result, **_versions(config, run.store, uri))
    if config.of == LOOKS and (config.index.golden or config.index.golden_judged):
        raise UsageError("index.golden: golden queries are of products, not of looks")
    if config.of == LOOKS:
        check_default_of_looks(run.store, config.encoder, config.index.name)
    else:
        check_default(run.store, config.encoder, made_by(run.store, config.index.name))
    golden = check(run.store, config.index)
    kind = KINDS[config.of]
    need_table(run.store, kind.table, kind.made_by)
    inputs, allowed = Inputs.now(run.store, kind.table), permitted(run.store, SEARCH)
    was = published(uri)
    base, taken_out = withhold(uri, was, allowed.refused, inputs.standing, config.dry_run)
    if base.manifest:
        config = replace(config, encoder=following(config.encoder, base.manifest.model_version))
    version = kind.version(run.store, model_version(config.encoder))
    check_bridge(run.store, config.of, config.encoder)
    read, left_out = None, dict[str, Any]()
    if config.of == "products" and not config.full_scan:
        read = seek_rows(run.store, uri, version, base.manifest, inputs.standing, allowed)
    if read is not None:
        refused = read.refused or []
        left_out["not_permitted"] = len(refused) or None
        left_out["why_not_permitted"] = _why_refused(run.store, kind.one, refused, allowed)
    else:
        active = kind.rows(run.store)
        may = allowed.of(active)
        if not may.num_rows:
            before = was.manifest.version if was.manifest else None
            return _nothing_left(run, config, uri, base, kind, active, may, taken_out=taken_out or None, withdrawn=before)
        need_table(run.store, schema.EMBEDDINGS, "embed")
        by_logs = config.of == "products" and not config.full_scan
        read = read_rows(run.store, version, may, base, inputs, by_logs=by_logs)
        left_out["not_permitted"] = active.num_rows - may.num_rows or None
        left_out["why_not_permitted"] = _why_left_out(run.store, kind.one, active, may)
        read = replace(read, refused=refused_in(active, allowed))
    rows, vectors, missing = read.rows, read.vectors, read.missing
    told_refused = None if read.refused is None else [list(vars(one).values()) for one in read.refused]
    inputs = replace(inputs, standing=inputs.standing | {"without": read.without, "refused": told_refused})
    if not rows.num_rows:
        raise UsageError(
            f"no active {kind.one} has a vector of model version {version} ({config.encoder.name}): run {kind.embed!r} with "
            f"the same --encoder options first"
        )
    counts = Counts(rows.num_rows + missing, rows.num_rows, {"not_embedded": missing} if missing else {})
    if config.tolerance.exceeded(missing, counts.read):
        raise UsageError(
            f"{missing} of {counts.read} active {kind.one}s have no vector of model version {version}: run {kind.embed!r} "
            f"first, or raise --max_reject_rate"
        )
    to_store = read.to_store if config.of == "products" else None
    draft = draft_index(uri, config.index, vectors, rows, base, inputs, read.touched, read.changed, to_store)
    told: dict[str, Any] = {"model_version": version, "templates_kept": draft.num_kept, "damaged": base.damage or None}
    told |= left_out | {"taken_out": taken_out or None}
    if config.encoder.bridge:
        told["bridged"], told["cut_over"] = bridged(run.store, config.encoder, vectors, rows.all)
    told["unknown_products"] = unknown_products(run.store, golden, rows)
    release = Release(
        run.store,
        page_of(run.store, run.job, run.run_id),
        golden,
        accept=config.accept,
        sheet=config.sheet,
        num_threads=max(config.threads_per_task, os.cpu_count() or 1),
        command="w2w index" if config.of == "products" else f"w2w index --of={config.of}",
    )
    result = run.result(Result, counts=counts, **told)
    held, now = draft.held(), base.manifest.version if base.manifest else "nothing"
    if held and held.by_model and held.rows_digest != draft.rows_digest:
        raise JobFailed(
            f"index {config.index.name!r}: {held.version} was rolled back from and is of this model, {version}: {now} stays "
            f"published; index with the model of {now}, or let this one be published: --release {held.version}"
        )
    if held and (damage := draft.damage()):
        raise JobFailed(
            f"index {config.index.name!r}: {damage}; an index of these rows is {held.version}, which was rolled back from: "
            f"--release {held.version}, or --rollback_to another version"
        )
    if held:
        warning = f"of these rows there is an index that was rolled back from; to publish it: --release {held.version}"
        return run.done(result, held_back=held.version, warning=warning, published=now, shards_reused=0, shards_built=0)
    if config.dry_run:
        return run.done(result, categories=len(rows.counts))
    try:
        if base.manifest and draft.unchanged():
            seen, page = check_served(release, uri, base.manifest, rows, vectors, config.encoder, config.index)
            told = {"shards_reused": len(base.manifest.shards), "shards_built": 0, "published": now, "unchanged": True}
            told |= {"sheet": page, "shoppers_see": seen.figures, "warning": "; ".join(seen.said) or None}
            return run.done(result, accepted=tuple(fault.sentence for fault in seen.faults), **told)
        photos = encode_photos(uri, base.manifest, version, golden, config.encoder)
        run.check_store()
        release = replace(release, photos=photos)
        return run.done(result, **build_index(draft, config.encoder, config.threads_per_task, release, run.begin))
    except NotReleased as e:
        e.result = run.done(result, shoppers_see=e.figures, refused=e.reasons, sheet=e.page, published=now)
        raise


def take_out(store: str, name: str) -> int:
    """Takes the pictures that search may no longer use out of the published version of an index; returns their number. Reads
    nothing but a log if table `permissions` has the rows that it had for that version."""
    uri = index_uri(store, name)
    was = published(uri)
    if was.manifest is None or changes.stands(store, was.manifest.standing.get("tables", {}), [(schema.PERMISSIONS, {})]):
        return 0
    tables, allowed = changes.standing(store, (schema.PERMISSIONS,)), permitted(store, SEARCH)
    _, num = withhold(uri, was, allowed.refused, {"tables": tables, "permitted": list(allowed.told)})
    return num


def _nothing_left(
    run: Run, config: Config, uri: str, base: Published, kind: Kind, active: pa.Table, may: pa.Table, **told: Any
) -> Result:
    """Withdraws what is published, so that nobody finds what is refused or gone."""
    left_out = _why_left_out(run.store, kind.one, active, may)
    why = f"no {kind.one} is active"
    if left_out:
        why = f"no picture of an active {kind.one} may be used for search: {left_out}"
    elif not count_rows(open_table(run.store, kind.table)):
        why += f": table {kind.table.name!r} is empty ('w2w tables --rejects' says what was rejected)"
    if not config.dry_run:
        withdraw(uri, why, base)
    told |= {"nothing_to_index": why, "not_permitted": active.num_rows or None}
    return run.result(Result, **told, shards_reused=0, shards_built=0)


def _why_left_out(store: str, one: str, active: pa.Table, may: pa.Table) -> str | None:
    """In a sentence; None where nothing is left out."""
    if active.num_rows == may.num_rows:
        return None
    images, kept = active.column(schema.IMAGE_ID), may.column(schema.IMAGE_ID)
    gone = images.filter(pc.invert(pc.is_in(images, value_set=pc.unique(kept))))
    num = len(pc.unique(active.column(schema.PRODUCT_ID))) - len(pc.unique(may.column(schema.PRODUCT_ID)))
    return _why(store, one, gone, num)


def _why_refused(store: str, one: str, refused: Sequence[Refused], allowed: Permitted) -> str | None:
    """The same of rows that are known."""
    named = pa.array([row.picture for row in refused], pa.string())
    gone = allowed.refused.filter(pc.is_in(short(allowed.refused), value_set=named))
    return _why(store, one, gone, len({row.product for row in refused if row.alone}))


def _why(store: str, one: str, gone: pa.Array | pa.ChunkedArray, num: int) -> str | None:
    if not len(gone):
        return None
    so = f", so that {num:,} {one}{'s are' if num != 1 else ' is'} not found" if num else ""
    return Reasons.of(store, SEARCH, gone).sentence(len(pc.unique(gone)), so)


def check(store: str, config: IndexConfig) -> tuple[Golden, ...]:
    """The golden queries. Raises UsageError for a file that cannot be used: also before a night's other steps."""
    return golden_queries(store, config)


def _versions(config: Config, store: str, uri: str) -> dict[str, Any]:
    """Rolls back or releases, unless it is a dry run; says which versions there are."""
    if config.release and (config.rollback or config.rollback_to):
        raise UsageError("--release and --rollback: give one of them")
    told: dict[str, Any] = {}
    if config.release and not config.dry_run:
        release(uri, config.release)
        told = {"released": config.release, "then": _after_release(uri, config.release)}
    elif not config.dry_run:
        refused = permitted(store, SEARCH).refused
        rollback(uri, config.rollback_to, lambda target: target_without(uri, target, refused))
    held_back = tuple(h.version for h in read_held(uri))
    if held_back and not told:
        told["then"] = (
            "nights publish nothing of the same rows as what is held back; they end with 0 and say so in a notice, which "
            "tell.on=failure does not hear, and notice does; --release VERSION ends it"
        )
    return told | {"published": _version_now(uri), "index_versions": tuple(versions(uri)), "held_back_versions": held_back}


def _version_now(uri: str) -> str | None:
    now = published(uri).manifest
    return now.version if now else None


def _after_release(uri: str, version: str) -> str:
    now = _version_now(uri)
    if now == version:
        return f"{version} is what is published"
    return (
        f"{now or 'nothing'} stays published until the next w2w index or night, which publishes what it makes of the rows as "
        f"they are then; --rollback_to {version} publishes that one at once"
    )
