"""An opened store: tables in any form, searchable indexes. No Ray, unless a ``ray.data.Dataset`` is requested."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import schema, storage
from w2w.api.images import Encoder, Images, load_encoder
from w2w.config import check_name, nearest
from w2w.errors import UsageError
from w2w.index.manifest import Manifest, index_uri
from w2w.index.merge import MANY, merged
from w2w.index.passing import Passing
from w2w.index.publish import read_manifest
from w2w.index.search import Index as OpenIndex
from w2w.index.search import check_encoder, open_index
from w2w.table import delta, inventory, layered
from w2w.table.current import CurrentRows
from w2w.table.pending import lookup

if TYPE_CHECKING:
    import polars

    from w2w.engine.dataset import Dataset


def open(store: str) -> "Store":
    """The store at a local path or an s3:// prefix. Reads nothing yet."""
    return Store(store)


class Store:
    """Tables and indexes of one store."""

    def __init__(self, uri: str):
        if not isinstance(uri, str) or not uri:
            raise UsageError(f"store={uri!r}: give a local path or an s3:// prefix")
        self.uri = storage.absolute(uri)

    def __repr__(self) -> str:
        return f"w2w.open({self.uri!r})"

    def tables(self) -> list[str]:
        """Names of the existing tables."""
        known = [name for name, table in schema.TABLES.items() if delta.open_table(self.uri, table) is not None]
        return [*known, *delta.own_tables(self.uri)]

    def table(self, name: str) -> "Table":
        """Raises UsageError if there is no such table."""
        known = schema.TABLES if name in schema.TABLES else delta.own_tables(self.uri)
        if name not in known:
            raise UsageError(f"there is no table {name!r}.{nearest(str(name), [*schema.TABLES, *known])}")
        if delta.open_table(self.uri, known[name]) is None:
            raise UsageError(f"there is no table {name!r} at {self.uri!r} yet.{nearest(name, self.tables())}")
        return Table(self.uri, known[name])

    def similar(self, product_id: str, k: int | None = None, name: str = "default") -> pa.Table:
        """The products most like this one, as `w2w similar` found them: rank from 1, product_id, score (cosine). ``k``: at most
        so many; ``name``: of the lists. Raises UsageError if there is no such list."""
        check_name(name, "name")
        delta.need_table(self.uri, schema.SIMILAR_PRODUCTS, "similar")
        columns = [schema.PRODUCT_ID, schema.SIMILAR_LIST, schema.LAYER, schema.ACTIVE]
        found = lookup(self.uri, schema.SIMILAR_PRODUCTS, pa.array([product_id], pa.string()), columns, source=name)
        found = layered.newest(found, schema.SIMILAR_PRODUCTS)
        if not found.num_rows:
            raise UsageError(
                f"there is no list {name!r} of product {product_id!r}: it is not sold, has no vector, or came later"
            )
        listed = pa.Table.from_struct_array(pc.list_flatten(found.column(1)).combine_chunks()).slice(0, k)
        return listed.add_column(0, schema.RANK, pa.array(range(1, listed.num_rows + 1), pa.int32()))

    def index(self, name: str = "default", version: str | None = None) -> "Index":
        """The published version of an index, or the given one. Raises UsageError if there is none."""
        check_name(name, "index")
        return Index(self.uri, index_uri(self.uri, name), version)


