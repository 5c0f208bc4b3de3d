"""The lists of similar products after any nights equal those computed at once, and those of a definition in plain Python."""

import numpy as np
import pyarrow as pa
import pytest

from w2w import schema
from w2w.similar import exact, rules
from w2w.similar.exact import Goods, Lists, on_grid
from w2w.similar.rules import Kept, compare, keep, rows_of

COUNT, WIDTH = 4, 7


class Shop:
    """Products with coarse vectors, so that many scores are equal; some share a card."""

    def __init__(self, rng: np.random.Generator, num: int = 60):
        self.rng, self.rows, self.vectors, self.number = rng, {}, {}, 0
        for _ in range(num):
            self.add()

    def add(self) -> None:
        self.number += 1
        name = f"p{self.rng.integers(1000):03d}-{self.number}"
        self.rows[name] = {
            "category": str(self.rng.choice(list("abc"), p=[0.6, 0.28, 0.12])),
            "look": int(self.rng.integers(40)),
            "allowed": True,
        }
        self.dress(name)

    def dress(self, name: str) -> None:
        image = f"i{self.rng.integers(30) if self.rng.random() < 0.3 else 1000 + self.number + self.rng.integers(9999)}"
        self.vectors.setdefault(image, self.rng.integers(-1, 2, 5).astype(np.float32))
        self.rows[name]["image"] = image

    def night(self) -> None:
        share = self.rng.choice([0.02, 0.1, 0.5], p=[0.6, 0.3, 0.1])
        for name in [n for n in self.rows if self.rng.random() < share]:
            what = self.rng.integers(6)
            if what == 0:
                del self.rows[name]
            elif what == 1:
                self.dress(name)
            elif what == 2:
                self.rows[name]["category"] = str(self.rng.choice(list("abc"), p=[0.6, 0.28, 0.12]))
            elif what == 3:
                self.rows[name]["allowed"] ^= True
            elif what == 4:
                self.rows[name]["look"] = int(self.rng.integers(40))
            else:
                self.add()

    def table(self) -> pa.Table:
        names, first = sorted(self.rows), {}
        for name in names:
            first.setdefault(self.rows[name]["look"], name)
        columns = {schema.PRODUCT_ID: names, schema.IMAGE_ID: [self.rows[n]["image"] for n in names]}
        columns |= {schema.CATEGORY: [self.rows[n]["category"] for n in names]}
        columns |= {schema.CARD: [first[self.rows[n]["look"]] for n in names]}
        columns |= {schema.ALLOWED: [self.rows[n]["allowed"] for n in names]}
        kinds = [pa.bool_() if name == schema.ALLOWED else pa.string() for name in columns]
        return pa.table([pa.array(v, t) for v, t in zip(columns.values(), kinds)], names=list(columns))

    def grid(self, now: pa.Table) -> np.ndarray:
        vectors = [self.vectors[i] for i in now[schema.IMAGE_ID].to_pylist()]
        return on_grid(np.reshape(np.array(vectors, np.float32), (len(vectors), 5)))


def goods_of(now: pa.Table) -> Goods:
    codes = [now[c].combine_chunks().dictionary_encode().indices.to_numpy() for c in (schema.CATEGORY, schema.CARD)]
    return Goods(codes[0], codes[1].astype(np.int64), now[schema.ALLOWED].to_numpy(zero_copy_only=False))


def by_definition(now: pa.Table, grid: np.ndarray) -> dict[str, list[tuple[str, float]]]:
    rows, found = now.to_pylist(), {}
    scores = np.float32(grid @ grid.T / 2.0**52)
    for n, row in enumerate(rows):
        others = [(-scores[n, m], o) for m, o in enumerate(rows) if o["allowed"] and o["category"] == row["category"]]
        others.sort(key=lambda pair: (pair[0], pair[1]["product_id"]))
        listed, cards = [], {row["card"]}
        for score, other in others:
            if other["card"] not in cards and len(listed) < COUNT:
                listed.append((other["product_id"], float(-score)))
                cards.add(other["card"])
        found[row["product_id"]] = listed
    return found


