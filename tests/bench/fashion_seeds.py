"""What the seed of the tuning does to w2w-fashion, and whether the mean of several seeds' weights finds more: figures of each
question over weights that fashion_train.py has written, a folder a seed. The last line is JSON.

python -m tests.bench.fashion_train --folder FOLDER --seeds 1 --out S1                 # and of others
python -m tests.bench.fashion_train --folder FOLDER --seeds 0 1 2 --share 1 --out SOUP # the mean of their weights
python -m tests.bench.fashion_seeds S0 S1 S2 [--folder FOLDER] [--beside SOUP ...] [--choose]

Colours, which no seed changes, are the package's. What is beside is told with its gain over the first folder. --choose compares
on validation rows alone, each with the best weights of its parts (`fashion --choose`).
"""

import json
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from tests.bench.fashion import Vectors, ask, choose, figure, stated
from tests.bench.fashion_rows import computed, read_all
from tests.bench.fashion_train import COLOUR_WEIGHT, KIND_WEIGHT
from tests.bench.fashion_tune import DIM, Tail
from tests.bench.fashion_views import below
from tests.bench.folder import begin, parser_of
from w2w.models import sources
from w2w.models.config import FASHION, FASHION_FILE, KIND_DIM, LITE0, SHAPE_DIM, EncoderConfig
from w2w.models.fashion import Fashion


class Tuned(Vectors):
    """Vectors by other weights than the package's: only the stages that are tuned are computed again."""

    def __init__(self, package: Vectors, weights: Path):
        super().__init__(package.sets, package.folder)
        self._package, self._parts = package, {}
        read = {name: value.float() for name, value in load_file(weights / FASHION_FILE.name).items()}
        tail = {n.removeprefix("backbone."): v for n, v in read.items() if n.startswith("backbone.")}
        self._tail = Tail(sources.of(EncoderConfig(LITE0)))
        missing = self._tail.load_state_dict(tail, strict=False).unexpected_keys
        assert not missing, missing
        groups = json.loads((weights / FASHION_FILE.name).with_suffix(".json").read_text())["network"]["groups"]
        self._layers = Fashion(nn.Identity(), DIM, groups, 1.0).eval()
        self._layers.load_state_dict({n: v for n, v in read.items() if n.split(".")[0] in ("shape", "classes", "kind")})

    @cached_property
    def _below(self):
        return below()

    def parts(self, name: str, variant: str) -> list[np.ndarray]:
        if (name, variant) in self._parts:
            return self._parts[name, variant]
        rows, encoder = self.sets[name], self._encoder
        seen = computed(rows, variant, encoder, self.folder, "below", lambda p: self._below(p).astype(np.float16))
        with torch.inference_mode():
            shape, kind = self._layers(self._tail.of(seen)).split([SHAPE_DIM, KIND_DIM], 1)
        self._parts[name, variant] = [shape.numpy(), kind.numpy(), self._package.parts(name, variant)[2]]
        return self._parts[name, variant]

    def _made(self, model: str | tuple[float, float, float], name: str, variant: str) -> np.ndarray:
        return super()._made((1.0, KIND_WEIGHT, COLOUR_WEIGHT) if model == FASHION else model, name, variant)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("weights", type=Path, nargs="+")
    parser.add_argument("--beside", type=Path, nargs="*", default=[])
    parser.add_argument("--choose", action="store_true")
    options, folder = begin(parser)
    package, result = Vectors(read_all(folder), folder), {"bench": "fashion_seeds"}
    models = {weights.name: Tuned(package, weights) for weights in (*options.weights, *options.beside)}
    if options.choose:
        for name, vectors in models.items():
            score, parts, told = choose(vectors)[0]
            result[name] = {"mean": score, "parts": parts} | told
            print(name, result[name], flush=True)
        print(json.dumps(result))
        return
    beside = [w.name for w in options.beside]
    print(f"| question | rows | mean | lowest to highest |{''.join(f' {name} |' for name in beside)}")
    print(f"|{'---|' * (4 + len(beside))}")
    for question, split in stated(package):
        hits = {name: ask(v, FASHION, question, split) for name, v in models.items()}
        found = {name: round(float(of[0].mean()), 3) for name, of in hits.items()}
        values = [found[w.name] for w in options.weights]
        first, groups_Q = hits[options.weights[0].name]
        gains = {name: figure(hits[name][0] - first, groups_Q) for name in beside}
        cells = "".join(" {:.3f}, {:+.3f} [{:.3f}, {:.3f}] |".format(found[name], *gains[name]) for name in beside)
        print(f"| {question} | {split} | {np.mean(values):.3f} | {min(values):.3f} to {max(values):.3f} |{cells}", flush=True)
        result[f"{question}, {split}"] = found | {f"gain of {name}": gains[name] for name in beside}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
