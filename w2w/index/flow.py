"""Building an index on Ray: decide what to build, then templates and shards as tasks, the gate, and publishing."""

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import schema
from w2w.engine.shuffle import Vectors, gather, list_served, list_vectors, read_vectors, seek_vectors, share, shared
from w2w.engine.tasks import run_task
from w2w.errors import UsageError
from w2w.index.answers import answers
from w2w.index.beside import Changed, plan_beside, there_rows
from w2w.index.flow_release import NotReleased, check_release
from w2w.index.flow_rows import MOST_WITHOUT, Read, came_since, keys_in, names
from w2w.index.gate import exact_part, gate
from w2w.index.manifest import GateResult, Manifest, ShardInfo, StoredTemplate
from w2w.index.publish import Held, Published, collect_garbage, held, new_manifest, publish
from w2w.index.rows import Rows, ToStore, delete_others, stored
from w2w.index.rules_release import Release
from w2w.index.search import Index, open_manifest
from w2w.index.seen import with_imbalance
from w2w.index.shard import (
    Group,
    ShardTask,
    build_shard,
    built_shard,
    damaged_file,
    kept_template,
    plan_groups,
    plan_shards,
    rows_digest,
    sample,
    train_template,
)
from w2w.index.spec import IndexConfig
from w2w.index.truth import flat_of, known_of, queries_of, read_truth, to_bytes, truth_of, with_found
from w2w.memory import filtered_on_disk
from w2w.models.config import EncoderConfig
from w2w.models.encoder import bridge_of, model_version
from w2w.models.looks import LOOK, detected_by, look_posts, look_version
from w2w.table import bridges, changes, delta
from w2w.table.permitted import SEARCH, permitted
from w2w.table.pictures import active_pictures

_SAMPLED = 500_000  # rows of which the vectors are read at a time, to disk
_HERE = 2000  # rows built in this process: 10 MB at 1280 dimensions, less than a worker's start


@dataclass(frozen=True)
class Inputs:
    """An index's inputs: each table's version, and its id, which a recreated table of the same name does not share."""

    versions: dict[str, int]
    ids: dict[str, str]
    standing: dict[str, Any] = field(default_factory=dict)

    @staticmethod
    def now(store: str, table: schema.Table = schema.PRODUCTS) -> "Inputs":
        """Taken before anything is read, so what is read later is at least as new. ``table``: the indexed one."""
        found = {t.name: delta.open_table(store, t) for t in (table, schema.EMBEDDINGS)}
        opened = {name: t for name, t in found.items() if t is not None}
        numbers = {name: t.version() for name, t in opened.items()}
        identities = {name: str(t.metadata().id) for name, t in opened.items()}
        tables = changes.standing(store, (table, schema.EMBEDDINGS, schema.PERMISSIONS))
        return Inputs(numbers, identities, {"tables": tables, "permitted": list(permitted(store, SEARCH).told)})


@dataclass(frozen=True)
class Draft:
    """An index before it is built. ``templates``: the kept ones, by group; the others are to be trained."""

    uri: str
    config: IndexConfig
    vectors: Vectors
    rows: Rows  # product_id, image_id, category; of products their availability
    base: Published
    inputs: Inputs
    groups: list[Group]
    templates: dict[str, StoredTemplate]
    touched: pa.Array | None = None  # the only products that may have other rows than in the base, if that is known
    changed: Changed | None = None  # the same with these rows, if they are known
    to_store: ToStore | None = None  # of the rows, for later runs

    @property
    def num_kept(self) -> int:
        """Number of templates that are kept."""
        return len(self.templates)

    @functools.cached_property
    def rows_digest(self) -> str:
        return rows_digest(self.rows, self.vectors.version, self.config)

    def held(self) -> Held | None:
        """The rolled-back version that this one would restore."""
        return held(self.uri, self.rows_digest, self.vectors.version)

    @functools.cached_property
    def tasks(self) -> list[ShardTask]:
        """Its shards, where all templates are kept."""
        version, previous = self.vectors.version, self.base.manifest
        if self.changed is not None and previous is not None:
            about = (self.templates, version, self.config, previous)
            if (tasks := plan_beside(self.uri, self.rows, self.changed, *about)) is not None:
                return tasks
        return plan_shards(self.rows.all, self.templates, version, self.config, previous, self.uri, self.touched)

    def unchanged(self) -> bool:
        """Whether its shards equal the published ones, and all of their files are intact."""
        previous = self.base.manifest
        if previous is None or self.num_kept < len(self.groups):
            return False
        same = {t.content for t in self.tasks} == {s.content for s in previous.shards}
        return same and damaged_file(self.uri, previous) is None

    def damage(self) -> str:
        """Why the published index cannot be searched; empty if it can."""
        if self.base.manifest is None:
            return self.base.damage or "nothing is published"
        found = damaged_file(self.uri, self.base.manifest)
        return f"{found}: gone or damaged" if found else ""


