"""What w2w-fashion finds beside EfficientNet-Lite0, in one table: public rows of validation and test, also in other light and
half hidden, and paired differences with 95 % intervals, products drawn, not pictures. The last line is JSON.

python -m tests.bench.fashion [--folder FOLDER] [--choose] [--teacher] [--large]

Vectors are made by the encoders' own layers of what fashion_train.py has computed in FOLDER, or computes there. --choose
compares weights of the parts on validation rows alone; --teacher adds a larger model, three times as expensive
(fashion_teacher.py); --large a wardrobe of 5,000, ten minutes of CPU more.
"""

import itertools
import json
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np

from tests.bench.fashion_rows import HIDDEN, LARGE, LIT, MORE, PLAIN, TEST, TRAIN, VAL, Rows, computed, more, read_all, unit
from tests.bench.fashion_teacher import Teacher
from tests.bench.fashion_train import said
from tests.bench.folder import begin, parser_of
from w2w.metrics.retrieval import bootstrap
from w2w.models.config import FASHION, KIND_DIM, LITE0, SHAPE_DIM, EncoderConfig
from w2w.models.encoder import Encoder, load_encoder

TEACHER = "teacher"
COLOURED = f"{LITE0}, colour .7"
Hits = tuple[np.ndarray, np.ndarray]  # of each query whether it is right, and what it belongs to


class Vectors:
    """Unit vectors of every data set and variant, by the name of what makes them."""

    def __init__(self, sets: dict[str, Rows], folder: Path):
        self.sets, self.folder, self._encoder = sets, folder, load_encoder(EncoderConfig(LITE0))
        self._kept: dict[tuple, np.ndarray] = {}

    @cached_property
    def _teacher(self) -> Teacher:
        return Teacher(self.sets, self._encoder, self.folder)

    @cached_property
    def _fashion(self) -> Encoder:
        return load_encoder(EncoderConfig(FASHION))

    def parts(self, name: str, variant: str) -> list[np.ndarray]:
        """Shape, kind and colours of w2w-fashion; each of length 1."""
        found = np.split(self._made(FASHION, name, variant), np.cumsum([SHAPE_DIM, KIND_DIM]), axis=1)
        return [unit(part) for part in found]

    def of(self, model: str | tuple[float, float, float], name: str, variant: str) -> np.ndarray:
        """``model``: a name, or weights of shape, kind and colours."""
        key = model, name, variant
        if key not in self._kept:
            self._kept[key] = self._made(model, name, variant)
        return self._kept[key]

    def _made(self, model: str | tuple[float, float, float], name: str, variant: str) -> np.ndarray:
        rows = self.sets[name]
        if model == TEACHER:
            return self._teacher(name, variant)
        if model == FASHION:
            return np.array(computed(rows, variant, self._fashion, self.folder, self._fashion.model_version))
        if isinstance(model, tuple):
            return unit(np.concatenate([w * p for w, p in zip(model, self.parts(name, variant))], 1))
        plain = np.array(computed(rows, variant, self._encoder, self.folder, "lite0"))
        return plain if model == LITE0 else unit(np.concatenate([plain, 0.7 * self.parts(name, variant)[2]], 1))


def views(made: Callable, sets: dict[str, Rows], split: str, variant: str, label: str) -> Hits:
    """Views that are no main one, of skus of the split: whether the nearest main one has the same label."""
    rows = sets["views"]
    of_N, labels_N, main_N = np.isin(rows.splits_N, split.split("+")), rows.labels[label], rows.labels["main"]
    gallery = np.flatnonzero(of_N & main_N)
    asked = np.flatnonzero(of_N & ~main_N & np.isin(labels_N, labels_N[gallery]))
    nearest = gallery[(made("views", variant)[asked] @ made("views", PLAIN)[gallery].T).argmax(1)]
    return (labels_N[nearest] == labels_N[asked]).astype(float), rows.groups_N[asked]


