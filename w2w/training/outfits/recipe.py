"""Recipe of outfit scorers: worn against modified outfits, on stored embeddings."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from w2w.errors import UsageError
from w2w.models.compatibility import logistic_losses, make_scorer, margin_losses, save_scorer, what2wear_losses
from w2w.training.batches import in_epochs
from w2w.training.config import LoopConfig
from w2w.training.loop import Batches, parameter_groups
from w2w.training.outfits.arrays import Outfits, Questions, blanks, modified_by_worn
from w2w.training.outfits.config import LOGISTIC, MARGIN, WHAT2WEAR, OutfitsConfig
from w2w.training.outfits.measure import figures

_LOSSES = {LOGISTIC: logistic_losses, MARGIN: margin_losses}


@dataclass(frozen=True)
class Drawn:
    """A worn outfit of a batch, and whether it is compared with its modified outfit or with strangers (see ``worn_first``)."""

    row: int
    meets_modified: bool


@dataclass(frozen=True)
class Batch:
    """``vectors`` (2 B, S, D), ``slots`` (2 B, S): worn outfits, then their counterparts; and whether those are modified."""

    vectors: torch.Tensor
    slots: torch.Tensor
    meets_modified: bool


class Compatibility:
    """``train`` has worn outfits, each with at least one modified; ``val`` is for evaluation, with ``questions`` or with
    questions drawn from it."""

    def __init__(
        self,
        config: OutfitsConfig,
        train: Outfits,
        val: Outfits | None = None,
        questions: Questions | None = None,
        seed: int = 0,
    ):
        torch.manual_seed(seed)
        self._config, self._train, self._val = config, train, val
        self._start, self._modified = modified_by_worn(train)
        if not len(train.worn):
            raise UsageError("there are no worn outfits to train on: run 'w2w compose', or name another source")
        if config.worn_first < 1 and (np.diff(self._start)[train.worn] == 0).any():
            raise UsageError("some worn outfits have no modified counterpart: run 'w2w compose --modified=4'")
        self._questions = questions
        if val is not None and questions is None:
            self._questions = blanks(val, config.num_answers, np.random.default_rng([seed, 1]))
        self.select = "AUC" if val is None or len(val.modified) else "FITB"
        self.network = make_scorer(train.vectors_ND.shape[1], len(train.slots), config.network)

    def parameter_groups(self) -> list[dict]:
        if self._config.loss == WHAT2WEAR:  # one group: the temperature decays too
            everything = list(self.network.parameters())
            return [{"params": everything, "share": 1.0, "weight_decay": self._config.weight_decay}]
        return parameter_groups(self.network.named_parameters(), weight_decay=self._config.weight_decay)

    def prepare(self, rows: Sequence[Drawn], rngs: Sequence[np.random.Generator]) -> Batch:
        worn = np.array([r.row for r in rows])
        if rows[0].meets_modified:
            counts = np.diff(self._start)[worn]
            drawn = np.array([int(rng.integers(n)) for rng, n in zip(rngs, counts)])
            others = self._train.items_OS[self._modified[self._start[worn] + drawn]]
        else:
            others = strangers(self._train.items_OS[worn], self._train.slots_OS[worn])
        items = np.concatenate([self._train.items_OS[worn], others])
        slots = np.tile(self._train.slots_OS[worn], (2, 1))
        return Batch(torch.from_numpy(self._train.vectors(items)), torch.from_numpy(slots), rows[0].meets_modified)

    def losses(self, network: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        device = next(self.network.parameters()).device
        worn, others = network(batch.vectors.to(device), batch.slots.to(device)).chunk(2)
        if self._config.loss != WHAT2WEAR:
            return _LOSSES[self._config.loss](worn, others)
        parts = what2wear_losses(worn, others, self.network.W, self._config.threshold, self._config.hinge)
        if not batch.meets_modified:
            parts["modified"] = parts["modified"] * 0.0  # the term is absent, but its figure is in the curve
        return parts

    def train_mode(self, network: nn.Module) -> None:
        network.train()

    def measure(self, network: nn.Module) -> dict[str, float]:
        return {} if self._val is None else figures(network, self._val, self._questions)

    def save(self, network: nn.Module, folder: Path) -> None:
        save_scorer(network, folder, self._config.network, self._train.vectors_ND.shape[1], self._train.slots)


def batches(config: OutfitsConfig, loop: LoopConfig, train: Outfits, rank: int = 0, world: int = 1) -> Batches:
    """A process's share of the worn outfits, reshuffled every epoch. Those of the first steps are compared with strangers: see
    ``worn_first``."""
    drawn = in_epochs(train.worn, config.batch_outfits, loop.seed, rank, world)

    def rows(number: int) -> list[Drawn]:
        meets_modified = number // loop.accumulate >= config.worn_first * loop.steps
        return [Drawn(row, meets_modified) for row in drawn(number)]

    return rows


def strangers(items_NS: np.ndarray, slots_NS: np.ndarray) -> np.ndarray:
    """As many outfits of the same slots, with every item from another outfit: items of a slot are shifted by their position in
    the outfit, counted from 1, so that no two of an outfit come from the same other one."""
    result = items_NS.copy()
    for slot in np.unique(slots_NS[slots_NS >= 0]):
        at = np.nonzero(slots_NS == slot)
        result[at] = np.roll(items_NS[at], int(slot) + 1)
    return result
