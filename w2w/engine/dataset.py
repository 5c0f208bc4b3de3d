"""A table's parts as a Ray Dataset, read by Ray's workers."""

import pickle
from collections.abc import Iterator, Sequence

import pyarrow as pa
import ray.data
from ray.data import Dataset

from w2w import schema
from w2w.engine.cluster import RayConfig, connect
from w2w.table import delta

_ROWS = 65_536  # minimum rows per read task


def dataset(store: str, table: schema.Table, columns: Sequence[str], listed: Sequence[delta.Part]) -> Dataset:
    """Reads the parts as a dataset; joins the cluster or starts a local one."""
    connect(RayConfig())
    if not listed:
        return ray.data.from_arrow(table.empty(columns))
    tasks = [{"parts": pickle.dumps(chunk)} for chunk in delta.in_chunks(listed, _ROWS)]

    def read(batch: pa.Table) -> Iterator[pa.Table]:
        for task in batch.column("parts").to_pylist():
            yield from delta.read_batches(store, table, columns, pickle.loads(task))

    found = ray.data.from_items(tasks, override_num_blocks=len(tasks))
    return found.map_batches(read, batch_size=1, batch_format="pyarrow")
