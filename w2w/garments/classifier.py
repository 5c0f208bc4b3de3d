"""The thumbnail classifier: a small calibrated head on an encoder's vectors that gives one of the seven classes, or etc.

The published one is a ViT fine-tuned on such thumbnails (probability >= .8 to be used, accuracy not published); here the
encoder is frozen, so that a picture with an embedding costs one matrix product. Prediction needs only numpy.
"""

import itertools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from w2w import ids, schema, storage
from w2w.errors import Reject, RejectCode, UsageError
from w2w.garments.annotations import split_of
from w2w.garments.taxonomy import CATEGORIES, ETC
from w2w.stage import with_rejects

CODE = 1  # bump when the same weights would give other probabilities
LABELS = (*CATEGORIES, ETC)

_WEIGHTS, _CONFIG = "head.safetensors", "config.json"
_BINS = 15
_PATIENCE = 20  # epochs without improvement of the validation loss
_TEMPERATURES = np.geomspace(0.05, 20, 400)
_LEAST_EXAMPLES = 8  # minimum per class to be learned and evaluated
_MOST_TOLD = 10  # classes in a message

CLASSIFY_GIVES = schema.CLASSIFICATIONS.fields([schema.CATEGORY, schema.SCORE, schema.ACCEPTED, schema.MODEL_VERSION])


@dataclass(frozen=True)
class HeadConfig:
    """How the head is trained."""

    hidden: int = 0
    """Units of a hidden layer; 0: a linear head."""
    epochs: int = 300
    """Maximum number of epochs; training stops early when the validation loss stops falling."""
    learning_rate: float = 0.01
    """Learning rate of AdamW, on the whole data at once."""
    weight_decay: float = 0.05
    """Weight decay of AdamW."""
    balanced: bool = True
    """Weigh classes by the inverse square root of their size."""
    test_share: float = 0.2
    """Of the examples, by hash: measured at the end, never trained on."""
    valid_share: float = 0.1
    """Of the examples, by hash: for early stopping and calibration."""
    seed: int = 0
    """Seed of the initial weights."""

    def __post_init__(self):
        if self.hidden < 0 or self.epochs < 1:
            raise UsageError(f"head.hidden={self.hidden}, head.epochs={self.epochs}: not negative, and at least 1")
        if not (self.test_share > 0 and self.valid_share > 0 and self.test_share + self.valid_share < 0.9):
            raise UsageError("head.test_share and head.valid_share: shares above 0, together under .9")


@dataclass(frozen=True)
class Classifier:
    """A trained head. ``layers``: (weights (out, in), bias (out,)) in order, with ReLU in between."""

    labels: tuple[str, ...]
    encoder_version: str
    mean_D: np.ndarray
    std_D: np.ndarray
    layers: tuple[tuple[np.ndarray, np.ndarray], ...]
    temperature: float = 1.0

    @property
    def model_version(self) -> str:
        arrays = [self.mean_D, self.std_D, *(a for layer in self.layers for a in layer)]
        return ids.digest(
            CODE, self.labels, self.encoder_version, [ids.image_id(a.tobytes()) for a in arrays], self.temperature
        )

    def logits(self, vectors_ND: np.ndarray) -> np.ndarray:
        """(N, classes), before the temperature."""
        x = (np.asarray(vectors_ND, np.float32) - self.mean_D) / self.std_D
        for i, (weights, bias) in enumerate(self.layers):
            x = (np.maximum(x, 0) if i else x) @ weights.T + bias
        return x

    def __call__(self, vectors_ND: np.ndarray) -> np.ndarray:
        """Calibrated probabilities, (N, classes)."""
        return softmax(self.logits(vectors_ND) / self.temperature)


@dataclass(frozen=True)
class Trained:
    """A classifier and its figures on the held-out test examples."""

    classifier: Classifier
    num_examples: dict[str, int]  # by split
    truth_N: np.ndarray  # labels of the test examples
    keys_N: np.ndarray
    predicted_N: np.ndarray
    probability_N: np.ndarray
    error_before: float  # expected calibration error without and with the temperature
    error_after: float
    epochs: int
    valid_codes_M: np.ndarray  # of the validation examples: places of their labels, and what is said of them
    valid_probabilities_MC: np.ndarray


