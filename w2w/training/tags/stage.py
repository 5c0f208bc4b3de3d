"""The stages that tag: the foreground's colour from the pixels, the attributes from the encoder's vector of them."""

import numpy as np
import pyarrow as pa

from w2w import ids, schema
from w2w.images.stage import PIXELS
from w2w.models.config import EncoderConfig
from w2w.models.encoder import check_version, encoder_input, model_version
from w2w.training.tags.heads import Tagger, load

SWATCH_CODE = 1  # bump when the same picture would have another swatch
SWATCH_GIVES = pa.schema([schema.TAGGED.schema.field(schema.SWATCH)])
TAG_GIVES = schema.TAGGED.fields([schema.TAGS, schema.STAGE_VERSION])


def tagger_version(tagger: Tagger, encoder: EncoderConfig) -> str:
    """Digest of everything that decides a row."""
    return ids.digest(SWATCH_CODE, tagger.version, model_version(encoder))


class Swatch:
    """Adds ``swatch``, "#rrggbb", to rows that have ``pixels``."""

    def __init__(self, encoder: EncoderConfig):
        from w2w.models.colour import load_colour

        self._shape = encoder_input(encoder)
        self._colour = load_colour(self._shape)

    def __call__(self, rows: pa.Table) -> pa.Table:
        size, pixels = self._shape.size_px, rows.column(PIXELS).combine_chunks()
        flat = np.frombuffer(pixels.buffers()[1], np.uint8, len(pixels) * size * size * 3, pixels.offset * size * size * 3)
        found_N3 = self._colour.dominant(flat.reshape(-1, size, size, 3))
        named = ["#{:02x}{:02x}{:02x}".format(*rgb) for rgb in found_N3.tolist()]
        return rows.append_column(schema.SWATCH, pa.array(named, pa.string()))


class Tag:
    """Adds the attributes to rows that have a vector."""

    def __init__(self, tagger: str, encoder: EncoderConfig, version: str):
        """``version``: the one that is expected."""
        self._tagger, self._version = load(tagger), version
        check_version(f"--tagger={tagger}", version, tagger_version(self._tagger, encoder))

    def __call__(self, rows: pa.Table) -> pa.Table:
        vectors = rows.column(schema.VECTOR).combine_chunks()
        vectors_ND = vectors.flatten().to_numpy(zero_copy_only=False).reshape(rows.num_rows, -1)
        keys = (schema.ATTRIBUTE, schema.VALUE, schema.SCORE)
        told = [[dict(zip(keys, tag)) for tag in tags] for tags in self._tagger(vectors_ND)]
        rows = rows.append_column(schema.TAGS, pa.array(told, TAG_GIVES.field(schema.TAGS).type))
        return rows.append_column(schema.STAGE_VERSION, pa.repeat(pa.scalar(self._version), rows.num_rows))
