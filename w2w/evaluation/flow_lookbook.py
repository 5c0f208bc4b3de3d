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
) -> tuple[pa.Table, str]:
    """METRICS_SCHEMA, and the digest of the questions."""
    if protocol.galleries:
        rows = [
            row
            for size in dict.fromkeys(min(s, len(test)) for s in protocol.galleries)
            for row in _top(scorer, test, size, seed)
        ]
    else:
        threshold = scorer.threshold
        if threshold is None:
            val = make_pairs(read_looks(store, protocol, catalog, VAL), PAIRS_EACH, np.random.default_rng(_SEED))
            threshold = best_threshold(scorer.pairs(val), val.same_P)
        pairs = make_pairs(test, PAIRS_EACH, np.random.default_rng(_SEED))
        rows = pair_rows(scorer.pairs(pairs) >= threshold, pairs, np.random.default_rng(seed))
    told = pa.Table.from_pydict(dict(zip(METRICS_SCHEMA.names, zip(*rows))), schema=METRICS_SCHEMA)
    return told, ids.digest(data_digest([w for p in test for w in p.worn], [p.clean for p in test]), protocol.galleries)


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


def _top(scorer: Scorer, test: Sequence[Product], size: int, seed: int) -> list[tuple]:
    scores = scorer.gallery(make_gallery(test, size, np.random.default_rng([_SEED, size])))
    rng, rows = np.random.default_rng(seed), []
    for k in KS:
        found = hits(scores, k)
        rows.append((ALL, f"recall of {size}", k, float(found.mean()), *interval(resampled(found, rng)), size))
    return rows