@dataclass(frozen=True)
class Kind:
    """What is indexed. ``rows``: product_id, image_id and category of everything active in a store; ``version``: the model
    version of its vectors in a store, given that of the encoder; ``embed``: the job that computes them."""

    one: str
    table: schema.Table
    made_by: str
    embed: str
    rows: Callable[[str], pa.Table]
    version: Callable[[str, str], str]


def _products(store: str) -> pa.Table:
    """Every picture of the active products."""
    return active_pictures(store, [schema.PRODUCT_ID, schema.IMAGE_ID, schema.CATEGORY, schema.AVAILABILITY])


def _looks(store: str) -> pa.Table:
    """Posts take the place of products, all of one category."""
    posts = look_posts(store, [schema.POST_ID, schema.IMAGE_ID]).rename_columns([schema.PRODUCT_ID, schema.IMAGE_ID])
    return posts.append_column(schema.CATEGORY, pa.repeat(pa.scalar(LOOK), posts.num_rows))


LOOKS = "looks"
KINDS = {
    "products": Kind("product", schema.PRODUCTS, "ingest", "w2w embed", _products, lambda store, version: version),
    LOOKS: Kind(
        "post",
        schema.POSTS,
        "crawl",
        "w2w embed --of=looks",
        _looks,
        lambda store, version: look_version(version, detected_by(store)),
    ),
}


def check_bridge(store: str, of: str, encoder: EncoderConfig) -> None:
    """Raises UsageError for a bridge that no reader of the index would find, and for one of looks."""
    if not encoder.bridge:
        return
    if of == LOOKS:
        raise UsageError("encoder.bridge: looks have no bridge: embed and index them with the new model alone")
    if bridges.find(store, model_version(encoder)) is None:
        raise UsageError(f"encoder.bridge={encoder.bridge}: is none of this store's, which 'w2w bridge' writes to its bridges/")


def bridged(store: str, encoder: EncoderConfig, vectors: Vectors, rows: pa.Table) -> tuple[int | None, str | None]:
    """How many of the rows have a mapped vector; and, where all have one of the new model, that its own index can be made."""
    as_they_are = sum(part.rows for part in vectors.parts)
    mapped = int(np.count_nonzero(vectors.find(rows.column(schema.IMAGE_ID)) >= as_they_are))
    new = list_vectors(store, bridge_of(encoder).new)
    done = bool((new.find(rows.column(schema.IMAGE_ID)) >= 0).all())
    return mapped or None, f"all pictures have vectors of {encoder.name}: leave out --encoder.bridge" if done else None


def read_rows(store: str, version: str, active: pa.Table, base: Published, inputs: Inputs, by_logs: bool) -> Read:
    """``active``: all that may be indexed. ``by_logs``: where the tables' logs tell which products may have changed since the
    published version, only those are looked up."""
    touched = touched_since(store, version, active, base, inputs) if by_logs else None
    then = base.manifest.standing.get("without") if base.manifest else None
    vectors: Vectors
    if touched is None or then is None:
        vectors = list_served(store, version)
        has_N = vectors.find(active.column(schema.IMAGE_ID)) >= 0
    else:
        vectors = seek_vectors(store, version)
        some = pc.is_in(active.column(schema.PRODUCT_ID), value_set=touched)
        has_N = ~_named(active, then) if then else np.ones(active.num_rows, bool)
        has_N[some.to_numpy()] = vectors.find(active.column(schema.IMAGE_ID).filter(some)) >= 0
    without = names(active.filter(pa.array(~has_N)))
    missing = int(np.count_nonzero(~has_N))
    told = without.to_pylist() if missing <= MOST_WITHOUT else None
    rows = Rows.of(filtered_on_disk(active, has_N))
    return Read(rows, vectors, missing, told, ToStore.all_of(stored(active, has_N), rows.counts, rows.total), touched)


def _named(rows: pa.Table, named: list[str]) -> np.ndarray:
    return pc.is_in(names(rows), value_set=pa.array(named, pa.string())).to_numpy(zero_copy_only=False)


