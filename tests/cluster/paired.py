"""Stores with pairs, garments, images and, where asked for, vectors: as ingest, detect, mine and embed would leave them."""

import hashlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from PIL import Image

from w2w import ids, schema
from w2w.images.decode import decode
from w2w.models.config import EncoderConfig
from w2w.models.encoder import Encoder, load_encoder
from w2w.table.parts import Output
from w2w.table.sink import Lineage, append_rows

LINEAGE = Lineage("fill", "fill", "fill", "1", {}, {}, "x")


@dataclass(frozen=True)
class Shot:
    """A pair: JPEGs of the garment as worn and of its product."""

    product: str
    category: str
    split: str
    anchor: bytes
    positive: bytes


def jpeg(image: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(out, "JPEG", quality=92)
    return out.getvalue()


def fill(store: str, shots: Iterable[Shot]) -> str:
    """Writes the tables; ids are those of the content."""
    pairs, garments, images = [], {}, {}
    for shot in shots:
        garment, image = (hashlib.sha256(data).hexdigest() for data in (shot.anchor, shot.positive))
        images[image] = {
            schema.IMAGE_ID: image,
            schema.BYTES: shot.positive,
            schema.WIDTH: 1,
            schema.HEIGHT: 1,
            schema.FORMAT: "jpeg",
            schema.PHASH: 0,
            schema.SOURCE_URI: shot.product,
            schema.FETCHED_AT: 0,
        }
        garments[garment] = {
            schema.GARMENT_ID: garment,
            schema.IMAGE_ID: "photo",
            schema.CATEGORY: shot.category,
            schema.ORIGINAL_LABEL: shot.category,
            schema.SCORE: 1.0,
            schema.BOX: [0.0, 0.0, 1.0, 1.0],
            schema.MASK_RLE: None,
            schema.CROP: shot.anchor,
            schema.CROP_SOURCE: "box",
            schema.STAGE_VERSION: "v",
        }
        pairs.append(
            {
                schema.PAIR_ID: ids.digest(garment, shot.product),
                schema.GARMENT_ID: garment,
                schema.ANCHOR_IMAGE_ID: "photo",
                schema.POST_ID: "post",
                schema.PRODUCT_ID: shot.product,
                schema.IMAGE_ID: image,
                schema.CATEGORY: shot.category,
                schema.SCORE: 1.0,
                schema.SIMILARITY: None,
                schema.RULE: "annotated",
                schema.SPLIT: shot.split,
                schema.SOURCE: schema.OWN,
            }
        )
    for table, rows in ((schema.IMAGES, images.values()), (schema.GARMENTS, garments.values()), (schema.PAIRS, pairs)):
        append_rows(store, Output(table), pa.Table.from_pylist(list(rows), schema=table.schema), LINEAGE)
    return store


def vectors_of(encoder: Encoder, pictures: Sequence[bytes]) -> np.ndarray:
    """float32 (N, D)."""
    parts = (np.stack([encoder.prepare(decode(d)) for d in pictures[i : i + 32]]) for i in range(0, len(pictures), 32))
    return np.concatenate([encoder.encode(part) for part in parts])


def embed(
    store: str, pictures: dict[str, bytes], kind: str, config: EncoderConfig = EncoderConfig(), version: str = ""
) -> None:
    """Gives pictures (id -> JPEG) their vectors; of another model version than the encoder's where one is given."""
    encoder = load_encoder(config)
    vectors_ND = vectors_of(encoder, list(pictures.values()))
    rows = [
        {
            schema.OWNER_ID: owner,
            schema.OWNER_KIND: kind,
            schema.MODEL_VERSION: version or encoder.model_version,
            schema.VECTOR: vector.tolist(),
        }
        for owner, vector in zip(pictures, vectors_ND)
    ]
    table = pa.Table.from_pylist(rows, schema=schema.EMBEDDINGS.schema)
    append_rows(store, Output(schema.EMBEDDINGS), table, LINEAGE)
