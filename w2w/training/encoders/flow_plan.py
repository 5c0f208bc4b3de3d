"""Recipes encoder and head of `w2w train`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2w import plugins, schema
from w2w.engine.training import Workers
from w2w.errors import RejectCode, UsageError
from w2w.models.config import FASHION, LITE0, EncoderConfig
from w2w.models.encoder import model_version
from w2w.stage import Counts
from w2w.table.delta import need_table
from w2w.training.card import model_card
from w2w.training.config import LoopConfig
from w2w.training.encoders import flow, flow_results
from w2w.training.encoders.config import HEAD, LOOKS, LOSSES, LearnConfig, PairConfig
from w2w.training.encoders.flow_looks import LookTable, look_table
from w2w.training.encoders.pairs import FIGURES
from w2w.training.flow import OF_DATA, check_loop

if TYPE_CHECKING:  # importing torch costs the driver seconds
    from w2w.training.loop import Training

_LITE0 = "EfficientNet-Lite0, ImageNet weights, Apache-2.0"
_LICENCES = {LITE0: _LITE0, FASHION: f"w2w-fashion, MIT; what it started from is {_LITE0}"}


@dataclass(frozen=True)
class EncoderPlan:
    """Recipes encoder and head, from table `pairs`."""

    table: flow.PairTable
    recipe: str
    encoder: EncoderConfig
    learn: LearnConfig
    loop: LoopConfig
    inspected: flow.Inspected
    test_pairs: int
    rows: Counts
    folder: str = "encoders"

    @classmethod
    def of(
        cls,
        store: str,
        recipe: str,
        encoder: EncoderConfig,
        learn: LearnConfig,
        train: LoopConfig,
        workers: Workers,
        sources: Sequence[str] | None,
        limit: int | None,
        test_pairs: int,
        pairs: PairConfig = PairConfig(),
    ) -> "EncoderPlan":
        """Raises UsageError if the pairs are missing, or the encoder cannot be trained like this."""
        if pairs.of == LOOKS:
            for option, given in (("sources", sources), ("learn.negatives", learn.negatives)):
                if given:
                    raise UsageError(f"--{option}: is of table `pairs`, and not read with --pairs.of=looks")
            table: flow.PairTable = look_table(store, pairs, limit)
        else:
            need_table(store, schema.PAIRS, "mine")
            table = flow.pair_table(store, sources, limit)
        check_loop(train, FIGURES, workers)
        found = flow.inspect(table, recipe, encoder, learn, workers.num_workers)
        out, code = sum(found.num_pairs.values()), RejectCode.NO_VECTOR if recipe == HEAD else RejectCode.NO_PHOTO
        rows = Counts(out + found.num_without, out, {code: found.num_without} if found.num_without else {})
        return cls(table, recipe, encoder, learn, train, found, test_pairs, rows)

    def identity(self) -> list[object]:
        settings = [*plugins.version_of("loss", self.learn.loss, LOSSES), asdict(self.learn), asdict(self.loop)]
        return [self.recipe, model_version(self.encoder), *settings, self.inspected.digest]

    def facts(self) -> dict[str, Any]:
        found, version = self.inspected, self.table.versions[self.table.pairs_from.name]
        counts = {"examples": found.num_pairs, "left_out": found.num_without or None}
        counts["not_permitted"] = self.table.num_refused() or None
        return {"encoder": self.encoder.name, "table_version": version, **counts}

    def training(self, rank: int, num_workers: int) -> "Training":
        return flow.make_training(self.table, self.recipe, self.encoder, self.learn, self.loop, rank, num_workers)

    def measure(self, model: Path, out: Path, history: Sequence[dict], facts: Mapping[str, str]) -> dict[str, Any]:
        return flow_results.measure(self.table, self.encoder, model, self.test_pairs, history, facts, out)

    def card(self, facts: Mapping[str, str], figures: Mapping[str, str], git_revision: str | None) -> str:
        name = self.encoder.name
        what = f"{name} with a head of {self.learn.head.dims[-1]} dimensions; vectors have length 1."
        weights = _LICENCES.get(name, f"that of {name}: see its card")
        header = [*(["license: apache-2.0"] if name in _LICENCES else []), "pipeline_tag: image-feature-extraction"]
        settings = {"learn": self.learn, "train": self.loop}
        lines = [what, "Use: `w2w embed --encoder.name=FOLDER`."]
        licence = f"Weights: {weights}. {OF_DATA}"
        title = "Encoder of looks" if isinstance(self.table, LookTable) else "Street-to-shop encoder"
        return model_card(title, lines, facts, figures, licence, settings, git_revision, header)

    def use(self, model: Path) -> str:
        of = " --of=looks" if isinstance(self.table, LookTable) else ""
        return f"w2w embed{of} --encoder.name={model}"
