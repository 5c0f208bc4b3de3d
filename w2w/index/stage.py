"""The stage that looks up the neighbours of vectors."""

import numpy as np
import pyarrow as pa

from w2w import schema
from w2w.index.search import HITS, QUERY, open_index

SEARCH_GIVES = pa.schema(
    [schema.NEIGHBOURS.schema.field(c) for c in (schema.NEIGHBOUR_LIST, schema.INDEX_VERSION, schema.SEARCH_VERSION)]
)


class Search:
    """Opens the index once a worker; adds the k nearest products of every vector.

    ``version`` is the published version that the run began with, so that all its workers search the same one.
    """

    def __init__(
        self, uri: str, version: str, model_version: str, k: int, category: str | None, own_category: bool, search_version: str
    ):
        self._index = open_index(uri, model_version, version=version)
        self._k, self._category, self._own_category = k, category, own_category
        self._search_version = search_version

    def __call__(self, rows: pa.Table) -> pa.Table:
        n = rows.num_rows
        vectors_ND = rows.column(schema.VECTOR).combine_chunks()
        vectors_ND = vectors_ND.flatten().to_numpy(zero_copy_only=False).reshape(n, -1).astype(np.float32)
        categories = rows.column(schema.CATEGORY).to_pylist() if self._own_category else self._category
        hits = self._index.search(vectors_ND, self._k, categories, one_per_product=True)
        counts = np.bincount(hits.column(QUERY).to_numpy(), minlength=n)
        offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))
        items = hits.select([f.name for f in schema.NEIGHBOUR]).combine_chunks()
        structs = pa.StructArray.from_arrays(
            [items.column(f.name).combine_chunks() for f in schema.NEIGHBOUR], fields=list(schema.NEIGHBOUR)
        )
        lists = pa.ListArray.from_arrays(offsets, structs).cast(SEARCH_GIVES.field(schema.NEIGHBOUR_LIST).type)
        columns = {
            schema.NEIGHBOUR_LIST: lists,
            schema.INDEX_VERSION: pa.repeat(pa.scalar(self._index.manifest.version), n),
            schema.SEARCH_VERSION: pa.repeat(pa.scalar(self._search_version), n),
        }
        for name, values in columns.items():
            rows = rows.append_column(name, values)
        return rows


assert {f.name for f in schema.NEIGHBOUR} <= set(HITS.names)