class Table:
    """One table. ``columns``: all of them by default; ``version``: the newest by default."""

    def __init__(self, store: str, table: schema.Table):
        self._store, self._table = store, table
        self.name, self.schema = table.name, table.schema

    def __repr__(self) -> str:
        return f"w2w.open({self._store!r}).table({self.name!r})"

    def arrow(self, columns: Sequence[str] | None = None, version: int | None = None, current: bool = False) -> pa.Table:
        """In memory. ``current``: for tables with a history (`products`, `posts`), the newest row of each, if active; of
        `similar`, the lists that count."""
        names = self._columns(columns)
        opened = self._opened(version)
        if not current:
            return delta.read(self._store, self._table, names, version)
        if schema.LAYER in self.schema.names:
            counting = layered.batches(self._store, self._table, names, delta.parts(opened))
            return pa.concat_tables([self._table.empty(names), *counting])
        if schema.ACTIVE not in self.schema.names:
            raise UsageError(f"current: table {self.name!r} has no history; omit it")
        rows = CurrentRows(self._store, self._table, version).batches(list(dict.fromkeys([*names, schema.ACTIVE])))
        kept = [batch.filter(batch.column(schema.ACTIVE)).select(names) for batch in rows]
        return pa.concat_tables([self._table.empty(names), *kept])

    def polars(
        self, columns: Sequence[str] | None = None, version: int | None = None, current: bool = False
    ) -> "polars.DataFrame":
        """``arrow`` as a Polars frame."""
        import polars

        frame = polars.from_arrow(self.arrow(columns, version, current))
        assert isinstance(frame, polars.DataFrame)
        return frame

    def pandas(self, columns: Sequence[str] | None = None, version: int | None = None, current: bool = False) -> Any:
        """``arrow`` as a pandas.DataFrame. Raises UsageError if pandas is not installed."""
        found = self.arrow(columns, version, current)
        try:
            return found.to_pandas()
        except ImportError as e:
            raise UsageError("pandas is not installed: pip install pandas") from e

    def ray(self, columns: Sequence[str] | None = None, version: int | None = None) -> "Dataset":
        """A dataset read by Ray's workers, on the cluster that this process is connected to, or one chosen as for jobs."""
        from w2w.engine.dataset import dataset

        names = self._columns(columns)
        return dataset(self._store, self._table, names, delta.parts(self._opened(version)))

    def history(self) -> list[inventory.Commit]:
        """Its versions, newest first: who wrote them, when, from which versions of which tables."""
        return inventory.history(self._opened(None))

    def lineage(self, version: int | None = None) -> dict[str, Any] | None:
        """The lineage that a job recorded with a version (default: the newest one written by a job): config, run, inputs, stage
        version, rows. None if no job wrote it."""
        self._opened(version)
        entries = (c for c in self.history() if (c.lineage if version is None else c.version == version))
        return next((c.lineage for c in entries), None)

    def _columns(self, columns: Sequence[str] | None) -> list[str]:
        names = self.schema.names if columns is None else [columns] if isinstance(columns, str) else list(columns)
        if strange := [c for c in names if c not in self.schema.names]:
            raise UsageError(f"table {self.name!r} has no column {strange[0]!r}.{nearest(str(strange[0]), self.schema.names)}")
        return names

    def _opened(self, version: int | None) -> inventory.DeltaTable:
        newest = delta.existing(self._store, self._table)
        if version is None:
            return newest
        if not 0 <= version <= newest.version():
            raise UsageError(f"table {self.name!r} has no version {version}: its newest is {newest.version()}")
        return delta.existing(self._store, self._table, version)


class Index:
    """A version of an index, searched in this process."""

    def __init__(self, store: str, uri: str, version: str | None = None):
        self._store, self._uri = store, uri
        self.manifest: Manifest = read_manifest(uri, version)

    def __repr__(self) -> str:
        return f"<index {self.manifest.name!r} {self.manifest.version}, {self.manifest.num_rows:,} rows>"

    def search(
        self,
        queries: np.ndarray | Images,
        k: int = 10,
        category: str | Sequence[str | None] | None = None,
        encoder: Encoder | None = None,
        one_per_product: bool = True,
        num_threads: int = 1,
        filter: Mapping[str, Any] | None = None,
    ) -> pa.Table:
        """The k nearest of every query: query (its position), rank from 1, product_id, image_id, category, score (cosine).
        ``queries``: vectors, float (N, dim); or images, which ``encoder`` embeds (default: w2w's own). ``filter``: only
        products with these values, as of ``w2w find``; products are read for every call.

        Raises UsageError for an unknown category, an impossible filter, and for vectors of another model or length.
        """
        if isinstance(queries, list) and queries and isinstance(queries[0], list):
            raise UsageError("queries: lists of numbers are not vectors: give a NumPy array, float (N, dim), or images")
        passing = Passing.of(self._store, filter or {})
        if not (isinstance(queries, np.ndarray) and queries.dtype.kind == "f" and queries.ndim <= 2):
            encoder = encoder or self._default_encoder
            check_encoder(self.manifest, encoder.config)
            queries = encoder(queries)
        queries = np.atleast_2d(queries)
        index = self._merged if len(queries) >= MANY else self._opened
        within = index.rows_of(passing.product_ids) if passing else None
        return index.search(queries, k, category, one_per_product, num_threads, within)

    @cached_property
    def _default_encoder(self) -> Encoder:
        return load_encoder()

    @cached_property
    def _opened(self) -> OpenIndex:
        return open_index(self._uri, version=self.manifest.version)

    @cached_property
    def _merged(self) -> OpenIndex:
        return merged(self._opened)
