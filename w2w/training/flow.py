"""What `w2w train` can train: each recipe from its data to the figures of its model, behind one interface."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from w2w import schema, storage
from w2w.engine.train import Workers
from w2w.errors import RejectCode, UsageError
from w2w.models.config import EncoderConfig
from w2w.models.encoder import model_version, try_encoder
from w2w.stage import Counts
from w2w.training.card import model_card
from w2w.training.config import FLOAT16, LoopConfig
from w2w.training.encoders import flow as encoders
from w2w.training.encoders import flow_results as retrieving
from w2w.training.encoders.config import ENCODER, HEAD, LearnConfig
from w2w.training.encoders.pairs import FIGURES
from w2w.training.lookbook import flow as lookbook
from w2w.training.lookbook.config import PIXELDTGAN, SIAMESE, LookbookConfig
from w2w.training.outfits import flow_results as scoring
from w2w.training.outfits.config import OutfitsConfig

if TYPE_CHECKING:  # torch costs the driver seconds
    from w2w.training.loop import Training

OUTFITS = "outfits"
_PAIRS, _LOOKBOOK = ("sources", "learn", "test_pairs"), ("lookbook", "published")
# the options that only some recipes read
READS = {ENCODER: _PAIRS, HEAD: _PAIRS, OUTFITS: ("sources", "outfits", "published"), SIAMESE: _LOOKBOOK, PIXELDTGAN: _LOOKBOOK}
_DEFAULT = EncoderConfig().name
_OF_DATA = "It is bound by the licence of the data that it learnt from."


class Plan(Protocol):
    """One training, of plain values: made in the driver, where it finds what is missing, and taken along by the workers.

    ``folder``: of the store, where its models lie. ``rows``: of what it learns from and is measured on. ``identity``: all that
    decides the weights, but for the workers' number.
    """

    @property
    def folder(self) -> str: ...

    @property
    def rows(self) -> Counts: ...

    def identity(self) -> list[object]: ...

    def facts(self) -> dict[str, object]:
        """What it learns from."""

    def training(self, rank: int, num_workers: int) -> "Training":
        """What one worker trains. Runs in the worker."""

    def measure(self, model: Path, out: Path, history: Sequence[dict], facts: Mapping[str, object]) -> dict[str, object]:
        """Measures the model in a folder on the test split; writes metrics.json and report.html to ``out``. Returns figures for
        the summary, the page's path last."""

    def card(self, facts: Mapping[str, object], figures: Mapping[str, object], git_revision: str | None) -> str:
        """The model's README.md."""

    def use(self, model: Path) -> str:
        """What to do with the model: a command."""


def check_recipe(recipe: str, config: object, default: object) -> None:
    """Raises UsageError for a recipe that does not exist, and for an option set that it does not read."""
    if recipe not in READS:
        raise UsageError(f"--recipe={recipe}: it is one of {', '.join(READS)}")
    for name in dict.fromkeys(n for names in READS.values() for n in names):
        if name not in READS[recipe] and getattr(config, name) != getattr(default, name):
            raise UsageError(f"--{name}: is not read by --recipe={recipe}, whose own are --{', --'.join(READS[recipe])}")


def check_loop(loop: LoopConfig, figures: Sequence[str], workers: Workers) -> None:
    """Raises UsageError for a precision that the workers do not have, and a figure that is never measured."""
    if loop.select and loop.select not in figures:
        raise UsageError(f"train.select={loop.select}: it is one of {', '.join(figures)}")
    if loop.precision == FLOAT16 and not workers.num_gpus:
        raise UsageError("train.precision=float16: needs --workers.num_gpus=1; a CPU computes in float32 or bfloat16")


def check_unpublished(loop: LoopConfig) -> None:
    """Raises UsageError where --published would replace what somebody set."""
    if replace(loop, seed=0, threads=1) != LoopConfig():
        raise UsageError(
            "--published: takes its source's own --train settings; leave all but train.seed and train.threads away"
        )


