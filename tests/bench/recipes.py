"""Which recipe finds more for a minute of the CPU? Each learns from the same pairs for as many CPU minutes, once a seed. One is
chosen by Recall@1 on the products of one shop; figures are stated of another: among 50, 300 and 5,000. Neither was learnt from.
The last line is JSON.

python -m tests.bench.recipes [--minutes 10] [--seeds 3] [--folder FOLDER] [--only NAME ...] [--start w2w-fashion] [--quick]

Pictures are the wardrobe in LookBook's layout, ten photos of each product that is learnt from as there. They and the figures
stay in --folder: a recipe that has been run there with a seed for as many minutes is not run again. Minutes are those of the
process, all its threads; how many steps fit in them is estimated from the first ones, and what a recipe really took stands
beside its figures.
"""

import json
import re
import tempfile
import time
from collections.abc import Callable, Set
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from tests.bench.book import TEST, TRAIN, VAL, Asked, Book, Found, mistaken, over_seeds, ranks_of, recall, vectors
from tests.bench.folder import begin, parser_of
from w2w.models import sources
from w2w.models.config import FASHION, LITE0, EncoderConfig
from w2w.models.pixeldtgan import GanConfig, load_gan
from w2w.models.siamese import SIDE_PX, SiameseConfig, embed, load_siamese
from w2w.stage import MODEL
from w2w.training.batches import in_epochs
from w2w.training.config import LoopConfig
from w2w.training.encoders.augment import AugmentConfig
from w2w.training.encoders.config import HeadConfig, LearnConfig
from w2w.training.encoders.pairs import PairBatches, Row
from w2w.training.encoders.recipe import EncoderRecipe, HeadRecipe
from w2w.training.lookbook import pixeldtgan, siamese
from w2w.training.lookbook.experiments import KS, SEED_PAIRS, SEED_TOP, experiment_1, make_pairs, pixel_vectors
from w2w.training.lookbook.pictures import Pictures
from w2w.training.loop import Training, fit

GALLERIES = (50, 300, 5000)
ZERO_SHOT, SIAMESE, IMPROVED, GAN = "untrained", "Siamese", "Siamese, learnt scale", "PixelDTGAN"
MAIN = (ZERO_SHOT, GAN, SIAMESE, "InfoNCE", "head, then unfrozen but early layers, half hidden")
_TRIED = 4  # steps from which the cost of the rest is estimated
_REPORTS = 5
_BASE = LearnConfig(batch_pairs=256, same_category=(0.0, 0.0))
_GAN = GanConfig(channels=16)  # of minutes on a CPU a small one makes more: four times the steps of the default's
_EARLY = ["conv_stem", "bn1", "blocks.0", "blocks.1"]
_SEEN = LearnConfig(batch_pairs=32, same_category=(0.0, 0.0), augment=AugmentConfig(partial=0, occlude=0, erase=0))


@dataclass(frozen=True)
class Trial:
    """An encoder's recipe: first a head on the vectors of the start, then, on pictures of ``size_px``, all of it."""

    head: LearnConfig | None = _BASE
    copies: int = 0
    """Augmented copies of every picture whose vectors are learnt from too: each costs as much as the pictures themselves."""
    head_minutes: float = 0.2
    learning_rate: float = 1e-3
    average: float = 0.998
    whole: LearnConfig | None = None
    size_px: int = 160


TRIALS = {
    "triplet": Trial(replace(_BASE, loss="triplet")),
    "InfoNCE": Trial(),
    "+ same category": Trial(replace(_BASE, same_category=(0.5, 1.0))),
    "+ Matryoshka": Trial(replace(_BASE, dims=[16, 32, 64, 128])),
    "+ mined negatives": Trial(replace(_BASE, negatives=8)),
    "- running average": Trial(average=0.0),
    "- principal components": Trial(replace(_BASE, head=HeadConfig([128], "random"))),
    "+ 512 dimensions": Trial(replace(_BASE, head=HeadConfig([512]))),
    "+ two layers": Trial(replace(_BASE, head=HeadConfig([512, 128]))),
    "+ half hidden, vectors of 2 copies": Trial(copies=2),
    "+ half hidden, five times the steps": Trial(copies=2, head_minutes=1.0),
    "+ half of the steps": Trial(head_minutes=0.1),
    "+ five times the steps": Trial(head_minutes=1.0),
    "+ 1280 dimensions": Trial(replace(_BASE, head=HeadConfig([1280]))),
    "+ 512 dimensions, strong decay": Trial(replace(_BASE, head=HeadConfig([512]), weight_decay=1.0)),
    "unfrozen from the start, 96 px": Trial(None, whole=_SEEN, size_px=96),
    "unfrozen from the start, 160 px": Trial(None, whole=_SEEN),
    "head, then unfrozen, triplet": Trial(replace(_BASE, loss="triplet"), whole=replace(_SEEN, loss="triplet")),
    "head, then unfrozen": Trial(whole=_SEEN),
    "head, then unfrozen, half hidden": Trial(whole=replace(_SEEN, augment=AugmentConfig())),
    "head, then unfrozen, same category": Trial(whole=replace(_SEEN, same_category=(0.5, 1.0))),
    "head, then unfrozen, mined negatives": Trial(replace(_BASE, negatives=8), whole=replace(_SEEN, negatives=8)),
    "head, then unfrozen, WiSE-FT .7": Trial(whole=replace(_SEEN, interpolate=0.7)),
    "head, then unfrozen but early layers": Trial(whole=replace(_SEEN, frozen=_EARLY)),
    "head, then unfrozen but early layers, half hidden": Trial(whole=replace(_SEEN, frozen=_EARLY, augment=AugmentConfig())),
}


