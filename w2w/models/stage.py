"""The stage that turns pixels into vectors."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import schema
from w2w.errors import Reject, RejectCode
from w2w.images.stage import PIXELS, SLOT_OWNERS, SLOT_PIXELS
from w2w.models.config import EncoderConfig
from w2w.models.encoder import check_version, finite_rows, load_encoder
from w2w.stage import with_rejects

EMBED_GIVES = schema.EMBEDDINGS.schema
VECTORS = "vectors"  # rows of `embeddings` for everything that one row shows
EMBED_SLOTS_GIVES = pa.schema([(VECTORS, pa.list_(pa.struct(list(schema.EMBEDDINGS.schema))))])


class Embed:
    """Loads the encoder once per worker; adds the columns of ``embeddings`` to rows that have ``pixels``."""

    def __init__(
        self, config: EncoderConfig, owner_column: str, owner_kind: str, version: str = "", written_as: str | None = None
    ):
        """``version``: the model version that is expected; ``written_as``: the version under which vectors are stored
        instead."""
        self._encoder = load_encoder(config)
        check_version(f"encoder.name={config.name}", version, self._encoder.model_version)
        self._owner_column, self._owner_kind = owner_column, owner_kind
        self._written_as = written_as or self._encoder.model_version

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
            schema.MODEL_VERSION: pa.repeat(pa.scalar(self._written_as), n),
            schema.VECTOR: pa.ListArray.from_arrays(offsets, np.where(finite[:, None], vectors_ND, 0).ravel()),
        }
        result = rows.drop_columns([PIXELS])
        for name, values in columns.items():
            result = result.append_column(name, values)
        return with_rejects(result, [None if ok else bad for ok in finite])


class EmbedSlots(Embed):
    """The same for cut-outs (``slots_to_pixels``): adds ``vectors``, a row of ``embeddings`` for each of a cut-out's slots."""

    def __call__(self, rows: pa.Table) -> pa.Table:
        lists = rows.column(SLOT_PIXELS).combine_chunks()
        owners = rows.column(SLOT_OWNERS).combine_chunks().flatten()
        flat = super().__call__(pa.table([owners, lists.flatten()], names=[self._owner_column, PIXELS]))
        parents = pc.list_parent_indices(lists).to_numpy()
        rejects: list[Reject | None] = [None] * rows.num_rows
        for row, owner, code, detail in zip(
            parents, owners.to_pylist(), *(flat.column(c).to_pylist() for c in (schema.REJECT_CODE, schema.REJECT_DETAIL))
        ):
            if code:
                rejects[row] = Reject(RejectCode(code), f"{owner}: {detail}")
        counts = np.bincount(parents, minlength=rows.num_rows)
        offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
        items = flat.select(EMBED_GIVES.names).cast(schema.EMBEDDINGS.schema).combine_chunks()
        structs = pa.StructArray.from_arrays(
            [items.column(f.name).combine_chunks() for f in EMBED_GIVES], fields=list(EMBED_GIVES)
        )
        result = rows.drop_columns([SLOT_PIXELS, SLOT_OWNERS])
        lists = pa.ListArray.from_arrays(offsets, structs).cast(EMBED_SLOTS_GIVES.field(VECTORS).type)
        return with_rejects(result.append_column(VECTORS, lists), rejects)
