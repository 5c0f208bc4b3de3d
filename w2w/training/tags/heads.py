"""Taggers: an encoder, and on its vectors a small calibrated head for each attribute, with a threshold for each of its values.
Prediction needs only numpy.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from w2w import ids, storage
from w2w.errors import UsageError
from w2w.garments.classifier import Classifier, packed, unpacked
from w2w.models.config import TAGS, TAGS_FILE

CODE = 1  # bump when the same heads would give other attributes
_WEIGHTS, _CONFIG = TAGS_FILE.name, TAGS_FILE.with_suffix(".json").name
_PRIOR = 5.0  # examples that the probabilities themselves count for beside those that were seen


@dataclass(frozen=True)
class Head:
    """One attribute. ``thresholds_C``: the probability from which each value counts."""

    classifier: Classifier
    thresholds_C: np.ndarray
    test: Mapping[str, object] = field(default_factory=dict)
    """Its figures on held-out examples, as they are told."""

    def __call__(self, vectors_ND: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of each vector: place of the most probable value, its probability, and whether that reaches its threshold."""
        probabilities_NC = self.classifier(vectors_ND)
        places_N = probabilities_NC.argmax(axis=1)
        scores_N = probabilities_NC.max(axis=1)
        return places_N, scores_N, scores_N >= self.thresholds_C[places_N]


@dataclass(frozen=True)
class Tagger:
    """Heads by attribute, on vectors of ``encoder``, with a part for colours of weight ``colour``."""

    encoder: str
    colour: float
    heads: Mapping[str, Head]
    test_share: float = 0.0
    """Share of a store's products, by hash, that it has not learnt from; 0: it has learnt from none."""

    @cached_property
    def version(self) -> str:
        of = [(name, head.classifier.model_version, head.thresholds_C.tolist()) for name, head in self.heads.items()]
        return ids.digest(CODE, self.encoder, self.colour, of)

    def __call__(self, vectors_ND: np.ndarray) -> list[list[tuple[str, str | None, float]]]:
        """Of each vector (attribute, value or None if it is not sure enough, probability of the most probable value)."""
        told: list[list[tuple[str, str | None, float]]] = [[] for _ in vectors_ND]
        for name, head in self.heads.items():
            for row, place, score, sure in zip(told, *head(vectors_ND)):
                row.append((name, head.classifier.labels[place] if sure else None, float(score)))
        return told


def thresholds(probabilities_NC: np.ndarray, codes_N: np.ndarray, precision: float) -> np.ndarray:
    """For every class the least probability from which at least ``precision`` of what is taken for it is right, by held-out
    examples: of n of them, r right, with mean probability p, that is (r + 5 p) / (n + 5), so that few of them do not decide.
    Where all that was seen reaches it, or nothing, ``precision`` itself decides of less probable ones; what was wrong alone
    stays below."""
    places_N, scores_N = probabilities_NC.argmax(axis=1), probabilities_NC.max(axis=1)
    found = np.full(probabilities_NC.shape[1], precision)
    for c in np.unique(places_N):
        order = np.flatnonzero(places_N == c)
        order = order[np.argsort(-scores_N[order], kind="stable")]
        scores, right, count = scores_N[order], codes_N[order] == c, np.arange(1, len(order) + 1)
        enough = (np.cumsum(right) + _PRIOR * np.cumsum(scores) / count) / (count + _PRIOR) >= precision
        enough[:-1] &= scores[1:] < scores[:-1]  # a threshold lets all of one probability through
        if enough.any():
            found[c] = min(scores[-1], precision) if enough[-1] else scores[np.flatnonzero(enough)[-1]]
        elif not right.all():
            found[c] = max(precision, np.nextafter(scores[~right].max(), 2, dtype=scores.dtype))
    return found


def save(tagger: Tagger, folder: str, facts: Mapping[str, object]) -> None:
    """Writes the weights, then the config, so that a reader that finds the config finds its weights."""
    tensors, heads = {}, {}
    for number, (name, head) in enumerate(tagger.heads.items()):
        own, told = packed(head.classifier)
        tensors |= {f"{number}.{k}": v for k, v in own.items()}
        heads[name] = told | {"thresholds": head.thresholds_C.tolist(), "test": dict(head.test)}
    about = {"encoder": tagger.encoder, "colour": tagger.colour, "test_share": tagger.test_share, "facts": dict(facts)}
    storage.write_bytes(storage.join(folder, _WEIGHTS), save_tensors(tensors))
    storage.write_bytes(storage.join(folder, _CONFIG), json.dumps(about | {"heads": heads}, indent=1).encode() + b"\n")


def load(name: str) -> Tagger:
    """w2w's own (``TAGS``), or that of a folder. Raises UsageError if there is none, or its files do not belong together."""
    folder = str(TAGS_FILE.parent) if name == TAGS else storage.absolute(name)
    try:
        about = json.loads(storage.read_bytes(storage.join(folder, _CONFIG)))
        tensors = load_tensors(storage.read_bytes(storage.join(folder, _WEIGHTS)))
        heads = {}
        for number, (attribute, told) in enumerate(about["heads"].items()):
            own = {k.partition(".")[2]: v for k, v in tensors.items() if k.partition(".")[0] == str(number)}
            own = {k: v.astype(np.float32) for k, v in own.items()}
            head = Head(unpacked(own, told, _WEIGHTS), np.array(told["thresholds"], float), told["test"])
            if head.thresholds_C.shape != (len(head.classifier.labels),) or not np.isfinite(head.thresholds_C).all():
                raise ValueError(f"{attribute!r} has not one threshold a value")
            heads[attribute] = head
        lengths = {len(head.classifier.mean_D) for head in heads.values()}
        if len(lengths) != 1:
            raise ValueError("its heads do not read one encoder's vectors")
        return Tagger(str(about["encoder"]), float(about["colour"]), heads, float(about["test_share"]))
    except FileNotFoundError as e:
        raise UsageError(f"--tagger={name}: no tagger there: train one with 'w2w tag --learn', or take {TAGS}") from e
    except Exception as e:  # safetensors has an error class of its own
        raise UsageError(f"--tagger={name}: cannot be read: {str(e)[:200]}") from e
