"""How clear a picture is, in a few numbers: measured once for each picture."""

import numpy as np
import pyarrow as pa
from PIL import Image

from w2w import schema
from w2w.errors import Reject
from w2w.images.decode import DecodeLimits, decode_many
from w2w.images.resize import shrink
from w2w.stage import with_rejects

CODE = 1  # bump when the same picture would get other numbers
LONGEST_PX = 256
CELLS = 8
_NEAR = 28  # of 255, in the channel that differs most: JPEG noise and soft shadows are of the same colour
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601

QUALITY_GIVES = pa.schema([f for f in schema.QUALITY.schema if f.name != schema.IMAGE_ID])


def look(rows: pa.Table, *, limits: DecodeLimits, stage_version: str) -> pa.Table:
    """Adds QUALITY_GIVES to rows with encoded bytes; drops the bytes."""
    images = decode_many(rows.column(schema.BYTES), limits, LONGEST_PX)
    rejects = [i if isinstance(i, Reject) else None for i in images]
    found = [(0.0, 0.0, 0.0, b"") if isinstance(i, Reject) else clearness(i) for i in images]
    rows = rows.drop_columns([schema.BYTES])
    for n, field in enumerate(list(QUALITY_GIVES)[:4]):
        rows = rows.append_column(field.name, pa.array([one[n] for one in found], field.type))
    version = pa.repeat(pa.scalar(stage_version), rows.num_rows)
    return with_rejects(rows.append_column(schema.STAGE_VERSION, version), rejects)


def clearness(image: np.ndarray) -> tuple[float, float, float, bytes]:
    """(sharpness, contrast, filled, grid) of uint8 (H, W, 3), as table `quality` has them.

    Sharpness: the variance of the Laplacian (Pech-Pacheco et al. 2000, "Diatom autofocusing in brightfield microscopy", LAPV),
    at one size for all pictures, so that a larger picture of the same sharpness has the same figure.
    """
    small = shrink(image, LONGEST_PX)
    grey = small @ _LUMA
    laplacian = 4 * grey[1:-1, 1:-1] - grey[:-2, 1:-1] - grey[2:, 1:-1] - grey[1:-1, :-2] - grey[1:-1, 2:]
    other = np.abs(small.astype(np.int16) - np.median(small, axis=(0, 1))).max(axis=2) > _NEAR
    grid = np.asarray(Image.fromarray(small).resize((CELLS, CELLS), Image.Resampling.BOX))
    sharpness = float(laplacian.var()) if laplacian.size else 0.0
    return sharpness, float(grey.var()), float(other.mean()), grid.tobytes()
