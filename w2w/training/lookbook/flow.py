"""Training on a folder in LookBook's layout, and the experiments of "Clothing Recommendation" on the result."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from w2w import ids, storage
from w2w.engine.tasks import run_task
from w2w.errors import Reject, UsageError
from w2w.images.decode import decode
from w2w.memory import keep_memory
from w2w.metrics.retrieval import bootstrap
from w2w.models.config import EncoderConfig
from w2w.models.encoder import load_encoder
from w2w.models.sources import file_sha256
from w2w.results import Figure
from w2w.training.batches import in_epochs
from w2w.training.config import LoopConfig
from w2w.training.lookbook.config import PIXELDTGAN, SIAMESE, LookbookConfig
from w2w.training.lookbook.experiments import (
    KS,
    SEED_PAIRS,
    SEED_TOP,
    Pairs,
    drawing_scores,
    experiment_1,
    hits,
    make_gallery,
    make_pairs,
    pixel_vectors,
)
from w2w.training.lookbook.page import Found, lookbook_report
from w2w.training.lookbook.pictures import Pictures, Product, read_products, splits
from w2w.training.page import Curve

if TYPE_CHECKING:
    from w2w.training.loop import Training

_TOP = tuple(f"Recall@{k}" for k in KS)
SELECTS = {SIAMESE: (*SEED_PAIRS, *_TOP), PIXELDTGAN: _TOP}
CARDS = {
    SIAMESE: ("Siamese network", "Tells whether a product is the one that is worn in a photo (R. R. Premkumar, section 2.2)."),
    PIXELDTGAN: ("PixelDTGAN", "Draws the product that is worn in a photo (Yoo et al. 2016), 64 x 64 pixels."),
}
_SEED = 0  # of the test's pairs and galleries, and of the intervals
_AT_ONCE, _SHOWN, _SHOWN_PX = 64, 8, 100
_REPORT = 'The report ("Clothing Recommendation")'
_NOTE = (
    "Beside it are the figures that the report printed for LookBook's products; they are comparable only if the data are the "
    "same. Photos and products of the test were not in training."
)


@dataclass(frozen=True)
class Lookbook:
    """The products of a folder, in three splits."""

    config: LookbookConfig
    limit: int | None  # products
    holds_out: bool  # whether some of the training products are held out for model selection

    def read(self) -> tuple[list[Product], list[Product], list[Product]]:
        """(train, val, test). Raises UsageError if there are too few."""
        products = read_products(Path(storage.absolute(self.config.path)), self.config.least_worn)[: self.limit]
        return splits(products, self.config.test_share, self.config.val_share if self.holds_out else 0.0)

    def digest(self) -> str:
        """Digest of the training and held-out products, and of all of their picture files."""
        files = ((p.product, f) for part in self.read()[:2] for p in part for f in (p.clean, *p.worn))
        return ids.digest_rows((product, Path(f).name, file_sha256(f)) for product, f in files)


def published(recipe: str, num_products: int, batch: int, loop: LoopConfig) -> LoopConfig:
    """The report's own settings for this many products. Raises UsageError for a recipe that has none."""
    from w2w.training.lookbook.siamese import as_published

    if recipe != SIAMESE:
        raise UsageError(f"--published: recipes outfits and {SIAMESE} have settings of their source, {recipe} has none")
    return replace(as_published(num_products, batch, seed=loop.seed), threads=loop.threads)


def make_training(recipe: str, data: Lookbook, loop: LoopConfig, rank: int, num_workers: int) -> "Training":
    """What one worker trains (a Training): its share of the pairs or products; the first one also validates."""
    from w2w.training.lookbook.pixeldtgan import GanRecipe
    from w2w.training.lookbook.siamese import PAIRS_EACH, SiameseRecipe
    from w2w.training.loop import Training

    train, val, _ = data.read()
    held = val if rank == 0 else []
    if recipe == PIXELDTGAN:
        made, count = GanRecipe(data.config.gan, train, held, seed=loop.seed), len(train)
    else:
        pairs = make_pairs(train, PAIRS_EACH, np.random.default_rng(loop.seed))
        made, count = SiameseRecipe(data.config.siamese, pairs, held, loop.seed), len(pairs.same_P)
    return Training(made, in_epochs(range(count), data.config.batch, loop.seed, rank, num_workers), loop)


def measure(
    recipe: str,
    data: Lookbook,
    encoder: EncoderConfig,
    model: Path,
    out: Path,
    history: Sequence[dict],
    facts: Mapping[str, object],
) -> dict[str, Any]:
    """Runs experiments 1 and 2 for a Siamese network, or 3 for PixelDTGAN, on the test products; ``encoder`` runs 2 for
    comparison. Writes metrics.json and report.html; returns fields of the job's result."""
    found = run_task(_judge_siamese if recipe == SIAMESE else _judge_gan, data, encoder, model, title="measure")
    rows = [{"experiment": name} | row for name, rows in (("pairs", found.pairs), ("top", found.top)) for row in rows]
    storage.write_bytes(str(out / "metrics.json"), json.dumps(rows, indent=1).encode())
    mine = [r for r in found.top if r["of"] == found.top[-1]["of"]]
    figures = {k: Figure(found.pairs[-1][k]) for k in SEED_PAIRS} if found.pairs else {}
    figures |= {f"Recall@{r['k']} of {r['products']}": Figure.of(r) for r in mine}
    page = str(out / "report.html")
    shown = {name: str(figure) for name, figure in figures.items()}
    lookbook_report(page, CARDS[recipe][0], _NOTE, shown, facts, _charts(history), found)
    return {"figures": figures, "report": page}