def touched_since(store: str, version: str, active: pa.Table, base: Published, inputs: Inputs) -> pa.Array | None:
    """The products whose rows may differ from those of the published version; None where the tables' logs do not tell, or they
    are many."""
    came = came_since(store, version, base.manifest, inputs.standing)
    if came is None:
        return None
    products = keys_in(store, schema.PRODUCTS, came.products)
    owners = active.filter(pc.is_in(active[schema.IMAGE_ID], value_set=came.pictures))[schema.PRODUCT_ID]
    return pc.unique(pa.chunked_array([*products.chunks, *owners.chunks], pa.string()))


def draft_index(
    uri: str,
    config: IndexConfig,
    vectors: Vectors,
    rows: pa.Table | Rows,
    base: Published,
    inputs: Inputs,
    touched: pa.Array | None = None,
    changed: Changed | None = None,
    to_store: ToStore | None = None,
) -> Draft:
    """The index to be made of these rows, and what it keeps of the published one. ``base`` and ``inputs`` are from before the
    rows were read; the others: see ``Draft``."""
    rows = Rows.of(rows)
    to_store = to_store if rows.num_rows >= config.layer_from_rows else None  # of fewer, all are read in no time
    groups = plan_groups(rows, config, base.manifest)
    kept = ((g.name, kept_template(uri, base.manifest, g, vectors.version, config)) for g in groups)
    templates = {name: t for name, t in kept if t is not None}
    return Draft(uri, config, vectors, rows, base, inputs, groups, templates, touched, changed, to_store)


