"""Batches into a table of PostgreSQL, with pgvector where vectors are sent: one transaction each, upserts by product_id."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from w2w import ids, schema
from w2w.errors import JobFailed, UsageError
from w2w.export.flow import Send
from w2w.export.rules import documents
from w2w.extras import need
from w2w.shown import without_secrets

_WHERE = ("host", "hostaddr", "port", "dbname", "service")
_WAIT_S = 15
_OPTION = "--to=postgres"


def place(dsn: str) -> str:
    """Digest of server and database, without user and password. Raises UsageError for what is no connection string."""
    need("psycopg", _OPTION)
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    try:
        told = conninfo_to_dict(dsn)
    except psycopg.ProgrammingError:  # its text repeats the string, and so the password
        raise UsageError("--dsn: not a connection string of PostgreSQL, such as postgresql://user@host/database") from None
    return ids.digest([str(told.get(k) or os.environ.get(f"PG{'DATABASE' if k == 'dbname' else k.upper()}")) for k in _WHERE])


@contextmanager
def target(dsn: str, table: str, dim: int) -> Iterator[Send]:
    """Makes the table, or the columns that it lacks. ``dim``: length of the vectors; 0 for none. Raises JobFailed for what the
    server refuses."""
    import psycopg
    from psycopg import sql

    fields = [f for f in schema.CHANGE if f.name not in (schema.OP, *(() if dim else (schema.MODEL_VERSION, schema.VECTOR)))]
    kinds = {f.name: f"vector({dim})" if f.name == schema.VECTOR else _kind(f.type) for f in fields}
    name, key = sql.Identifier(*table.split(".")), sql.Identifier(schema.PRODUCT_ID)
    columns = {field: sql.Identifier(field) for field in kinds}
    casts = {"jsonb": "::jsonb", f"vector({dim})": "::vector"}
    put = sql.SQL("INSERT INTO {} ({}) VALUES ({}) ON CONFLICT ({}) DO UPDATE SET {}").format(
        name,
        sql.SQL(", ").join(columns.values()),
        sql.SQL(", ").join(sql.SQL("%s" + casts.get(kind, "")) for kind in kinds.values()),
        key,
        sql.SQL(", ").join(sql.SQL("{0} = EXCLUDED.{0}").format(c) for c in columns.values()),
    )
    drop = sql.SQL("DELETE FROM {} WHERE {} = ANY(%s)").format(name, key)

    def send(number: int, batch: pa.Table) -> None:
        rows, gone = [], []
        for product, doc in documents(batch):
            if doc is None:
                gone.append(_said(product))
            else:
                rows.append([_value(doc.get(field), kind) for field, kind in kinds.items()])
        with connection.transaction(), connection.cursor() as cursor:
            cursor.executemany(put, rows)
            cursor.execute(drop, [gone])

    try:
        with psycopg.connect(dsn, connect_timeout=_WAIT_S, application_name="w2w export", autocommit=True) as connection:
            if dim and not connection.execute("SELECT 1 FROM pg_type WHERE typname = 'vector'").fetchone():
                connection.execute("CREATE EXTENSION vector")
            connection.execute(sql.SQL("CREATE TABLE IF NOT EXISTS {} ({} text PRIMARY KEY)").format(name, key))
            for field, kind in kinds.items():
                more = sql.SQL("ALTER TABLE {} ADD COLUMN IF NOT EXISTS {} {}").format(name, columns[field], sql.SQL(kind))
                connection.execute(more)
            yield send
    except psycopg.Error as e:
        raise JobFailed(
            f"PostgreSQL: {without_secrets(str(e).strip().splitlines()[0] if str(e).strip() else repr(e))}"
        ) from None


def _kind(kind: pa.DataType) -> str:
    for test, name in (
        (pa.types.is_string, "text"),
        (pa.types.is_floating, "double precision"),
        (pa.types.is_integer, "bigint"),
        (pa.types.is_boolean, "boolean"),
        (pa.types.is_timestamp, "timestamptz"),
    ):
        if test(kind):
            return name
    return "jsonb"


def _value(value: Any, kind: str) -> Any:
    if value is None:
        return None
    if kind == "jsonb":
        return json.dumps(_said(value), ensure_ascii=False)
    return json.dumps(value) if kind.startswith("vector") else _said(value)


def _said(value: Any) -> Any:
    """Without NUL, which PostgreSQL's texts cannot have."""
    if isinstance(value, str):
        return value.replace("\0", "")
    if isinstance(value, dict):
        return {_said(k): _said(v) for k, v in value.items()}
    return [_said(v) for v in value] if isinstance(value, list) else value
