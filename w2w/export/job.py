"""Export: what changed since the last export, exactly once, to files or into a database."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from w2w import ids, schema, storage
from w2w.config import check_name, nearest
from w2w.engine.job import JobConfig, Run
from w2w.engine.progress import Progress
from w2w.engine.snapshot import replace_rows
from w2w.errors import UsageError
from w2w.export import lance, postgres
from w2w.export.flow import Catalog, Outbox, Send, State, changes, compacted, in_batches, version_of
from w2w.export.rules import DELETE, FORMATS, ONLY_WITH_VECTOR
from w2w.extras import need
from w2w.models.config import EncoderConfig
from w2w.models.default import check_default
from w2w.models.encoder import model_version
from w2w.results import Summary
from w2w.stage import Counts
from w2w.table import delta
from w2w.table.published import catalog_made_by

POSTGRES, LANCEDB = "postgres", "lancedb"  # what is written into, not to files
_TARGETS = (*FORMATS, POSTGRES, LANCEDB)
_INPUTS = (schema.PRODUCTS, schema.EMBEDDINGS, schema.CLASSIFICATIONS, schema.TAGGED, schema.SIMILAR_PRODUCTS)


E = TypeVar("E", bound="ExportConfig")


@dataclass(frozen=True)
class ExportConfig:
    """What is sent, and where to."""

    LEAST = {"batch_rows": 1}

    to: str = "jsonl"
    """jsonl, csv, parquet; elasticsearch, opensearch, qdrant, vespa: files in their bulk form; postgres, lancedb: the database
    itself."""
    name: str = "default"
    """Name of the export: each remembers what its target has."""
    out: str | None = None
    """Folder of the files, or of the LanceDB database, local or s3://. Default: <store>/exports/<name>."""
    dsn: str = ""
    """Which PostgreSQL, as postgresql://user@host/database. Default: as PGHOST, PGDATABASE ... say. It is not stored; a
    password is safest in PGPASSWORD or ~/.pgpass."""
    collection: str = "products"
    """What the target calls it: index, collection, document type or table."""
    vectors: bool = False
    """Also the vector of each picture."""
    similar: str = "default"
    """Which lists of `w2w similar` are sent, where there are any."""
    again: bool = False
    """Send everything, as to a target that is empty; what is no longer sold is deleted all the same."""
    batch_rows: int = 2000
    """Products in a file or transaction."""


@dataclass(frozen=True)
class Config(ExportConfig, JobConfig):
    """Send the products that are new or changed since the last export of this name, with their categories, what pictures show,
    similar products and, if asked for, vectors; those that are no longer sold as deletions. Without Ray."""

    SHOWN = "store to out dsn vectors collection name again encoder.name limit dry_run"
    LEAST = JobConfig.LEAST | ExportConfig.LEAST

    encoder: EncoderConfig = EncoderConfig()
    """Whose vectors are sent."""


@dataclass(frozen=True, kw_only=True)
class Result(Summary):
    """Of one export's run."""

    name: str
    to: str
    upserts: int | None = None
    deletions: int | None = None
    batches: int | None = None
    last_batch: int | None = None
    """Number of the last batch that the target has."""
    repeated: int | None = None
    """A batch that an earlier run may have sent, and did not note: it was sent as it was."""
    vectors_not_permitted: int | None = None
    """Products that are sent without their vector, or not sent where only vectors are, as search may not use their picture."""
    without_vector: int | None = None
    """Products that are sent without a vector, or not sent where only vectors are, as this model has made none of their picture
    yet."""
    there: int | None = None
    """Products that the target has."""
    out: str | None = None


