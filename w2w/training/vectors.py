"""Training vectors from table `embeddings`: all finite and of one length."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from w2w import schema
from w2w.errors import UsageError
from w2w.table.pending import lookup_batches


def vector_batches(
    store: str, model_version: str, owners: pa.Array | pa.ChunkedArray, version: int | None = None
) -> Iterator[tuple[list[str], np.ndarray]]:
    """Owners and their vectors, float32 (N, D), in batches of 1,024 and any order.

    Raises UsageError for vectors of two lengths, and for NaN or infinity.
    """
    columns, length, of = [schema.OWNER_ID, schema.VECTOR], None, f"table `embeddings`: of model version {model_version}"
    for rows in lookup_batches(store, schema.EMBEDDINGS, owners, columns, version, model_version=model_version):
        names, column = rows.column(0).to_pylist(), rows.column(1).combine_chunks()
        lengths = np.diff(column.offsets.to_numpy())
        length = int(lengths[0]) if length is None else length
        if (lengths != length).any() or not length:
            at = int(np.flatnonzero(lengths != length)[0]) if length else 0
            raise UsageError(
                f"{of} the vector of {names[at]!r} has {lengths[at]} numbers and others have {length}: all must have one length"
            )
        vectors_ND = column.flatten().to_numpy(zero_copy_only=False).reshape(len(names), length)
        finite_N = np.isfinite(vectors_ND).all(axis=1)
        if not finite_N.all():
            raise UsageError(f"{of} the vector of {names[int(finite_N.argmin())]!r} has NaN or infinity")
        yield names, vectors_ND