@dataclass(frozen=True)
class EncoderPlan:
    """Recipes encoder and head, from table `pairs`."""

    table: encoders.PairTable
    recipe: str
    encoder: EncoderConfig
    learn: LearnConfig
    loop: LoopConfig
    inspected: encoders.Inspected
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
        loop: LoopConfig,
        workers: Workers,
        sources: Sequence[str] | None,
        limit: int | None,
        test_pairs: int,
    ) -> "EncoderPlan":
        """Raises UsageError where the pairs are not there, or the encoder cannot be trained so."""
        table = encoders.pair_table(store, sources, limit)
        check_loop(loop, FIGURES, workers)
        found = encoders.inspect(table, recipe, encoder, learn, workers.num_workers)
        out, code = sum(found.num_pairs.values()), RejectCode.NO_VECTOR if recipe == HEAD else RejectCode.NO_PHOTO
        rows = Counts(out + found.num_without, out, {code: found.num_without} if found.num_without else {})
        return cls(table, recipe, encoder, learn, loop, found, test_pairs, rows)

    def identity(self) -> list[object]:
        settings = [asdict(self.learn), asdict(self.loop)]
        return [self.recipe, model_version(self.encoder), *settings, self.inspected.digest]

    def facts(self) -> dict[str, object]:
        found, version = self.inspected, self.table.versions[schema.PAIRS.name]
        counts = {f"{split} pairs": f"{count:,}" for split, count in found.num_pairs.items()}
        left_out = {"left out, without picture or vector": f"{found.num_without:,}"} if found.num_without else {}
        return {"starts from": self.encoder.name, **counts, **left_out, "table `pairs`": f"version {version}"}

    def training(self, rank: int, num_workers: int) -> "Training":
        return encoders.make_training(self.table, self.recipe, self.encoder, self.learn, self.loop, rank, num_workers)

    def measure(self, model: Path, out: Path, history: Sequence[dict], facts: Mapping[str, object]) -> dict[str, object]:
        return retrieving.measure(self.table, self.encoder, model, self.test_pairs, history, facts, out)

    def card(self, facts: Mapping[str, object], figures: Mapping[str, object], git_revision: str | None) -> str:
        name, ours = self.encoder.name, self.encoder.name == _DEFAULT
        what = f"{name} with a head of {self.learn.head.dims[-1]} dimensions; vectors have length 1."
        weights = "EfficientNet-Lite0, ImageNet weights, Apache-2.0" if ours else f"that of {name}: see its card"
        header = [*(["license: apache-2.0"] if ours else []), "pipeline_tag: image-feature-extraction"]
        settings = {"learn": self.learn, "train": self.loop}
        lines = [what, "Use: `w2w embed --encoder.name=FOLDER`."]
        licence = f"Weights: {weights}. {_OF_DATA}"
        return model_card("Street-to-shop encoder", lines, facts, figures, licence, settings, git_revision, header)

    def use(self, model: Path) -> str:
        return f"w2w embed --encoder.name={model}"


