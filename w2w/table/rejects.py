"""What a run has rejected, for people."""

import pyarrow.compute as pc

from w2w import schema
from w2w.shown import line
from w2w.table import delta
from w2w.table.doubles import is_own

_COLUMNS = [schema.REJECT_CODE, schema.KEY, schema.SOURCE, schema.REJECT_DETAIL]


def one_of_each_code(store: str, run_id: str) -> list[str]:
    """Of the rows that a run has rejected, one of each code and why, the commonest code first."""
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
                found[code] = line(f"{code}, such as {source or key}: {why}")
    return [found[code] for code in sorted(found, key=lambda code: (-num[code], code))]