@dataclass(frozen=True)
class Outcome:
    """What a run makes of the products to choose by and of those to state figures of."""

    found: dict[str, Found]
    says: dict = field(default_factory=dict)


class Bench:
    """What the recipes share: pictures, the vectors that they start from, and the time."""

    def __init__(self, book: Book, minutes: float, folder: Path, start: str = LITE0):
        self.book, self.seconds, self.folder, self.start = book, minutes * 60, folder, EncoderConfig(start)

    def start_vectors(self, name: str, files: list[str], copy: int = 0, clean: Set[str] = frozenset()):
        """Of the start, (N, D), and the seconds that they took, computed once. ``copy``: of augmented pictures."""
        file = self.folder / f"{self.start.name}-{name}-{len(files)}.npz"
        if not file.exists():
            began = time.process_time()
            np.savez(file, vectors=vectors(self.start, files, copy, clean), cpu_s=time.process_time() - began)
        with np.load(file) as kept:
            return kept["vectors"], float(kept["cpu_s"])

    def _start(self, part: str) -> Found:
        asked = self.book.asked[part]
        names = {f"{part}-photos": asked.photos, f"{part}-gallery": asked.gallery}
        return Found(*(self.start_vectors(name, files)[0] for name, files in names.items()))

    def zero_shot(self, seed: int) -> "Outcome":
        return Outcome({part: self._start(part) for part in self.book.asked})

    def _seen(self, see: Callable[[list[str], bool], np.ndarray], says: dict) -> "Outcome":
        """``see``: unit vectors of files, which are photos (True) or thumbnails."""
        found = {part: Found(see(asked.photos, True), see(asked.gallery, False)) for part, asked in self.book.asked.items()}
        return Outcome(found, says)

    def encoder(self, trial: Trial, seed: int) -> "Outcome":
        source, spent, says = sources.find(self.start.name, None, False), 0.0, {}
        with tempfile.TemporaryDirectory() as folder:
            model = Path(folder, MODEL)
            if trial.head:
                seen, spent = self._train_vectors(trial.copies)
                rows, categories_N = self._rows(seen, trial.head.negatives)
                loop = LoopConfig(learning_rate=trial.learning_rate, average=trial.average, seed=seed)
                seconds = min(trial.head_minutes * 60, self.seconds - spent)
                done = train_for(seconds, self._maker(HeadRecipe, trial.head, source, rows, categories_N), loop, Path(folder))
                source, spent = sources.find(str(model), None, False), spent + done[1]
                says["head"] = {"steps": done[0], "pairs": done[0] * trial.head.batch_pairs}
            if not trial.whole:
                return self._through(source.network().head, says | {"cpu_s": round(spent)})
            began = time.process_time()
            rows, categories_N = self._rows([lambda f: Path(f).read_bytes()], trial.whole.negatives)
            source = replace(source, input=replace(source.input, size_px=trial.size_px, resize_px=trial.size_px))
            loop = LoopConfig(learning_rate=trial.learning_rate / 2, average=trial.average, seed=seed)
            made = self._maker(EncoderRecipe, trial.whole, source, rows, categories_N)
            spent += time.process_time() - began
            done = train_for(self.seconds - spent, made, loop, Path(folder))
            says["whole"] = {"steps": done[0], "pairs": done[0] * trial.whole.batch_pairs}
            config = replace(self.start, name=str(model))
            return self._seen(lambda files, _: vectors(config, files), says | {"cpu_s": round(spent + done[1])})

    def _train_vectors(self, copies: int) -> tuple[list[Callable[[str], np.ndarray]], float]:
        """How to read the vectors of training pictures as they are, and of each augmented copy; what they took counts."""
        files = [f for p in self.book.train for f in (p.clean, *p.worn)]
        clean = {p.clean for p in self.book.train}
        found, total = [], 0.0
        for copy in range(copies + 1):
            known, spent = self.start_vectors("train" if not copy else f"train-copy-{copy}", files, copy, clean)
            found.append(dict(zip(files, known)).__getitem__)
            total += spent
        return found, total

    def _through(self, head: torch.nn.Module, says: dict) -> "Outcome":
        """What the vectors of the start become."""
        found = {}
        for part in self.book.asked:
            before = self._start(part)
            with torch.inference_mode():
                sides = [head(torch.from_numpy(v)).numpy() for v in (before.photos_QD, before.gallery_GD)]
            found[part] = Found(*(v / np.linalg.norm(v, axis=1, keepdims=True) for v in sides))
        return Outcome(found, says)

    def _rows(self, seen: list[Callable[[str], object]], num_negatives: int) -> tuple[list[Row], np.ndarray]:
        mined: dict[int, tuple] = {}
        if num_negatives:
            clean_PD = self._train_vectors(0)[0][0]
            clean_PD = np.stack([clean_PD(p.clean) for p in self.book.train])
            scores = clean_PD @ clean_PD.T
            np.fill_diagonal(scores, -1)
            nearest = np.argsort(-scores, axis=1)[:, :num_negatives]
            mined = {
                i: tuple((seen[0](self.book.train[j].clean), int(j), int(j)) for j in row) for i, row in enumerate(nearest)
            }
        rows = [
            Row(read(worn), positive, i, i, mined.get(i, ()))
            for read in seen
            for i, p in enumerate(self.book.train)
            for positive in [read(p.clean)]
            for worn in p.worn
        ]
        names = sorted({g.category for g in self.book.train_garments})
        return rows, np.array([names.index(self.book.train_garments[r.product].category) for r in rows])

    def _maker(self, kind, learn: LearnConfig, source, rows: list[Row], categories_N: np.ndarray):
        shares_C = np.bincount(categories_N) / len(categories_N)

        def make(loop: LoopConfig) -> Training:
            recipe = kind(learn, source, rows, [], loop.seed)
            return Training(recipe, PairBatches(rows, categories_N, shares_C, learn, loop.steps, loop.seed), loop)

        return make

    def siamese(self, config: SiameseConfig, seed: int, batch: int = 64) -> "Outcome":
        pairs = make_pairs(self.book.train, siamese.PAIRS_EACH, np.random.default_rng(seed))
        loop = siamese.as_published(len(self.book.train), batch, seed=seed)
        if config.learnt_scale:
            loop = replace(loop, optimizer="adamw", learning_rate=1e-3, schedule="cosine")

        def make(loop: LoopConfig) -> Training:
            rows = in_epochs(range(len(pairs.same_P)), batch, loop.seed, 0, 1)
            return Training(siamese.SiameseRecipe(config, pairs, [], seed), rows, loop)

        with tempfile.TemporaryDirectory() as folder:
            says = _done(train_for(self.seconds, make, loop, Path(folder)), batch)
            network = load_siamese(Path(folder, MODEL))
        says["epochs"] = round(says.pop("pairs") / len(pairs.same_P), 1)
        pictures = Pictures(SIDE_PX)
        asked = make_pairs(self.book.products[TEST], siamese.PAIRS_EACH, np.random.default_rng(0))
        said = experiment_1(siamese.pair_probabilities(network, pictures, asked), asked.same_P)
        says["experiment 1"] = {k: round(v, 3) for k, v in said.items()}
        return self._seen(lambda files, _: embed(network, pictures.read(files)), says)

    def gan(self, seed: int, batch: int = 16) -> "Outcome":
        loop = LoopConfig(optimizer="adam", learning_rate=3e-4, schedule="constant", average=0.99, clip_norm=0, seed=seed)
        train = self.book.train

        def make(loop: LoopConfig) -> Training:
            def rows(number: int) -> list[int]:
                return np.random.default_rng([loop.seed, number]).choice(len(train), batch, replace=False).tolist()

            return Training(pixeldtgan.GanRecipe(_GAN, train, seed=seed), rows, loop)

        with tempfile.TemporaryDirectory() as folder:
            says = _done(train_for(self.seconds, make, loop, Path(folder)), batch)
            network = load_gan(Path(folder, MODEL))
        pictures = Pictures(pixeldtgan.SIDE_PX)

        def see(files: list[str], worn: bool) -> np.ndarray:
            found = pictures.read(files)
            return pixel_vectors(pixeldtgan.drawn(network, found) if worn else found)

        return self._seen(see, says)


