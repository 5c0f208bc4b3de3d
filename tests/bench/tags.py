"""Makes the heads of w2w-tags (--out), and says how often they are right on public rows, with 95 % intervals: accuracy of all
answers, of the sure ones, and how many are sure. The last line is JSON.

python -m tests.bench.tags [--folder FOLDER] [--encoder w2w-fashion --colour 0] [--out w2w/models/weights]

Heads learn from all rows but those of split test, as they are and half hidden, for colours also re-lit. Kinds and types are
linear, colours have a hidden layer. Temperature and thresholds follow from what heads say of rows held back from them: of
colours in four parts; of kinds and types, whose rows for training w2w-fashion itself has learnt from, those of val alone. Rows
of `views` teach nothing: they are people who wear the garments, of a shop that the heads do not know.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from tests.bench.fashion import figure
from tests.bench.fashion_rows import HIDDEN, LIT, PLAIN, TEST, TRAIN, VAL, Rows, computed, read_real
from tests.bench.fashion_train import classifier
from tests.bench.folder import begin, parser_of
from tests.bench.tags_rows import ATTRIBUTES, labels_of
from w2w import ids
from w2w.garments.classifier import Classifier, best_temperature, calibration_error, softmax
from w2w.models import sources
from w2w.models.config import COLOUR, FASHION, KIND, EncoderConfig
from w2w.models.encoder import load_encoder
from w2w.training.tags.heads import Head, Tagger, save, thresholds

PRECISION = 0.9
_PENALTY, _SCALE = {"kind": 3e-3, "type": 1e-3}, 10.0
_HIDDEN, _NETWORKS, _EPOCHS, _BATCH = 256, 3, 30, 256
_RATE, _DECAY, _DROPPED, _SMOOTH = 2e-3, 0.3, (0.1, 0.7), 0.1
_LEARNT = {"kind": (PLAIN, HIDDEN), "type": (PLAIN, HIDDEN), COLOUR: (PLAIN, LIT, HIDDEN)}
_NOT_READ = {"kind": COLOUR, "type": COLOUR, COLOUR: KIND}  # the part of a vector
_FOLDS = 4
_LEAST = 6  # rows of a value that is learnt
Layers = tuple[tuple[np.ndarray, np.ndarray], ...]


def linear(x_ND: np.ndarray, codes_N: np.ndarray, count: int, penalty: float) -> Layers:
    weight, bias = classifier(x_ND, codes_N, count, penalty)
    return ((weight.numpy(), bias.numpy()),)


def hidden(x_ND: np.ndarray, codes_N: np.ndarray, count: int) -> Layers:
    """Networks of one hidden layer as one that says their mean: it is as wide as they are together."""
    centre = x_ND.mean(0)
    x, y = torch.from_numpy((x_ND - centre) * _SCALE), torch.from_numpy(codes_N)
    made = [_network(x, y, count, seed) for seed in range(_NETWORKS)]
    first, first_bias, last, last_bias = (list(part) for part in zip(*made))
    weight = np.concatenate(first) * _SCALE
    below = weight, np.concatenate(first_bias) - weight @ centre
    return below, (np.concatenate(last, 1) / _NETWORKS, np.mean(last_bias, axis=0))


def _network(x_ND: torch.Tensor, y_N: torch.Tensor, count: int, seed: int) -> list[np.ndarray]:
    torch.manual_seed(seed)
    first, last = torch.nn.Linear(x_ND.shape[1], _HIDDEN), torch.nn.Linear(_HIDDEN, count)
    early, late = (torch.nn.Dropout(p) for p in _DROPPED)
    network = torch.nn.Sequential(early, first, torch.nn.ReLU(), late, last)
    optimizer = torch.optim.AdamW(network.parameters(), _RATE, weight_decay=_DECAY)
    steps = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _EPOCHS * -(-len(y_N) // _BATCH))
    for _ in range(_EPOCHS):
        for part in torch.randperm(len(y_N)).split(_BATCH):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(x_ND[part]), y_N[part], label_smoothing=_SMOOTH).backward()
            optimizer.step()
            steps.step()
    return [p.detach().numpy() for p in (first.weight, first.bias, last.weight, last.bias)]


def read_of(attribute: str, parts: tuple[tuple[str, int], ...], dim: int) -> np.ndarray:
    """bool (dim,): which places of a vector the head reads."""
    lengths = [length if length > 0 else dim - sum(n for _, n in parts if n > 0) for _, length in parts]
    return np.repeat([name != _NOT_READ[attribute] for name, _ in parts], lengths)


def fit(sets: Sequence[tuple[dict[str, np.ndarray], Rows]], attribute: str, parts: tuple[tuple[str, int], ...]) -> Head:
    """On all rows but those of the test. Temperature and thresholds by what heads say of rows that are held back from them, a
    cluster of near-duplicates as a whole."""
    kept = [rows.of(TRAIN, VAL) for _, rows in sets]

    def joined(columns: Iterable[np.ndarray]) -> np.ndarray:
        return np.concatenate([column[places] for column, places in zip(columns, kept)])

    labels = joined(labels_of(rows, attribute) for _, rows in sets)
    known, counts = np.unique(labels, return_counts=True)
    known = known[(counts >= _LEAST) & (known != "")]
    of, variants = np.isin(labels, known), _LEARNT[attribute]
    codes, seen = np.searchsorted(known, labels[of]), {v: joined(found[v] for found, _ in sets)[of] for v in variants}
    splits, groups = joined(rows.splits_N for _, rows in sets)[of], joined(rows.groups_N for _, rows in sets)[of]
    dim = seen[PLAIN].shape[1]
    read_D = read_of(attribute, parts, dim)

    def made(some: np.ndarray, temperature: float = 1.0) -> Classifier:
        x, y = np.concatenate([seen[v][some][:, read_D] for v in variants]), np.tile(codes[some], len(variants))
        first, *more = hidden(x, y, len(known)) if attribute == COLOUR else linear(x, y, len(known), _PENALTY[attribute])
        wide = np.zeros((len(first[0]), dim), np.float32)
        wide[:, read_D] = first[0]
        rounded = (w.astype(np.float16).astype(np.float32) for w in (wide, *(w for w, _ in more)))
        layers = tuple((w, b.astype(np.float32)) for w, b in zip(rounded, (first[1], *(b for _, b in more))))
        return Classifier(tuple(map(str, known)), "", np.zeros(dim, np.float32), np.ones(dim, np.float32), layers, temperature)

    logits, asked = np.zeros((len(codes), len(known)), np.float32), np.zeros(len(codes), bool)
    for part in held_back(splits, groups, attribute):
        logits[part], asked[part] = made(~part).logits(seen[PLAIN][part]), True
    temperature = best_temperature(logits[asked], codes[asked])
    found = thresholds(softmax(logits[asked] / temperature), codes[asked], PRECISION)
    return Head(made(np.ones(len(codes), bool), temperature), found)


def held_back(splits_N: np.ndarray, groups_N: np.ndarray, attribute: str) -> list[np.ndarray]:
    """Masks of the rows that a head is asked for which learns from the others."""
    if attribute != COLOUR:
        return [splits_N == VAL]
    fold_N = ids.hash_bucket(pa.array(groups_N.tolist()), _FOLDS)
    return [fold_N == fold for fold in range(_FOLDS)]


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
    parser.add_argument("--encoder", default=FASHION)
    parser.add_argument("--colour", type=float, default=0.0)
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
    for attribute, (learnt, others) in ATTRIBUTES.items():
        heads[attribute] = fit([(vectors[name], sets[name]) for name in learnt], attribute, sources.of(config).parts)
        for name in (*learnt, *others):
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
            {"accuracy": result[f"{attribute}: {learnt[0]}, {TEST}"]["accuracy"]},
        )
    if options.out:
        save(Tagger(options.encoder, options.colour, heads), str(options.out), {"precision": PRECISION})
    print(json.dumps({"bench": "tags", "encoder": options.encoder, "colour": options.colour, **result}))


if __name__ == "__main__":
    main()
