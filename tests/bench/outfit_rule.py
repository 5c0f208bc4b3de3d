"""Is the wardrobe's planted rule learnt from the default encoder's vectors? Worn outfits against ones that break the rule, on
products that were not trained on; the published loss beside the corrected one. Writes a page, prints a JSON line:
python -m tests.bench.outfit_rule [--quick] [--vectors FOLDER] [--out PAGE]
"""

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from tests.unit.training.outfits.planted import garments, outfits, rule_blanks, seen_scores, shows_style, vectors
from w2w.metrics.outfit import auc, fill_in_blank
from w2w.models.compatibility import ScorerConfig, load_scorer
from w2w.training.config import LoopConfig
from w2w.training.loop import Training, fit
from w2w.training.outfits.arrays import Outfits
from w2w.training.outfits.config import OutfitsConfig, as_published
from w2w.training.outfits.measure import PUBLISHED_RATES, by_threshold, figures, raw_similarities, similarities
from w2w.training.outfits.measure import published as published_of
from w2w.training.outfits.page import Judged, PublishedTable, compatibility_report
from w2w.training.outfits.recipe import Compatibility, batches

SHOPS = {"train": (11, 1000), "val": (12, 150), "test": (13, 300)}  # seed, garments of each slot
LOOP = LoopConfig(steps=370, measure_every=60, checkpoint_every=10_000, average=0.98, select="AUC")
NOTES = (
    "The rule: an outfit has one style; bottom and shoes have the top's hue or are black, grey, white or beige. In each "
    "modified outfit two of the three garments are others, and the rule is broken. Train, val and test are three shops without "
    "a common product.",
    "Style shows in the pattern, and not in every pattern: here are the garments whose pattern is the mark of their style. Of "
    "all garments a fourth are solid, which four styles are; what can be had from them is said under facts.",
    "Why the published loss fails: relu(1 - s) of worn and relu(.7 - s) of modified outfits, s being cosine / temperature, "
    "both fall as a similarity rises, and no term falls as one drops. With a temperature of .07 they are zero where cosines "
    "reach .07 and .049. The encoder's vectors have cosines of about .5 whatever is compared, so both terms are zero "
    "before the "
    "first step: only the matrix shrinks, and the order is left as it was. Of centred vectors, whose cosines lie about 0, both "
    "kinds of outfits rise; worn ones rise further, since they were more alike to begin with, and no threshold of the "
    "published table tells them apart.",
)


def shop(name: str, count: int, copies: int, folder: Path, quick: bool, telling: bool):
    seed, num = SHOPS[name]
    num = num // 5 if quick else num
    everything = garments(seed, num)
    found = vectors(everything, folder / f"shop-{seed}-{num}.npy")
    kept = [i for i, g in enumerate(everything) if shows_style(g) or not telling]
    chosen = [everything[i] for i in kept]
    made = outfits(chosen, found[kept], count, copies, seed)
    return chosen, made, rule_blanks(chosen, made, seed)


def centred(made: Outfits, of: Outfits) -> Outfits:
    """With vectors less the mean of ``of``'s, in its 128 main directions, of length 1."""
    mean = of.vectors_ND.mean(axis=0)
    main = np.linalg.svd(of.vectors_ND - mean, full_matrices=False)[2][:128]
    moved = (made.vectors_ND - mean) @ main.T
    return replace(made, vectors_ND=moved / np.linalg.norm(moved, axis=1, keepdims=True))


def train(config: OutfitsConfig, loop: LoopConfig, shops: dict):
    recipe = Compatibility(config, shops["train"][1], *shops["val"][1:])
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        fit(Training(recipe, batches(config, loop, shops["train"][1]), loop), lambda _, write: write(Path(folder)))
        return load_scorer(Path(folder, "model"))[0], time.perf_counter() - began


