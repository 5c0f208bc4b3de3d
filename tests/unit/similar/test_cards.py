"""Cards by keys against cards product by product."""

import numpy as np
import pyarrow as pa
import pytest

from w2w.ids import Sharing
from w2w.report.variants import designs
from w2w.similar import cards
from w2w.similar.cards import Keys, Known


def some_rows(rng: np.random.Generator, num: int) -> list[dict]:
    def row(n: int) -> dict:
        colour = rng.choice(["red", "Red", "blue", "green", "grey", ""])
        title = f"{rng.choice(['Long linen dress', 'Warm wool coat', 'Cap', ''])} {colour if rng.random() < 0.5 else 'new'}"
        told = {"title": title, "brand": rng.choice(["A", None]), "category": rng.choice(["top", "dress"])}
        told |= {"attributes": [("colour", colour), ("farbe", None)], "active": True, "product_id": f"p{n:03d}"}
        return told | {"group_id": rng.choice(["g", "h", None, None, None, None])}

    return [row(n) for n in range(num)]


def one_by_one(rows: list[dict], looks: list[str]) -> list[int]:
    of_design, of = designs(rows), list(range(len(rows)))
    for _ in rows:  # until nothing moves
        for a in range(len(rows)):
            for b in range(len(rows)):
                x, y = rows[a], rows[b]
                one, other = (of_design.get(row["product_id"]) for row in (x, y))
                same = looks[a] == looks[b] or (x["group_id"] and x["group_id"] == y["group_id"])
                if same or (one and other and one.key == other.key):
                    of[a] = of[b] = min(of[a], of[b])
    return of


@pytest.mark.parametrize("seed", range(5))
def test_cards_are_those_found_one_by_one(seed):
    rng = np.random.default_rng(seed)
    rows = some_rows(rng, 24)
    looks = [str(rng.integers(200)) for _ in rows]
    named = np.array([cards.named_bits(row) for row in rows], np.uint8)
    keys = cards.keys_of(rows, pa.array(looks), cards.colour_named(named))
    found = cards.cards(keys).tolist()
    assert found == one_by_one(rows, looks)
    assert len(set(found)) < len(rows)


def test_the_colour_is_told_by_the_attribute_that_most_have():
    def row(*names: str) -> dict:
        return {"title": "t", "attributes": [(name, "x") for name in names]}

    def told(*rows: dict) -> str | None:
        return cards.colour_named(np.array([cards.named_bits(r) for r in rows], np.uint8))

    assert told(row("size")) is None
    assert told(row("farbe"), row("colour", "farbe")) == "farbe"
    assert told(row("farbe"), row("color")) == "color"  # the earlier one
    assert told({"title": None, "attributes": [("farbe", "x")]}) is None


def test_keys_are_found_in_the_base_and_beside_it():
    rng = np.random.default_rng(0)
    base = cards.keys_of(some_rows(rng, 30), pa.array([str(rng.integers(9)) for _ in range(30)]), "colour")
    known = Known(base, tuple(Sharing.of(getattr(base, name)) for name in cards.SHARED), np.empty(0, np.int64), Keys.none(0))
    every = base
    for at in ([3, 31, 30], [3, 4], [32]):
        keys = cards.keys_of(some_rows(rng, len(at)), pa.array([str(rng.integers(9)) for _ in at]), "colour")
        known = known.replaced(np.array(at), keys)
        every = Keys.joined([every, Keys.none(max(0, max(at) + 1 - len(every)))])
        for to, array in zip(vars(every).values(), vars(keys).values()):
            to[at] = array
        places = np.arange(len(every))
        for found, expected in zip(vars(known.of(places)).values(), vars(every).values()):
            assert np.array_equal(found, expected)
        assert np.array_equal(known.named(len(every)), every.named_N)
        for place in places:
            one = every.each(lambda a, place=place: a[[place]])
            same = [(getattr(every, n) == getattr(one, n)).all(1) & getattr(one, n).any() for n in cards.SHARED]
            assert known.holding(one).tolist() == np.flatnonzero(np.any(same, axis=0)).tolist()
    assert not len(known.of(np.array([99])).picture_N2.nonzero()[0])  # none yet
