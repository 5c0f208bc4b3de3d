"""What does training on real pictures gain on real pictures? Before and after, on the test splits of `views` (another view of a
product on a model -> its main one) and `user_photos` (the class of the nearest photo for training), with paired intervals.

python -m tests.bench.real_gain [--folder FOLDER] [--choose] [--out FOLDER] [--quick]

A head learns on vectors of EfficientNet-Lite0 of the train splits, of pictures as they are and augmented, a batch from one data
set at a time: `views` by product, `user_photos` by class, `catalog` by type of product. --choose compares settings without any
test picture: on folds of the skus for training, and on user_photos' validation split. Vectors stay in --folder; --out keeps the
encoder. Real images are read from W2W_DATA (default ../shared/data). The last line is JSON.
"""

import csv
import json
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from tests.bench.folder import begin, parser_of
from w2w.images.decode import decode
from w2w.metrics.retrieval import bootstrap
from w2w.models import sources
from w2w.models.config import LITE0, EncoderConfig
from w2w.models.encoder import load_encoder
from w2w.stage import MODEL
from w2w.training.config import LoopConfig
from w2w.training.encoders.augment import AugmentConfig, augment
from w2w.training.encoders.config import HeadConfig, LearnConfig
from w2w.training.encoders.pairs import Row
from w2w.training.encoders.recipe import HeadRecipe
from w2w.training.lookbook.pictures import read_products
from w2w.training.loop import Training, fit

DATA = Path(os.environ.get("W2W_DATA", "../shared/data"))
_ENCODER = EncoderConfig(LITE0)
_AUGMENT = AugmentConfig(occlude=0, erase=0)
_VARIANTS = 3  # of a picture: as it is, and augmented
_LOOKED_AT = 1024  # vectors whose principal components the head starts from
_FOLDS = 3
_TYPES_WITH = 10  # products at least, or a type of the catalog is left out


@dataclass(frozen=True)
class Settings:
    """Of the head. ``sets``: batches of each in turn; ``augmented``: those whose augmented pictures are learnt from too."""

    sets: tuple[str, ...] = ("views", "user_photos", "catalog")
    dim: int = 512
    steps: int = 240
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    augmented: tuple[str, ...] = ("views", "user_photos", "catalog")
    batch_pairs: int = 64


CHOSEN = Settings()
CHOICES = {
    "as it starts: principal components": replace(CHOSEN, steps=1, learning_rate=1e-12),
    "chosen": CHOSEN,
    "256 dimensions": replace(CHOSEN, dim=256),
    "rate 3e-3": replace(CHOSEN, learning_rate=3e-3),
    "rate 3e-4": replace(CHOSEN, learning_rate=3e-4),
    "rate 1e-4": replace(CHOSEN, learning_rate=1e-4),
    "no catalog": replace(CHOSEN, sets=("views", "user_photos")),
    "not augmented": replace(CHOSEN, augmented=()),
    "views augmented": replace(CHOSEN, augmented=("views",)),
    "views alone": replace(CHOSEN, sets=("views",)),
    "user_photos alone": replace(CHOSEN, sets=("user_photos",)),
}


@dataclass
class Pictures:
    """Of one data set: files, what they show (those of one label are alike), their splits, and vectors of their variants."""

    files: list[str]
    labels_N: np.ndarray
    splits_N: np.ndarray
    main_N: np.ndarray = field(default_factory=lambda: np.empty(0, bool))
    skus_N: np.ndarray = field(default_factory=lambda: np.empty(0, str))
    vectors_VND: np.ndarray = field(default_factory=lambda: np.empty(0))


