"""Batches of changes as files for other systems: each format is a function from rows of ``schema.CHANGE`` to bytes."""

import csv
import io
import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from w2w import ids, schema
from w2w.ids import point_id

UPSERT, DELETE = "upsert", "delete"
Document = dict[str, Any]


def documents(batch: pa.Table) -> Iterator[tuple[str, Document | None]]:
    """product_id and fields of each change in JSON's types, without those that are null; None for a deletion."""
    for row in batch.to_pylist(maps_as_pydicts="lossy"):
        op, product = row.pop(schema.OP), row[schema.PRODUCT_ID]
        yield product, plain(row) if op == UPSERT else None


def plain(value: Any) -> Any:
    """Without what JSON lacks: a number that is none becomes null, a time its ISO text. Null fields are left out."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, str | int | bool) or value is None else str(value)


def digests(batch: pa.Table, version: str) -> pa.Array:
    """Of each row, and of all else that decides what is sent."""
    rows = batch.to_pylist(maps_as_pydicts="lossy")
    return pa.array([ids.digest(version, plain(row), length=32) for row in rows], pa.string())


def json_lines(batch: pa.Table, collection: str) -> bytes:
    """{"op": "upsert", "product_id": ..., ...} or {"op": "delete", "product_id": ...} a line."""
    pairs = documents(batch)
    return _lines({schema.OP: UPSERT, **doc} if doc else {schema.OP: DELETE, schema.PRODUCT_ID: p} for p, doc in pairs)


def comma_separated(batch: pa.Table, collection: str) -> bytes:
    """A column for each field; lists and maps as JSON."""
    text = io.StringIO()
    names = batch.schema.names
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for product, doc in documents(batch):
        row = {schema.OP: UPSERT, **doc} if doc else {schema.OP: DELETE, schema.PRODUCT_ID: product}
        writer.writerow({k: _json(v) if isinstance(v, dict | list) else v for k, v in row.items()})
    return text.getvalue().encode()


def parquet(batch: pa.Table, collection: str) -> bytes:
    """The rows as they are."""
    sink = pa.BufferOutputStream()
    pq.write_table(batch, sink, compression="zstd", store_schema=False)
    return sink.getvalue().to_pybytes()


def elasticsearch(batch: pa.Table, collection: str) -> bytes:
    """The body of POST /_bulk of Elasticsearch and OpenSearch: the product_id is the document's _id."""

    def lines() -> Iterator[Document]:
        for product, doc in documents(batch):
            where = {"_index": collection, "_id": product}
            yield from ({"index": where}, doc) if doc else ({"delete": where},)

    return _lines(lines())


def qdrant(batch: pa.Table, collection: str) -> bytes:
    """The body of POST /collections/NAME/points/batch: upserts, then deletions. The payload has the product_id."""
    points, gone = [], []
    for product, doc in documents(batch):
        if doc:
            points.append({"id": point_id(product), "vector": doc.pop(schema.VECTOR), "payload": doc})
        else:
            gone.append(point_id(product))
    found = [("upsert", points), ("delete", gone)]
    return _json({"operations": [{op: {"points": some}} for op, some in found if some]}).encode() + b"\n"


def vespa(batch: pa.Table, collection: str) -> bytes:
    """What `vespa feed` reads: a put or remove a line. The vector is a dense tensor; maps and lists stay what they are."""

    def lines() -> Iterator[Document]:
        for product, doc in documents(batch):
            where = f"id:{collection}:{collection}::{product}"
            if doc and schema.VECTOR in doc:
                doc[schema.VECTOR] = {"values": doc[schema.VECTOR]}
            yield {"put": where, "fields": doc} if doc else {"remove": where}

    return _lines(lines())


# format -> the end of a file's name, and what writes it
FORMATS: dict[str, tuple[str, Callable[[pa.Table, str], bytes]]] = {
    "jsonl": ("jsonl", json_lines),
    "csv": ("csv", comma_separated),
    "parquet": ("parquet", parquet),
    "elasticsearch": ("bulk.ndjson", elasticsearch),
    "opensearch": ("bulk.ndjson", elasticsearch),
    "qdrant": ("qdrant.json", qdrant),
    "vespa": ("vespa.jsonl", vespa),
}
ONLY_WITH_VECTOR = ("qdrant",)  # a point has one


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _lines(rows: Any) -> bytes:
    return "".join(_json(row) + "\n" for row in rows).encode()
