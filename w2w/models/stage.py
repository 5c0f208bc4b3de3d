"""The stage that turns pixels into vectors."""

import numpy as np
import pyarrow as pa

from w2w import schema
from w2w.errors import Reject, RejectCode
from w2w.images.stage import PIXELS, with_rejects
from w2w.models.encoder import EncoderConfig, finite_rows, load_encoder

EMBED_GIVES = pa.schema([schema.EMBEDDINGS.schema.field(c) for c in schema.EMBEDDINGS.schema.names])


class Embed:
    """Loads the encoder once a worker; adds the columns of ``embeddings`` to rows that have ``pixels``."""

    def __init__(self, config: EncoderConfig, owner_column: str, owner_kind: str):
        self._encoder = load_encoder(config)
        self._owner_column, self._owner_kind = owner_column, owner_kind

    def __call__(self, rows: pa.Table) -> pa.Table:
        n, size_px = rows.num_rows, self._encoder.input.size_px
        pixels = rows.column(PIXELS).combine_chunks()
        start = pixels.offset * size_px * size_px * 3
        flat = np.frombuffer(pixels.buffers()[1], np.uint8, n * size_px * size_px * 3, start)
        vectors_ND = self._encoder.encode(flat.reshape(n, size_px, size_px, 3))
        finite = finite_rows(vectors_ND)
        bad = Reject(RejectCode.NOT_FINITE, f"{self._encoder.name} gave NaN or infinity")
        offsets = np.arange(0, vectors_ND.size + 1, vectors_ND.shape[1], dtype=np.int32)
        columns = {
            schema.OWNER_ID: rows.column(self._owner_column),
            schema.OWNER_KIND: pa.repeat(pa.scalar(self._owner_kind), n),
            schema.MODEL_VERSION: pa.repeat(pa.scalar(self._encoder.model_version), n),
            schema.VECTOR: pa.ListArray.from_arrays(offsets, np.where(finite[:, None], vectors_ND, 0).ravel()),
        }
        result = rows.drop_columns([PIXELS])
        for name, values in columns.items():
            result = result.append_column(name, values)
        return with_rejects(result, [None if ok else bad for ok in finite])
