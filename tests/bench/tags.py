"""Makes the heads of w2w-tags (--out), and says how often they are right on public rows, with 95 % intervals: accuracy of all
answers, of the sure ones, and how many are sure. The last line is JSON.

python -m tests.bench.tags [--folder FOLDER] [--encoder efficientnet-lite0 --colour .7] [--out w2w/models/weights]

Heads learn from all rows but those of split test, as they are and half hidden, for colours re-lit; temperature and thresholds
follow from what heads say of rows held back from them, in four parts; penalties were chosen on val. Rows of `views` teach
nothing: they are people who wear the garments, of a shop that the heads do not know.
"""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa

from tests.bench.fashion import figure
from tests.bench.fashion_rows import HIDDEN, LIT, PLAIN, TEST, TRAIN, VAL, Rows, computed, read_real
from tests.bench.fashion_train import classifier
from tests.bench.folder import begin, parser_of
from tests.bench.tags_rows import ATTRIBUTES, labels_of
from w2w import ids
from w2w.garments.classifier import Classifier, best_temperature, calibration_error, softmax
from w2w.models import sources
from w2w.models.config import COLOUR, EncoderConfig
from w2w.models.encoder import load_encoder
from w2w.training.tags.heads import Head, Tagger, save, thresholds

PRECISION = 0.9
_LEARNT = {"kind": (1e-3, (PLAIN, HIDDEN)), "type": (1e-3, (PLAIN, HIDDEN)), COLOUR: (3e-3, (PLAIN, LIT))}
_FOLDS = 4
_LEAST = 6  # rows of a value that is learnt


def fit(vectors: dict[str, np.ndarray], rows: Rows, attribute: str, parts: tuple[tuple[str, int], ...]) -> Head:
    """On all rows but those of the test. Temperature and thresholds by what heads say of rows that are held back from them, a
    cluster of near-duplicates as a whole. Only colours are read off the vector's part for colours."""
    labels = labels_of(rows, attribute)
    known, counts = np.unique(labels[rows.of(TRAIN, VAL)], return_counts=True)
    known = known[(counts >= _LEAST) & (known != "")]
    places = np.array([i for i in rows.of(TRAIN, VAL) if labels[i] in known])
    codes = np.searchsorted(known, labels[places])
    fold_N = ids.hash_bucket(pa.array(rows.groups_N[places].tolist()), _FOLDS)
    dim = vectors[PLAIN].shape[1]
    used = dim if attribute == COLOUR else dim - dict(parts)[COLOUR]
    penalty, variants = _LEARNT[attribute]

    def made(some: np.ndarray, temperature: float = 1.0) -> Classifier:
        x = np.concatenate([vectors[v][places[some], :used] for v in variants])
        weight, bias = (t.numpy() for t in classifier(x, np.tile(codes[some], len(variants)), len(known), penalty))
        weight = np.pad(weight, ((0, 0), (0, dim - used))).astype(np.float16).astype(np.float32)
        flat = np.zeros(dim, np.float32), np.ones(dim, np.float32)
        return Classifier(tuple(map(str, known)), "", *flat, ((weight, bias.astype(np.float32)),), temperature)

    logits = np.zeros((len(places), len(known)), np.float32)
    for fold in range(_FOLDS):
        logits[fold_N == fold] = made(fold_N != fold).logits(vectors[PLAIN][places[fold_N == fold]])
    temperature = best_temperature(logits, codes)
    found = thresholds(softmax(logits / temperature), codes, PRECISION)
    return Head(made(np.ones(len(places), bool), temperature), found)


def measured(head: Head, vectors_ND: np.ndarray, labels_N: np.ndarray, groups_N: np.ndarray) -> dict[str, list[float]]:
    """Of rows whose attribute is known; a value that was not learnt is answered wrongly, unless the head is unsure."""
    places, _, sure = head(vectors_ND)
    right = (np.array(head.classifier.labels)[places] == labels_N).astype(float)
    told = {"accuracy": figure(right, groups_N), "sure": figure(sure.astype(float), groups_N)}
    if sure.any():
        told["accuracy where sure"] = figure(right[sure], groups_N[sure])
    codes = np.array([(*head.classifier.labels, "").index(v if v in head.classifier.labels else "") for v in labels_N])
    known = codes < len(head.classifier.labels)
    return told | {"calibration error": [round(calibration_error(head.classifier(vectors_ND)[known], codes[known]), 3)]}


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--encoder", default="efficientnet-lite0")
    parser.add_argument("--colour", type=float, default=0.7)
    parser.add_argument("--out", type=Path)
    options, folder = begin(parser)
    config = EncoderConfig(options.encoder, colour=options.colour)
    encoder, sets, heads, result = load_encoder(config), read_real(folder), {}, {}
    called = f"{encoder.model_version}"
    vectors = {
        name: {v: np.array(computed(rows, v, encoder, folder, called)) for v in (PLAIN, LIT, HIDDEN)}
        for name, rows in sets.items()
    }
    print("| attribute | rows | accuracy | sure | accuracy where sure | calibration error |\n|---|---|---|---|---|---|")
    for attribute, names in ATTRIBUTES.items():
        heads[attribute] = fit(vectors[names[0]], sets[names[0]], attribute, sources.of(config).parts)
        for name in names:
            labels = labels_of(sets[name], attribute)
            for split, variant in ((TEST, PLAIN), (TEST, LIT), (TEST, HIDDEN)):
                asked = np.array([i for i in sets[name].of(split) if labels[i]])
                told = measured(heads[attribute], vectors[name][variant][asked], labels[asked], sets[name].groups_N[asked])
                where = f"{name}, {split}" + ("" if variant == PLAIN else f", {variant}")
                result[f"{attribute}: {where}"] = told | {"rows": len(asked)}
                cells = ["{:.3f} [{:.3f}, {:.3f}]".format(*f) if len(f) > 1 else str(f[0]) for f in told.values()]
                print(f"| {attribute} | {where}, {len(asked)} | {' | '.join(cells)} |", flush=True)
        heads[attribute] = Head(
            heads[attribute].classifier,
            heads[attribute].thresholds_C,
            {"accuracy": result[f"{attribute}: {names[0]}, {TEST}"]["accuracy"]},
        )
    if options.out:
        save(Tagger(options.encoder, options.colour, heads), str(options.out), {"precision": PRECISION})
    print(json.dumps({"bench": "tags", "encoder": options.encoder, "colour": options.colour, **result}))


if __name__ == "__main__":
    main()
