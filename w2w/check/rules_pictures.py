"""Faults of pictures: shared and placeholder ones, flat, tiny, blurred, worn in all. Arrow and NumPy in, findings out."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import schema
from w2w.check.kinds import FOUND, found, of_rows
from w2w.mining.components import components

GROUP = "group"  # a column of products: equal for variants of one
LEAST_PX = 250  # "Apparel: at least 250 x 250 pixels": Google's product data specification, image_link
_LEAST_SHARPNESS = 40.0  # of 750 real pictures none has less (63 at least); blurred by 1.5 px at 256 px, 95 % have
_LEAST_EDGES = 0.03  # sharpness over contrast: a sharp picture of a white shirt on white has little of either
_LEAST_FILLED = 0.003
_PLAIN_BITS = 8  # of a perceptual hash: fewer occur in single-colour pictures, which are all alike
_SAME_CELL = 16  # of 255, in the cell that differs most: one design in two colours has one perceptual hash
# products with one front picture, and their categories, of a placeholder; fewer where the picture is plain: a mark on a ground
_MANY, _SEVERAL, _CATEGORIES = 10, 5, 3
_SEVERAL_PLAIN, _PLAIN = 3, 0.05
HOUSE_STYLE = 0.5  # of the products are shown only worn: then that is how this shop shows them
_SHOWN_OF_EACH = 4


def same_pictures(pictures: pa.Table) -> np.ndarray:
    """int64 (N,): the first of the pictures that are the same or nearly. ``pictures``: distinct, with cluster_id (null where
    `w2w deduplicate` has not seen it), phash, and grid (null where not measured, or no other picture has that phash)."""
    num = pictures.num_rows
    edges = [_chained(pictures.column(schema.CLUSTER_ID))]
    measured = pictures.column(schema.GRID).is_valid()
    hashes = pc.if_else(measured, pictures.column(schema.PHASH), pa.scalar(None, pa.int64()))
    values = pc.fill_null(hashes, 0).to_numpy(zero_copy_only=False)
    order = np.argsort(values, kind="stable")
    for some in np.split(order, np.flatnonzero(np.diff(values[order])) + 1):
        if len(some) > 1 and abs(int(values[some[0]])).bit_count() >= _PLAIN_BITS:
            grids = b"".join(pictures.column(schema.GRID).take(pa.array(some)).to_pylist())
            edges.append(_of_one_look(some, np.frombuffer(grids, np.uint8).reshape(len(some), -1).astype(np.int16)))
    a_E2 = np.concatenate(edges)
    return components(num, a_E2[:, 0], a_E2[:, 1])


def _chained(keys: pa.ChunkedArray) -> np.ndarray:
    """Edges (E, 2) that connect the places of equal keys."""
    codes = pc.fill_null(keys.combine_chunks().dictionary_encode().indices, -1).to_numpy(zero_copy_only=False)
    order = np.argsort(codes, kind="stable")
    same = (np.diff(codes[order]) == 0) & (codes[order][1:] >= 0)
    return np.stack([order[:-1][same], order[1:][same]], axis=1).astype(np.int64)


def _of_one_look(some: np.ndarray, grids_NG: np.ndarray) -> np.ndarray:
    edges, left = [np.empty((0, 2), np.int64)], np.arange(len(some))
    while len(left):
        near = np.abs(grids_NG[left] - grids_NG[left[0]]).max(axis=1) <= _SAME_CELL
        edges.append(np.stack([np.full(near.sum(), some[left[0]]), some[left[near]]], axis=1))
        left = left[~near]
    return np.concatenate(edges)


def shared_pictures(goods: pa.Table, cluster_N: np.ndarray, flat_N: np.ndarray, plain_N: np.ndarray) -> pa.Table:
    """Placeholders, and other front pictures on several products. ``cluster_N``: equal where front pictures are, -1 without
    one; ``flat_N``: front pictures of one colour, ``plain_N``: with little on one; GROUP of goods: equal for variants of one
    product."""
    flat = goods.filter(pa.array(flat_N))
    told = [of_rows("placeholder", flat, ["Its front picture is one flat colour."] * flat.num_rows)]
    groups, categories = (goods.column(c).to_pylist() for c in (GROUP, schema.CATEGORY))
    images = goods.column(schema.IMAGE_ID).to_pylist()
    rows = np.flatnonzero((cluster_N >= 0) & ~flat_N)
    order = rows[np.argsort(cluster_N[rows], kind="stable")]
    picked: dict[str, list[tuple[int, str, str]]] = {"placeholder": [], "shared_picture": []}
    for some in np.split(order, np.flatnonzero(np.diff(cluster_N[order])) + 1):
        num = len({groups[n] for n in some}) if len(some) > 1 else 0
        if num < 2:
            continue
        kinds = sorted({categories[n] for n in some})
        among = f" of {len(kinds)} categories" if len(kinds) > 1 else ""
        many = num >= _MANY or (num >= _SEVERAL and len(kinds) >= _CATEGORIES)
        many |= num >= _SEVERAL_PLAIN and len(kinds) > 1 and bool(plain_N[some].all())
        detail = f"Its front picture, or nearly the same, is that of {num:,} products{among}."
        picked["placeholder" if many else "shared_picture"] += [(int(n), detail, images[some[0]]) for n in some]
    for kind, entries in picked.items():
        at, details, about = zip(*entries) if entries else ((), (), ())
        told.append(of_rows(kind, goods.take(pa.array(at, pa.int64())), list(details), list(about)))
    return pa.concat_tables(told)


def is_flat(quality: pa.Table) -> np.ndarray:
    """bool (N,): pictures without content. Null where not measured counts as content."""
    return (_floats(quality, schema.FILLED) < _LEAST_FILLED) | (_floats(quality, schema.CONTRAST) < 1)


def is_plain(quality: pa.Table) -> np.ndarray:
    """bool (N,): pictures with little but ground. Null where not measured counts as content."""
    return _floats(quality, schema.FILLED) < _PLAIN


def unclear(pictures: pa.Table, least_px: int) -> pa.Table:
    """Tiny and blurred pictures. ``pictures``: product_id, image_id, width, height and the columns of `quality`, the front of a
    product first, its others after it; null where not known."""
    side_N = np.fmin(_floats(pictures, schema.WIDTH), _floats(pictures, schema.HEIGHT))
    sharp_N, contrast_N = (_floats(pictures, c) for c in (schema.SHARPNESS, schema.CONTRAST))
    soft = (sharp_N < _LEAST_SHARPNESS) & (sharp_N < _LEAST_EDGES * contrast_N) & ~is_flat(pictures)
    small = side_N < least_px

    def shape(n: int) -> str:
        return f"{pictures.column(schema.WIDTH)[n]} x {pictures.column(schema.HEIGHT)[n]} pixels, {least_px} a side are needed"

    told = [_of_pictures("tiny", pictures, small, shape)]
    told.append(
        _of_pictures(
            "blurred",
            pictures,
            soft & ~small,
            lambda n: f"sharpness {sharp_N[n]:.0f}, {_LEAST_SHARPNESS:.0f} is the least of sharp ones",
        )
    )
    return pa.concat_tables(told)


def _of_pictures(kind: str, pictures: pa.Table, bad_N: np.ndarray, say: Callable[[int], str]) -> pa.Table:
    products = pictures.column(schema.PRODUCT_ID).to_pylist()
    images = pictures.column(schema.IMAGE_ID)
    rows: dict[str, list[int]] = {}
    for n in np.flatnonzero(bad_N).tolist():
        rows.setdefault(products[n], []).append(n)
    details = []
    for product, some in rows.items():
        front = some[0] == 0 or products[some[0] - 1] != product
        more = f", and {len(some) - 1} more" if len(some) > 1 else ""
        details.append(f"{'Its front picture' if front else 'One of its further pictures'}{more}: {say(some[0])}.")
    shown = [images.take(pa.array(some[:_SHOWN_OF_EACH])).to_pylist() for some in rows.values()]
    return found(kind, list(rows), details, shown)


def only_worn(pictures: pa.Table, looked: pa.ChunkedArray, worn: pa.Array) -> tuple[pa.Table, float]:
    """Products that somebody wears in all of their pictures, which a detector has all looked at; and the share of such among
    those that it has: above half, nothing is found, as it is how the shop shows them."""
    known, people = (
        pc.is_in(pictures.column(schema.IMAGE_ID), value_set=v).to_numpy(zero_copy_only=False) for v in (looked, worn)
    )
    products = pictures.column(schema.PRODUCT_ID)
    codes = products.combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    num = int(codes.max(initial=-1)) + 1
    seen = np.bincount(codes, ~known, num) == 0
    alone = np.bincount(codes, known & ~people, num) > 0
    share = float((seen & ~alone).sum() / max(1, seen.sum()))
    if share > HOUSE_STYLE:
        return FOUND.empty_table(), share
    first = np.unique(codes, return_index=True)[1]
    rows = pictures.take(pa.array(first[seen & ~alone]))
    return of_rows("only_worn", rows, ["To the detector, somebody wears it in each of its pictures."] * rows.num_rows), share


def _floats(rows: pa.Table, name: str) -> np.ndarray:
    """float64 (N,), NaN for null, which compares as false."""
    return pc.cast(rows.column(name), pa.float64()).to_numpy(zero_copy_only=False)
