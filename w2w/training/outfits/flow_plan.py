"""Recipe outfits of `w2w train`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2w.engine.training import Workers
from w2w.errors import UsageError
from w2w.models.config import EncoderConfig
from w2w.stage import Counts
from w2w.training.card import model_card
from w2w.training.config import LoopConfig
from w2w.training.flow import OF_DATA, check_loop, check_unpublished
from w2w.training.outfits import flow_results
from w2w.training.outfits.config import OUTFITS, OutfitsConfig

if TYPE_CHECKING:  # importing torch costs the driver seconds
    from w2w.training.loop import Training


@dataclass(frozen=True)
class OutfitPlan:
    """Recipe outfits, from tables `outfits`, `questions` and `embeddings`."""

    table: flow_results.OutfitTable
    outfits: OutfitsConfig
    loop: LoopConfig
    found: dict[str, Any]
    rows: Counts
    digest: str
    folder: str = "scorers"

    @classmethod
    def of(
        cls,
        store: str,
        encoder: EncoderConfig,
        outfits: OutfitsConfig,
        train: LoopConfig,
        workers: Workers,
        sources: Sequence[str] | None,
        limit: int | None,
        published: bool,
    ) -> "OutfitPlan":
        """Raises UsageError if the outfits or their vectors are missing, or the network does not fit them."""
        table, found, rows, num_worn, digest = flow_results.outfit_table(
            store, encoder, sources, limit, outfits, workers.num_workers
        )
        if published:
            check_unpublished(train)
            if outfits != OutfitsConfig(hinge=outfits.hinge):
                raise UsageError("--published: takes What2Wear's own settings; omit all --outfits.* options except hinge")
            outfits, train = flow_results.published(num_worn // workers.num_workers, outfits.hinge, train)
        check_loop(train, flow_results.SELECTS, workers)
        return cls(table, outfits, train, found, rows, digest)

    def identity(self) -> list[object]:
        return [OUTFITS, asdict(self.outfits), asdict(self.loop), self.digest]

    def facts(self) -> dict[str, Any]:
        return self.found

    def training(self, rank: int, num_workers: int) -> "Training":
        return flow_results.make_training(self.table, self.outfits, self.loop, rank, num_workers)

    def measure(self, model: Path, out: Path, history: Sequence[dict], facts: Mapping[str, str]) -> dict[str, Any]:
        return flow_results.measure(self.table, self.outfits, model, out, history, facts)

    def card(self, facts: Mapping[str, str], figures: Mapping[str, str], git_revision: str | None) -> str:
        name = self.table.encoder.name
        what = [f"Scores outfits by the embeddings of their items by {name}; network: {self.outfits.network.kind}."]
        licence = f"Weights: trained from scratch on vectors of {name}, whose licence its card states. {OF_DATA}"
        settings = {"outfits": self.outfits, "train": self.loop}
        return model_card("Scorer of outfits", what, facts, figures, licence, settings, git_revision)

    def use(self, model: Path) -> str:
        return f"w2w train {OUTFITS} --evaluate={model}"
