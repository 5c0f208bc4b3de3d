"""Experiments 1 and 2 of "Clothing Recommendation" on a converted LookBook: with an encoder's vectors, or a Siamese network."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import ids, schema
from w2w.errors import UsageError, attempt
from w2w.evaluation.flow import VectorReader, pictures_of
from w2w.evaluation.flow_shown import Seen
from w2w.evaluation.protocols import Looks, convert_command
from w2w.evaluation.rules import data_digest
from w2w.metrics.retrieval import ALL, METRICS_SCHEMA, interval, resampled
from w2w.mining.splits.shares import VAL
from w2w.table import delta
from w2w.training.lookbook.experiments import KS, Pairs, hits, make_gallery, make_pairs
from w2w.training.lookbook.pictures import Pictures, Product

PAIRS_EACH = 10  # positive and negative ones per product, as in the seed
_SEED = 0  # of pairs and galleries: part of the protocol
_METRICS = ("precision", "recall", "F1", "accuracy")


@dataclass(frozen=True)
class Wrong:
    """A photo that was answered badly: what is said of it, and the products' pictures, the best first, with the right one."""

    photo: str
    said: str
    found: list[Seen]


@dataclass(frozen=True)
class Scorer:
    """Scores of pairs, (P,), with the threshold for a positive; and of galleries, (N, N), row = photo."""

    pairs: Callable[[Pairs], np.ndarray]
    gallery: Callable[[Pairs], np.ndarray]
    threshold: float | None  # None: chosen on the validation split


def read_looks(store: str, protocol: Looks, catalog: str, split: str) -> list[Product]:
    """Products with ``least_worn`` photos, by their pictures' ids, by product. Raises UsageError for fewer than two."""
    columns = [schema.PRODUCT_ID, schema.IMAGE_ID, schema.ANCHOR_IMAGE_ID, schema.SPLIT]
    opened = delta.open_table(store, schema.PAIRS)
    rows = delta.read(store, schema.PAIRS, columns, source=catalog) if opened else pa.table({c: [] for c in columns})
    found: dict[str, tuple[set[str], set[str]]] = {}
    for product, image, photo, _ in zip(*(c.to_pylist() for c in rows.filter(pc.equal(rows.column(3), split)).columns)):
        clean, worn = found.setdefault(product, (set(), set()))
        clean.add(image)
        worn.add(photo)
    products = [Product(p, min(c), tuple(sorted(w))) for p, (c, w) in sorted(found.items()) if len(w) >= protocol.least_worn]
    if len(products) < 2:
        raise UsageError(
            f"the store has {len(products)} products of {catalog!r} and split {split!r} with {protocol.least_worn} photos, and "
            f"two are the least: run '{convert_command(protocol)}', with larger --set.val_share and --set.test_share for a "
            "small set"
        )
    return products


def by_vectors(vectors: VectorReader) -> Scorer:
    def of(names: Sequence[str]) -> np.ndarray:
        rows, vectors_ND = vectors.of(pa.array(names, pa.string()), crops=False)
        if (rows < 0).any():
            lacking = names[int(np.flatnonzero(rows < 0)[0])]
            raise UsageError(f"picture {lacking} has no vector of {vectors.model.name}: run 'w2w embed' with that encoder")
        return vectors_ND[rows]

    return Scorer(lambda p: (of(p.products) * of(p.worn)).sum(axis=1), lambda g: of(g.worn) @ of(g.products).T, None)


def by_network(store: str, folder: Path, products: Sequence[Product]) -> Scorer:
    """The network of 'w2w train siamese'. Raises UsageError if the folder has none."""
    from w2w.models.siamese import SIDE_PX, load_siamese
    from w2w.training.lookbook.siamese import gallery_scores, pair_probabilities

    network, pictures = load_siamese(folder), Pictures(SIDE_PX)
    for name, data in pictures_of(store, pa.array(sorted({n for p in products for n in (p.clean, *p.worn)})), crops=False):
        attempt(pictures.add, name, data)  # an invalid one is reported where it is read
    return Scorer(
        lambda pairs: pair_probabilities(network, pictures, pairs), lambda g: gallery_scores(network, pictures, g), 0.5
    )


