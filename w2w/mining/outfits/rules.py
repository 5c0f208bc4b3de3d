"""Outfits from cut-outs: which photos show one, the split of each, and the modified outfits made of them.

Source of the idea: yunyounglee99/What2Wear @f233e49 (2 of the 3 slots of an outfit replaced by items of random outfits). There
an outfit's item may be replaced by itself; here neither by itself nor by a near-duplicate, and never across splits.
"""

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from w2w import ids, schema
from w2w.errors import RejectCode
from w2w.garments.masks import BOXES, RATIOS, SLOTS
from w2w.garments.taxonomy import BOTTOM, DRESS, TOP
from w2w.mining.splits.shares import split_of

CROP_SOURCES = (BOXES, RATIOS)
DRESSED = "dressed"  # bool: a dress fills the bottom, so that top and bottom belong together
ONE_BOX = "one_box"  # bool: and the top
SHARED = "shared"  # float32: the largest share of a slot's crop that is also in another slot's
_BATCH_ROWS = 100_000
_ROUNDS = 64  # draws per modified outfit; with half of the wardrobe unfit, all fail once in 10^19 (dresses: 10^9)

# columns read from table `cutouts`: everything of a slot but its picture
SLOTS_SCHEMA = pa.schema(
    [
        (schema.IMAGE_ID, pa.string()),
        (
            schema.SLOTS,
            pa.list_(pa.struct([(schema.SLOT, pa.string()), (schema.BOX, schema.XYXY), (schema.CROP_SOURCE, pa.string())])),
        ),
    ]
)


def slots_of(cutouts: pa.Table, crop_sources: Sequence[str]) -> pl.DataFrame:
    """From rows in SLOTS_SCHEMA: image_id, ``missing`` (slots that are absent, or not from ``crop_sources``; "" for none),
    ``dressed``, ``one_box`` and ``shared``. A dress counts as detected."""
    photos = pl.from_arrow(cutouts).select(schema.IMAGE_ID, schema.SLOTS)
    wanted = [*crop_sources, *([DRESS] if BOXES in crop_sources else [])]
    single = photos.explode(schema.SLOTS).unnest(schema.SLOTS).filter(pl.col(schema.CROP_SOURCE).is_in(wanted))
    found = photos.select(schema.IMAGE_ID)
    for slot in SLOTS:
        one = single.filter(pl.col(schema.SLOT) == slot).unique(schema.IMAGE_ID, keep="first", maintain_order=True)
        one = one.select(schema.IMAGE_ID, pl.col(schema.BOX).alias(slot), pl.col(schema.CROP_SOURCE).alias(f"{slot} by"))
        found = found.join(one, on=schema.IMAGE_ID, how="left", maintain_order="left")
    missing = [pl.when(pl.col(slot).is_null()).then(pl.lit(slot)) for slot in SLOTS]
    top, bottom = ((pl.col(f"{slot} by") == DRESS).fill_null(value=False) for slot in (TOP, BOTTOM))
    return found.select(
        schema.IMAGE_ID,
        pl.concat_str(missing, separator=", ", ignore_nulls=True).alias("missing"),
        bottom.alias(DRESSED),
        (top & bottom).alias(ONE_BOX),
        pl.max_horizontal(_shared(a, b) for a, b in itertools.combinations(SLOTS, 2)).fill_null(0.0).alias(SHARED),
    )


def _shared(a: str, b: str) -> pl.Expr:
    """For boxes in columns ``a`` and ``b``, xyxy: share of the smaller one that is in the other; null if one is missing."""
    one, other = ([pl.col(slot).list.get(i, null_on_oob=True) for i in range(4)] for slot in (a, b))
    both = [(pl.max_horizontal if i < 2 else pl.min_horizontal)(one[i], other[i]) for i in range(4)]

    def area(box: Sequence[pl.Expr]) -> pl.Expr:
        return (box[2] - box[0]).clip(lower_bound=0) * (box[3] - box[1]).clip(lower_bound=0)

    share = area(both) / pl.min_horizontal(area(one), area(other)).clip(lower_bound=1)
    return pl.when(pl.col(a).is_not_null() & pl.col(b).is_not_null()).then(share)