def nearest_class(made: Callable, sets: dict[str, Rows], split: str, variant: str, name: str, label: str) -> Hits:
    """Whether the nearest picture for training has the same label."""
    rows, labels_N = sets[name], sets[name].labels[label]
    known, asked = rows.of(TRAIN), rows.of(split)
    nearest = known[(made(name, variant)[asked] @ made(name, PLAIN)[known].T).argmax(1)]
    return (labels_N[nearest] == labels_N[asked]).astype(float), rows.groups_N[asked]


def head_class(made: Callable, sets: dict[str, Rows], split: str, variant: str, name: str, label: str) -> Hits:
    """Whether a linear classifier of the vectors says so, that has learnt from the pictures for training."""
    rows, labels_N = sets[name], sets[name].labels[label]
    places, asked = rows.of(TRAIN), rows.of(split)
    answers_Q = said(made(name, PLAIN)[places], labels_N[places], made(name, variant)[asked])
    return (answers_Q == labels_N[asked]).astype(float), rows.groups_N[asked]


def wardrobe(made: Callable, sets: dict[str, Rows], split: str, variant: str, size: int) -> Hits:
    """Whether the nearest of ``size`` thumbnails is of the product that is worn. Of more products ``size`` at a time, each of
    them among their own thumbnails."""
    name = f"wardrobe {split}"
    place_N, main_N = sets[name].labels["place"], sets[name].labels["main"]
    worn, alone = np.flatnonzero(~main_N), np.flatnonzero(main_N)
    start_Q = np.where(size > place_N[worn].max() + 1, 0, place_N[worn] // size * size)
    gallery = made(name, PLAIN)[alone]
    if size > len(gallery) and split == TEST:
        gallery = np.concatenate([gallery, made(MORE, PLAIN)])
    scores, place_G = made(name, variant)[worn] @ gallery.T, np.arange(len(gallery))
    scores[(place_G < start_Q[:, None]) | (place_G >= start_Q[:, None] + size)] = -2
    return (scores.argmax(1) == place_N[worn]).astype(float), place_N[worn]


# name -> what measures it, and with which variant of the pictures that are asked for, of which data, by what
QUESTIONS: dict[str, tuple[Callable, tuple]] = {
    "views, sku and colour": (views, (PLAIN, "product")),
    "views, sku": (views, (PLAIN, "sku")),
    "views, sku and colour, re-lit": (views, (LIT, "product")),
    "views, sku and colour, half hidden": (views, (HIDDEN, "product")),
    "user_photos, 1-NN": (nearest_class, (PLAIN, "user_photos", "class")),
    "user_photos, 1-NN, re-lit": (nearest_class, (LIT, "user_photos", "class")),
    "user_photos, 1-NN, half hidden": (nearest_class, (HIDDEN, "user_photos", "class")),
    "user_photos, head": (head_class, (PLAIN, "user_photos", "class")),
    "user_photos, head, re-lit": (head_class, (LIT, "user_photos", "class")),
    "user_photos, head, half hidden": (head_class, (HIDDEN, "user_photos", "class")),
    "catalog type, 1-NN": (nearest_class, (PLAIN, "catalog", "type")),
    "catalog type, 1-NN, re-lit": (nearest_class, (LIT, "catalog", "type")),
    "catalog type, 1-NN, half hidden": (nearest_class, (HIDDEN, "catalog", "type")),
    "catalog type, head": (head_class, (PLAIN, "catalog", "type")),
    "catalog type, head, re-lit": (head_class, (LIT, "catalog", "type")),
    "catalog type, head, half hidden": (head_class, (HIDDEN, "catalog", "type")),
    "catalog colour, 1-NN": (nearest_class, (PLAIN, "catalog", "colour")),
    "catalog colour, 1-NN, re-lit": (nearest_class, (LIT, "catalog", "colour")),
    "catalog colour, 1-NN, half hidden": (nearest_class, (HIDDEN, "catalog", "colour")),
    "catalog colour, head": (head_class, (PLAIN, "catalog", "colour")),
    "catalog colour, head, re-lit": (head_class, (LIT, "catalog", "colour")),
    "catalog colour, head, half hidden": (head_class, (HIDDEN, "catalog", "colour")),
    "wardrobe of 50": (wardrobe, (PLAIN, 50)),
    "wardrobe of 300": (wardrobe, (PLAIN, 300)),
    "wardrobe of 300, re-lit": (wardrobe, (LIT, 300)),
    "wardrobe of 300, half hidden": (wardrobe, (HIDDEN, 300)),
    "wardrobe of 5,000": (wardrobe, (PLAIN, LARGE)),
}
CHOSEN_BY = ("views, sku and colour", "user_photos, 1-NN", "catalog type, 1-NN", "catalog colour, 1-NN", "wardrobe of 50")


def ask(vectors: Vectors, model: str | tuple[float, float, float], question: str, split: str) -> Hits:
    measure, arguments = QUESTIONS[question]
    return measure(lambda name, variant: vectors.of(model, name, variant), vectors.sets, split, *arguments)


def stated(vectors: Vectors) -> list[tuple[str, str]]:
    """Questions, and the splits of which figures are stated."""
    found = []
    for question, (measure, arguments) in QUESTIONS.items():
        if measure is views:
            found += [(question, split) for split in (VAL, TEST, f"{VAL}+{TEST}")]
        elif measure is wardrobe:
            found += [(question, TEST)] if MORE in vectors.sets or arguments[-1] != LARGE else []
        else:
            found += [(question, split) for split in (VAL, TEST)]
    return found


def figure(hits_Q: np.ndarray, groups_Q: np.ndarray) -> list[float]:
    """Mean and its interval."""
    return [round(float(v), 3) for v in (hits_Q.mean(), *bootstrap(hits_Q, np.random.default_rng(0), groups_Q))]


def choose(vectors: Vectors) -> list[tuple[float, tuple[float, ...], dict[str, float]]]:
    """(mean of the questions, weights, figure of each), best first, on validation rows."""
    found = []
    for kind, colour in itertools.product((0.35, 0.5, 0.65, 0.8, 1.0), (0.6, 0.75, 0.9, 1.05, 1.2)):
        said = {q: float(ask(vectors, (1.0, kind, colour), q, VAL)[0].mean()) for q in CHOSEN_BY}
        found.append(
            (round(float(np.mean(list(said.values()))), 4), (1.0, kind, colour), {q: round(v, 3) for q, v in said.items()})
        )
    return sorted(found, key=lambda row: -row[0])


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--choose", action="store_true")
    parser.add_argument("--teacher", action="store_true")
    parser.add_argument("--large", action="store_true")
    options, folder = begin(parser)
    sets = read_all(folder) | ({MORE: more(folder)} if options.large else {})
    vectors = Vectors(sets, folder)
    if options.choose:
        for row in (found := choose(vectors)):
            print(*row)
        print(json.dumps({"bench": "fashion", "chosen": found[0][1]}))
        return
    result: dict[str, object] = {"bench": "fashion"}
    models = (LITE0, COLOURED, *([TEACHER] if options.teacher else []), FASHION)
    print(f"| question | rows | {' | '.join(models)} | gain of {FASHION} |\n|{'---|' * (len(models) + 3)}")
    for question, split in stated(vectors):
        hits = {m: ask(vectors, m, question, split) for m in models}
        before, after, groups_Q = hits[LITE0][0], hits[FASHION][0], hits[FASHION][1]
        told = {m: figure(*h) for m, h in hits.items()} | {"gain": figure(after - before, groups_Q)}
        result[f"{question}, {split}"] = told | {"queries": len(groups_Q)}
        cells = [f"{told[m][0]:.3f}" for m in models]
        gain = "{:+.3f} [{:.3f}, {:.3f}]".format(*told["gain"])
        print(f"| {question} | {split}, {len(groups_Q)} | {' | '.join(cells)} | {gain} |", flush=True)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
