"""The stage that finds the neighbours of vectors."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from w2w import schema
from w2w.errors import Reject, RejectCode, UsageError
from w2w.index.groups import Groups
from w2w.index.merge import MANY, merged
from w2w.index.passing import Passing
from w2w.index.scan import Scanner
from w2w.index.search import HITS, QUERY, Index, open_index
from w2w.models.parts import Weights, weighed
from w2w.stage import with_rejects

SEARCH_NEEDS = (schema.OWNER_ID, schema.VECTOR, schema.CATEGORY)
SEARCH_GIVES = pa.schema(
    [
        schema.NEIGHBOURS.schema.field(c)
        for c in (schema.QUERY_ID, schema.NEIGHBOUR_LIST, schema.INDEX_VERSION, schema.SEARCH_VERSION, schema.RUN_ID)
    ]
)


@dataclass(frozen=True)
class SearchConfig:
    """What is searched."""

    index: str = "default"
    """Name of the index."""
    k: int = 10
    """Neighbours of each query; a product counts once, with its best image."""
    category: str | None = None
    """Search only in this category."""
    own_category: bool = False
    """Search each query only in its own category."""

    def __post_init__(self):
        if self.k < 1:
            raise UsageError(f"search.k={self.k}: must be at least 1")
        if self.category and self.own_category:
            raise UsageError("search.category and search.own_category: give one of them")


class Search:
    """Opens the index once per worker; adds the k nearest products of every vector. ``owner_id`` is the query's id.

    ``version`` is the published version at the start of the run, so that all its workers search the same one. With ``groups``,
    a variant group counts once; of ``passing`` are the only products that are found. ``scanner``: makes that of an index, for
    one that is not scanned in this process.
    """

    def __init__(
        self,
        uri: str,
        version: str,
        config: SearchConfig,
        search_version: str,
        run_id: str,
        weights: Weights = (),
        groups: Groups | None = None,
        passing: Passing | None = None,
        scanner: Callable[[str, Index], Scanner] | None = None,
    ):
        self._index, self._groups, self._passing = open_index(uri, version=version), groups, passing
        self._within = self._index.rows_of(passing.product_ids) if passing else None
        self._config, self._search_version, self._run_id = config, search_version, run_id
        self._weights = weights
        self._asked = 0
        if scanner:
            self._index = replace(self._index, scanner=scanner(uri, self._index))

    def __call__(self, rows: pa.Table) -> pa.Table:
        n = rows.num_rows
        if self._asked < MANY <= self._asked + n and not self._index.scanner:
            self._index = merged(self._index)
            self._within = self._index.rows_of(self._passing.product_ids) if self._passing else None
        self._asked += n
        vectors_ND = rows.column(schema.VECTOR).combine_chunks()
        vectors_ND = vectors_ND.flatten().to_numpy(zero_copy_only=False).reshape(n, -1).astype(np.float32)
        categories: list[str | None] = [self._config.category] * n
        rejects: list[Reject | None] = [None] * n
        if self._config.own_category:
            known = self._index.manifest.rows_by_category()
            categories = rows.column(schema.CATEGORY).to_pylist()
            rejects = [
                None if c in known else Reject(RejectCode.UNKNOWN_CATEGORY, f"the index has no {c!r}") for c in categories
            ]
            categories = [None if r else c for c, r in zip(categories, rejects)]
        asked_ND = weighed(vectors_ND, self._weights)
        if self._groups:
            hits = self._groups.search(self._index, asked_ND, self._config.k, categories, self._within)
        else:
            hits = self._index.search(asked_ND, self._config.k, categories, one_per_product=True, within=self._within)
        counts = np.bincount(hits.column(QUERY).to_numpy(), minlength=n)
        offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))
        items = hits.select([f.name for f in schema.NEIGHBOUR]).combine_chunks()
        structs = pa.StructArray.from_arrays(
            [items.column(f.name).combine_chunks() for f in schema.NEIGHBOUR], fields=list(schema.NEIGHBOUR)
        )
        lists = pa.ListArray.from_arrays(offsets, structs).cast(SEARCH_GIVES.field(schema.NEIGHBOUR_LIST).type)
        columns = {
            schema.QUERY_ID: rows.column(schema.OWNER_ID),
            schema.RUN_ID: pa.repeat(pa.scalar(self._run_id), n),
            schema.NEIGHBOUR_LIST: lists,
            schema.INDEX_VERSION: pa.repeat(pa.scalar(self._index.manifest.version), n),
            schema.SEARCH_VERSION: pa.repeat(pa.scalar(self._search_version), n),
        }
        for name, values in columns.items():
            rows = rows.append_column(name, values)
        return with_rejects(rows, rejects)


assert {f.name for f in schema.NEIGHBOUR} <= set(HITS.names)
