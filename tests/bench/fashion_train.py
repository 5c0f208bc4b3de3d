"""Makes the weights of colours and of w2w-fashion again: w2w/models/weights.

python -m tests.bench.fashion_train [--folder FOLDER] [--out w2w/models/weights] [--seeds 0] [--share .7]

The backbone's last stages are tuned first (fashion_tune.py); of several seeds, the weights are their mean. What was computed of
the pictures stays in --folder, and so do checkpoints: a killed run goes on from there. Rows of split `train` alone are learnt
from (fashion_rows.py), and none of `views`.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from tests.bench.fashion_rows import PLAIN, TRAIN, Rows, computed
from tests.bench.fashion_tune import DIM, SHARE, STEPS, Data, Tail, back, mean_of, tune
from tests.bench.folder import begin, parser_of
from w2w.models.colour import Colour, seen_as
from w2w.models.config import COLOUR_DIM, COLOUR_FILE, FASHION_FILE, KIND_DIM, LITE0, SHAPE_DIM, EncoderConfig
from w2w.models.encoder import Encoder, load_encoder

LEARNT_FROM = ("user_photos", "catalog")
CLASSES = {"user_photos": "class", "catalog": "type", "wardrobe train": "type"}  # of what w2w-fashion's kind is made
COLOUR_WEIGHT, KIND_WEIGHT = 1.2, 0.65  # beside the shape's of 1: chosen by fashion.py --choose, with the two below
_PENALTY, _SCALE = 3e-4, 10.0
_LEAST = 8  # pictures of a class that is learnt


def colour_roots(rows: Rows, variant: str, encoder: Encoder, folder: Path) -> np.ndarray:
    """float32 (N, 600): roots of the colours' histograms."""
    colour = Colour()
    colour.load_state_dict(colour.state_dict() | seen_as(encoder.input))
    mean, std = colour.mean, colour.std

    def of(pixels_NHWC: np.ndarray) -> np.ndarray:
        seen = (torch.from_numpy(pixels_NHWC).permute(0, 3, 1, 2).float() / 255 - mean) / std
        with torch.inference_mode():
            return colour.roots(seen).numpy()

    return computed(rows, variant, encoder, folder, "roots", of)


def principal(sets_ND: Sequence[np.ndarray], dim: int, whitening: float) -> tuple[np.ndarray, np.ndarray]:
    """(centre (D,), projection (dim, D)) onto the first principal components of the sets, which count alike however large they
    are; each component over its variance to the power of ``whitening`` / 2."""
    wide = [s.astype(np.float64) for s in sets_ND]
    centre = np.mean([s.mean(0) for s in wide], axis=0)
    values, vectors = np.linalg.eigh(sum((s - centre).T @ (s - centre) / len(s) for s in wide) / len(wide))
    values, axes = values[::-1][:dim], vectors.T[::-1][:dim]
    axes = axes * np.sign(axes[np.arange(dim), np.abs(axes).argmax(1)])[:, None]  # else signs depend on the library
    return centre, axes / np.maximum(values, 1e-12)[:, None] ** (whitening / 2)


def train_colour(sets: dict[str, Rows], encoder: Encoder, folder: Path) -> dict[str, torch.Tensor]:
    """Half whitened: without, fully whitened, or with what other light changes weighed down, less or as much is found."""
    found = [colour_roots(sets[name], PLAIN, encoder, folder)[sets[name].of(TRAIN)] for name in LEARNT_FROM]
    centre, projection = principal(found, COLOUR_DIM, 0.5)
    return {"centre": torch.from_numpy(centre).half(), "projection": torch.from_numpy(projection).half().contiguous()}


