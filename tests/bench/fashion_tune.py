"""Tunes the last stages of w2w-fashion's backbone, on what fashion_views.py computes of the pictures for training.

Several tasks at once: classes of people's photos, of a catalog (type, part of the wardrobe, gender, use), of garments in street
photos and of rendered ones; two views of one picture, or a rendered garment alone and worn, are alike in shape (InfoNCE: van
den Oord et al. 2018); and what a larger teacher makes of the picture as it is (features of EfficientNet-Lite0 and -Lite2) can
be read off any view of it. Then the weights go back part of the way to where they started, which keeps what the backbone knew
(Wortsman et al. 2022, "Robust fine-tuning of zero-shot models").

python -m tests.bench.fashion_tune [--folder FOLDER] [--steps 600] [--seed 0]

Ten minutes of CPU. A killed run goes on from its last checkpoint in FOLDER.
"""

import csv
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cosine_similarity, cross_entropy, normalize

from tests.bench.fashion_rows import DATA, PLAIN, TRAIN, Rows, computed, read_all
from tests.bench.fashion_views import LEARNT, START, all_views, street
from tests.bench.folder import begin, parser_of
from w2w.models import sources
from w2w.models.config import LITE0, SHAPE_DIM, EncoderConfig
from w2w.models.encoder import load_encoder
from w2w.models.network import Head
from w2w.models.sources import Source

DIM, STEPS = 1280, 600
LITE2 = EncoderConfig("tests.bench.fashion_teacher:lite2")
SHARE = 0.7  # of the way that the weights went; chosen on val, like the weights of the parts
# pictures of a batch; all but those of street photos are two views of half as many
_BATCH = {"user_photos": 24, "catalog": 16, "street": 8, "wardrobe train": 16}
_COLUMNS = ("type", "sub_category", "gender", "usage")  # of the catalog
_TASKS = {"user_photos": ("class",), "catalog": _COLUMNS, "street": ("class",), "wardrobe train": ("type",)}
_WEIGHTS = {"class": 1.0, "side": 0.3, "alike": 0.5, "taught": 2.0}  # of the parts of the loss
_RATES = 3e-4, 2e-3  # of the backbone, of the layers on top
_SMOOTH, _CLASS_SCALE, _TEMPERATURE, _EVERY = 0.1, 16.0, 0.1, 50


class Tail(nn.Module):
    """The stages that learn: (N, C, s, s) -> unit vectors (N, 1280)."""

    def __init__(self, source: Source):
        super().__init__()
        network = source.network()
        self.blocks = nn.ModuleDict({str(n): network.blocks[n] for n in range(START, len(network.blocks))})
        self.conv_head, self.bn2 = network.conv_head, network.bn2
        self.to(memory_format=torch.channels_last).eval()  # statistics of its normalisations stay

    def forward(self, below_NCHW: torch.Tensor) -> torch.Tensor:
        seen = below_NCHW.contiguous(memory_format=torch.channels_last)
        for stage in self.blocks.values():
            seen = stage(seen)
        return normalize(self.bn2(self.conv_head(seen)).mean((2, 3)), dim=1)

    @torch.inference_mode()
    def of(self, below_NCHW: np.ndarray) -> torch.Tensor:
        """The same for many, 64 at a time."""
        parts = (below_NCHW[start : start + 64] for start in range(0, len(below_NCHW), 64))
        return torch.cat([self(torch.from_numpy(part.astype(np.float32))) for part in parts])


class Data:
    """Of each data set for training its views, codes of its labels, and what the teacher makes of it; features of the untuned
    backbone."""

    def __init__(self, folder: Path):
        self.sets = read_all(folder) | {"street": street()[0]}
        self.views = all_views(self.sets, folder)
        self.codes, self.counts, self.features, self._taught = {}, {}, [], {}
        lite0, lite2 = load_encoder(EncoderConfig(LITE0)), load_encoder(LITE2)
        for name in LEARNT:
            rows = self.sets[name]
            for task, labels in _labels_of(rows).items():
                known, codes = np.unique(labels, return_inverse=True)
                self.codes[name, task], self.counts[name, task] = torch.from_numpy(codes), len(known)
            if name != "street":
                made = [computed(rows, PLAIN, e, folder, called) for e, called in ((lite0, "lite0"), (lite2, "lite2"))]
                both = [torch.from_numpy(np.array(m)[rows.of(TRAIN)]) for m in made]
                self.features.append(both[0])
                self._taught[name] = [m - m.mean(0) for m in both]
        rows = self.sets["wardrobe train"]
        self._alone = np.flatnonzero(rows.labels["main"])
        self._worn = [np.flatnonzero(~rows.labels["main"] & (rows.labels["place"] == p)) for p in range(len(self._alone))]

    def batch(self, name: str, rng: np.random.Generator) -> tuple[np.ndarray, torch.Tensor]:
        """(places, what is seen of them): the second half are the first's pictures in another view, or its garments worn."""
        half, views = _BATCH[name] // 2, self.views[name]
        if name == "street":
            codes = self.codes[name, "class"].numpy()
            weight = 1 / np.sqrt(np.bincount(codes))[codes]  # half of them are shoes and bags
            places = rng.choice(len(codes), 2 * half, replace=False, p=weight / weight.sum())
        elif name == "wardrobe train":
            of = rng.choice(len(self._alone), half, replace=False)
            places = np.concatenate([self._alone[of], [rng.choice(self._worn[p]) for p in of]])
        else:
            places = np.tile(rng.choice(len(views[0]), half, replace=False), 2)
        view_N = rng.integers(len(views), size=2 * half)
        if name in ("user_photos", "catalog"):  # no picture twice in one view
            view_N[half:] = (view_N[:half] + rng.integers(1, len(views), half)) % len(views)
        return places, torch.from_numpy(np.stack([views[v][p] for v, p in zip(view_N, places)]).astype(np.float32))

    def taught(self, name: str, places: np.ndarray) -> list[torch.Tensor]:
        """Of either network of the teacher, centred features."""
        return [features[places] for features in self._taught[name]]