def main(config: Config) -> Result:
    run = Run("export", recorded(config))
    check(config)
    where = postgres.place(config.dsn) if config.to == POSTGRES else ""
    delta.need_table(run.store, schema.PRODUCTS, "ingest")
    lineage = run.lineage(ids.digest("export", config.name), _INPUTS)  # of the name: two runs of it do not go at once
    model = model_version(config.encoder) if config.vectors else None
    if model:
        check_default(run.store, config.encoder, catalog_made_by(run.store))
    out = storage.absolute(config.out) if config.out else storage.join(run.store, "exports", config.name)
    version = version_of(config.to, config.collection, where or out, model)
    catalog = Catalog(run.store, model, config.similar, config.to in ONLY_WITH_VECTOR)
    without = catalog.without
    if without.all_missing:
        raise UsageError(
            f"--vectors: no active product has a vector of model version {model} ({config.encoder.name}): run 'w2w embed' with "
            f"the same --encoder options first"
        )
    state = State.of(run.store, config.name)
    outbox = Outbox(run.store, config.name, state, lineage)
    result = run.result(Result, name=config.name, to=config.to, out=None if where else out, last_batch=state.last or None)
    result = run.done(result, vectors_not_permitted=without.refused or None, without_vector=without.missing or None)
    if config.dry_run:
        told = _counted(in_batches(changes(catalog, state, version, config.again), config.batch_rows, config.limit))
        left = outbox.left()
        return run.done(result, repeated=state.last + 1 if left else None, **told)
    run.check_store()
    check_out(config)
    outbox.clean()
    if not where:
        _clean(out, config.name)
    total, repeated, counts = dict.fromkeys(("upserts", "deletions", "batches"), 0), None, Counts()
    with _target(config, out, catalog.dim) as send:
        if (left := outbox.left()) is not None:
            repeated = outbox.last + 1
            outbox.send(left, send)
            _add(total, left)
            state = State.of(run.store, config.name)
        if (rows := compacted(state, config.name)) is not None:
            replace_rows(run.store, schema.EXPORTED, [rows], lineage, config.name)
        due = in_batches(changes(catalog, state, version, config.again), config.batch_rows, config.limit)
        with Progress("export", 0) as progress:
            for batch in due:
                whole = catalog.with_vectors(batch)
                outbox.put(whole)
                outbox.send(whole, send)
                _add(total, batch)
                progress.update(total["upserts"] + total["deletions"], 0)
    counts.add(Counts(total["upserts"] + total["deletions"], total["upserts"] + total["deletions"]))
    state = State.of(run.store, config.name)
    there = state.there.num_rows
    return run.done(result, counts=counts, last_batch=state.last or None, repeated=repeated, there=there, **total)


def recorded(config: E) -> E:
    """The options without what is secret."""
    return replace(config, dsn="***" if config.dsn else "")


def check(config: ExportConfig) -> None:
    """Raises UsageError for options that are wrong whatever the store has."""
    check_name(config.name, "name")
    check_name(config.collection, "collection")
    if config.to not in _TARGETS:
        raise UsageError(f"--to={config.to}: unknown.{nearest(config.to, list(_TARGETS))}")
    if config.to == LANCEDB:
        need("lancedb", f"--to={LANCEDB}")
    if config.dsn and config.to != POSTGRES:
        raise UsageError(f"--dsn: is for --to={POSTGRES}, not for --to={config.to}")
    if config.to in ONLY_WITH_VECTOR and not config.vectors:
        raise UsageError(f"--to={config.to}: what it stores are vectors; add --vectors")


def check_out(config: ExportConfig) -> None:
    """Raises UsageError for a folder that cannot be written: also before a night's other steps."""
    if config.out and config.to != POSTGRES:
        storage.check_writable(storage.absolute(config.out), "--out")


@contextmanager
def _target(config: Config, out: str, dim: int) -> Iterator[Send]:
    """What sends a batch."""
    if config.to == POSTGRES:
        with postgres.target(config.dsn, config.collection, dim) as send:
            yield send
        return
    if config.to == LANCEDB:
        yield lance.target(out, config.collection, dim)
        return
    ending, written = FORMATS[config.to]

    def to_file(number: int, batch: pa.Table) -> None:
        storage.write_bytes(storage.join(out, f"{config.name}-{number:06d}.{ending}"), written(batch, config.collection))

    yield to_file


def _clean(out: str, name: str) -> None:
    """Deletes what a run of this export that was killed had half written."""
    half = re.compile(rf"\.{re.escape(name)}-\d{{6,}}\..+\.[0-9a-f]{{8}}")
    for info in storage.list_files(out, recursive=False):
        if half.fullmatch(info.base_name):
            storage.delete(storage.join(out, info.base_name))


def _add(total: dict[str, int], batch: pa.Table) -> None:
    deleted = pc.sum(pc.equal(batch.column(schema.OP), DELETE)).as_py() or 0
    for name, more in (("upserts", batch.num_rows - deleted), ("deletions", deleted), ("batches", 1)):
        total[name] += more


def _counted(found: Iterator[pa.Table]) -> dict[str, int]:
    total = dict.fromkeys(("upserts", "deletions", "batches"), 0)
    for batch in found:
        _add(total, batch)
    return total