def measure(
    store: str, protocol: Looks, catalog: str, scorer: Scorer, test: Sequence[Product], seed: int
) -> tuple[pa.Table, str, list[Wrong]]:
    """METRICS_SCHEMA, the digest of the questions, and the worst-answered photos, those of the largest gallery."""
    if protocol.galleries:
        rows = []
        for size in dict.fromkeys(min(s, len(test)) for s in protocol.galleries):
            gallery = make_gallery(test, size, np.random.default_rng([_SEED, size]))
            scores_NN = scorer.gallery(gallery)
            rows += _top(scores_NN, seed)
            worst = worst_of_gallery(gallery, scores_NN)
    else:
        threshold = scorer.threshold
        if threshold is None:
            val = make_pairs(read_looks(store, protocol, catalog, VAL), PAIRS_EACH, np.random.default_rng(_SEED))
            threshold = best_threshold(scorer.pairs(val), val.same_P)
        pairs = make_pairs(test, PAIRS_EACH, np.random.default_rng(_SEED))
        scores_P = scorer.pairs(pairs)
        rows = pair_rows(scores_P >= threshold, pairs, np.random.default_rng(seed))
        worst = worst_of_pairs(pairs, scores_P, threshold)
    told = pa.Table.from_pydict(dict(zip(METRICS_SCHEMA.names, zip(*rows))), schema=METRICS_SCHEMA)
    asked = ids.digest(data_digest([w for p in test for w in p.worn], [p.clean for p in test]), protocol.galleries)
    return told, asked, worst


def worst_of_gallery(gallery: Pairs, scores_NN: np.ndarray, count: int = 10, shown: int = 6) -> list[Wrong]:
    """The photos whose product comes last, at most ``count``; where it is not among the first it stands before them."""
    before_N = (scores_NN > np.diagonal(scores_NN)[:, None]).sum(axis=1)
    wrong = []
    for n in [n for n in np.argsort(-before_N, kind="stable")[:count].tolist() if before_N[n]]:
        order = np.argsort(-scores_NN[n], kind="stable")[:shown].tolist()
        found = [Seen(gallery.products[m], rank, float(scores_NN[n, m]), m == n) for rank, m in enumerate(order, 1)]
        if n not in order:
            found = [Seen(gallery.products[n], 0, 0.0, True), *found[:-1]]
        wrong.append(Wrong(gallery.worn[n], f"its product comes at rank {before_N[n] + 1} of {len(scores_NN)}", found))
    return wrong


def worst_of_pairs(pairs: Pairs, scores_P: np.ndarray, threshold: float, count: int = 10) -> list[Wrong]:
    """The pairs that were told wrong most surely, at most ``count``."""
    wrong_P = (scores_P >= threshold) != pairs.same_P
    order = [p for p in np.argsort(-np.abs(scores_P - threshold), kind="stable").tolist() if wrong_P[p]][:count]
    told = {True: "told another product, and it is this one", False: "told this product, and it is another"}
    return [
        Wrong(pairs.worn[p], told[same], [Seen(pairs.products[p], 1, float(scores_P[p]), same)])
        for p in order
        for same in [bool(pairs.same_P[p])]
    ]


def best_threshold(scores_P: np.ndarray, same_P: np.ndarray) -> float:
    """The threshold for a positive pair with the highest accuracy; ties go to the lowest."""
    order = np.argsort(scores_P, kind="stable")
    ranked, same = scores_P[order], same_P[order]
    right = np.cumsum(np.concatenate([[0], ~same])) + np.concatenate([np.cumsum(same[::-1])[::-1], [0]])
    first = np.concatenate([[True], ranked[1:] > ranked[:-1], [False]])  # equal scores cannot be separated
    return float(ranked[int(np.where(first, right, -1).argmax())])


def pair_rows(said_P: np.ndarray, pairs: Pairs, rng: np.random.Generator) -> list[tuple]:
    """Rows of METRICS_SCHEMA: experiment 1, intervals clustered by product."""
    kinds = [said_P & pairs.same_P, said_P & ~pairs.same_P, ~said_P & pairs.same_P, ~said_P & ~pairs.same_P]
    clusters = np.array(pairs.products)
    state = rng.bit_generator.state
    resamples = []
    for kind in kinds:  # from the same resamples
        rng.bit_generator.state = state
        resamples.append(resampled(kind.astype(float), rng, clusters))
    values, spread = _ratios(*(float(kind.mean()) for kind in kinds)), _ratios(*resamples)
    return [(ALL, name, 0, float(v), *interval(s), len(said_P)) for name, v, s in zip(_METRICS, values, spread)]


def _ratios(tp, fp, fn, tn) -> tuple:
    precision, recall = tp / np.maximum(tp + fp, 1e-12), tp / np.maximum(tp + fn, 1e-12)
    return precision, recall, 2 * precision * recall / np.maximum(precision + recall, 1e-12), tp + tn


def _top(scores_NN: np.ndarray, seed: int) -> list[tuple]:
    rng, rows, size = np.random.default_rng(seed), [], len(scores_NN)
    for k in KS:
        found = hits(scores_NN, k)
        rows.append((ALL, f"recall of {size}", k, float(found.mean()), *interval(resampled(found, rng)), size))
    return rows
