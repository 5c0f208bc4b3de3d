"""The sample that a bridge is fitted to, with vectors of both models: those of the new one are computed, and stay."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import ids, schema
from w2w.engine.job import Run
from w2w.engine.run import run_stages
from w2w.engine.shuffle import list_vectors, read_vectors
from w2w.engine.source import Source, pending_rows
from w2w.errors import UsageError
from w2w.images.decode import DecodeLimits
from w2w.models.config import EncoderConfig
from w2w.models.encoder import try_encoder
from w2w.models.flow import PICTURES, picture_stages
from w2w.stage import Counts, Pool
from w2w.table.pending import Keys, rejected_keys, table_keys
from w2w.table.permitted import TRAINING, permitted
from w2w.table.pictures import active_pictures

_IMAGES = PICTURES["images"]


@dataclass(frozen=True)
class Sample:
    """Pictures of active products that have a vector of the old model: product_id and image_id, each picture once."""

    rows: pa.Table

    @property
    def digest(self) -> str:
        return ids.digest_rows(self.rows.column(schema.IMAGE_ID).to_pylist())[:16]


def sample_of(store: str, old: str, old_name: str, size: int, seed: int) -> Sample:
    """At least ``size`` pictures, all of the products with the lowest hashes; all pictures of a smaller catalog. Raises
    UsageError where no picture has a vector of model version ``old``."""
    rows = permitted(store, TRAINING).of(active_pictures(store, [schema.PRODUCT_ID, schema.IMAGE_ID]))
    rows = rows.filter(pa.array(list_vectors(store, old).find(pc.fill_null(rows.column(schema.IMAGE_ID), "")) >= 0))
    if not rows.num_rows:
        raise UsageError(
            f"no picture of an active product that training may use has a vector of model version {old} ({old_name}): "
            f"--old names the model whose vectors are in the store"
        )
    hashes_N = ids.hash_keys(rows.column(schema.PRODUCT_ID)) ^ np.uint64(seed)
    rows = rows.take(pa.array(np.lexsort((ids.hash_keys(rows.column(schema.IMAGE_ID)), hashes_N))))
    _, first = np.unique(ids.hash_keys(rows.column(schema.IMAGE_ID)), return_index=True)
    rows = rows.take(pa.array(np.sort(first)))
    products = rows.column(schema.PRODUCT_ID)
    if rows.num_rows > size:
        rows = rows.filter(pc.is_in(products, value_set=pc.unique(products[:size])))
    return Sample(rows.combine_chunks())


def without_new(store: str, sample: Sample, new: str, item_rows: int) -> Source:
    """The pictures of the sample that have no vector of model version ``new``."""
    done = [
        table_keys(store, schema.EMBEDDINGS, schema.OWNER_ID, model_version=new),
        rejected_keys(store, _IMAGES.stage, new),
    ]
    images, columns = sample.rows.column(schema.IMAGE_ID), [schema.IMAGE_ID, schema.BYTES, _IMAGES.source]
    among = Keys([images], len(images))
    return pending_rows(store, schema.IMAGES, columns, [replaced(k) for k in done], _IMAGES.source, item_rows, among)


def replaced(keys: Keys) -> Keys:
    """The keys in memory, to be read more than once."""
    return Keys([keys.read()], keys.count, keys.rejected)


def embed(run: Run, work: Source, new: str, encoder: EncoderConfig, limits: DecodeLimits, pool: Pool) -> Counts:
    """Computes the vectors as `w2w embed` does: what is done here is not done again."""
    if not work.num_rows:
        return Counts()
    try_encoder(encoder)
    counts, _ = run_stages(
        run.store,
        work,
        picture_stages(_IMAGES, encoder, limits),
        [_IMAGES.output],
        run.lineage(new, [schema.IMAGES], _IMAGES.stage),
        pool=pool,
        tolerance=run.config.tolerance,
        commit_every_s=run.config.commit_every_s,
    )
    return counts


def both_vectors(store: str, sample: Sample, new: str, old: str) -> tuple[pa.ChunkedArray, np.ndarray, np.ndarray]:
    """The products of the pictures that have both vectors, and these: new (N, D_new), old (N, D_old), float32."""
    images = sample.rows.column(schema.IMAGE_ID)
    listed: list[Any] = [list_vectors(store, version) for version in (new, old)]
    found = [vectors.find(images) for vectors in listed]
    both = (found[0] >= 0) & (found[1] >= 0)
    if not both.any():
        raise UsageError("no picture of the sample has vectors of both models")
    new_ND, old_ND = (read_vectors(vectors, rows[both]) for vectors, rows in zip(listed, found, strict=True))
    finite = np.isfinite(new_ND).all(1) & np.isfinite(old_ND).all(1)
    products = sample.rows.column(schema.PRODUCT_ID).filter(pa.array(both)).filter(pa.array(finite))
    return products, new_ND[finite], old_ND[finite]