def _judge_siamese(data: Lookbook, encoder: EncoderConfig, model: Path) -> Found:
    from w2w.models.siamese import SIDE_PX, load_siamese
    from w2w.training.lookbook.siamese import PAIRS_EACH, gallery_scores, pair_probabilities

    keep_memory()
    network, pictures, (_, _, test) = load_siamese(model), Pictures(SIDE_PX), data.read()
    pairs = make_pairs(test, PAIRS_EACH, np.random.default_rng(_SEED))
    confusion = experiment_1(pair_probabilities(network, pictures, pairs), pairs.same_P)
    told = [{"of": _REPORT, **SEED_PAIRS}, {"of": "This network", "number": len(pairs.same_P), **confusion}]
    vectors = _file_vectors(encoder)
    scorers: dict[str, Callable[[Pairs], np.ndarray]] = {
        f"Encoder {encoder.name}": lambda g: vectors(g.worn) @ vectors(g.products).T,
        "This network": lambda g: gallery_scores(network, pictures, g),
    }
    top, (gallery, scores) = _tops(test, data.config.galleries, scorers)
    return Found(told, [*_seed_tops(), *top], _shown(gallery, scores), [])


def _judge_gan(data: Lookbook, encoder: EncoderConfig, model: Path) -> Found:
    from w2w.models.pixeldtgan import SIDE_PX, load_gan
    from w2w.training.lookbook.pixeldtgan import drawn

    keep_memory()
    network, pictures, (_, _, test) = load_gan(model), Pictures(SIDE_PX), data.read()
    of_files, of_arrays = _file_vectors(encoder), _array_vectors(encoder)

    def drawings(vectors: Callable[..., np.ndarray]) -> Callable[[Pairs], np.ndarray]:
        return lambda g: drawing_scores(
            lambda photos: drawn(network, photos), vectors, pictures.read(g.worn), pictures.read(g.products)
        )

    scorers = {
        f"Photos, by encoder {encoder.name}": lambda g: of_files(g.worn) @ of_files(g.products).T,
        "Drawings, by their pixels": drawings(pixel_vectors),
        f"Drawings, by encoder {encoder.name}": drawings(of_arrays),
    }
    top, (gallery, scores) = _tops(test, data.config.galleries, scorers)
    shown = drawn(network, pictures.read(gallery.worn[:_SHOWN]))
    return Found([], [*_seed_tops(), *top], _shown(gallery, scores), list(shown))


def _seed_tops() -> list[dict]:
    return [
        {"of": _REPORT, "products": size, "k": k, "value": value}
        for size, values in SEED_TOP.items()
        for k, value in zip(KS, values)
    ]


def _tops(test: Sequence[Product], sizes: Sequence[int], scorers: Mapping[str, Callable[[Pairs], np.ndarray]]):
    """Rows of experiment 2 for each scorer and gallery, and the last gallery with the last one's scores."""
    rows = []
    for size in dict.fromkeys(min(s, len(test)) for s in sizes):
        gallery = make_gallery(test, size, np.random.default_rng([_SEED, size]))
        for name, score in scorers.items():
            scores = score(gallery)
            for k in KS:
                values = hits(scores, k)
                low, high = bootstrap(values, np.random.default_rng(_SEED))
                row = {"of": name, "products": size, "k": k, "value": float(values.mean()), "ci_low": low, "ci_high": high}
                rows.append(row)
    return rows, (gallery, scores)


def _shown(gallery: Pairs, scores_NN: np.ndarray) -> list[tuple[np.ndarray, list[tuple[np.ndarray, bool]]]]:
    """The first photos, each with the five products that score best and whether each is correct."""
    pictures = Pictures(_SHOWN_PX)
    shown = []
    for row in range(min(_SHOWN, len(scores_NN))):
        best = np.argsort(-scores_NN[row], kind="stable")[:5]
        found = [(pictures.read([gallery.products[i]])[0], bool(i == row)) for i in best]
        shown.append((pictures.read([gallery.worn[row]])[0], found))
    return shown


def _file_vectors(config: EncoderConfig) -> Callable[[Sequence[str]], np.ndarray]:
    """Vectors of picture files, each read once."""
    vectors, kept = _array_vectors(config), {}

    def read(file: str) -> np.ndarray:
        try:
            return decode(Path(file).read_bytes())
        except (Reject, OSError) as e:
            raise UsageError(f"{file}: cannot be read: {e}") from e

    def of(files: Sequence[str]) -> np.ndarray:
        new = [f for f in dict.fromkeys(files) if f not in kept]
        for start in range(0, len(new), _AT_ONCE):
            part = new[start : start + _AT_ONCE]
            kept.update(zip(part, vectors([read(f) for f in part])))
        return np.stack([kept[f] for f in files])

    return of


def _array_vectors(config: EncoderConfig) -> Callable[[Sequence[np.ndarray]], np.ndarray]:
    """Vectors of pictures, uint8 (H, W, 3) each."""
    encoder = load_encoder(config)

    def of(pictures: Sequence[np.ndarray]) -> np.ndarray:
        parts = (pictures[i : i + _AT_ONCE] for i in range(0, len(pictures), _AT_ONCE))
        return np.concatenate([encoder.encode(np.stack([encoder.prepare(p) for p in part])) for part in parts])

    return of


def _charts(history: Sequence[dict]) -> dict[str, list[Curve]]:
    measured = [h for h in history if "val" in h]
    losses, values = (history[0]["losses"] if history else {}), (measured[0]["val"] if measured else {})
    return {
        "Loss": [Curve(n, [(h["step"], h["losses"][n]) for h in history]) for n in losses],
        "On the held-out products": [Curve(m, [(h["step"], h["val"][m]) for h in measured]) for m in values],
    }