def train_for(seconds: float, make: Callable[[LoopConfig], Training], loop: LoopConfig, out: Path) -> tuple[int, float]:
    """Trains for about so many seconds of the CPU. Returns steps and seconds."""
    marks: list[float] = []
    began = time.process_time()
    trial = make(replace(loop, steps=_TRIED, measure_every=_TRIED, checkpoint_every=1))
    setup = time.process_time() - began
    fit(trial, lambda figures, write: marks.append(time.process_time()))
    a_step = (marks[-1] - marks[0]) / (len(marks) - 1)
    steps = max(_REPORTS, int((seconds - setup) / a_step))
    settings = replace(loop, steps=steps, warmup_steps=min(loop.warmup_steps, steps // 10), measure_every=steps)
    began, ended = time.process_time(), 0.0

    def report(figures: dict, write: Callable[[Path], None]) -> None:
        nonlocal ended
        ended = time.process_time()
        print(f"  step {figures['step']} of {steps}: loss {figures['losses']['loss']:.3f}, {ended - began:.0f} s", flush=True)
        if figures["step"] == steps:
            write(out)

    fit(make(replace(settings, checkpoint_every=max(1, steps // _REPORTS))), report)
    return steps, ended - began


def _done(done: tuple[int, float], batch: int) -> dict:
    steps, seconds = done
    return {"steps": steps, "pairs": steps * batch, "cpu_s": round(seconds)}


def measure(name: str, seed: int, outcome: Outcome, asked: dict[str, Asked]) -> dict:
    """A run's figures: Recall@1 on val, [value, low, high] of each gallery and k on the test."""
    chosen_by = ranks_of(outcome.found[VAL], asked[VAL].products_Q, asked[VAL].num, asked[VAL].num)
    test, found = asked[TEST], outcome.found[TEST]
    figures = {}
    for size in (s for s in GALLERIES if s <= len(test.gallery)):
        ranks_Q = ranks_of(found, test.products_Q, size, test.num)
        figures[str(size)] = {f"Recall@{k}": recall(ranks_Q, test.products_Q, k) for k in KS}
    val = recall(chosen_by, asked[VAL].products_Q, 1)[0]
    return {"recipe": name, "seed": seed, **outcome.says, VAL: val, TEST: figures, **mistaken(found, test)}


def lines(runs: list[dict], k: str = "Recall@1") -> list[dict]:
    """``over_seeds`` of one measure."""
    return over_seeds([r | {TEST: {size: figures[k][0] for size, figures in r[TEST].items()}} for r in runs])


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seeds", type=int, default=3, help="of order, augmentation and first weights")
    parser.add_argument("--products", type=int, default=2000, help="to train on")
    parser.add_argument("--worn", type=int, default=10, help="photos of each of them")
    parser.add_argument("--asked", type=int, default=300, help="products of the test, and half as many of val")
    parser.add_argument("--gallery", type=int, default=5000, help="products among which those of the test are looked for")
    parser.add_argument("--only", nargs="*", help="names of recipes; main: " + "; ".join(MAIN))
    parser.add_argument("--start", choices=(LITE0, FASHION), default=LITE0, help="the encoder that recipes start from")
    parser.add_argument("--quick", action="store_true", help="few products, seconds a recipe")
    options, folder = begin(parser)
    minutes = 0.1 if options.quick else options.minutes
    if options.quick:
        options.products, options.asked, options.gallery = 60, 50, 120
    num = {TRAIN: options.products, VAL: options.asked // 2, TEST: options.asked}
    bench = Bench(Book(folder, num, options.worn, options.gallery), minutes, folder, options.start)
    known: dict[str, Callable[[int], Outcome]] = {
        ZERO_SHOT: bench.zero_shot,
        SIAMESE: lambda seed: bench.siamese(SiameseConfig(), seed),
        IMPROVED: lambda seed: bench.siamese(SiameseConfig(learnt_scale=True), seed),
        GAN: bench.gan,
        **{name: lambda seed, trial=trial: bench.encoder(trial, seed) for name, trial in TRIALS.items()},
    }
    runs = []
    for name in MAIN if options.only == ["main"] else options.only or known:
        for seed in range(1 if name == ZERO_SHOT else options.seeds):
            kept = folder / (re.sub(r"\W+", "-", f"{options.start} {name} {minutes:g} min seed {seed}").strip("-") + ".json")
            if not kept.exists():
                kept.write_text(json.dumps(measure(name, seed, known[name](seed), bench.book.asked)), encoding="utf-8")
            runs.append(json.loads(kept.read_text(encoding="utf-8")))
            print(json.dumps(runs[-1]), flush=True)
    found = lines(runs)
    seed = {"experiment 1": SEED_PAIRS, **{str(n): dict(zip((f"Recall@{k}" for k in KS), v)) for n, v in SEED_TOP.items()}}
    print(json.dumps({"bench": "recipes", "start": options.start, "minutes": minutes, "seed's report": seed, "recipes": found}))


if __name__ == "__main__":
    main()