def softmax(logits_NC: np.ndarray) -> np.ndarray:
    shifted = logits_NC - logits_NC.max(axis=1, keepdims=True)
    powers = np.exp(shifted)
    return powers / powers.sum(axis=1, keepdims=True)


def class_of(value: str | None, mapping: Mapping[str, str]) -> str:
    """A feed's category as one of LABELS: by ``mapping`` (ignoring case), by its own name, otherwise etc."""
    word = (value or "").strip().lower()
    return mapping.get(word, word if word in LABELS else ETC)


def check_mapping(mapping: Mapping[str, str]) -> dict[str, str]:
    """The mapping with keys in lower case. Raises UsageError if a value is not a class."""
    for value, target in mapping.items():
        if target not in LABELS:
            raise UsageError(f"classes.{value}={target}: must be one of {', '.join(LABELS)}")
    return {k.strip().lower(): v for k, v in mapping.items()}


def learnable(examples: Mapping[str, int], classes: Sequence[str] = LABELS) -> tuple[str, ...]:
    """Those of ``classes`` that have enough examples. Raises UsageError if they are fewer than two."""
    learned = tuple(c for c in classes if examples.get(c, 0) >= _LEAST_EXAMPLES)
    if len(learned) < 2:
        often = sorted((c for c in classes if examples.get(c)), key=lambda c: -examples[c])
        found = ", ".join(f"{examples[c]} {c}" for c in often[:_MOST_TOLD]) + (" ..." if len(often) > _MOST_TOLD else "")
        raise UsageError(f"two classes with {_LEAST_EXAMPLES} examples each are needed to train, there are: {found or 'none'}")
    return learned


def train(
    vectors_ND: np.ndarray,
    labels_N: Sequence[str],
    keys_N: Sequence[str],
    encoder_version: str,
    config: HeadConfig,
    classes: Sequence[str] = LABELS,
) -> Trained:
    """Fits the head on the training examples, stops and calibrates on the validation ones, evaluates on the test ones.

    Examples are split by the hash of their key: the picture, or its cluster of near-duplicates, so that all views of a thing
    stay together. Raises UsageError if fewer than two of ``classes`` have enough examples.
    """
    labels_N = np.asarray(labels_N, str)
    learned = learnable(Counter(labels_N.tolist()), classes)
    known = np.isin(labels_N, learned)
    vectors_ND, labels_N = np.asarray(vectors_ND, np.float32)[known], labels_N[known]
    keys = [k for k, good in zip(keys_N, known) if good]
    test = held_out(keys, config)
    valid = (np.array(split_of([f"valid/{k}" for k in keys], config.valid_share)) == "test") & ~test
    fitting = ~test & ~valid
    if min(test.sum(), valid.sum(), fitting.sum()) < 2:
        raise UsageError(
            f"{len(keys)} examples are too few: by their pictures and near-duplicates {fitting.sum()} would be learnt from, "
            f"{valid.sum()} validated and {test.sum()} tested on, and each needs two"
        )
    codes_N = np.array([learned.index(label) for label in labels_N])
    mean, std = vectors_ND[fitting].mean(axis=0), vectors_ND[fitting].std(axis=0) + 1e-6
    scaled_ND = (vectors_ND - mean) / std
    layers, epochs = _fit(scaled_ND[fitting], codes_N[fitting], scaled_ND[valid], codes_N[valid], len(learned), config)
    plain = Classifier(learned, encoder_version, mean, std, layers)
    temperature = best_temperature(plain.logits(vectors_ND[valid]), codes_N[valid])
    classifier = Classifier(learned, encoder_version, mean, std, layers, temperature)
    before, after = plain(vectors_ND[test]), classifier(vectors_ND[test])
    splits = {"train": int(fitting.sum()), "valid": int(valid.sum()), "test": int(test.sum())}
    return Trained(
        classifier,
        splits,
        labels_N[test],
        np.array(keys)[test],
        np.array(learned)[after.argmax(axis=1)],
        after.max(axis=1),
        calibration_error(before, codes_N[test]),
        calibration_error(after, codes_N[test]),
        epochs,
        codes_N[valid],
        classifier(vectors_ND[valid]),
    )


