"""The judgements file saved by a page of search results. It comes from outside, so nothing in it is trusted."""

import json
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from w2w import ids, schema
from w2w.errors import RejectCode, UsageError
from w2w.stage import REJECTED_BY, REJECTED_SCHEMA

VERDICTS = (schema.SAME, schema.SIMILAR, schema.NOT_OURS)
FORM = "w2w judgements 1"
KINDS = ("feed", "garments", "photos")  # of search --of, and of find
MOST_BYTES = 20_000_000
_MOST_LETTERS = 2048  # of an id
_FIELDS = {"query", "product", "verdict", "at"}
_AHEAD = timedelta(days=1)  # tolerance for wrong clocks


def read_answers(data: bytes, name: str, now: datetime) -> tuple[str, pa.Table]:
    """(kind of the queries, rows of ``columns``: key, query_id, product_id, verdict, judged_at), without repeats.

    Raises UsageError naming the file and the place of anything that the page would not write.
    """
    if len(data) > MOST_BYTES:
        raise UsageError(f"{name}: has {len(data):,} bytes, more than {MOST_BYTES:,}: no page saves that much")
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as e:
        raise UsageError(f"{name}: is not JSON: {str(e) or type(e).__name__}") from None
    if not isinstance(found, dict) or found.get("form") != FORM:
        raise UsageError(f"{name}: is not what a page of w2w saves (its 'form' is not {FORM!r})")
    if found.get("kind") not in KINDS:
        raise UsageError(f"{name}: kind={str(found.get('kind'))[:80]!r}: must be one of {', '.join(KINDS)}")
    if not isinstance(found.get("judged"), list):
        raise UsageError(f"{name}: 'judged' is not a list")
    rows, first = {}, {}
    for number, one in enumerate(found["judged"]):
        row = _row(one, f"{name}: judged[{number}]", found["kind"], now)
        rows[row[schema.KEY]] = row
        said = tuple(row[c] for c in (schema.QUERY_ID, schema.PRODUCT_ID, schema.JUDGED_AT))
        before, verdict = first.setdefault(said, (number, row[schema.VERDICT]))
        if verdict != row[schema.VERDICT]:
            raise UsageError(
                f"{name}: judged[{before}] says {verdict} and judged[{number}] {row[schema.VERDICT]} of the same query and "
                "product at the same time: which one counts cannot be told; remove one"
            )
    columns = (schema.KEY, schema.QUERY_ID, schema.PRODUCT_ID, schema.VERDICT, schema.JUDGED_AT)
    kinds = schema.JUDGEMENTS.fields(columns)
    return found["kind"], pa.Table.from_pylist(list(rows.values()), schema=kinds)


def _row(one: object, where: str, kind: str, now: datetime) -> dict:
    if not isinstance(one, dict) or set(one) != _FIELDS:
        raise UsageError(f"{where}: must have exactly the fields {', '.join(sorted(_FIELDS))}")
    verdict = one["verdict"]
    if verdict not in VERDICTS:
        raise UsageError(f"{where}: verdict={str(verdict)[:80]!r}: must be one of {', '.join(VERDICTS)}")
    if (one["product"] is None) != (verdict == schema.NOT_OURS):
        raise UsageError(f"{where}: 'product' is null for {schema.NOT_OURS}, and only for it")
    query = _id(one["query"], f"{where}: query")
    product = None if one["product"] is None else _id(one["product"], f"{where}: product")
    at = _time(one["at"], f"{where}: at", now)
    key = ids.digest(kind, query, product, verdict, at.isoformat(), length=32)
    return dict(
        zip(
            (schema.KEY, schema.QUERY_ID, schema.PRODUCT_ID, schema.VERDICT, schema.JUDGED_AT),
            (key, query, product, verdict, at),
        )
    )


def _id(value: object, where: str) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= _MOST_LETTERS:
        raise UsageError(f"{where}: is not text of 1 to {_MOST_LETTERS} characters")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{where}: is not Unicode text") from None
    return value


def _time(value: object, where: str, now: datetime) -> datetime:
    try:
        at = datetime.fromisoformat(value)  # type: ignore[arg-type]
        at = at.astimezone(UTC) if at.tzinfo else None
    except (TypeError, ValueError, OverflowError):
        at = None
    if at is None:
        raise UsageError(f"{where}={str(value)[:80]!r}: is not a time with a zone, such as 2026-05-01T12:00:00Z")
    if at > now + _AHEAD:
        raise UsageError(f"{where}={value}: lies in the future: the newest judgement counts, and this one would count for ever")
    return at


def unknown(
    rows: pa.Table, products: pa.ChunkedArray, queries: pa.ChunkedArray | None, source: str
) -> tuple[pa.Table, pa.Table]:
    """(the rows whose products are or were in the catalog, or null, and whose queries are known; the others, as
    REJECTED_SCHEMA). ``queries``: None if any may be."""
    product, query = rows.column(schema.PRODUCT_ID), rows.column(schema.QUERY_ID)
    sold = pc.or_(pc.is_null(product), pc.is_in(product, value_set=products))
    asked = pc.is_in(query, value_set=queries) if queries is not None else pc.is_valid(query)
    good = pc.and_(sold, asked)
    bad = rows.append_column("sold", sold).filter(pc.invert(good)).to_pylist()
    rejected = [
        {
            schema.KEY: row[schema.KEY],
            schema.SOURCE: source,
            schema.REJECT_CODE: (RejectCode.UNKNOWN_QUERY if row["sold"] else RejectCode.UNKNOWN_PRODUCT).value,
            schema.REJECT_DETAIL: f"no garment {row[schema.QUERY_ID]} was ever in the store"
            if row["sold"]
            else f"product {row[schema.PRODUCT_ID]} was never in the catalog",
            REJECTED_BY: "judge-answers",
        }
        for row in bad
    ]
    return rows.filter(good), pa.Table.from_pylist(rejected, schema=REJECTED_SCHEMA)