def sources_of(cutouts: pa.Table) -> set[str]:
    """The crop sources of these rows' slots."""
    return set(pl.from_arrow(cutouts).explode(schema.SLOTS).unnest(schema.SLOTS).get_column(schema.CROP_SOURCE).drop_nulls())


def with_splits(
    photos: pl.DataFrame, clusters: pl.DataFrame, owned: pl.DataFrame, val_share: float, test_share: float
) -> pl.DataFrame:
    """``photos`` (image_id, ...) with cluster_id, split, and ``splits``: the number of splits that its near-duplicates are in.

    ``clusters``: image_id, cluster_id; images without a row are their own cluster. ``owned``: image_id, split of each post and
    product that has one. A photo is in its near-duplicates' split; if none has an owner, a hash of the cluster decides.
    """
    clusters = clusters.select(schema.IMAGE_ID, schema.CLUSTER_ID)

    def clustered(images: pl.DataFrame) -> pl.DataFrame:
        joined = images.join(clusters, on=schema.IMAGE_ID, how="left", maintain_order="left")
        return joined.with_columns(pl.col(schema.CLUSTER_ID).fill_null(pl.col(schema.IMAGE_ID)))

    said = clustered(owned).group_by(schema.CLUSTER_ID)
    said = said.agg(pl.col(schema.SPLIT).min(), pl.col(schema.SPLIT).n_unique().alias("splits"))
    found = clustered(photos).join(said, on=schema.CLUSTER_ID, how="left", maintain_order="left")
    free = found.filter(pl.col(schema.SPLIT).is_null()).get_column(schema.CLUSTER_ID).unique()
    drawn = pl.DataFrame(
        {schema.CLUSTER_ID: free, "drawn": split_of(free.to_arrow().cast(pa.string()), val_share, test_share)},
        schema={schema.CLUSTER_ID: pl.String, "drawn": pl.String},
    )
    found = found.join(drawn, on=schema.CLUSTER_ID, how="left", maintain_order="left")
    return found.with_columns(
        pl.coalesce(schema.SPLIT, "drawn").alias(schema.SPLIT), pl.col("splits").fill_null(0).cast(pl.Int32)
    ).drop("drawn")


def judged(photos: pl.DataFrame) -> tuple[pl.DataFrame, list[tuple[str, str, str]]]:
    """The photos that are outfits, sorted by image_id, and (image_id, code, detail) of the others."""
    lacking, torn = pl.col("missing") != "", pl.col("splits") > 1
    rejected = [
        (image_id, RejectCode.MISSING_SLOT.value, f"no {missing}")
        for image_id, missing in photos.filter(lacking).select(schema.IMAGE_ID, "missing").iter_rows()
    ]
    rejected += [
        (image_id, RejectCode.CROSSES_SPLIT.value, f"its posts and near-duplicates are in {number} splits")
        for image_id, number in photos.filter(~lacking & torn).select(schema.IMAGE_ID, "splits").iter_rows()
    ]
    return photos.filter(~lacking & ~torn).sort(schema.IMAGE_ID), rejected


@dataclass(frozen=True)
class Modified:
    """Modified outfits: ``base`` (M,) is the worn outfit that was changed, ``items`` (M, 3) the outfits that its top, bottom
    and shoes come from (all are rows of the worn outfits), ``unmade`` the number that could not be made."""

    base: np.ndarray
    items: np.ndarray
    unmade: int