def held_out(keys: Sequence[str], config: HeadConfig) -> np.ndarray:
    """bool (N,): the test examples, by the hashes of their keys."""
    return np.array(split_of([f"test/{k}" for k in keys], config.test_share)) == "test"


def _fit(x_train, y_train, x_valid, y_valid, num_classes: int, config: HeadConfig) -> tuple[tuple, int]:
    import torch

    generator = torch.Generator().manual_seed(config.seed)
    sizes = [x_train.shape[1], *([config.hidden] if config.hidden else []), num_classes]
    linears = [torch.nn.Linear(a, b) for a, b in itertools.pairwise(sizes)]
    for linear in linears:
        torch.nn.init.normal_(linear.weight, std=1e-2 if config.hidden == 0 else linear.in_features**-0.5, generator=generator)
        torch.nn.init.zeros_(linear.bias)
    steps = [s for linear in linears for s in (linear, torch.nn.ReLU())][:-1]
    head = torch.nn.Sequential(*steps)
    counts = np.bincount(y_train, minlength=num_classes)
    weights = 1 / np.sqrt(np.maximum(counts, 1)) if config.balanced else np.ones(num_classes)
    weight = torch.tensor(weights / weights.mean(), dtype=torch.float32)
    x, y, xv, yv = (torch.as_tensor(a) for a in (x_train, y_train, x_valid, y_valid))
    optimiser = torch.optim.AdamW(head.parameters(), config.learning_rate, weight_decay=config.weight_decay)
    best, best_loss, since, epoch = None, float("inf"), 0, 0
    while epoch < config.epochs and since < _PATIENCE:
        epoch += 1
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(head(x), y, weight).backward()
        optimiser.step()
        with torch.inference_mode():
            loss = float(torch.nn.functional.cross_entropy(head(xv), yv, weight))
        if loss < best_loss - 1e-4:
            best_loss, since = loss, 0
            best = [(li.weight.detach().numpy().copy(), li.bias.detach().numpy().copy()) for li in linears]
        else:
            since += 1
    assert best is not None, "the validation loss was never finite"
    return tuple(best), epoch


def best_temperature(logits_NC: np.ndarray, codes_N: np.ndarray) -> float:
    """The divisor of the logits that minimises the negative log likelihood (Guo et al. 2017, section 4.2), by grid search."""
    losses = [-np.log(softmax(logits_NC / t)[np.arange(len(codes_N)), codes_N] + 1e-12).mean() for t in _TEMPERATURES]
    return float(_TEMPERATURES[int(np.argmin(losses))])


def calibration_error(probabilities_NC: np.ndarray, codes_N: np.ndarray) -> float:
    """Expected calibration error, 15 bins of equal width (Guo et al. 2017, equation 3)."""
    confidence, right = probabilities_NC.max(axis=1), probabilities_NC.argmax(axis=1) == codes_N
    bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    members = [bins == b for b in np.unique(bins)]
    return float(sum(abs(right[m].mean() - confidence[m].mean()) * m.mean() for m in members))


def packed(classifier: Classifier) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    """Its tensors, and everything else as JSON."""
    tensors = {"mean": classifier.mean_D, "std": classifier.std_D}
    for i, (weights, bias) in enumerate(classifier.layers):
        tensors |= {f"layers.{i}.weight": weights, f"layers.{i}.bias": bias}
    config = {
        "labels": list(classifier.labels),
        "encoder_version": classifier.encoder_version,
        "temperature": classifier.temperature,
        "layers": len(classifier.layers),
        "model_version": classifier.model_version,
    }
    return {k: np.ascontiguousarray(v) for k, v in tensors.items()}, config


