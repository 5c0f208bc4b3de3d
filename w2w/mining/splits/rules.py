"""Splits without leaks: connected components go to one split as a whole.

Hard links are never cut: rows of one product, and products and posts that show one picture or near-duplicates of it. A tag (a
post names a product) connects too, but in a real shop a few popular products connect nearly everything, and one component would
fill one split. So a component above a share of all owners is broken into the parts held together by hard links, and these are
distributed so that few tags cross splits (``cutting``): mining rejects those (`crosses_split`). The shares refer to the tags
kept. Val and test products stay unseen in training.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import ids, schema
from w2w.errors import UsageError
from w2w.memory import give_back_memory, on_disk
from w2w.mining.components import components, sizes
from w2w.mining.splits.cutting import cut_edges
from w2w.mining.tags import PRODUCT_KEY

SPLIT_CODE = 3  # bump when the same rows would be split differently
SPLITS = ("train", "val", "test")
PRODUCT, POST = "product", "post"
_TAGS_AT_ONCE = 250_000  # 100 bytes each


@dataclass(frozen=True)
class SplitRules:
    """How rows are dealt to splits."""

    train: float = 0.8
    """Share of the tags, which become pairs; of components that are dealt whole, by hash."""
    val: float = 0.1
    """As ``train``."""
    test: float = 0.1
    """As ``train``."""
    salt: str = ""
    """Changes the assignment: another word, another split."""
    max_component: float = 0.05
    """Largest share of all products and posts in one connected component; a larger one is cut at tags. 1: never."""


@dataclass(frozen=True)
class Dealt:
    """Rows of table `splits`, in batches, and what was cut."""

    rows: Iterator[pa.Table]
    counts: np.ndarray  # (2, 3): products and posts, by split
    num_components: int
    num_cut: int  # components over the limit
    largest: int  # owners of the largest component before cutting
    largest_whole: int  # and after it
    num_tags: int  # of posts to existing products
    kept: np.ndarray  # (3,): tags to a product in the post's own split

    @property
    def num_lost(self) -> int:
        return self.num_tags - int(self.kept.sum())


def check_rules(rules: SplitRules) -> None:
    """Raises UsageError for invalid shares."""
    shares = (rules.train, rules.val, rules.test)
    if min(shares) < 0 or abs(sum(shares) - 1) > 1e-9:
        raise UsageError(
            f"--split.train={rules.train}, val={rules.val}, test={rules.test}: shares of at least 0 that add up to 1"
        )
    if not 0 < rules.max_component <= 1:
        raise UsageError(f"--split.max_component={rules.max_component}: a share above 0, at most 1")


Batches = Callable[[], Iterable[pa.Table]]  # reads again at every call, the same rows in the same order


def deal(products: Batches, posts: Batches, duplicates: Iterable[pa.Table], rules: SplitRules) -> Dealt:
    """Splits active products (product_key, product_id, image_id) and posts (post_id, image_id, product_ids), each once, given
    duplicates (image_id, cluster_id), all in batches. One row per product key and post; an image without a cluster is its own.

    Owners are ordered by kind and hash, and identified by 128 bits of it; only ids that name a component are kept. Pictures are
    compared by 64 bits: a collision would keep two together, never apart. Memory: about 40 bytes per product or post, 60 while
    a component is cut; on disk as much again, and 16 per tag.
    """
    owners, images, tags = _read(products, posts)
    give_back_memory()  # each step has large arrays of its own, whose freed memory would add up
    part = on_disk(components(len(owners), *_showing_one(images, owners, duplicates)))
    give_back_memory()
    whole = part
    for tagging, tagged in tags.slices(owners):
        whole = components(len(owners), tagging, tagged, whole)
    whole = on_disk(whole)
    cut = sizes(whole) > max(1.0, rules.max_component * len(owners))
    root = on_disk(np.where(cut, part, whole))
    split = _by_hash(owners, root, rules)
    _deal_parts(split, cut, part, tags, owners, rules)
    size, is_root = sizes(root), whole == np.arange(len(owners))
    return Dealt(
        _rows(products, posts, owners, root, size, whole, cut, split),
        counts=np.bincount(split + len(SPLITS) * owners.is_post(), minlength=2 * len(SPLITS)).reshape(2, -1),
        num_components=int(is_root.sum()),
        num_cut=int((is_root & cut).sum()),
        largest=int(sizes(whole).max(initial=0)),
        largest_whole=int(size.max(initial=0)),
        num_tags=len(tags.packed_T),
        kept=_kept(split, tags, owners),
    )


@dataclass(frozen=True)
class _Owners:
    """Products, then posts, each in order of their hash."""

    hash_O: np.ndarray  # uint64
    num_products: int
    number_N: np.ndarray  # int64: the owner of each row of products, then of posts
    is_first_N: np.ndarray  # whether the row is the first of its owner
    num_rows: int  # of products

    def __len__(self) -> int:
        return len(self.hash_O)

    def is_post(self) -> np.ndarray:
        return np.arange(len(self)) >= self.num_products


@dataclass(frozen=True)
class _Tags:
    """Which post names which product, without repeats: the post's row x the number of products + the product's number."""

    packed_T: np.ndarray

    def slices(self, owners: _Owners) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(post, product) as owners, in batches of tags."""
        for i in range(0, len(self.packed_T), _TAGS_AT_ONCE):
            row, product = np.divmod(self.packed_T[i : i + _TAGS_AT_ONCE], owners.num_products)
            yield owners.number_N[owners.num_rows + row], product


