"""Do recommended outfits keep the wardrobe's planted rule, and what does a catalog cost? Last line: JSON.

python -m tests.bench.recommend_rule [--quick] [--vectors FOLDER] [--steps 1000] [--worn 4000] [--encoder NAME]

One shop is trained on, another asked: for products drawn from it the best outfits with each are looked at. ``chance``: outfits
of products drawn at random; ``oracle``: what somebody who knows the rule can do under the same limits (of a shop of some
hundred products there is not always an outfit that keeps it); ``trained``: the default scorer of `w2w train outfits`;
``counted``: the scorer that is not trained, which knows so many worn outfits of the asked shop itself. ``possible`` is the
share among products with which the oracle finds an outfit, with its interval over products. ``told`` scorers are given style
and colour of each garment instead of a picture's vector: what they miss is not the encoder's. ``with attributes``: as `w2w
recommend --worn.attributes='[style, colour]'` of a feed that has such columns. Garments are those whose
pattern is the mark of their style, as in outfit_rule. ``growth``: seconds of the nightly search for candidates and of the
outfits of 100 products, for catalogs of random vectors; ``ratio`` is the smallest one's outfits per second over the largest
one's, 1 where a product costs the same.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from tests.bench.outfit_rule import LOOP
from tests.unit.recommend.shelves import shelf
from tests.unit.training.outfits.planted import (
    SLOTS,
    garments,
    goes_together,
    outfits,
    planted_outfits,
    rule_blanks,
    shows_style,
    vectors,
)
from w2w.models.config import EncoderConfig
from w2w.models.pairing import TrainedPairs
from w2w.recommend.house import House
from w2w.recommend.rules import OutfitConfig, Space, Stylist, chance
from w2w.recommend.scorers import TrainedSpace, slots_of_classes
from w2w.recommend.shelf import CODE, Shelf, apply_house
from w2w.recommend.worn import Worn, WornConfig, place
from w2w.training.loop import Training, fit
from w2w.training.outfits.config import OutfitsConfig
from w2w.training.outfits.recipe import Compatibility, batches
from w2w.wardrobe.garment import STYLES, Garment
from w2w.wardrobe.rule import GO_WITH_ALL

SHOPS = {"train": (11, 1000), "val": (12, 150), "test": (13, 300)}  # seed, garments of each slot


class Knows:
    """Whoever knows the rule."""

    classes = SLOTS

    def __init__(self, shop: Sequence[Garment]):
        self._style = np.array([g.style for g in shop])
        self._hue = np.array([g.colour_name for g in shop])
        self._top = np.array([g.category == "top" for g in shop])

    def pair(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        good = self._style[a][:, None] == self._style[b][None]
        if self._top[a[0]] or self._top[b[0]]:
            other = b if self._top[a[0]] else a
            plain = np.isin(self._hue[other], GO_WITH_ALL)
            good &= (self._hue[a][:, None] == self._hue[b][None]) | (plain[None] if self._top[a[0]] else plain[:, None])
        return np.where(good, -0.01, -3.0).astype(np.float32)

    def shown(self, score: float) -> float:
        return float(np.exp(score))


def shop(name: str, folder: Path, quick: bool, encoder: str) -> tuple[list[Garment], np.ndarray]:
    seed, num = SHOPS[name]
    num = num // 5 if quick else num
    everything = garments(seed, num)
    default = EncoderConfig()
    of_encoder = "" if encoder == default.name else f"-{encoder}"
    found = vectors(everything, folder / f"shop-{seed}-{num}{of_encoder}.npy", replace(default, name=encoder))
    kept = [i for i, g in enumerate(everything) if shows_style(g)]
    return [everything[i] for i in kept], found[kept]


def shelf_of(chosen: Sequence[Garment]) -> Shelf:
    return shelf([{"category": g.category, "product_id": g.product_id, "image_id": g.product_id} for g in chosen])


ATTRIBUTES = ("style", "colour_name")


def said_of(chosen: Sequence[Garment]) -> list[pa.Array]:
    """What a feed says of these garments."""
    return [pa.array([getattr(g, name) for g in chosen]) for name in ATTRIBUTES]


def worn_of(chosen: Sequence[Garment], found: np.ndarray, count: int, with_attributes: bool = False) -> Worn:
    worn = planted_outfits(chosen, count, 0, np.random.default_rng(1))[0] if count else np.zeros((0, 3), np.int64)
    items, at = np.unique(worn, return_inverse=True)
    classes = np.array([CODE[g.category] for g in chosen], np.int8)
    said = [one.take(pa.array(items)) for one in said_of(chosen)] if with_attributes else []
    return Worn(found[items], classes[items], at.ravel(), np.repeat(np.arange(count), 3), said=said)


def kept(chosen: Sequence[Garment], space: Space, asked: Sequence[int], answers: int) -> float:
    """Share of the recommended outfits that keep the rule."""
    return float(np.concatenate(kept_by_product(chosen, space, asked, answers)).mean())


def kept_by_product(chosen: Sequence[Garment], space: Space, asked: Sequence[int], answers: int) -> list[np.ndarray]:
    """For each product asked, which of its outfits keep the rule."""
    one = shelf_of(chosen)
    stylist = Stylist(one, apply_house(House(), one), space, OutfitConfig(answers=answers))
    found = [stylist.answers(stylist.question([int(i)])) for i in asked]
    return [np.array([keeps_rule(chosen, o.rows) for o in outfits], float) for outfits in found]


def interval(kept_by: Sequence[np.ndarray]) -> list[float]:
    """Mean over outfits with its 95 % bootstrap interval over products."""
    rng, sums = np.random.default_rng(0), np.array([[one.sum(), len(one)] for one in kept_by])
    drawn = sums[rng.integers(len(sums), size=(1000, len(sums)))].sum(axis=1)
    low, high = np.percentile(drawn[:, 0] / drawn[:, 1], [2.5, 97.5])
    return [round(float(v), 3) for v in (sums[:, 0].sum() / sums[:, 1].sum(), low, high)]


def told_of(chosen: Sequence[Garment], colours: Sequence[str]) -> np.ndarray:
    """Style and colour of each garment, a number for each that there is: float32 (N, D), of length 1."""
    found = np.zeros((len(chosen), len(STYLES) + len(colours)), np.float32)
    for row, garment in zip(found, chosen):
        row[[STYLES.index(garment.style), len(STYLES) + colours.index(garment.colour_name)]] = 2**-0.5
    return found


def trained_on(shops: dict[str, tuple[list[Garment], np.ndarray]], steps: int, num_worn: int) -> TrainedPairs:
    """The default scorer of outfits, trained and selected on the first two shops."""
    train, val = (outfits(*shops[n], c, k, s) for n, c, k, s in (("train", num_worn, 4, 11), ("val", num_worn // 10, 1, 12)))
    loop = replace(LOOP, steps=steps, measure_every=max(1, steps // 6))
    recipe = Compatibility(OutfitsConfig(), train, val, rule_blanks(shops["val"][0], val, 12))
    with tempfile.TemporaryDirectory() as out:
        fit(Training(recipe, batches(OutfitsConfig(), loop, train), loop), lambda _, write: write(Path(out)))
        return TrainedPairs(Path(out, "model"))


def placed(scorer: TrainedPairs, found: np.ndarray, classes: np.ndarray) -> TrainedSpace:
    return TrainedSpace(slots_of_classes(scorer.slots), scorer.place(found), classes, scorer.is_log)


def keeps_rule(chosen: Sequence[Garment], rows: Sequence[int]) -> bool:
    return goes_together([chosen[i] for i in sorted(rows, key=lambda i: SLOTS.index(chosen[i].category))])


def growth(size: int) -> dict:
    """Seconds for random products of three classes."""
    rng = np.random.default_rng(0)
    one = shelf([{"category": SLOTS[i % 3]} | {"product_id": f"p{i:07d}"} for i in range(size)])
    found = rng.normal(size=(size, 64)).astype(np.float32)
    known = min(size, 600)
    worn = Worn(found[:known], one.class_N[:known], np.arange(known), np.arange(known) // 3)
    space = place(worn, found, one.class_N, WornConfig())
    stylist = Stylist(one, apply_house(House(), one), space, OutfitConfig())
    tops = [(int(row),) for row in np.flatnonzero(one.class_N == one.class_N[0])[:100]]
    began = time.process_time()
    asked = stylist.questions(tops)
    candidates_ms = (time.process_time() - began) * 1000 / len(tops)
    began = time.process_time()
    for q in asked[:100]:
        stylist.answers(q)
    each_ms = (time.process_time() - began) * 10
    return {"products": size, "candidates_ms": round(candidates_ms, 2), "outfits_ms": round(each_ms, 2)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--vectors", type=Path, default=None)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--encoder", default=EncoderConfig().name)
    parser.add_argument("--worn", type=int, default=4000)
    options = parser.parse_args()
    folder = options.vectors or Path(tempfile.mkdtemp())
    shops = {name: shop(name, folder, options.quick, options.encoder) for name in SHOPS}
    num_worn = 600 if options.quick else options.worn
    chosen, found = shops["test"]
    classes = np.array([CODE[g.category] for g in chosen], np.int8)
    asked = np.random.default_rng(0).choice(len(chosen), min(len(chosen), 40 if options.quick else 150), replace=False)
    one = shelf_of(chosen)
    stylist = Stylist(one, apply_house(House(), one), Knows(chosen), OutfitConfig())
    drawn = [r for i in asked for r in chance(stylist, [int(i)], 50, np.random.default_rng(int(i)))]
    result: dict[str, object] = {"products": len(chosen), "asked": len(asked), "steps": options.steps, "worn": num_worn}
    result["chance"] = round(float(np.mean([keeps_rule(chosen, rows) for rows in drawn])), 4)
    able = [i for i, one in zip(asked, kept_by_product(chosen, Knows(chosen), asked, 1)) if one.all() and len(one)]
    result["possible with"] = len(able)
    colours = sorted({g.colour_name for garments_, _ in shops.values() for g in garments_})
    told = {name: (garments_, told_of(garments_, colours)) for name, (garments_, _) in shops.items()}
    spaces: dict[str, Space] = {
        "oracle": Knows(chosen),
        "trained": placed(trained_on(shops, options.steps, num_worn), found, classes),
        "trained, told": placed(trained_on(told, options.steps, num_worn), told["test"][1], classes),
    }
    for count in (0, 20, 100, 600, num_worn):
        spaces[f"counted, {count} outfits"] = place(worn_of(chosen, found, count), found, classes, WornConfig())
    for count in (100, 600, num_worn):
        worn = worn_of(chosen, found, count, with_attributes=True)
        spaces[f"counted, {count} outfits, with attributes"] = place(worn, found, classes, WornConfig(), said=said_of(chosen))
    spaces[f"counted, {num_worn} outfits, told"] = place(
        worn_of(chosen, told["test"][1], num_worn), told["test"][1], classes, WornConfig()
    )
    for name, space in spaces.items():
        by = {k: kept_by_product(chosen, space, asked, k) for k in (1, 5)}
        shares = {f"best {k}": interval(one) for k, one in by.items()}
        shares["best 1, possible"] = interval([one for i, one in zip(asked, by[1]) if i in able])
        result[name] = shares
        print(name, shares, flush=True)
    sizes = (300, 3000) if options.quick else (300, 3000, 10_000)
    grown = [growth(size) for size in sizes]
    ratio = round(grown[0]["outfits_ms"] / grown[-1]["outfits_ms"], 2)
    print(json.dumps({"bench": "recommend_rule", **result, "growth": grown, "ratio": ratio}))


if __name__ == "__main__":
    main()