def _labels_of(rows: Rows) -> dict[str, np.ndarray]:
    """Of the rows for training, each task's labels."""
    told = dict(rows.labels)
    if rows.name == "catalog":
        with open(DATA / "catalog" / "products.csv", encoding="utf-8") as f:
            table = list(csv.DictReader(f))
        told |= {column: np.array([r[column] for r in table]) for column in _COLUMNS[1:]}
    return {task: told[task][rows.of(TRAIN)] for task in _TASKS[rows.name]}


class Learner(nn.Module):
    """The tail with a layer for the shape, one a task, and one from which the teacher's features are read."""

    def __init__(self, data: Data):
        super().__init__()
        self.tail = Tail(sources.of(EncoderConfig(LITE0)))
        self.shape, self.teacher = Head([DIM, SHAPE_DIM]), nn.Linear(DIM, 2 * DIM)
        self.shape.start_from(torch.cat(data.features))
        self.heads = nn.ModuleDict({f"{name}/{task}": nn.Linear(DIM, count) for (name, task), count in data.counts.items()})
        with torch.no_grad():
            for head in self.heads.values():
                head.weight.zero_()
                head.bias.zero_()
            self.teacher.weight.zero_()
            self.teacher.weight[:DIM].copy_(torch.eye(DIM))


def lost(learner: Learner, data: Data, rng: np.random.Generator) -> dict[str, torch.Tensor]:
    """Parts of the loss of one batch."""
    batches = {name: data.batch(name, rng) for name in _BATCH}
    found = learner.tail(torch.cat([pictures for _, pictures in batches.values()])).split(list(_BATCH.values()))
    parts: dict[str, list[torch.Tensor]] = {name: [] for name in _WEIGHTS}
    for (name, (places, _)), features in zip(batches.items(), found):
        for task in _TASKS[name]:
            scores = _CLASS_SCALE * learner.heads[f"{name}/{task}"](features)
            loss = cross_entropy(scores, data.codes[name, task][places], label_smoothing=_SMOOTH)
            parts["side" if name == "street" or task in _COLUMNS[1:] else "class"].append(loss)
        if name == "street":
            continue
        one, other = normalize(learner.shape(features), dim=1).chunk(2)
        scores, own = one @ other.T / _TEMPERATURE, torch.arange(len(one))
        parts["alike"].append((cross_entropy(scores, own) + cross_entropy(scores.T, own)) / 2)
        both = zip(learner.teacher(features).chunk(2, 1), data.taught(name, places))
        parts["taught"] += [1 - cosine_similarity(told, wanted).mean() for told, wanted in both]
    return {name: torch.stack(values).mean() for name, values in parts.items()}


def tune(data: Data, folder: Path, steps: int, seed: int) -> Tail:
    """The tuned tail, all the way; from its checkpoint in ``folder``, if there is one."""
    torch.manual_seed(seed)
    learner, file = Learner(data), folder / f"tuned-{steps}-{seed}.pt"
    on_top = [p for n, p in learner.named_parameters() if not n.startswith("tail.")]
    optimizer = torch.optim.AdamW([{"params": learner.tail.parameters()}, {"params": on_top}], weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, list(_RATES), total_steps=steps, pct_start=0.15)
    kept = {"learner": learner, "optimizer": optimizer, "schedule": schedule}
    done = 0
    if file.exists():
        states = torch.load(file, weights_only=True)
        done = states.pop("done")
        for name, state in states.items():
            kept[name].load_state_dict(state)
    for step in range(done, steps):
        parts = lost(learner, data, np.random.default_rng([seed, step]))
        optimizer.zero_grad()
        sum(_WEIGHTS[name] * value for name, value in parts.items()).backward()
        nn.utils.clip_grad_norm_(learner.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        if (step + 1) % _EVERY == 0 or step + 1 == steps:
            print(json.dumps({"step": step + 1} | {n: round(float(v.detach()), 3) for n, v in parts.items()}), flush=True)
            part = file.with_suffix(".part")
            torch.save({n: k.state_dict() for n, k in kept.items()} | {"done": step + 1}, part)
            os.replace(part, file)
    return learner.tail


def mean_of(tails: Sequence[Tail]) -> Tail:
    """Tails that were tuned from one start, as one whose weights are their mean (Wortsman et al. 2022, "Model soups")."""
    mean = Tail(sources.of(EncoderConfig(LITE0)))
    with torch.no_grad():
        for own, *tuned in zip(mean.parameters(), *(tail.parameters() for tail in tails), strict=True):
            own.copy_(torch.stack(tuned).mean(0))
    return mean


def back(tail: Tail, share: float) -> Tail:
    """The weights at ``share`` of the way from the untuned ones."""
    start = Tail(sources.of(EncoderConfig(LITE0)))
    with torch.no_grad():
        for own, tuned in zip(start.parameters(), tail.parameters(), strict=True):
            own.lerp_(tuned, share)
    return start


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=0)
    options, folder = begin(parser)
    tune(Data(folder), folder, options.steps, options.seed)


if __name__ == "__main__":
    main()
