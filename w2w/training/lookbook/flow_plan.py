"""Recipes siamese and pixeldtgan of `w2w train`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2w import storage
from w2w.engine.training import Workers
from w2w.errors import UsageError
from w2w.models.config import EncoderConfig
from w2w.models.encoder import try_encoder
from w2w.stage import Counts
from w2w.training.card import model_card
from w2w.training.config import LoopConfig
from w2w.training.flow import OF_DATA, check_loop, check_unpublished
from w2w.training.lookbook import flow
from w2w.training.lookbook.config import LookbookConfig

if TYPE_CHECKING:  # importing torch costs the driver seconds
    from w2w.training.loop import Training


@dataclass(frozen=True)
class LookbookPlan:
    """Recipes siamese and pixeldtgan, from a folder in LookBook's layout."""

    recipe: str
    data: flow.Lookbook
    loop: LoopConfig
    encoder: EncoderConfig
    found: dict[str, Any]
    rows: Counts

    @classmethod
    def of(
        cls,
        recipe: str,
        lookbook: LookbookConfig,
        train: LoopConfig,
        encoder: EncoderConfig,
        workers: Workers,
        limit: int | None,
        published: bool,
    ) -> "LookbookPlan":
        """Raises UsageError if the folder has too few products."""
        if not lookbook.path:
            raise UsageError(f"--recipe={recipe}: needs --lookbook.path, a folder in LookBook's layout")
        data = flow.Lookbook(lookbook, limit, holds_out=not published)
        parts = dict(zip(("train", "val", "test"), data.read()))
        count = len(parts["train"])
        if count < workers.num_workers:
            raise UsageError(f"--workers.num_workers={workers.num_workers}: there are only {count} products to train on")
        if published:
            check_unpublished(train)
            train = flow.published(recipe, count, lookbook.batch * workers.num_workers, train)
        check_loop(train, flow.SELECTS[recipe], workers)
        try_encoder(encoder)  # it is evaluated for comparison: report its faults at once
        found = {"source": storage.absolute(lookbook.path), "examples": {name: len(part) for name, part in parts.items()}}
        total = sum(map(len, parts.values()))
        return cls(recipe, data, train, encoder, found, Counts(total, total))

    @property
    def folder(self) -> str:
        return self.recipe

    def identity(self) -> list[object]:
        config = self.data.config
        return [self.recipe, self.data.digest(), config.batch, asdict(config.siamese), asdict(config.gan), asdict(self.loop)]

    def facts(self) -> dict[str, Any]:
        return self.found

    def training(self, rank: int, num_workers: int) -> "Training":
        return flow.make_training(self.recipe, self.data, self.loop, rank, num_workers)

    def measure(self, model: Path, out: Path, history: Sequence[dict], facts: Mapping[str, str]) -> dict[str, Any]:
        return flow.measure(self.recipe, self.data, self.encoder, model, out, history, facts)

    def card(self, facts: Mapping[str, str], figures: Mapping[str, str], git_revision: str | None) -> str:
        title, what = flow.CARDS[self.recipe]
        settings = {"lookbook": self.data.config, "train": self.loop}
        return model_card(title, [what], facts, figures, f"Weights: trained from scratch. {OF_DATA}", settings, git_revision)

    def use(self, model: Path) -> str:
        return f"w2w train {self.recipe} --lookbook.path=FOLDER --evaluate={model}"
