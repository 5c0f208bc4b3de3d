"""What exports remember, have sent and are about to send of what is erased.

The target of an export has to be told to delete a product, by its id: that id stays in table `exported` until the deletion has
been sent, and no longer. A file or batch that names what is erased goes whole; all else that was in it is sent again.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from w2w import schema, storage
from w2w.erase.scan import Sought, in_file
from w2w.table import delta, purge

AGAIN = ""  # the digest of a product that is to be sent again, or deleted
_NUMBERED = re.compile(r".*?-?(\d{6,})\..+")


def files_of(store: str) -> Iterator[tuple[str, str, str]]:
    """(export, "sent" or "due" or "database", URI) of all that exports wrote into the store."""
    for kind, place in (("sent", "exports"), ("due", "_export")):
        for name in storage.list_folders(storage.join(store, place)):
            folder = storage.join(store, place, name)
            if any(sub.endswith(".lance") for sub in storage.list_folders(folder)):
                yield name, "database", folder
                continue
            for info in storage.list_files(folder):
                yield name, kind, storage.join(folder, info.base_name)


def affected(store: str, sought: Sought, names: Iterable[str]) -> dict[str, list[tuple[str, str]]]:
    """(kind, URI) by export of what has to go. ``names``: exports whose target has something erased."""
    found: dict[str, list[tuple[str, str]]] = {}
    known, sought = set(names), replace(sought, about=True)
    for name, kind, uri in files_of(store):
        if name in known if kind == "database" else in_file(uri, sought):
            found.setdefault(name, []).append((kind, uri))
    return found


def rows_of(store: str) -> pa.Table:
    return delta.read(store, schema.EXPORTED, schema.EXPORTED.schema.names)


def with_something(store: str, products: frozenset[str]) -> dict[str, int]:
    """By export: how many erased products its target may have."""
    now = rows_of(store)
    newest = _newest(now)
    there = newest.filter(pc.and_(_among(newest, products), newest.column(schema.ROW_DIGEST).is_valid()))
    return {one["values"]: one["counts"] for one in pc.value_counts(there.column(schema.SOURCE)).to_pylist()}


def _among(rows: pa.Table, products: frozenset[str]) -> pa.ChunkedArray:
    return pc.is_in(rows.column(schema.PRODUCT_ID), value_set=pa.array(sorted(products), pa.string()))


def _newest(rows: pa.Table) -> pa.Table:
    order = [(schema.SOURCE, "ascending"), (schema.PRODUCT_ID, "ascending"), (schema.BATCH, "ascending")]
    listed = {(row[schema.SOURCE], row[schema.PRODUCT_ID]): row for row in rows.sort_by(order).to_pylist()}
    return pa.Table.from_pylist(list(listed.values()), schema=schema.EXPORTED.schema)


def after(
    rows: pa.Table, name: str, products: frozenset[str], going: list[tuple[str, str]], due: dict[int, list[str]]
) -> pa.Table:
    """The rows of an export as they have to be, given which of its files go and what batches that are ``due`` hold."""
    mine = rows.filter(pc.equal(rows.column(schema.SOURCE), name))
    last = max([0, *mine.column(schema.BATCH).to_pylist(), *due])
    if any(kind == "database" for kind, _ in going):
        mine = mine.slice(0, 0)
    gone = {int(found[1]) for kind, uri in going if kind == "sent" and (found := _NUMBERED.fullmatch(uri.rpartition("/")[2]))}
    kept = []
    for row in _newest(mine).to_pylist():
        ours = row[schema.PRODUCT_ID] in products
        if ours and row[schema.ROW_DIGEST] is None:
            continue  # the target has deleted it
        kept.append(row | ({schema.ROW_DIGEST: AGAIN} if ours or row[schema.BATCH] in gone else {}))
    for number, some in due.items():
        kept = [row for row in kept if row[schema.PRODUCT_ID] not in set(some)]
        said = {schema.ROW_DIGEST: AGAIN, schema.BATCH: number, schema.SOURCE: name}
        kept += [said | {schema.PRODUCT_ID: product} for product in some]
    if last and all(row[schema.BATCH] < last for row in kept):  # numbers of batches count on
        kept.append({schema.PRODUCT_ID: "", schema.ROW_DIGEST: None, schema.BATCH: last, schema.SOURCE: name})
    return pa.Table.from_pylist(kept, schema=schema.EXPORTED.schema)


def erase(store: str, sought: Sought) -> dict[str, int]:
    """Brings table `exported` to where the next export sends what has to be sent, then deletes; returns files by export."""
    rows, products = rows_of(store), sought.marks.products
    named = set(rows.filter(_among(rows, products)).column(schema.SOURCE).to_pylist())
    going = affected(store, sought, named)
    for name in sorted(named | set(going)):
        files = going.get(name, [])
        due = {int(uri.rpartition("/")[2].partition(".")[0]): _batch(uri) for kind, uri in files if kind == "due"}
        now = after(rows, name, products, files, due)
        before = rows.filter(pc.equal(rows.column(schema.SOURCE), name))
        if _plain(before) != _plain(now):
            purge.replace_partition(store, schema.EXPORTED, {schema.SOURCE: name}, now)
        for _, uri in files:
            storage.delete(uri)
    return {name: len(files) for name, files in going.items()}


def _batch(uri: str) -> list[str]:
    return pq.read_table(pa.BufferReader(storage.read_bytes(uri))).column(schema.PRODUCT_ID).to_pylist()


def _plain(rows: pa.Table) -> list[dict]:
    return rows.sort_by([(name, "ascending") for name in rows.column_names]).to_pylist()
