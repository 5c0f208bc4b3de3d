"""What a target lacks, in numbered batches that are written down before they are sent.

A batch goes three steps: it is put into the outbox of the store under its number, once and for all; it is sent; it is noted in
table `exported`. A run that finds a batch in the outbox that is not noted sends that one first, as it is. So a run that was
killed anywhere repeats one batch with the same content and the same number, and targets take a batch twice as once.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from w2w import ids, schema, storage
from w2w.engine.shuffle import Vectors, list_vectors, read_vectors
from w2w.errors import JobFailed
from w2w.export.rules import DELETE, UPSERT, digests, parquet
from w2w.shown import without_secrets
from w2w.table import delta, layered
from w2w.table.current import CurrentRows
from w2w.table.doubles import is_own
from w2w.table.parts import RECEIPT_SCHEMA, Output, write_part
from w2w.table.permitted import SEARCH, permitted
from w2w.table.sink import Committer, Lineage

CODE = 1  # raise it when the same rows would be sent otherwise
_ROWS = 8192  # read at once
_SENT = [f.name for f in schema.CHANGE if f.name in schema.PRODUCTS.schema.names]
_MOST_STALE = 10_000  # rows of table `exported` that count no more, before they are dropped


@dataclass(frozen=True)
class Without:
    """Active products without a vector: ``refused``, as search may not use their picture; ``missing``, as the model has made
    none yet; ``all_missing``: these are all."""

    refused: int = 0
    missing: int = 0
    all_missing: bool = False


class Catalog:
    """The documents of a store as they are now. Held: classes, tags and similar products of all; 24 bytes a vector."""

    def __init__(self, store: str, model: str | None, similar: str, only_with_vector: bool):
        """``model``: the version whose vectors are sent; ``similar``: name of the lists."""
        self._store, self._model, self._only = store, model, only_with_vector
        self._may = permitted(store, SEARCH)
        self._vectors: Vectors | None = list_vectors(store, model) if model else None
        columns = [schema.PRODUCT_ID, schema.SIMILAR_LIST]
        self._similar = layered.read(store, schema.SIMILAR_PRODUCTS, columns, source=similar).combine_chunks()
        self._classes, self._tags = (
            _by_key(store, table, columns, version or "")
            for table, columns, version in (
                (
                    schema.CLASSIFICATIONS,
                    [schema.CATEGORY, schema.ACCEPTED],
                    delta.newest_version(store, schema.CLASSIFICATIONS),
                ),
                (schema.TAGGED, [schema.TAGS], delta.finished_version(store, schema.TAGGED, "tag")),
            )
        )

    @property
    def dim(self) -> int:
        """Length of a vector; 0 without one."""
        if self._vectors is None or not self._vectors.parts:
            return 0
        return read_vectors(self._vectors, np.array([0])).shape[1]

    @cached_property
    def without(self) -> Without:
        """How many active products are without a vector."""
        if self._vectors is None:
            return Without()
        counts = Counter[str]()
        for rows in CurrentRows(self._store, schema.PRODUCTS).batches([schema.IMAGE_ID, schema.ACTIVE]):
            active = rows.filter(rows.column(schema.ACTIVE))
            refused, has = ~self._may.mask(active.column(0)), self._places(active) >= 0
            counts += Counter(active=len(has), refused=int(refused.sum()), missing=int((~refused & ~has).sum()))
        return Without(counts["refused"], counts["missing"], 0 < counts["active"] == counts["missing"])

    def batches(self) -> Iterator[pa.Table]:
        """Rows of CHANGE for every active product, without vectors."""
        columns = [*_SENT, schema.ACTIVE]
        for held in CurrentRows(self._store, schema.PRODUCTS).batches(columns):
            for start in range(0, held.num_rows, _ROWS):
                rows = held.slice(start, _ROWS)
                rows = rows.filter(rows.column(schema.ACTIVE))
                has = self._places(rows) >= 0
                if self._only:
                    rows, has = rows.filter(pa.array(has)), has[has]
                if rows.num_rows:
                    yield self._documents(rows, has)

    def _places(self, rows: pa.Table) -> np.ndarray:
        if self._vectors is None:
            return np.full(rows.num_rows, -1)
        images = rows.column(schema.IMAGE_ID)
        return np.where(self._may.mask(images), self._vectors.find(pc.fill_null(images, "")), -1)

    def _documents(self, rows: pa.Table, has: np.ndarray) -> pa.Table:
        images, num = rows.column(schema.IMAGE_ID), rows.num_rows
        classes = _found(self._classes, images)
        sure = pc.if_else(classes.column(schema.ACCEPTED), classes.column(schema.CATEGORY), pa.scalar(None, pa.string()))
        seen = [
            None if tags is None else [(t[schema.ATTRIBUTE], t[schema.VALUE]) for t in tags if t[schema.VALUE] is not None]
            for tags in _found(self._tags, images).column(schema.TAGS).to_pylist()
        ]
        model = pc.if_else(pa.array(has), pa.scalar(self._model, pa.string()), pa.scalar(None, pa.string()))
        said = {schema.OP: pa.repeat(UPSERT, num), schema.CLASSIFIED: sure, schema.SEEN: pa.array(seen, _type(schema.SEEN))}
        pictures = [_shown(listed) for listed in rows.column(schema.IMAGE_LIST).to_pylist()]
        said |= {schema.IMAGE_LIST: pa.array(pictures, _type(schema.IMAGE_LIST)), schema.MODEL_VERSION: model}
        said |= {schema.VECTOR: pa.nulls(num, _type(schema.VECTOR))}
        said[schema.SIMILAR_LIST] = _found(self._similar, rows.column(schema.PRODUCT_ID)).column(schema.SIMILAR_LIST)
        arrays = [said[f.name] if f.name in said else rows.column(f.name) for f in schema.CHANGE]
        return pa.table(arrays, schema=schema.CHANGE)

    def with_vectors(self, batch: pa.Table) -> pa.Table:
        """The same rows with their vectors; one that has NaN or infinity is left out."""
        at = self._places(batch)
        has = at >= 0
        if self._vectors is None or not has.any():
            return batch
        vectors_ND = read_vectors(self._vectors, at[has])
        good = np.isfinite(vectors_ND).all(axis=1)
        has[has] = good
        ends = np.concatenate([[0], np.cumsum(has * vectors_ND.shape[1])]).astype(np.int32)
        column = pa.ListArray.from_arrays(pa.array(ends), pa.array(vectors_ND[good].ravel()), mask=pa.array(~has))
        return batch.set_column(batch.schema.names.index(schema.VECTOR), schema.CHANGE.field(schema.VECTOR), column)


def _shown(pictures: list[dict] | None) -> list[dict] | None:
    """Without the keys of signed addresses and the fingerprints, which are the store's alone."""
    ours = {schema.FINGERPRINT: None}
    return pictures and [picture | ours | {schema.URI: without_secrets(picture[schema.URI])} for picture in pictures]


