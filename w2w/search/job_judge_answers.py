"""Judge answers: judgements of search results, from a saved file into `judgements`."""

import os
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from w2w import ids, schema, storage
from w2w.engine.job import JobConfig, Run
from w2w.engine.run import reject_rows
from w2w.errors import UsageError
from w2w.results import Summary
from w2w.search.answers import read_answers, unknown
from w2w.stage import Counts
from w2w.table import delta
from w2w.table.parts import RECEIPT_SCHEMA, Output, write_part
from w2w.table.pending import table_keys
from w2w.table.sink import Committer


@dataclass(frozen=True)
class Config(JobConfig):
    """Read a file that a page of `w2w search` or `w2w find` saved. The newest word on a query and a product counts; a file that
    was read before changes nothing."""

    SHOWN = "file store dry_run"
    PLACES = {"FILE": "file"}

    file: str = ""
    """What the page saved: judgements.json, local or s3://."""


@dataclass(frozen=True, kw_only=True)
class Result(Summary):
    """What the file says, of queries of one kind."""

    of: str
    same: int
    similar: int
    not_ours: int


def main(config: Config) -> Result:
    run = Run("judge-answers", config)
    if not config.file:
        raise UsageError("--file is empty: give the file that a page saved")
    uri = storage.absolute(config.file)
    try:
        if not storage.is_s3(uri) and os.path.isdir(uri):
            raise FileNotFoundError
        data = storage.read_bytes(uri)
    except FileNotFoundError:
        raise UsageError(f"--file={config.file}: there is no such file") from None
    kind, rows = read_answers(data, config.file, datetime.now(UTC))
    counts = {v["values"]: v["counts"] for v in pc.value_counts(rows.column(schema.VERDICT)).to_pylist()}
    told = {name: counts.get(name, 0) for name in ("same", "similar", "not_ours")}
    known = table_keys(run.store, schema.JUDGEMENTS, schema.KEY, kind=kind).read()
    new = rows.filter(pc.invert(pc.is_in(rows.column(schema.KEY), value_set=known.cast(pa.string()))))
    result = run.result(Result, of=kind, skipped=rows.num_rows - new.num_rows, **told)
    if config.dry_run or not new.num_rows:
        return result
    run.check_store()
    listed = delta.read(run.store, schema.PRODUCTS, [schema.PRODUCT_ID]).column(0)
    cut = delta.read(run.store, schema.GARMENTS, [schema.GARMENT_ID]).column(0) if kind == "garments" else None
    good, bad = unknown(new, listed, cut, config.file)
    lineage = run.lineage(ids.digest("judge-answers"), (schema.PRODUCTS,))
    rejects = {v["values"]: v["counts"] for v in pc.value_counts(bad.column(schema.REJECT_CODE)).to_pylist()}
    config.tolerance.check(rejects, new.num_rows, named=bad.column(schema.REJECT_DETAIL).to_pylist())
    said = {schema.KIND: kind, schema.SOURCE: config.file, schema.RUN_ID: run.run_id}
    for name, value in said.items():
        good = good.append_column(name, pa.repeat(pa.scalar(value), good.num_rows))
    out = Output(schema.JUDGEMENTS)
    receipts = write_part(run.store, out, good.select(schema.JUDGEMENTS.schema.names), run.run_id)
    receipts += write_part(run.store, Output(schema.REJECTS), reject_rows(bad, lineage), run.run_id)
    committer = Committer(run.store, [out], lineage)
    committer.add(pa.Table.from_pylist(receipts, schema=RECEIPT_SCHEMA))
    committer.commit()
    done = Counts(read=new.num_rows, out=good.num_rows, rejects=rejects)
    return run.done(result, counts=done, versions={schema.JUDGEMENTS.name: committer.version(schema.JUDGEMENTS)})