def unpacked(tensors: Mapping[str, np.ndarray], config: Mapping[str, Any], weights_file: str = _WEIGHTS) -> Classifier:
    """The classifier that was packed. Raises KeyError, TypeError or ValueError where they do not form one."""
    layers = tuple((tensors[f"layers.{i}.weight"], tensors[f"layers.{i}.bias"]) for i in range(config["layers"]))
    labels, temperature = tuple(config["labels"]), config["temperature"]
    classifier = Classifier(labels, config["encoder_version"], tensors["mean"], tensors["std"], layers, temperature)
    for name, values in {**tensors, "temperature": np.array(temperature)}.items():
        if not np.isfinite(values).all():
            raise ValueError(f"{name} holds NaN or infinity")
    if classifier(np.zeros((1, len(classifier.mean_D)))).shape != (1, len(labels)) or temperature <= 0:
        raise ValueError("its layers, labels and temperature do not form a classifier")
    if config["model_version"] != classifier.model_version:
        raise ValueError(f"{weights_file} is not the one that {_CONFIG} belongs to")
    return classifier


def save(classifier: Classifier, folder: str, facts: Mapping[str, object]) -> None:
    """Writes head.safetensors, then config.json, so that a reader that finds the config finds its weights."""
    tensors, config = packed(classifier)
    storage.write_bytes(storage.join(folder, _WEIGHTS), save_tensors(tensors))
    storage.write_bytes(storage.join(folder, _CONFIG), json.dumps(config | {"facts": dict(facts)}, indent=1).encode())


def load(folder: str) -> Classifier:
    """Raises UsageError if there is no classifier, or its files do not belong together."""
    try:
        config = json.loads(storage.read_bytes(storage.join(folder, _CONFIG)))
        return unpacked(load_tensors(storage.read_bytes(storage.join(folder, _WEIGHTS))), config)
    except FileNotFoundError as e:
        raise UsageError(f"classifier={folder}: no classifier there: train one with 'w2w classify --train'") from e
    except Exception as e:  # safetensors has an error class of its own
        raise UsageError(f"classifier={folder}: cannot be read: {str(e)[:200]}") from e


class Classify:
    """Loads the head once per worker; adds class, probability and acceptance to rows with a vector."""

    def __init__(self, folder: str, threshold: float):
        self._classifier, self._threshold = load(folder), threshold
        self._version = prediction_version(self._classifier, threshold)

    def __call__(self, rows: pa.Table) -> pa.Table:
        n, dim = rows.num_rows, len(self._classifier.mean_D)
        lengths = np.array([len(v) for v in rows.column(schema.VECTOR)])
        good = np.equal(lengths, dim)
        vectors_ND = np.zeros((n, dim), np.float32)
        if good.any():
            kept = rows.column(schema.VECTOR).filter(pa.array(good)).combine_chunks()
            vectors_ND[good] = kept.flatten().to_numpy().reshape(-1, dim)
        finite = np.all(np.isfinite(vectors_ND), axis=1)
        probabilities_NC = self._classifier(np.where(finite[:, None], vectors_ND, 0))
        scores = probabilities_NC.max(axis=1)
        names = np.array(self._classifier.labels)[probabilities_NC.argmax(axis=1)]
        columns = {
            schema.CATEGORY: names.tolist(),
            schema.SCORE: scores.tolist(),
            schema.ACCEPTED: ((scores >= self._threshold) & (names != ETC)).tolist(),
            schema.MODEL_VERSION: [self._version] * n,
        }
        for field in CLASSIFY_GIVES:
            rows = rows.append_column(field.name, pa.array(columns[field.name], field.type))
        wrong: list[Reject | None] = [None] * n
        for i in np.flatnonzero(~good):
            wrong[i] = Reject(RejectCode.BAD_VALUE, f"a vector of {lengths[i]}, the classifier takes {dim}")
        for i in np.flatnonzero(~finite):
            wrong[i] = Reject(RejectCode.NOT_FINITE, "a vector with NaN or infinity")
        return with_rejects(rows, wrong)


def prediction_version(classifier: Classifier, threshold: float) -> str:
    """Digest of the classifier and the acceptance threshold."""
    return ids.digest(classifier.model_version, threshold)