def read_all() -> dict[str, Pictures]:
    def rows(name: str, file: str) -> list[dict]:
        with open(DATA / name / file, encoding="utf-8") as f:
            return [r | {"file": str(DATA / name / r["image"])} for r in csv.DictReader(f)]

    views, photos, products = rows("views", "views.csv"), rows("user_photos", "photos.csv"), rows("catalog", "products.csv")
    types = [r["product_type"] for r in products]
    products = [r for r in products if types.count(r["product_type"]) >= _TYPES_WITH]

    def column(table: list[dict], key: str) -> np.ndarray:
        return np.array([r[key] for r in table])

    return {
        "views": Pictures(
            [r["file"] for r in views],
            np.array([f"{r['sku']} {r['colour']}" for r in views]),
            column(views, "split"),
            column(views, "view") == "main",
            column(views, "sku"),
        ),
        "user_photos": Pictures([r["file"] for r in photos], column(photos, "label"), column(photos, "split")),
        "catalog": Pictures([r["file"] for r in products], column(products, "product_type"), np.full(len(products), "train")),
    }


def embed_all(sets: dict[str, Pictures], config: EncoderConfig, folder: Path) -> float:
    """Fills in the vectors, computed once; returns the CPU seconds that they took. Test pictures have no variants."""
    encoder, spent = None, 0.0
    for name, pictures in sets.items():
        parts = []
        for variant in range(_VARIANTS):
            file = folder / f"{name}-{variant}.npz"
            if not file.exists():
                encoder = encoder or load_encoder(config)
                began = time.process_time()
                chosen = np.flatnonzero((pictures.splits_N == "train") | (variant == 0))
                found = np.zeros((len(pictures.files), encoder.dim), np.float32)
                for start in range(0, len(chosen), 32):
                    some = chosen[start : start + 32]
                    found[some] = encoder.encode(np.stack([_seen(encoder, pictures.files[i], variant, i) for i in some]))
                np.savez(file, vectors=found, cpu_s=time.process_time() - began)
            with np.load(file) as kept:
                parts.append(kept["vectors"])
                spent += float(kept["cpu_s"])
        pictures.vectors_VND = np.stack(parts)
    return spent


def _seen(encoder, file: str, variant: int, number: int) -> np.ndarray:
    image = decode(Path(file).read_bytes())
    return encoder.prepare(augment(image, _AUGMENT, np.random.default_rng([variant, number]), worn=True) if variant else image)