def seen(shops: dict) -> dict[str, float]:
    """AUC and FITB of somebody who reads pattern and colour off each garment without error."""
    chosen, made, questions = shops["test"]
    least = -1e9
    scored = np.maximum(seen_scores(chosen, made.items_OS), least)
    answers = np.maximum(seen_scores(chosen, questions.items_QAS.reshape(-1, 3)), least).reshape(-1, 4)
    return {"AUC": auc(scored, made.modified_of_O < 0), "FITB": float(fill_in_blank(answers, questions.right_Q).mean())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--vectors", type=Path, default=None)
    parser.add_argument("--out", type=Path, default=Path("outfit_rule.html"))
    options = parser.parse_args()
    folder = options.vectors or Path(tempfile.mkdtemp())
    worn = {"train": 600, "val": 100, "test": 300} if options.quick else {"train": 4000, "val": 400, "test": 1500}
    both = {
        telling: {n: shop(n, worn[n], 4 if n == "train" else 1, folder, options.quick, telling) for n in SHOPS}
        for telling in (True, False)
    }
    shops, (_, test, questions) = both[True], both[True]["test"]
    raw, theirs = raw_similarities(test), published_of(test)
    judged = [
        Judged(
            "Vectors as they are",
            "Cosines of the encoder's own vectors.",
            {
                "AUC": auc(
                    np.concatenate([raw.worn, raw.modified]), np.repeat([True, False], [len(raw.worn), len(raw.modified)])
                )
            },
            raw.worn,
            raw.modified,
            by_threshold(raw),
            published=PublishedTable(theirs.rates(), PUBLISHED_RATES, theirs.pair, theirs.kept),
        )
    ]
    # 30 epochs of batches of 8 are many steps; a fourth of the outfits is enough to see where it goes
    whole = shops["train"][1]
    origin = np.where(whole.modified_of_O < 0, np.arange(len(whole)), whole.modified_of_O)
    few = whole.among(origin < worn["train"] // 4)
    published, loop = as_published(len(few.worn))
    says = "Logistic loss of log p, the sum over pairs; a space for each slot."
    shared = OutfitsConfig(scorer=ScorerConfig(spaces="shared"))
    plain = {**shops, "train": (None, few)}
    moved = {n: (None, centred(made, whole), *rest) for n, (_, made, *rest) in plain.items()}
    runs = [
        ("Published loss", "Zero from the first step: nothing is learnt.", published, loop, plain),
        ("Published loss, centred vectors", "All similarities rise.", published, loop, moved),
        ("Corrected, centred vectors", says, OutfitsConfig(), LOOP, {**moved, "train": (None, centred(whole, whole))}),
        ("Corrected (default)", says, OutfitsConfig(), LOOP, shops),
        ("One space", "The same with one space for all slots.", shared, LOOP, shops),
        ("Margin", "Each worn outfit above the one made of it.", OutfitsConfig(loss="margin"), LOOP, shops),
        ("Worn first", "Strangers in the first third of the steps.", OutfitsConfig(worn_first=0.3), LOOP, shops),
        (
            "Set transformer",
            "Two blocks over the three items.",
            OutfitsConfig(scorer=ScorerConfig(kind="set", hidden=128)),
            replace(LOOP, learning_rate=5e-4),
            shops,
        ),
    ]
    result: dict[str, object] = {"worn": worn["train"], "seen": seen(shops)}
    for name, says, config, schedule, on in runs:
        network, took_s = train(config, schedule, on)
        own = on["test"][1]
        found, alike = figures(network, own, questions), similarities(network, own)
        result[name] = {k: round(v, 4) for k, v in found.items()} | {"worn": round(float(alike.worn.mean()), 3)}
        result[name] |= {"modified": round(float(alike.modified.mean()), 3), "s": round(took_s)}
        is_set = config.scorer.kind == "set"
        judged.append(Judged(name, says, found, alike.worn, alike.modified, by_threshold(alike), is_set))
        print(name, result[name], flush=True)
    hard, _ = train(OutfitsConfig(), LOOP, both[False])
    result["all garments"] = figures(hard, *both[False]["test"][1:])
    result["all garments, seen"] = seen(both[False])
    facts = {
        "Test outfits, each worn and modified": len(test.worn),
        "Products to train on": len(shops["train"][0]),
        "Most that pattern and colour can give": "AUC {AUC:.3f}, FITB {FITB:.3f}".format(**result["seen"]),
        "The same of all garments": "AUC {AUC:.3f}, FITB {FITB:.3f}".format(**result["all garments, seen"]),
        "Corrected, on all garments": "AUC {AUC:.3f}, FITB {FITB:.3f}".format(**result["all garments"]),
    }
    compatibility_report(str(options.out.absolute()), "A planted rule of outfits", NOTES, facts, judged)
    print(json.dumps({"bench": "outfit_rule", **result}))


if __name__ == "__main__":
    main()
