"""The cards of a night on which little changed: what may have parted or joined is found by keys, and joined anew."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import ids, schema
from w2w.report.variants import by_hash, clusters_of
from w2w.similar import cards
from w2w.similar.base import Base, read_beside
from w2w.similar.cards import Keys, Known
from w2w.table import delta

Images = tuple[pa.Array, pa.Array]  # ids, and the names of what looks like them, as ``clusters_of`` tells


def keys_before(store: str, name: str, stored: Base, standing: dict[str, Any]) -> Known | None:
    """Of all products; None if what later nights found is not there."""
    if stored.keys is None:
        return None
    found = np.empty(0, np.int64), Keys.none(0)
    if standing.get("beside"):
        beside = read_beside(store, name, standing["base"], standing["beside"])
        if beside is None:
            return None
        found = beside
    return Known(stored.keys, stored.sharing, *found)


@dataclass(frozen=True)
class Now:
    """Places that are another product tonight, and their keys: none of those that have no list."""

    at: np.ndarray
    keys: Keys


def keys_now(
    store: str,
    changed: pa.Table,
    at: np.ndarray,
    is_alive: np.ndarray,
    same_picture: np.ndarray,
    before: Known,
    colour: str | None,
    came: list[delta.Part],
) -> Now:
    """``changed``: the rows of these places; ``same_picture``: those that were there with the same one. ``came``: parts that
    were added to table `images`: pictures that were not known yet may look like others."""
    images = changed.column(schema.IMAGE_ID).combine_chunks()
    came = came if by_hash(store) else []
    known, names = clusters_of(store, None, came) if came else (images[:0], images[:0])
    looks = _looks(images, (known, names))
    told = pc.is_in(images, value_set=known).to_numpy(zero_copy_only=False)
    stays, due = same_picture & ~told, is_alive & ~same_picture & ~told
    if due.any():
        wanted = pc.unique(images.filter(pa.array(due)))
        looks = pc.if_else(pa.array(due), _looks(images, clusters_of(store, wanted)), looks)
    keys = cards.keys_of(changed.to_pylist(), looks, colour)
    keys.picture_N2[stays] = before.of(at[stays]).picture_N2
    for array in vars(keys).values():
        array[~is_alive] = 0
    if not len(known):
        return Now(at, keys)
    named = names.is_valid()
    own, like = (ids.hash_keys_128(one.filter(named)) for one in (known, names))
    asked = Keys.none(len(own))
    asked.picture_N2[:] = own
    more = np.setdiff1d(before.holding(asked), at)
    theirs = before.of(more)
    rank = ids.Places(own).find(theirs.picture_N2)
    theirs.picture_N2[rank >= 0] = like[rank[rank >= 0]]
    return Now(np.concatenate([at, more[rank >= 0]]), Keys.joined([keys, theirs.each(lambda a: a[rank >= 0])]))


def _looks(images: pa.Array, of: Images) -> pa.Array:
    known, names = of
    return pc.coalesce(names.take(pc.index_in(images, value_set=known)), images)


def cards_after(
    at: np.ndarray, alive_P: np.ndarray, card_P: np.ndarray, now_P: np.ndarray, before: Known, after: Known, rank_P: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Places whose card may be another one, those ``at`` which something changed among them, and the place of the first of each
    one's card. Of P places: ``alive_P`` and ``now_P``, whether they have a list, before and tonight, ``card_P`` before, and
    their order, ``rank_P``."""
    touched = Keys.joined([before.of(at), after.of(at)])
    reached = np.union1d(at, before.holding(touched))
    is_card = np.zeros(len(card_P), bool)
    is_card[card_P[reached[alive_P[reached]]]] = True
    places = np.union1d(at, np.flatnonzero(is_card[card_P] & alive_P))
    there = places[now_P[places]]
    there = there[np.argsort(rank_P[there])]
    card = card_P.copy()
    card[there] = there[cards.cards(after.of(there))]
    return places, card[places]
