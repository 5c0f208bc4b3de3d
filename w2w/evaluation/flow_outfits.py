"""Fill in the blank and compatibility of Polyvore: by the mean cosine of an encoder's vectors, or by a trained scorer."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from w2w import storage
from w2w.errors import UsageError
from w2w.evaluation.protocols import OutfitQuestions
from w2w.evaluation.rules import mean_cosines
from w2w.metrics.outfit import evaluate
from w2w.models.weights import WEIGHTS
from w2w.training.outfits.arrays import Outfits
from w2w.training.outfits.flow import Asked, read_own_questions, read_questions

_AT_ONCE = 4096  # outfits
COSINE = "cosine"  # in place of a folder: the mean cosine of all pairs of items

Score = Callable[[Outfits, np.ndarray, np.ndarray], np.ndarray]  # vectors, items (N, S), slots (N, S) -> (N,)


def find_scorer(folder: Path | None) -> tuple[Score, tuple[str, ...] | None]:
    """The scorer in a folder and its slots; without a folder the mean cosine of all pairs of items. Raises UsageError if the
    folder has none."""
    if folder is None:
        return _mean_cosine, None
    from w2w.models.compatibility import SetTransformer, load_scorer
    from w2w.models.folder import CONFIG
    from w2w.training.outfits.measure import scores

    network, slots = load_scorer(folder)
    dim = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["dim_in"]

    def score(outfits: Outfits, items_NS: np.ndarray, slots_NS: np.ndarray) -> np.ndarray:
        if outfits.vectors_ND.shape[1] != dim:
            raise UsageError(
                f"--scorer={folder}: scores vectors of {dim} dimensions, and this encoder gives {outfits.vectors_ND.shape[1]}"
            )
        if not isinstance(network, SetTransformer) and not ((slots_NS >= 0) & (items_NS >= 0)).all():
            raise UsageError(
                f"--scorer={folder}: is for outfits of {', '.join(slots)}, and these are of any size: use kind set"
            )
        return scores(network, outfits, items_NS, slots_NS)

    return score, slots


def _mean_cosine(outfits: Outfits, items_NS: np.ndarray, slots_NS: np.ndarray) -> np.ndarray:
    parts = (items_NS[i : i + _AT_ONCE] for i in range(0, len(items_NS), _AT_ONCE))
    return np.concatenate([np.empty(0, np.float32), *(mean_cosines(outfits.vectors(part), part >= 0) for part in parts)])


def folder_of(name: str) -> Path | None:
    """None for `cosine`. Raises UsageError if there is no network."""
    if name == COSINE:
        return None
    folder = Path(storage.absolute(name))
    if not (folder / WEIGHTS).exists():
        raise UsageError(f"{name}: it has no {WEIGHTS}: name a folder that 'w2w train' wrote")
    return folder


def answer(asked: Asked, score: Score) -> tuple[np.ndarray, np.ndarray]:
    """(Q, A): the score of the outfit that each answer completes, -inf for missing answers; (B,): of each outfit."""
    num_questions, num_answers, size = asked.blanks.items_QAS.shape
    flat = score(asked.outfits, asked.blanks.items_QAS.reshape(-1, size), asked.blanks.slots_QAS.reshape(-1, size))
    there = (asked.blanks.items_QAS >= 0).any(axis=2)
    scores_QA = np.where(there, flat.reshape(num_questions, num_answers), -np.inf)
    return scores_QA, score(asked.outfits, asked.items_BS, asked.slots_BS)


def read_asked(store: str, protocol: OutfitQuestions, catalog: str, model_version: str, slots: tuple[str, ...] | None) -> Asked:
    read = read_questions if protocol.variant else read_own_questions
    return read(store, model_version, catalog, protocol.split, slots)


def figures(asked: Asked, scored: tuple[np.ndarray, np.ndarray], rng: np.random.Generator) -> pa.Table:
    """METRICS_SCHEMA: FITB, its interval over questions, and AUC, as far as there are such questions."""
    blanks = (scored[0], asked.blanks.right_Q) if len(asked.blanks) else None
    return evaluate(blanks, (scored[1], asked.together_B) if len(asked.together_B) else None, rng)