def advance(now: pa.Table, grid: np.ndarray, before: pa.Table, rng: np.random.Generator) -> tuple[Kept, int]:
    """A night, in blocks of any size."""
    goods, night = goods_of(now), compare(now, before)
    place_B = night.at_B if rng.random() < 0.5 else None  # by places, or by names
    kept = keep(now, night, [before.slice(i, 7) for i in range(0, before.num_rows, 7)], WIDTH, place_B)
    for some in blocks(now, grid, rng):
        kept.take(exact.arrivals(some, (night.came, grid[night.came]), kept.bound_N, goods), goods.card_N)
    anew = np.flatnonzero(night.anew_N | kept.short(COUNT))
    lists = exact.search((anew, grid[anew]), blocks(now, grid, rng), goods, Lists.empty(len(anew), WIDTH))
    kept.lists.member_NW[anew], kept.lists.score_NW[anew] = lists.member_NW, lists.score_NW
    kept.complete_N[anew] = lists.member_NW[:, -1] < 0
    return kept, len(anew)


def blocks(now: pa.Table, grid: np.ndarray, rng: np.random.Generator):
    order, size = rng.permutation(now.num_rows), int(rng.integers(1, 40))
    for start in range(0, now.num_rows, size):
        yield order[start : start + size], grid[order[start : start + size]]


def stored(now: pa.Table, kept: Kept) -> pa.Table:
    rows = rows_of(now, kept.lists, kept.complete_N, slice(None), COUNT)
    for name in rules.STATE:
        rows = rows.append_column(name, now[name])
    return rows


def shown(rows: pa.Table) -> dict[str, list[tuple[str, float]]]:
    lists = rows[schema.SIMILAR_LIST].to_pylist()
    return {n: [(e["product_id"], e["score"]) for e in found] for n, found in zip(rows[schema.PRODUCT_ID].to_pylist(), lists)}


NOTHING = pa.schema(
    [(c, schema.SIMILAR_PRODUCTS.schema.field(c).type) for c in (*rules.STATE, "product_id", "similar", "spare", "complete")]
).empty_table()


@pytest.mark.parametrize("seed", range(10))
def test_lists_after_any_nights_are_those_of_the_definition(seed):
    rng = np.random.default_rng(seed)
    shop, before, computed, there = Shop(rng), NOTHING, 0, 0
    for night in range(20):
        now = shop.table()
        kept, anew = advance(now, shop.grid(now), before, rng)
        before = stored(now, kept)
        assert shown(before) == by_definition(now, shop.grid(now)), (seed, night)
        computed, there = computed + anew, there + now.num_rows
        shop.night()
    assert computed < 0.75 * there  # most lists were kept


def test_a_list_that_lost_a_member_moves_up_and_only_a_short_one_is_computed_anew():
    rng = np.random.default_rng(3)
    shop = Shop(rng)
    for number, row in enumerate(shop.rows.values()):
        row |= {"category": "a", "look": number, "image": f"own-{number}"}
        shop.vectors[row["image"]] = rng.normal(size=5).astype(np.float32)
    now = shop.table()
    kept, anew = advance(now, shop.grid(now), NOTHING, rng)
    assert anew == 60
    before = stored(now, kept)
    member = next(iter(shown(before).values()))[0][0]
    del shop.rows[member]
    now = shop.table()
    kept, anew = advance(now, shop.grid(now), before, rng)
    assert anew == 0
    assert shown(stored(now, kept)) == by_definition(now, shop.grid(now))


def test_a_list_of_all_there_were_that_overflowed_is_not_taken_for_all_there_are():
    rng = np.random.default_rng(4)
    shop, before, leaders = Shop(rng, num=6), NOTHING, []
    for more in (0, 12, 0):
        for name in leaders if not more else ():
            del shop.rows[name]
        for _ in range(more):
            shop.add()
        for number, (name, row) in enumerate(shop.rows.items()):
            row |= {"category": "a", "look": number, "image": f"own-{name}"}
            shop.vectors.setdefault(row["image"], rng.normal(size=5).astype(np.float32))
        now = shop.table()
        kept, _ = advance(now, shop.grid(now), before, rng)
        before = stored(now, kept)
        assert shown(before) == by_definition(now, shop.grid(now))
        asked = before.to_pylist()[0]
        leaders = [e["product_id"] for e in asked["similar"] + asked["spare"]]
    assert len(leaders) >= COUNT