def train(settings: Settings, sets: dict[str, Pictures], learns: dict[str, np.ndarray], out: Path, seed: int = 0) -> None:
    """``learns``: bool (N,) of each data set: what is learnt from."""
    torch.manual_seed(seed)
    learn = LearnConfig(
        batch_pairs=settings.batch_pairs,
        head=HeadConfig([settings.dim]),
        weight_decay=settings.weight_decay,
        same_category=(0.0, 0.0),
    )
    loop = LoopConfig(steps=settings.steps, learning_rate=settings.learning_rate, average=0.98, seed=seed)
    loop = replace(
        loop, warmup_steps=min(20, settings.steps // 2), measure_every=settings.steps, checkpoint_every=settings.steps
    )
    pools = [
        _Pool(sets[name], learns[name], settings.batch_pairs, name in settings.augmented, seed + i)
        for i, name in enumerate(settings.sets)
    ]
    everything = [v for name in sets for v in sets[name].vectors_VND[0][learns[name]]]
    order = np.random.default_rng(seed).permutation(len(everything))
    examples = [Row(everything[i], everything[j], 0, 0) for i, j in order[:_LOOKED_AT].reshape(-1, 2)]
    recipe = HeadRecipe(learn, sources.find(_ENCODER.name, None, False), examples, [], seed)
    fit(Training(recipe, lambda n: pools[n % len(pools)](n), loop), lambda _, write: write(out))


class _Pool:
    """Batches of one data set: two pictures each of all its labels, or of as many as fit; of few labels some several times."""

    def __init__(self, pictures: Pictures, learns_N: np.ndarray, size: int, augmented: bool, seed: int):
        self._vectors, self._size, self._seed = pictures.vectors_VND, size, seed
        self._variants = len(pictures.vectors_VND) if augmented else 1
        places = np.flatnonzero(learns_N)
        names, codes = np.unique(pictures.labels_N[places], return_inverse=True)
        self._of = [places[codes == c] for c in range(len(names))]
        if not augmented:  # a picture alone is like nothing
            self._of = [p for p in self._of if len(p) > 1]

    def __call__(self, number: int) -> list[Row]:
        rng = np.random.default_rng([self._seed, number])
        labels = rng.permutation(len(self._of))
        labels = np.concatenate([labels, rng.integers(0, len(self._of), max(0, self._size - len(labels)))])[: self._size]
        return [self._pair(int(label), rng) for label in labels]

    def _pair(self, label: int, rng: np.random.Generator) -> Row:
        places = self._of[label]
        first, second = rng.choice(places, 2, replace=False) if len(places) > 1 else (places[0], places[0])
        one, other = rng.integers(0, self._variants, 2)
        if first == second:
            other = (one + 1 + rng.integers(0, self._variants - 1)) % self._variants
        return Row(self._vectors[one, first], self._vectors[other, second], label, label)


def find_views(
    vectors_ND: np.ndarray, pictures: Pictures, of_N: np.ndarray, ranks: int = 1, any_colour: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Of each view of those pictures that is no main one: whether a main one of the same product, or of the same sku in
    ``any_colour``, is among the nearest ``ranks`` of all main ones, (Q,), and its sku."""
    labels_N = pictures.skus_N if any_colour else pictures.labels_N
    gallery = np.flatnonzero(of_N & pictures.main_N)
    asked = np.flatnonzero(of_N & ~pictures.main_N & np.isin(labels_N, labels_N[gallery]))
    nearest = np.argsort(-(vectors_ND[asked] @ vectors_ND[gallery].T), axis=1, kind="stable")[:, :ranks]
    same = labels_N[gallery][nearest] == labels_N[asked][:, None]
    return same.any(1).astype(float), pictures.skus_N[asked]


def find_class(vectors_ND: np.ndarray, pictures: Pictures, split: str) -> np.ndarray:
    """Of each photo of the split: whether the nearest photo for training is of its class, (Q,)."""
    known, asked = np.flatnonzero(pictures.splits_N == "train"), np.flatnonzero(pictures.splits_N == split)
    nearest = known[np.argmax(vectors_ND[asked] @ vectors_ND[known].T, axis=1)]
    return (pictures.labels_N[nearest] == pictures.labels_N[asked]).astype(float)


def through(folder: Path, vectors_ND: np.ndarray) -> np.ndarray:
    """Vectors of EfficientNet-Lite0 through the head that was trained on them."""
    head = sources.find(str(folder), None, False).network().head
    with torch.inference_mode():
        found = head(torch.from_numpy(vectors_ND)).numpy()
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def wardrobe(folder: Path) -> Pictures:
    """The train products of the bench of recipes, which has run there, with the vectors that it has made."""
    products = read_products(_one(folder, "train-*-*"), 1)
    labels = np.repeat([p.product for p in products], [1 + len(p.worn) for p in products])
    with np.load(_one(folder, f"{LITE0}-train-{len(labels)}.npz")) as kept:
        found = kept["vectors"]
    return Pictures([], labels, np.full(len(labels), "train"), vectors_VND=found[None])


def found_in(folder: Path, model: Path) -> dict[str, object]:
    """How often its test photos find what is worn among its 300 test products."""
    products = read_products(_one(folder, "test-*-*"), 1)
    worn_Q = np.repeat(np.arange(len(products)), [len(p.worn) for p in products])
    with (
        np.load(_one(folder, f"{LITE0}-test-photos-{len(worn_Q)}.npz")) as photos,
        np.load(_one(folder, f"{LITE0}-test-gallery-*.npz")) as gallery,
    ):
        sides = photos["vectors"], gallery["vectors"][: len(products)]
    was, now = ((a @ b.T).argmax(1) == worn_Q for a, b in (sides, tuple(through(model, side) for side in sides)))
    return compared(was.astype(float), now.astype(float), worn_Q)


def _one(folder: Path, pattern: str) -> Path:
    """The one file or folder of the bench of recipes that the pattern names."""
    found = list(folder.glob(pattern))
    if len(found) != 1:
        raise SystemExit(f"--book={folder}: {len(found)} of {pattern}; run tests.bench.recipes there first, once")
    return found[0]


def choose(sets: dict[str, Pictures]) -> dict[str, dict]:
    """Settings -> Recall@1 over folds of the skus for training, and class accuracy on the validation split."""
    views, photos = sets["views"], sets["user_photos"]
    for_training = views.splits_N == "train"
    skus = np.random.default_rng(0).permutation(np.unique(views.skus_N[for_training]))
    folds = [for_training & np.isin(views.skus_N, skus[i::_FOLDS]) for i in range(_FOLDS)]
    everything = {name: p.splits_N == "train" for name, p in sets.items()}
    # the encoder itself, measured in the same way
    hits = [find_views(views.vectors_VND[0], views, fold, k)[0] for fold in folds for k in (1, 5)]
    found = {LITE0: _said(hits, find_class(photos.vectors_VND[0], photos, "validation"))}
    print(LITE0, found[LITE0], flush=True)
    for name, settings in CHOICES.items():
        hits = []
        for number, fold in enumerate(folds):
            with tempfile.TemporaryDirectory() as folder:
                train(settings, sets, everything | {"views": for_training & ~fold}, Path(folder), seed=number)
                model = Path(folder, MODEL)
                seen = through(model, views.vectors_VND[0])
                hits += [find_views(seen, views, fold, k)[0] for k in (1, 5)]
                right = find_class(through(model, photos.vectors_VND[0]), photos, "validation")
        found[name] = _said(hits, right)
        print(name, found[name], flush=True)
    return found


def _said(hits: Sequence[np.ndarray], right: np.ndarray) -> dict[str, float]:
    values = {"views Recall@1": np.concatenate(hits[::2]), "Recall@5": np.concatenate(hits[1::2]), "class": right}
    return {name: round(float(v.mean()), 4) for name, v in values.items()}


def compared(before_Q: np.ndarray, after_Q: np.ndarray, groups_Q: np.ndarray | None = None) -> dict[str, object]:
    """Means with their 95 % intervals, and that of the difference, paired; ``groups_Q`` (skus) are drawn as a whole."""
    result: dict[str, object] = {"queries": len(before_Q)}
    for name, values_Q in (("before", before_Q), ("after", after_Q), ("gain", after_Q - before_Q)):
        low, high = bootstrap(values_Q, np.random.default_rng(0), groups_Q)
        result[name] = [round(float(v), 4) for v in (values_Q.mean(), low, high)]
    return result


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--choose", action="store_true")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--book", type=Path, help="the folder of recipes.py: learn from its pairs too, and look for its photos")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a few steps, without the catalog")
    options, folder = begin(parser)
    sets, settings = read_all(), CHOSEN
    if options.quick:
        del sets["catalog"]
        settings = replace(CHOSEN, sets=tuple(sets), steps=20)
    result: dict[str, object] = {"bench": "real_gain", "vectors_cpu_s": round(embed_all(sets, _ENCODER, folder))}
    if options.choose:
        print(json.dumps(result | {"choose": choose(sets)}))
        return
    out = options.out or Path(tempfile.mkdtemp())
    out.mkdir(parents=True, exist_ok=True)
    if options.book:
        sets["wardrobe"] = wardrobe(options.book)
        settings = replace(settings, sets=tuple(sets), steps=settings.steps * 4 // 3)
    began = time.process_time()
    train(settings, sets, {name: p.splits_N == "train" for name, p in sets.items()}, out, options.seed)
    result["train_cpu_s"] = round(time.process_time() - began)
    views, photos = sets["views"], sets["user_photos"]
    before = {name: sets[name].vectors_VND[0] for name in ("views", "user_photos")}
    after = {name: through(out / MODEL, found) for name, found in before.items()}
    tested = views.splits_N == "test"
    for k in (1, 5, 10):
        for any_colour in (False, True):
            (was, skus), (now, _) = (find_views(v["views"], views, tested, k, any_colour) for v in (before, after))
            result[f"views Recall@{k}" + (", any colour" if any_colour else "")] = compared(was, now, skus)
    result["user_photos class"] = compared(*(find_class(v["user_photos"], photos, "test") for v in (before, after)))
    if options.book:
        result["wardrobe Recall@1 of 300"] = found_in(options.book, out / MODEL)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