def train_fashion(data: Data, tail: Tail) -> tuple[dict[str, torch.Tensor], dict[str, dict | float]]:
    """(weights, what fashion.json says)."""
    features = {name: tail.of(data.views[name][0]).numpy() for name in CLASSES}
    shape_centre, shape = principal(list(features.values()), SHAPE_DIM, 0.0)
    layers, names = [], {}
    for name, label in CLASSES.items():
        rows = data.sets[name]
        places, codes, known = known_rows(rows, label)
        layers.append(classifier(features[name][np.searchsorted(rows.of(TRAIN), places)], codes, len(known)))
        names[name] = known.tolist()
    groups = [len(known) for known in names.values()]
    weight, bias = (torch.cat(parts) for parts in zip(*layers))
    told = [_probabilities(found, weight, bias, groups) for found in features.values()]
    kind_centre, kind = principal(told, KIND_DIM, 0.0)
    tensors = {"classes.weight": weight, "classes.bias": bias}
    for name, centre, axes in (("shape", shape_centre, shape), ("kind", kind_centre, kind)):
        tensors |= {f"{name}.weight": torch.from_numpy(axes), f"{name}.bias": torch.from_numpy(-axes @ centre)}
    tensors |= {f"backbone.{name}": value.detach() for name, value in tail.named_parameters()}
    colour = COLOUR_WEIGHT / float(np.hypot(1, KIND_WEIGHT))  # beside a part of length 1
    about = {"network": {"dim": DIM, "groups": groups, "weight": KIND_WEIGHT}, "colour": colour, "classes": names}
    return {name: value.half().contiguous() for name, value in tensors.items()}, about


def known_rows(rows: Rows, label: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(places of the rows for training whose class has enough of them, its number in the last, the classes)."""
    places, labels = rows.of(TRAIN), rows.labels[label]
    known, counts = np.unique(labels[places], return_counts=True)
    known = known[counts >= _LEAST]
    places = places[np.isin(labels[places], known)]
    return places, np.searchsorted(known, labels[places]), known


def classifier(
    features_ND: np.ndarray, classes_N: np.ndarray, count: int, penalty: float = _PENALTY
) -> tuple[torch.Tensor, torch.Tensor]:
    """(weight, bias) of multinomial logistic regression with a penalty on the squares of the weights."""
    centre = features_ND.mean(0)
    x, y = torch.from_numpy((features_ND - centre) * _SCALE), torch.from_numpy(classes_N)
    weight, bias = (torch.zeros(shape, requires_grad=True) for shape in ((count, x.shape[1]), (count,)))
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=300, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        found = torch.nn.functional.cross_entropy(x @ weight.T + bias, y) + penalty * weight.square().sum()
        found.backward()
        return found

    optimizer.step(loss)
    weight = weight.detach() * _SCALE
    return weight, bias.detach() - weight @ torch.from_numpy(centre)


def said(learnt_ND: np.ndarray, labels_N: np.ndarray, asked_QD: np.ndarray) -> np.ndarray:
    """The label of each row that is asked for, as a classifier says that has learnt from the others."""
    known, codes = np.unique(labels_N, return_inverse=True)
    weight, bias = classifier(learnt_ND, codes, len(known))
    return known[(asked_QD @ weight.numpy().T + bias.numpy()).argmax(1)]


def _probabilities(features_ND: np.ndarray, weight: torch.Tensor, bias: torch.Tensor, groups: list[int]) -> np.ndarray:
    scores = torch.from_numpy(features_ND) @ weight.T + bias
    return torch.cat([part.softmax(1) for part in scores.split(groups, 1)], 1).numpy()


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--out", type=Path, default=COLOUR_FILE.parent)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--share", type=float, default=SHARE, help="of the way that tuning went")
    options, folder = begin(parser)
    options.out.mkdir(parents=True, exist_ok=True)
    data = Data(folder)
    save_file(train_colour(data.sets, load_encoder(EncoderConfig(LITE0)), folder), options.out / COLOUR_FILE.name)
    tuned = mean_of([tune(data, folder, STEPS, seed) for seed in options.seeds])
    tensors, about = train_fashion(data, back(tuned, options.share))
    save_file(tensors, options.out / FASHION_FILE.name)
    (options.out / FASHION_FILE.name).with_suffix(".json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