def _read(products: Batches, posts: Batches) -> tuple[_Owners, np.ndarray, _Tags]:
    """Owners, the hash of each row's image (0: none), and tags of existing products."""
    product_hash_O, product_N, first_product_N, images, places = _read_products(products)
    keys, tags, num_posts = [], [np.empty(0, np.int64)], 0
    for rows in posts():
        keys.append(ids.hash_keys_128(rows.column(schema.POST_ID)))
        images.append(_image_hashes(rows))
        lists = rows.column(schema.PRODUCT_IDS).combine_chunks()
        at = places.find(ids.hash_keys_128(pc.list_flatten(lists)))
        post = num_posts + pc.list_parent_indices(lists).to_numpy()
        tags.append(np.unique(post[at >= 0] * len(product_hash_O) + product_N[at[at >= 0]]))
        num_posts += rows.num_rows
    del places
    post_hash_O, post_N, first_post_N = _numbered(keys)
    owners = _Owners(
        on_disk(np.concatenate([product_hash_O, post_hash_O])),
        len(product_hash_O),
        on_disk(np.concatenate([product_N, post_N + len(product_hash_O)])),
        np.concatenate([first_product_N, first_post_N]),
        len(product_N),
    )
    return owners, on_disk(np.concatenate([np.empty(0, np.uint64), *images])), _Tags(on_disk(np.concatenate(tags)))


def _read_products(products: Batches) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[np.ndarray], ids.Places]:
    """``_numbered`` for their keys, the hashes of their images, and the position of each product_id."""
    keys, names, images = [], [], []
    for rows in products():
        keys.append(ids.hash_keys_128(rows.column(PRODUCT_KEY)))
        names.append(ids.hash_keys_128(rows.column(schema.PRODUCT_ID)))
        images.append(_image_hashes(rows))
    return *_numbered(keys), images, ids.Places(_joined(names))


def _joined(hashes: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.empty((0, 2), np.uint64), *hashes])


