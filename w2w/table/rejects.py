"""What a run has rejected, for people."""

import pyarrow.compute as pc

from w2w import schema
from w2w.errors import RejectCode
from w2w.shown import line
from w2w.table import delta, snapshot
from w2w.table.doubles import is_own

_COLUMNS = [schema.REJECT_CODE, schema.KEY, schema.SOURCE, schema.REJECT_DETAIL]


def one_of_each_code(store: str, run_id: str) -> list[str]:
    """Of the rows that a run has rejected, of each code how many, one of them and why, the commonest code first."""
    listed = [part for part in delta.parts(delta.open_table(store, schema.REJECTS)) if is_own(part.path, run_id)]
    found: dict[str, str] = {}
    num: dict[str, int] = {}
    for rows in delta.read_batches(store, schema.REJECTS, _COLUMNS, listed):
        for one in pc.value_counts(rows.column(0)).to_pylist():
            code = one["values"]
            num[code] = num.get(code, 0) + one["counts"]
            if code not in found:
                first = pc.index(rows.column(0), code).as_py()
                key, source, why = (rows.column(c)[first].as_py() for c in _COLUMNS[1:])
                found[code] = f"such as {source or key}: {why}"
    return [line(f"{code} ({num[code]:,}), {found[code]}") for code in sorted(found, key=lambda code: (-num[code], code))]


def num_not_permitted(store: str, table: schema.Table, stage: str) -> int:
    """Of the snapshot that the store's own rows of a table are: how many training may not use, and ``stage`` left out."""
    made = snapshot.current(store, table)
    if made is None:
        return 0
    listed = delta.parts(delta.open_table(store, schema.REJECTS), stage=stage)
    num = 0
    for rows in delta.read_batches(store, schema.REJECTS, [schema.STAGE_VERSION, schema.REJECT_CODE], listed):
        same = pc.equal(rows.column(0), made["stage_version"])
        num += pc.sum(pc.and_(same, pc.equal(rows.column(1), RejectCode.NOT_PERMITTED.value))).as_py() or 0
    return num