def _type(name: str) -> pa.DataType:
    return schema.CHANGE.field(name).type


def _by_key(store: str, table: schema.Table, columns: list[str], partition: str) -> pa.Table:
    found = delta.parts(delta.open_table(store, table), **{table.partition_by[0]: partition})
    names = [table.key[0], *columns]
    return pa.concat_tables([table.empty(names), *delta.read_batches(store, table, names, found)]).combine_chunks()


def _found(table: pa.Table, keys: pa.ChunkedArray) -> pa.Table:
    """The row of each key, null where there is none."""
    return table.take(pc.index_in(keys, value_set=table.column(0)).combine_chunks())


@dataclass(frozen=True)
class State:
    """What the target has: ``rows``, product_id and digest; ``last``: the highest batch that is noted; ``stale``: rows that
    count no more; ``parts``: the files in which all this is noted."""

    rows: pa.Table
    last: int
    stale: int
    parts: frozenset[str]

    @staticmethod
    def of(store: str, name: str) -> "State":
        """Held: 100 bytes a product."""
        columns = [schema.PRODUCT_ID, schema.ROW_DIGEST, schema.BATCH]
        listed = delta.parts(delta.open_table(store, schema.EXPORTED), source=name)
        rows = pa.concat_tables([schema.EXPORTED.empty(columns), *delta.read_batches(store, schema.EXPORTED, columns, listed)])
        last = pc.max(rows.column(schema.BATCH)).as_py() or 0
        rows = rows.sort_by([(schema.PRODUCT_ID, "ascending"), (schema.BATCH, "ascending")]).combine_chunks()
        keys = rows.column(schema.PRODUCT_ID)
        newest = pc.not_equal(keys[1:], keys[:-1]).to_numpy(zero_copy_only=False)
        now = rows.filter(pa.array(np.append(newest, True)[: rows.num_rows]))
        return State(now, last, rows.num_rows - now.num_rows, frozenset(part.path for part in listed))

    @property
    def there(self) -> pa.Table:
        return self.rows.filter(pc.is_valid(self.rows.column(schema.ROW_DIGEST)))


def changes(catalog: Catalog, state: State, version: str, again: bool) -> Iterator[tuple[pa.Table, pa.Array]]:
    """Rows of CHANGE that the target lacks, and their digests: new and changed products, then deletions. ``again``: all of
    them."""
    there = state.there
    known, seen = there.column(schema.PRODUCT_ID), np.zeros(there.num_rows, bool)
    for rows in catalog.batches():
        now, at = digests(rows, version), pc.index_in(rows.column(schema.PRODUCT_ID), value_set=known).combine_chunks()
        seen[at.drop_null().to_numpy()] = True
        same = pc.fill_null(pc.equal(there.column(schema.ROW_DIGEST).take(at).combine_chunks(), now), again)
        new = pc.invert(pc.and_(same, not again))
        if pc.any(new).as_py():
            yield rows.filter(new), now.filter(new)
    gone = known.filter(pa.array(~seen)).combine_chunks()
    for some in (gone.slice(i, _ROWS) for i in range(0, len(gone), _ROWS)):
        said = {schema.OP: pa.repeat(DELETE, len(some)), schema.PRODUCT_ID: some}
        arrays = [said[f.name] if f.name in said else pa.nulls(len(some), f.type) for f in schema.CHANGE]
        yield pa.table(arrays, schema=schema.CHANGE), pa.nulls(len(some), pa.string())