def _numbered(keys: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First half of the hash of every key, in order; the number of each row's key; and whether the row is the key's first."""
    places = ids.Places(_joined(keys))
    new = np.ones(len(places), bool)
    new[1:] = (places.hashes_2N[:, 1:] != places.hashes_2N[:, :-1]).any(0)
    number_N, is_first_N = np.empty(len(places), np.int64), np.zeros(len(places), bool)
    number_N[places.order] = np.cumsum(new) - 1
    is_first_N[places.order[new]] = True
    return places.hashes_2N[0, new], number_N, is_first_N


def _image_hashes(rows: pa.Table) -> np.ndarray:
    images = rows.column(schema.IMAGE_ID)
    return np.where(images.is_valid().to_numpy(), ids.hash_keys(pc.fill_null(images, "")), np.uint64(0))


def _showing_one(images_N: np.ndarray, owners: _Owners, duplicates: Iterable[pa.Table]) -> tuple[np.ndarray, np.ndarray]:
    """Edges between owners that show one picture or near-duplicates of it."""
    order = np.argsort(images_N)
    order = order[np.searchsorted(images_N, 1, sorter=order) :]  # those with an image
    shown = images_N[order]
    moved = [(np.empty(0, np.int64), np.empty(0, np.uint64))]  # images that are renamed to another one
    for known in duplicates:
        image, cluster = (ids.hash_keys(known.column(c)) for c in (schema.IMAGE_ID, schema.CLUSTER_ID))
        image, cluster = image[image != cluster], cluster[image != cluster]
        first, last = (np.searchsorted(shown, image, side) for side in ("left", "right"))
        each = last - first
        place = np.repeat(first - np.cumsum(each) + each, each) + np.arange(each.sum())
        moved.append((place, np.repeat(cluster, each)))
    place, cluster = (np.concatenate(part) for part in zip(*moved))
    shown[place] = cluster
    by_picture = np.argsort(shown)
    same = shown[by_picture[1:]] == shown[by_picture[:-1]]
    owner = owners.number_N[order]
    return owner[by_picture[1:][same]], owner[by_picture[:-1][same]]


def _by_hash(owners: _Owners, root: np.ndarray, rules: SplitRules) -> np.ndarray:
    """Index into SPLITS of every owner, by the hash of its root, int8."""
    salt = ids.hash_keys(pa.array([f"{kind}\x1f{rules.salt}" for kind in (PRODUCT, POST)]))
    drawn = ids.scatter(owners.hash_O ^ salt[owners.is_post().astype(np.int8)])[root] / 2.0**64
    return np.searchsorted(np.cumsum([rules.train, rules.val]), drawn, side="right").astype(np.int8)


def _deal_parts(split: np.ndarray, cut: np.ndarray, part: np.ndarray, tags: _Tags, owners: _Owners, rules: SplitRules) -> None:
    """Distributes the parts of cut components: each split gets what it lacks of its share of all tags. Changes ``split``."""
    if not cut.any():
        return
    has_product = np.zeros(len(owners), bool)
    has_product[part[: owners.num_products]] = True
    packed = [np.empty((0, 2), np.int32)]
    for tagging, tagged in tags.slices(owners):
        ends = np.stack([part[tagging], part[tagged]], axis=1)
        packed.append(ends[cut[tagging] & (ends[:, 0] != ends[:, 1])].astype(np.int32))
    ends_E2 = on_disk(np.concatenate(packed))

    def edges() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for i in range(0, len(ends_E2), _TAGS_AT_ONCE):
            yield tuple(ends_E2[i : i + _TAGS_AT_ONCE].T)

    held = sum((np.bincount(split[a[~cut[a]]], minlength=len(SPLITS)) for a, _ in tags.slices(owners)), np.zeros(len(SPLITS)))
    lacking = np.maximum(0, np.array([rules.train, rules.val, rules.test]) * len(tags.packed_T) - held)
    if len(ends_E2):
        cut_edges(split, owners.hash_O, ~has_product, edges, lacking)
    split[:] = split[part]


def _kept(split: np.ndarray, tags: _Tags, owners: _Owners) -> np.ndarray:
    kept = np.zeros(len(SPLITS), np.int64)
    for a, b in tags.slices(owners):
        kept += np.bincount(split[a][split[a] == split[b]], minlength=len(SPLITS))
    return kept


def _rows(
    products: Batches,
    posts: Batches,
    owners: _Owners,
    root: np.ndarray,
    size: np.ndarray,
    whole: np.ndarray,
    cut: np.ndarray,
    split: np.ndarray,
) -> Iterator[pa.Table]:
    """Rows of table `splits`. A component is named after its first owner: kind and id."""
    named = np.zeros(len(owners), bool)
    named[root[size > 1]] = True
    named[whole[cut]] = True
    found, numbers = [pa.array([], pa.string())], [np.empty(0, np.int64)]
    for kind, keys, number in _first_rows(products, posts, owners):
        mine = named[number]
        found += _called(kind, keys.filter(pa.array(mine))).chunks
        numbers.append(number[mine])
    names, numbers = pa.concat_arrays(found), np.concatenate(numbers)
    order = np.argsort(numbers)
    names, numbers = names.take(pa.array(order)), numbers[order]
    for kind, keys, number in _first_rows(products, posts, owners):
        of, own = pa.array(np.searchsorted(numbers, root[number]), mask=size[number] == 1), _called(kind, keys)
        from_whole = pa.array(np.searchsorted(numbers, whole[number]), mask=~cut[number])
        columns = [
            keys,
            pa.repeat(kind, len(keys)),
            pc.coalesce(names.take(of), own),
            pa.array(size[number], pa.int32()),
            names.take(from_whole),
            pa.array(SPLITS).take(pa.array(split[number])),
        ]
        yield pa.table(columns, schema=schema.SPLITS.schema)


def _first_rows(products: Batches, posts: Batches, owners: _Owners) -> Iterator[tuple[str, pa.ChunkedArray, np.ndarray]]:
    """Kind, keys and numbers of the owners, without repeats, in batches."""
    start = 0
    for kind, read, column in ((PRODUCT, products, PRODUCT_KEY), (POST, posts, schema.POST_ID)):
        for rows in read():
            stop = start + rows.num_rows
            first = owners.is_first_N[start:stop]
            yield kind, rows.column(column).filter(pa.array(first)), owners.number_N[start:stop][first]
            start = stop


def _called(kind: str, keys: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.binary_join_element_wise(pa.scalar(kind), keys, ":")


def summary_of(dealt: Dealt) -> dict[str, Any]:
    """Fields of the job's result."""
    told = {
        "components": dealt.num_components,
        "largest": dealt.largest,
        "cut_at_tags": dealt.num_cut,
        "largest_dealt_as_one": dealt.largest_whole,
        "tags": dealt.num_tags,
        "tags_lost": dealt.num_lost,
    }
    counted = zip(SPLITS, *dealt.counts.tolist(), dealt.kept.tolist())
    return told | {split: {"products": n, "posts": m, "tags": k} for split, n, m, k in counted}