def build_index(
    draft: Draft, encoder: EncoderConfig, num_threads: int, release: Release, begin: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Trains missing templates, builds missing or damaged shards, and publishes; returns fields of the job's result. ``begin``
    joins the cluster; few rows, as of a night's layers, are built in this process.

    An index with kept templates or layers that fails the gate is made once more without. Raises JobFailed, and publishes
    nothing, if the gate fails, what shoppers see has changed for the worse, or another run has published meanwhile.
    """
    made = _made(draft, encoder, num_threads, begin)
    keeps = draft.num_kept or any(s.layer or s.dropped for s in made.manifest.shards)
    anew = not made.gate.passed and bool(keeps)
    if anew:
        made = _made(replace(draft, templates={}), encoder, num_threads, begin, anew=True)
    served = draft.base.manifest
    told = check_release(release, draft.uri, served, made.index, made.gate, made.truth, draft.rows, draft.vectors)
    if made.gate.passed and not told.gate.passed:
        raise NotReleased(made.manifest.name, told.gate.reasons, release, told.page, told.found.figures)
    if draft.to_store:
        draft.to_store.write(draft.uri)
    name = publish(draft.uri, made.manifest, told.gate, draft.base, to_bytes(made.truth), told.seen, told.stock)
    collect_garbage(draft.uri, draft.config.keep_generations)
    delete_others(draft.uri, draft.to_store.told if draft.to_store else None)
    return {
        "plans": made.plans,
        "shards_reused": len(made.manifest.shards) - made.num_built,
        "shards_built": made.num_built,
        "rows_in_layers": sum(s.num_rows for s in made.manifest.shards if s.layer) or None,
        "recall": made.gate.recall,
        "memory_mb": made.manifest.memory_mb(),
        "anew": anew,
        "published": name,
        "shoppers_see": told.found.figures,
        "accepted": told.gate.reasons,
        "warning": "; ".join(told.found.said) or None,
        "sheet": told.page,
    }


@dataclass(frozen=True)
class _Made:
    """An index that is not published yet; ``plans``: tables of the planner, by group."""

    manifest: Manifest
    gate: GateResult
    truth: pa.Table
    plans: dict[str, list[dict]]
    num_built: int
    index: Index


def _made(draft: Draft, encoder: EncoderConfig, num_threads: int, begin: Callable[[], None], anew: bool = False) -> _Made:
    """``anew``: no shard of the published version stays as it is with a layer beside it."""
    uri, config, vectors, rows = draft.uri, draft.config, draft.vectors, draft.rows
    version, templates, plans = vectors.version, dict(draft.templates), {}
    due_groups = [g for g in draft.groups if g.name not in templates]
    for group, sample_ND in _samples(vectors, rows.all, due_groups, config) if due_groups else ():
        about = (uri, sample_ND, group, version, config, num_threads)
        begin()
        stored, plan = run_task(train_template, *about, num_cpus=num_threads, title=f"plan {group.name}")
        templates[group.name], plans[group.name] = stored, plan.table()
    previous = draft.base.manifest
    tasks = (
        draft.tasks
        if draft.num_kept == len(draft.groups)
        else plan_shards(rows.all, templates, version, config, previous, None if anew else uri, draft.touched)
    )
    known = known_of(read_truth(uri, previous), tasks, rows, config) if not anew else None
    queries = queries_of(rows, known, config)
    new = queries.column(schema.IMAGE_ID)[known.queries.num_rows if known else 0 :]
    some_ND = [known.vectors_QD] if known else []
    some_ND += [read_vectors(vectors, vectors.find(new))] if len(new) else []
    queries_ND = np.concatenate(some_ND)
    # the rows of a kept shard are read only where the gate knows too little of its category
    due = [t for t in tasks if t.kept is None or known is None or t.category not in known.categories]
    due = [replace(t, rows=there_rows(uri, t.kept), told=True) if t.kept and not t.told else t for t in due]
    targets = _found(vectors, [task.rows.column(schema.IMAGE_ID) for task in due])
    asked = queries, queries_ND, config
    if sum(map(len, targets)) <= _HERE:
        found = [_built(uri, task, asked, num_threads, read_vectors(vectors, rows)) for task, rows in zip(due, targets)]
    else:
        begin()
        there = share(asked)
        arguments = [(uri, task, there, num_threads) for task in due]
        found = gather(vectors, targets, _build_and_check, arguments, num_threads, title="shards")
    shards = [t.kept for t in tasks if t.kept and known and t.category in known.categories] + [shard for shard, _, _ in found]
    made_of = draft.inputs.versions, list(templates.values()), shards
    manifest = new_manifest(config, version, encoder, *made_of, draft.rows_digest, draft.inputs.ids)
    of_new = vectors.bridge.new if vectors.bridge else ""
    stands = draft.inputs.standing | ({"rows": draft.to_store.told} if draft.to_store else {})
    manifest = replace(manifest, standing=stands, bridged_from=of_new)
    expected = dict(rows.counts)
    truth = truth_of(queries, queries_ND, [exact for _, _, exact in found], known, config)
    index = with_imbalance(open_manifest(uri, manifest))
    found_now = answers(index, queries, queries_ND, known, config, os.cpu_count() or 1)
    result = gate(index, queries, queries_ND, [flat_of(truth)], expected, config, found=found_now.hits)
    truth = with_found(truth, found_now.hits, found_now.bound_Q)
    return _Made(index.manifest, result, truth, plans, sum(built for _, built, _ in found), index)


def _samples(
    vectors: Vectors, rows: pa.Table, groups: Sequence[Group], config: IndexConfig
) -> Iterator[tuple[Group, np.ndarray]]:
    """The vectors to train on, by group: as many groups at a time as have _SAMPLED rows, for which all parts are read once."""
    left = list(groups)
    while left:
        several = [vectors.find(sample(rows, left[0], config).column(schema.IMAGE_ID))]
        while len(several) < len(left) and sum(map(len, several)) + config.sample_rows <= _SAMPLED:
            several.append(vectors.find(sample(rows, left[len(several)], config).column(schema.IMAGE_ID)))
        read_ND = read_vectors(vectors, np.concatenate(several))
        yield from zip(left, np.split(read_ND, np.cumsum([len(some) for some in several])[:-1]))
        left = left[len(several) :]


def _found(vectors: Vectors, several: list[pa.ChunkedArray]) -> list[np.ndarray]:
    """Rows of the vectors of several columns of owners, looked for once."""
    owners = pa.chunked_array([chunk for column in several for chunk in column.chunks], pa.string())
    return np.split(vectors.find(owners), np.cumsum([len(column) for column in several])[:-1]) if several else []


def _build_and_check(uri, task, asked, num_threads, vectors_ND):
    return _built(uri, task, shared(asked), num_threads, vectors_ND)


def _built(
    uri: str, task: ShardTask, asked: tuple[pa.Table, np.ndarray, IndexConfig], num_threads: int, vectors_ND: np.ndarray
) -> tuple[ShardInfo, bool, pa.Table]:
    """The shard, built unless it exists and is intact; whether it was built; and the gate's exact neighbours among its rows."""
    queries, queries_ND, config = asked
    found = built_shard(uri, task)
    shard = found or build_shard(uri, task, vectors_ND, num_threads)
    return shard, found is None, exact_part(queries, queries_ND, task.category, task.rows, vectors_ND, config, num_threads)
