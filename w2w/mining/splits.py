"""Splits without leaks: what is connected goes to one split, whole.

Hard links are never cut: rows of one product, and products and posts that show one picture or near-duplicates of it. A tag
(a post names a product) connects too, but in a real shop a few popular products connect nearly everything, and one component
would fill one split. So a component over a share of all owners falls apart into what its hard links hold together: parts with
a product are dealt to splits by hash, parts of posts alone follow the products that they tag, and the tags that then lead
from one split to another are left for mining to reject (`crosses_split`). Val and test products stay unseen in training.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import ids, schema
from w2w.errors import UsageError
from w2w.mining.components import components

SPLIT_CODE = 1  # raise it when the same rows would be split differently
SPLITS = ("train", "val", "test")
PRODUCT, POST = "product", "post"


@dataclass(frozen=True)
class SplitRules:
    """How rows are dealt to splits."""

    train: float = 0.8
    """Share of the components."""
    val: float = 0.1
    """Share of the components."""
    test: float = 0.1
    """Share of the components."""
    salt: str = ""
    """Any other word deals the components anew."""
    max_component: float = 0.05
    """Largest share of all products and posts that may go to one split as one; a larger component is cut at tags. 1: never."""
    posts: Literal["share", "most"] = "share"
    """Where a post of a cut component goes. share: with one of its products, drawn by hash, so that every split gets its share
    of posts; most: to the split with most of its products, which keeps more tags, nearly all of them in train."""


@dataclass(frozen=True)
class Dealt:
    """Rows of table `splits`, and what was cut."""

    rows: pa.Table
    num_components: int
    num_cut: int  # components over the limit
    largest: int  # owners of the largest component before cutting
    largest_whole: int  # and of what was dealt as one
    num_tags: int  # of posts to products that are there
    num_lost: int  # of them, how many lead to another split


def check_rules(rules: SplitRules) -> None:
    """Raises UsageError for shares that are none."""
    shares = (rules.train, rules.val, rules.test)
    if min(shares) < 0 or abs(sum(shares) - 1) > 1e-9:
        raise UsageError(
            f"--split.train={rules.train}, val={rules.val}, test={rules.test}: shares of at least 0 that add up to 1"
        )
    if not 0 < rules.max_component <= 1:
        raise UsageError(f"--split.max_component={rules.max_component}: a share above 0, at most 1")


def deal(
    products: pa.Table, keys: pa.ChunkedArray, posts: pa.Table, duplicates: Iterable[pa.Table], rules: SplitRules
) -> Dealt:
    """Splits of active products (product_id, image_id) with their product ``keys``, posts (post_id, image_id, product_ids) and
    duplicates (image_id, cluster_id), a batch at a time. One row a product key and one a post; an image without cluster is one
    of its own.

    Held in memory: about 400 bytes a product or post, 24 a tag and 16 a row of duplicates.
    """
    owners, kinds, product_N, post_N = _owners(keys, posts.column(schema.POST_ID))
    num_products, num_owners = len(owners) - posts.num_rows, len(owners)
    images = pa.chunked_array([*products.column(schema.IMAGE_ID).chunks, *posts.column(schema.IMAGE_ID).chunks], pa.string())
    cluster = _clusters(images, duplicates)
    shown = cluster >= 0
    hard = np.concatenate([product_N, post_N])[shown], cluster[shown] + num_owners
    num_nodes = num_owners + int(cluster.max(initial=-1)) + 1
    tagging, tagged = _tags(posts.column(schema.PRODUCT_IDS), products.column(schema.PRODUCT_ID), product_N, post_N)
    part = components(num_nodes, *hard)[:num_owners]
    whole = components(num_nodes, np.concatenate([hard[0], tagging]), np.concatenate([hard[1], tagged]))[:num_owners]
    part_size, whole_size = (np.bincount(root, minlength=num_nodes)[root] for root in (part, whole))
    cut = whole_size > max(1.0, rules.max_component * num_owners)
    root = np.where(cut, part, whole)
    names = _names(owners, kinds, root)
    split = _by_hash(names, rules)
    has_product = np.zeros(num_nodes, bool)
    has_product[part[:num_products]] = True
    follows = cut & ~has_product[part]
    _follow(split, follows, part, tagging, tagged, owners, rules)
    rows = pa.table(
        [
            owners,
            kinds,
            names,
            pa.array(np.where(cut, part_size, whole_size), pa.int32()),
            pc.if_else(pa.array(cut), _names(owners, kinds, whole), pa.scalar(None, pa.string())),
            pa.array(SPLITS).take(pa.array(split)),
        ],
        schema=schema.SPLITS.schema,
    )
    is_root = whole == np.arange(num_owners)
    return Dealt(
        rows,
        num_components=int(is_root.sum()),
        num_cut=int((is_root & cut).sum()),
        largest=int(whole_size.max(initial=0)),
        largest_whole=int(np.where(cut, part_size, whole_size).max(initial=0)),
        num_tags=len(tagging),
        num_lost=int((split[tagging] != split[tagged]).sum()),
    )


def _owners(keys: pa.ChunkedArray, post_ids: pa.ChunkedArray) -> tuple[pa.Array, pa.Array, np.ndarray, np.ndarray]:
    """Ids and kinds of the owners, products before posts, each sorted; and which owner every product row and post is."""
    found = []
    for column in (keys, post_ids):
        unique = pc.unique(column)
        unique = unique.take(pc.sort_indices(unique))
        found.append((unique, pc.index_in(column, value_set=unique).to_numpy().astype(np.int64)))
    (products, product_N), (posts, post_N) = found
    kinds = pa.concat_arrays([pa.repeat(PRODUCT, len(products)), pa.repeat(POST, len(posts))])
    return pa.concat_arrays([products, posts]), kinds, product_N, post_N + len(products)


def _clusters(images: pa.ChunkedArray, duplicates: Iterable[pa.Table]) -> np.ndarray:
    """A number for each image's cluster, int64; -1 where the row has no image. Ids are compared by 64 bits of hash: two that
    shared them would be held together, and never apart."""
    own = ids.hash_keys(pc.fill_null(images, ""))
    known = [np.stack([ids.hash_keys(rows.column(c)) for c in (schema.IMAGE_ID, schema.CLUSTER_ID)]) for rows in duplicates]
    image, cluster = np.concatenate([np.empty((2, 0), np.uint64), *known], axis=1)
    if len(image):
        order = np.argsort(image)
        image, cluster = image[order], cluster[order]
        at = np.minimum(np.searchsorted(image, own), len(image) - 1)
        own = np.where(image[at] == own, cluster[at], own)
    number = np.unique(own, return_inverse=True)[1]
    number[images.is_null().to_numpy()] = -1
    return number


def _tags(lists: pa.ChunkedArray, product_ids: pa.ChunkedArray, product_N: np.ndarray, post_N: np.ndarray) -> tuple:
    """(post, product) of every tag whose product is there, each once."""
    lists = lists.combine_chunks()
    at = pc.fill_null(pc.index_in(pc.list_flatten(lists), value_set=product_ids), -1).to_numpy(zero_copy_only=False)
    post = pc.list_parent_indices(lists).to_numpy()
    num_products = int(product_N.max(initial=-1)) + 1
    both = np.sort(post_N[post[at >= 0]] * num_products + product_N[at[at >= 0]])
    new = np.ones(len(both), bool)
    new[1:] = both[1:] != both[:-1]
    return np.divmod(both[new], max(1, num_products))


def _names(owners: pa.Array, kinds: pa.Array, root: np.ndarray) -> pa.Array:
    """Kind and id of the first of what hangs together: products before posts, then by id."""
    at = pa.array(root)
    return pc.binary_join_element_wise(kinds.take(at), owners.take(at), ":")


def _by_hash(names: pa.Array, rules: SplitRules) -> np.ndarray:
    """Index into SPLITS of every name, int64."""
    drawn = ids.hash_keys(pc.binary_join_element_wise(names, rules.salt, "\x1f")) / 2.0**64
    return np.searchsorted(np.cumsum([rules.train, rules.val]), drawn, side="right").astype(np.int64)


def _follow(
    split: np.ndarray,
    follows: np.ndarray,
    part: np.ndarray,
    tagging: np.ndarray,
    tagged: np.ndarray,
    owners: pa.Array,
    rules: SplitRules,
) -> None:
    """Sends the parts of posts alone where the products go that they tag. Changes ``split``."""
    ours = follows[tagging]
    tags = np.zeros(len(part), bool)
    tags[part[tagging[ours]]] = True
    follows = follows & tags[part]  # posts that only show one picture stay where their hash put them
    of_part, towards = part[tagging[ours]], split[tagged[ours]]
    if rules.posts == "most":
        votes = np.bincount(of_part * len(SPLITS) + towards, minlength=len(part) * len(SPLITS)).reshape(-1, len(SPLITS))
        chosen = votes.argmax(1)  # of as many, train before val before test
    else:
        both = pc.binary_join_element_wise(owners.take(pa.array(of_part)), owners.take(pa.array(tagged[ours])), "\x1f")
        drawn = ids.hash_keys(both)
        least, chosen = np.full(len(part), 2**64 - 1, np.uint64), np.zeros(len(part), np.int64)
        np.minimum.at(least, of_part, drawn)
        mine = drawn == least[of_part]
        chosen[of_part[mine]] = towards[mine]
    split[follows] = chosen[part[follows]]


def summary_of(dealt: Dealt) -> dict[str, str]:
    """What a person wants to know of it."""
    found = dealt.rows.group_by([schema.SPLIT, schema.OWNER_KIND]).aggregate([([], "count_all")]).to_pylist()
    counts = {(r[schema.SPLIT], r[schema.OWNER_KIND]): r["count_all"] for r in found}
    lost = dealt.num_lost / dealt.num_tags if dealt.num_tags else 0
    return {
        "components": f"{dealt.num_components:,}",
        "largest": f"{dealt.largest:,} products and posts",
        "cut at tags": f"{dealt.num_cut:,}",
        "largest dealt as one": f"{dealt.largest_whole:,} products and posts",
        "tags across splits": f"{dealt.num_lost:,} of {dealt.num_tags:,} ({lost:.1%}); mining rejects them",
    } | {s: f"{counts.get((s, PRODUCT), 0):,} products, {counts.get((s, POST), 0):,} posts" for s in SPLITS}