def modify(worn: pl.DataFrame, copies: int, seed: int) -> Modified:
    """``copies`` different modified outfits for each worn one (image_id sorted, cluster_id, split, dressed): exactly two slots
    come from other outfits of the same split and another cluster. A dress is replaced only by a dress, and as a whole, so that
    dresses do not reveal whether an outfit was worn; if the split has none for it, by top and bottom.

    Every draw is a hash of photo, seed and number, over the sorted outfits of the split: the same rows in, the same out.
    Memory: 100 bytes per worn outfit and 32 per modified one.
    """
    num = worn.height
    keys = ids.hash_keys(worn.get_column(schema.IMAGE_ID).to_arrow().cast(pa.string()))
    cluster = worn.get_column(schema.CLUSTER_ID).rank("dense").to_numpy().astype(np.int64)
    split = worn.get_column(schema.SPLIT).rank("dense").to_numpy().astype(np.int64)
    dressed = worn.get_column(DRESSED).to_numpy().astype(bool)
    pools = _Pool(split, np.ones(num, bool)), _Pool(split, ~dressed), _Pool(split, dressed)
    made = np.full((copies, num, 3), -1, np.int64)
    for copy in range(copies):
        left = np.arange(num)
        for attempt in range(_ROUNDS):
            draws = [_hash(keys[left], seed, copy, attempt, purpose) for purpose in range(4)]
            items = _drawn(left, split, dressed, pools, draws, whole=attempt < _ROUNDS // 2)
            strange = (items >= 0).all(axis=1)
            other = items != left[:, None]
            strange &= (~other | (cluster[items] != cluster[left][:, None])).all(axis=1) & (other.sum(axis=1) == 2)
            strange &= ~(made[:copy, left] == items[None]).all(axis=2).any(axis=0)
            made[copy, left[strange]] = items[strange]
            left = left[~strange]
            if not len(left):
                break
    at_copy, base = np.nonzero(made[:, :, 0] >= 0)
    return Modified(base, made[at_copy, base], copies * num - len(base))


class _Pool:
    """Rows that may be drawn, by split."""

    def __init__(self, split: np.ndarray, allowed: np.ndarray):
        self._rows = np.flatnonzero(allowed)
        self._rows = self._rows[np.argsort(split[self._rows], kind="stable")]
        bounds = np.arange(int(split.max(initial=0)) + 2)
        self._start = np.searchsorted(split[self._rows], bounds)

    def draw(self, split: np.ndarray, draws: np.ndarray) -> np.ndarray:
        """A row of each split, by a random 64-bit number; -1 if it has none."""
        start, size = self._start[split], self._start[split + 1] - self._start[split]
        if not len(self._rows):
            return np.full(len(split), -1, np.int64)
        at = start + (draws % np.maximum(size, 1).astype(np.uint64)).astype(np.int64)
        return np.where(size > 0, self._rows[np.minimum(at, len(self._rows) - 1)], -1)


def _drawn(left, split, dressed, pools: Sequence[_Pool], draws: Sequence[np.ndarray], *, whole: bool) -> np.ndarray:
    """(L, 3): the sources of top, bottom and shoes for the modified outfit of each row of ``left``; -1 if nothing fits.
    ``pools``: everything, tops and bottoms, dresses; ``whole``: a dress is replaced only by a dress."""
    which = np.where(dressed[left], 0, (draws[0] % np.uint64(3)).astype(np.int64))  # the slot that stays: shoes, bottom or top
    mine = split[left]
    everything, plain, dresses = pools
    top, bottom, shoes = plain.draw(mine, draws[1]), plain.draw(mine, draws[2]), everything.draw(mine, draws[3])
    if whole:
        dress = dresses.draw(mine, draws[1])
        top, bottom = (np.where(dressed[left], dress, items) for items in (top, bottom))
    return np.stack(
        [np.choose(which, [top, top, left]), np.choose(which, [bottom, left, bottom]), np.choose(which, [left, shoes, shoes])],
        axis=1,
    )


def _hash(keys: np.ndarray, *numbers: int) -> np.ndarray:
    """A pseudo-random uint64 for each key and the numbers (splitmix64; Steele, Lea, Flood 2014, figure 15)."""
    h = keys.copy()
    with np.errstate(over="ignore"):
        for number in numbers:
            h = h + np.uint64(0x9E3779B97F4A7C15) * np.uint64((number + 1) % 2**64)
            h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            h ^= h >> np.uint64(31)
    return h


def worn_rows(worn: pl.DataFrame, batch_rows: int = _BATCH_ROWS) -> Iterator[pa.Table]:
    """Rows of table ``outfits``: the worn outfits, in order."""
    base = np.arange(worn.height)
    yield from _batches(worn, base, np.repeat(base[:, None], 3, axis=1), batch_rows, is_worn=True)


def modified_rows(worn: pl.DataFrame, modified: Modified, batch_rows: int = _BATCH_ROWS) -> Iterator[pa.Table]:
    """Rows of table ``outfits``: the modified outfits."""
    yield from _batches(worn, modified.base, modified.items, batch_rows, is_worn=False)


def _batches(worn: pl.DataFrame, base: np.ndarray, items: np.ndarray, batch_rows: int, *, is_worn: bool) -> Iterator[pa.Table]:
    images = worn.get_column(schema.IMAGE_ID).to_arrow().cast(pa.string())
    splits = worn.get_column(schema.SPLIT).to_arrow().cast(pa.string())
    # for each outfit, which slots a dress fills
    dress_N3 = np.stack(
        [*(worn.get_column(c).to_numpy().astype(bool) for c in (ONE_BOX, DRESSED)), np.zeros(worn.height, bool)], 1
    )
    for start in range(0, len(base), batch_rows):
        chosen = slice(start, start + batch_rows)
        yield _rows(images, splits, dress_N3, base[chosen], items[chosen], is_worn=is_worn)


def _rows(
    images: pa.Array, splits: pa.Array, dress_N3: np.ndarray, base: np.ndarray, items: np.ndarray, *, is_worn: bool
) -> pa.Table:
    worn_ids = _outfit_ids(images, np.repeat(base[:, None], 3, axis=1), [""] * len(base))
    outfit_ids = worn_ids if is_worn else _outfit_ids(images, items, worn_ids)
    flat = images.take(pa.array(items.ravel()))
    slots = pa.array(np.tile(SLOTS, len(base)), pa.string())
    is_dress = dress_N3[items, np.arange(3)]
    struct = pa.StructArray.from_arrays(
        [
            slots,
            pc.binary_join_element_wise(flat, slots, ":"),
            flat,
            pa.array(np.where(is_dress, DRESS, np.array(SLOTS)).ravel().astype(str), pa.string()),
        ],
        fields=list(schema.OUTFIT_ITEM),
    )
    swapped = items != base[:, None]
    columns = {
        schema.OUTFIT_ID: pa.array(outfit_ids, pa.string()),
        schema.ITEMS: _lists(struct, np.full(len(base), 3)),
        schema.MODIFIED_OF: pa.array([None] * len(base) if is_worn else worn_ids, pa.string()),
        schema.REPLACED: _lists(slots.filter(pa.array(swapped.ravel())), swapped.sum(axis=1)),
        schema.SPLIT: splits.take(pa.array(base)),
        schema.SOURCE: pa.repeat(pa.scalar(schema.OWN), len(base)),
    }
    return pa.table([columns[f.name] for f in schema.OUTFITS.schema], schema=schema.OUTFITS.schema)


def _lists(values: pa.Array, lengths: np.ndarray) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)), values)


def _outfit_ids(images: pa.Array, items: np.ndarray, modified_of: Sequence[str]) -> list[str]:
    """32 hex digits over the outfit's origin and its items."""
    columns = [images.take(pa.array(items[:, i])) for i in range(items.shape[1])]
    text = pc.binary_join_element_wise(pa.array(modified_of, pa.string()), *columns, "|")
    return [hashlib.sha256(t.encode()).hexdigest()[:32] for t in text.to_pylist()]