def in_batches(found: Iterator[tuple[pa.Table, pa.Array]], rows: int, most: int | None) -> Iterator[pa.Table]:
    """The changes with column row_digest, ``rows`` at a time, ``most`` in all; deletions in batches of their own: where that
    of an erased product goes, nothing else has to be sent again."""
    held, left = pa.table([], schema=pa.schema([])), most
    for batch, digest in found:
        if held.num_rows and held.column(schema.OP)[0] != batch.column(schema.OP)[0]:
            yield held
            held = held.slice(0, 0)
        batch = batch.append_column(schema.ROW_DIGEST, digest).slice(0, left)
        left = None if left is None else left - batch.num_rows
        held = pa.concat_tables([held, batch]) if held.num_columns else batch
        while held.num_rows >= rows:
            yield held.slice(0, rows)
            held = held.slice(rows)
        if left == 0:
            break
    if held.num_rows:
        yield held


Send = Callable[[int, pa.Table], None]  # a batch's number, and its rows of CHANGE


class Outbox:
    """Batches on their way. ``last``: the last one noted."""

    def __init__(self, store: str, name: str, state: State, lineage: Lineage):
        self._store, self._name, self._known, self.last = store, name, state.parts, state.last
        self._folder = storage.join(store, "_export", name)
        self._lineage = lineage
        self._committer: Committer | None = None

    def _file(self, number: int) -> str:
        return storage.join(self._folder, f"{number:06d}.parquet")

    def clean(self) -> None:
        """Deletes batches that were noted by runs that were killed thereafter."""
        for number in (
            int(stem) for f in storage.list_files(self._folder) if (stem := f.base_name.partition(".")[0]).isdigit()
        ):
            if number <= self.last:
                storage.delete(self._file(number))

    def left(self) -> pa.Table | None:
        """The batch that an earlier run wrote down and did not note."""
        if not storage.exists(self._file(self.last + 1)):
            return None
        return pq.read_table(pa.BufferReader(storage.read_bytes(self._file(self.last + 1))))

    def put(self, batch: pa.Table) -> None:
        """Writes the next batch down. Raises JobFailed if another run of this export has written or noted one since the state
        was read: this one might be older. Thereafter no other run can note another batch of this number."""
        storage.replace_if(self._file(self.last + 1), parquet(batch, ""), None)
        listed = delta.parts(delta.open_table(self._store, schema.EXPORTED), source=self._name)
        if any(p.path not in self._known and not is_own(p.path, self._lineage.run_id) for p in listed):
            storage.delete(self._file(self.last + 1))
            raise JobFailed(f"another run of export {self._name!r} has sent batches at the same time: run this again")

    def send(self, batch: pa.Table, send: Send) -> None:
        """Sends the batch that was put, and notes it."""
        number = self.last + 1
        send(number, batch.select(schema.CHANGE.names).cast(schema.CHANGE))
        rows = batch.select([schema.PRODUCT_ID, schema.ROW_DIGEST])
        rows = rows.append_column(schema.BATCH, pa.repeat(number, rows.num_rows))
        rows = rows.append_column(schema.SOURCE, pa.repeat(self._name, rows.num_rows))
        output = Output(schema.EXPORTED)
        self._committer = self._committer or Committer(self._store, [output], self._lineage, every_s=0)
        receipts = write_part(self._store, output, rows, self._lineage.run_id)
        self._committer.add(pa.Table.from_pylist(receipts, schema=RECEIPT_SCHEMA))
        self.last = number
        storage.delete(self._file(number))


def compacted(state: State, name: str) -> pa.Table | None:
    """The rows of EXPORTED that still count, if most do not: those of what is there, and of the last batch, whose number counts
    on."""
    if state.stale < max(_MOST_STALE, state.rows.num_rows):
        return None
    last = pc.equal(state.rows.column(schema.BATCH), state.last)
    kept = state.rows.filter(pc.or_(last, pc.is_valid(state.rows.column(schema.ROW_DIGEST))))
    return kept.append_column(schema.SOURCE, pa.repeat(name, kept.num_rows)).cast(schema.EXPORTED.schema)


def version_of(*decides: object) -> str:
    """Of all that decides what is sent of a row: where it changes, everything is sent again."""
    return ids.digest(CODE, *decides)