@dataclass(frozen=True)
class OutfitPlan:
    """Recipe outfits, from tables `outfits`, `questions` and `embeddings`."""

    table: scoring.OutfitTable
    outfits: OutfitsConfig
    loop: LoopConfig
    found: dict[str, object]
    rows: Counts
    digest: str
    folder: str = "scorers"

    @classmethod
    def of(
        cls,
        store: str,
        encoder: EncoderConfig,
        outfits: OutfitsConfig,
        loop: LoopConfig,
        workers: Workers,
        sources: Sequence[str] | None,
        limit: int | None,
        published: bool,
    ) -> "OutfitPlan":
        """Raises UsageError where the outfits or their vectors are not there, or the network does not fit them."""
        table, found, rows, num_worn, digest = scoring.outfit_table(
            store, encoder, sources, limit, outfits, workers.num_workers
        )
        if published:
            check_unpublished(loop)
            if outfits != OutfitsConfig(hinge=outfits.hinge):
                raise UsageError("--published: takes What2Wear's own settings; leave all of --outfits.* but hinge away")
            outfits, loop = scoring.published(num_worn // workers.num_workers, outfits.hinge, loop)
        check_loop(loop, scoring.SELECTS, workers)
        return cls(table, outfits, loop, found, rows, digest)

    def identity(self) -> list[object]:
        return [OUTFITS, asdict(self.outfits), asdict(self.loop), self.digest]

    def facts(self) -> dict[str, object]:
        return self.found

    def training(self, rank: int, num_workers: int) -> "Training":
        return scoring.make_training(self.table, self.outfits, self.loop, rank, num_workers)

    def measure(self, model: Path, out: Path, history: Sequence[dict], facts: Mapping[str, object]) -> dict[str, object]:
        return scoring.measure(self.table, self.outfits, model, out, history, facts)

    def card(self, facts: Mapping[str, object], figures: Mapping[str, object], git_revision: str | None) -> str:
        name = self.table.encoder.name
        what = [f"Scores outfits by the vectors that {name} gives of their items; network: {self.outfits.network.kind}."]
        licence = f"Weights: trained from scratch on vectors of {name}, whose licence its card states. {_OF_DATA}"
        settings = {"outfits": self.outfits, "train": self.loop}
        return model_card("Scorer of outfits", what, facts, figures, licence, settings, git_revision)

    def use(self, model: Path) -> str:
        return f"w2w train --recipe={OUTFITS} --evaluate={model}"


@dataclass(frozen=True)
class LookbookPlan:
    """Recipes siamese and pixeldtgan, from a folder in LookBook's layout."""

    recipe: str
    data: lookbook.Lookbook
    loop: LoopConfig
    encoder: EncoderConfig
    found: dict[str, object]
    rows: Counts

    @classmethod
    def of(
        cls,
        recipe: str,
        config: LookbookConfig,
        loop: LoopConfig,
        encoder: EncoderConfig,
        workers: Workers,
        limit: int | None,
        published: bool,
    ) -> "LookbookPlan":
        """Raises UsageError where the folder has too few products."""
        if not config.path:
            raise UsageError(f"--recipe={recipe}: needs --lookbook.path, a folder in LookBook's layout")
        data = lookbook.Lookbook(config, limit, holds_out=not published)
        train, val, test = data.read()
        if len(train) < workers.num_workers:
            raise UsageError(f"--workers.num_workers={workers.num_workers}: there are only {len(train)} products to train on")
        if published:
            check_unpublished(loop)
            loop = lookbook.published(recipe, len(train), config.batch * workers.num_workers, loop)
        check_loop(loop, lookbook.SELECTS[recipe], workers)
        try_encoder(encoder)  # it is measured beside: say at once what is wrong with it
        found: dict[str, object] = {"data": storage.absolute(config.path)}
        found |= {f"{name} products": f"{len(part):,}" for name, part in (("train", train), ("val", val), ("test", test))}
        total = len(train) + len(val) + len(test)
        return cls(recipe, data, loop, encoder, found, Counts(total, total))

    @property
    def folder(self) -> str:
        return self.recipe

    def identity(self) -> list[object]:
        config = self.data.config
        return [self.recipe, self.data.digest(), config.batch, asdict(config.siamese), asdict(config.gan), asdict(self.loop)]

    def facts(self) -> dict[str, object]:
        return self.found

    def training(self, rank: int, num_workers: int) -> "Training":
        return lookbook.make_training(self.recipe, self.data, self.loop, rank, num_workers)

    def measure(self, model: Path, out: Path, history: Sequence[dict], facts: Mapping[str, object]) -> dict[str, object]:
        return lookbook.measure(self.recipe, self.data, self.encoder, model, out, history, facts)

    def card(self, facts: Mapping[str, object], figures: Mapping[str, object], git_revision: str | None) -> str:
        title, what = lookbook.CARDS[self.recipe]
        settings = {"lookbook": self.data.config, "train": self.loop}
        return model_card(title, [what], facts, figures, f"Weights: trained from scratch. {_OF_DATA}", settings, git_revision)

    def use(self, model: Path) -> str:
        return f"w2w train --recipe={self.recipe} --lookbook.path=FOLDER --evaluate={model}"
