"""Training and evaluating an outfit scorer from tables `outfits` and `questions`, on Ray."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from w2w import ids, schema, storage
from w2w.engine.tasks import run_task
from w2w.errors import RejectCode, UsageError
from w2w.memory import keep_memory
from w2w.metrics.outfit import evaluate
from w2w.models.config import EncoderConfig
from w2w.models.encoder import model_version
from w2w.results import Figure
from w2w.stage import Counts
from w2w.table import delta
from w2w.table.permitted import TRAINING, Permitted, explained, permitted, why_refused
from w2w.training.config import LoopConfig
from w2w.training.outfits.arrays import WORN, Outfits, Questions, blanks
from w2w.training.outfits.config import WHAT2WEAR, OutfitsConfig, as_published
from w2w.training.outfits.flow import read_blanks, read_outfits
from w2w.training.outfits.page import Judged, PublishedTable, compatibility_report
from w2w.training.page import Curve

if TYPE_CHECKING:
    from w2w.training.loop import Training

TRAIN, VAL, TEST = "train", "val", "test"
SELECTS = ("AUC", "FITB")
_SEED = 0  # of the questions drawn for the test, and of the intervals
_TOLD_APART = 2  # minimum number of worn outfits per worker
_THREE = 3  # number of slots at which cosines of outfits are comparable
_PUBLISHED = (
    "The published loss only raises similarities: relu(1 - s) of worn and relu(.7 - s) of modified outfits, s being cosine / "
    "temperature, both fall as a similarity rises, and no term falls as one drops. With a temperature of .07 both are zero as "
    "soon as cosines are above .07."
)
_THRESHOLDS = (
    "Told apart: a worn outfit is correct when its similarity reaches the threshold, a modified one when it stays below. "
    "What2Wear's table counts a modified outfit as correct when it reaches the threshold too."
)


@dataclass(frozen=True)
class OutfitTable:
    """Outfits of one source, with their items' vectors from one encoder."""

    store: str
    encoder: EncoderConfig
    source: str
    limit: int | None  # worn outfits to train on
    asked: bool  # whether table `questions` has questions about them
    versions: dict[str, int]  # of the tables, so that every worker reads the same
    may: Permitted = Permitted(TRAINING)

    def read(self) -> tuple[dict[str, Outfits], int]:
        """Outfits by split, and the number without vectors."""
        version = model_version(self.encoder)
        splits, left_out = read_outfits(self.store, version, self.source, versions=self.versions, may=self.may)
        if self.limit and TRAIN in splits:
            made = splits[TRAIN]
            origin = np.where(made.modified_of_O == WORN, np.arange(len(made)), made.modified_of_O)
            splits[TRAIN] = made.among(np.isin(origin, made.worn[: self.limit]))
        return splits, left_out

    def questions(self, outfits: Outfits, split: str, num_answers: int) -> tuple[Outfits, Questions]:
        """Fill-in-the-blank questions: the data set's own, or drawn from its worn outfits; and the outfits, with their
        items."""
        if self.asked:
            version = model_version(self.encoder)
            outfits, found = read_blanks(self.store, outfits, version, self.source, split, self.versions, self.may)
            if len(found):
                return outfits, found
        return outfits, blanks(outfits, num_answers, np.random.default_rng(_SEED))


def outfit_table(
    store: str,
    encoder: EncoderConfig,
    sources: Sequence[str] | None,
    limit: int | None,
    config: OutfitsConfig,
    num_workers: int = 1,
) -> tuple[OutfitTable, dict[str, Any], Counts, int, str]:
    """The outfits, the job's result fields about them, rows of the table, the number of worn ones for training, and a digest of
    everything that determines the weights. Raises UsageError for what is missing."""
    sources = sources or [schema.OWN]
    if len(sources) > 1:
        raise UsageError(f"--sources: a scorer learns from the outfits of one source, not of {', '.join(sources)}")
    asked = sources[0] != schema.OWN and delta.open_table(store, schema.QUESTIONS) is not None
    opened = {t.name: delta.open_table(store, t) for t in (schema.OUTFITS, schema.QUESTIONS, schema.EMBEDDINGS)}
    versions = {name: t.version() for name, t in opened.items() if t is not None}
    table = OutfitTable(store, encoder, sources[0], limit, asked, versions, permitted(store, TRAINING))
    splits, left_out = table.read()
    counts = {}
    for split in (TRAIN, VAL, TEST):
        if split not in splits or not len(splits[split].worn):
            with explained(lambda: why_refused(table.may.num or 0, what="pictures of the store")):
                raise UsageError(
                    f"table `outfits` has no worn outfits of split {split!r} with vectors of {encoder.name}: see 'w2w split'"
                )
        counts[split] = len(splits[split].worn), len(splits[split].modified)
    train = splits[TRAIN]
    if len(train.worn) < _TOLD_APART * num_workers:
        raise UsageError(
            f"--workers.num_workers={num_workers}: there are {len(train.worn)} worn outfits to train on, and each worker "
            "needs at least two"
        )
    if config.worn_first < 1 and len(np.unique(train.modified_of_O[train.modified])) < len(train.worn):
        raise UsageError(
            f"some worn outfits of {sources[0]!r} have no modified counterpart: run 'w2w compose --modified=4', or set "
            "--outfits.worn_first=1 to contrast worn ones with strangers"
        )
    if config.network.kind != "set" and (len(train.slots) != _THREE or (train.slots_OS < 0).any()):
        raise UsageError(
            f"outfits.scorer.kind={config.network.kind}: is for outfits of top, bottom and shoes, and {sources[0]!r} has "
            "others: use --outfits.scorer.kind=set"
        )
    told: dict[str, Any] = {"encoder": encoder.name, "source": sources[0], "left_out": left_out}
    told |= {"examples": {s: n for s, (n, _) in counts.items()}, "modified": {s: n for s, (_, n) in counts.items()}}
    told["table_version"] = versions[schema.OUTFITS.name]
    num_rows = sum(map(sum, counts.values()))
    rows = Counts(num_rows + left_out, num_rows, {RejectCode.NO_VECTOR: left_out} if left_out else {})
    val, questions = table.questions(splits[VAL], VAL, config.num_answers)
    return table, told, rows, counts[TRAIN][0], ids.digest(*(_digest(part) for part in (train, val, questions)))


def _digest(arrays: Outfits | Questions) -> list[object]:
    """Of all their contents."""
    return [ids.image_id(v.tobytes()) if isinstance(v, np.ndarray) else v for v in vars(arrays).values()]


def published(num_worn: int, hinge: str, loop: LoopConfig) -> tuple[OutfitsConfig, LoopConfig]:
    """What2Wear's own settings, for this many worn outfits per worker."""
    outfits, theirs = as_published(num_worn, loop.seed, hinge)
    return outfits, replace(theirs, threads=loop.threads)


def make_training(table: OutfitTable, config: OutfitsConfig, loop: LoopConfig, rank: int, num_workers: int) -> "Training":
    """What one worker trains (a Training): its share of the worn outfits; the first one also evaluates on the held-out ones."""
    from w2w.training.loop import Training
    from w2w.training.outfits.recipe import Compatibility, batches

    splits, _ = table.read()
    val, questions = table.questions(splits[VAL], VAL, config.num_answers) if rank == 0 else (None, None)
    recipe = Compatibility(config, splits[TRAIN], val, questions, loop.seed)
    return Training(recipe, batches(config, loop, splits[TRAIN], rank, num_workers), loop)


def measure(
    table: OutfitTable, config: OutfitsConfig, model: Path, out: Path, history: Sequence[dict], facts: Mapping[str, object]
) -> dict[str, Any]:
    """AUC and FITB of the scorer in ``model`` on test outfits, each with its 95 % interval, and the distribution of
    similarities; writes metrics.json and report.html. Returns fields of the job's result."""
    rows, judged = run_task(_judge, table, config.num_answers, model, title="measure")
    storage.write_bytes(str(out / "metrics.json"), json.dumps(rows, indent=1).encode())
    figures = {r["metric"]: Figure.of(r) for r in rows if r["of"] == judged[-1].name}
    notes = [*([_PUBLISHED] if config.loss == WHAT2WEAR else []), _THRESHOLDS]
    page = str(out / "report.html")
    shown = {name: str(figure) for name, figure in figures.items()} | dict(facts)
    compatibility_report(page, f"Scorer of outfits {model.name}", notes, shown, judged, _charts(history))
    return {"figures": figures, "report": page, "thresholds": thresholds(judged), "similarity": similarity(judged)}


def thresholds(judged: Sequence[Judged]) -> dict[str, list[Mapping[str, float]]]:
    """By scorer, the shares at each threshold; under WHAT2WEAR the shares of its notebook's method on the raw vectors."""
    source = [j.published for j in judged if j.published]
    return {j.name: list(j.by_threshold) for j in judged} | ({WHAT2WEAR: list(source[0].rows)} if source else {})


def similarity(judged: Sequence[Judged]) -> dict[str, dict[str, float]]:
    """By scorer, mean and standard deviation for both kinds of outfits; none for a missing kind."""
    found = {}
    for one in judged:
        kinds = {"worn": one.worn, "modified": one.modified}
        means = {kind: float(v.mean()) for kind, v in kinds.items() if len(v)}
        found[one.name] = means | {f"{kind}_deviation": float(v.std()) for kind, v in kinds.items() if len(v)}
    return found


def _judge(table: OutfitTable, num_answers: int, model: Path) -> tuple[list[dict], list[Judged]]:
    """METRICS_SCHEMA rows with ``of``, and the page's contents: for the raw vectors, if comparable, and for the scorer."""
    from w2w.models.compatibility import load_scorer
    from w2w.training.outfits.measure import (
        PUBLISHED_RATES,
        answer_scores,
        by_threshold,
        published,
        raw_similarities,
        scores,
        similarities,
    )

    keep_memory()
    network, slots = load_scorer(model)
    splits, _ = table.read()
    test, questions = table.questions(splits[TEST], TEST, num_answers)
    if slots != test.slots:
        raise UsageError(f"{model}: scores outfits of {', '.join(slots)}, and these have {', '.join(test.slots)}")
    shown = [("This scorer", network.__class__.__name__, similarities(network, test), hasattr(network, "similarities"))]
    scored = {"This scorer": scores(network, test, test.items_OS, test.slots_OS)}
    if len(slots) == _THREE and (test.slots_OS >= 0).all():
        raw = raw_similarities(test)
        shown.insert(0, ("Vectors as they are", "Mean cosine of the encoder's own vectors.", raw, True))
        scored = {"Vectors as they are": _in_order(test, raw), **scored}
    rows, judged = [], []
    source = published(test) if len(shown) > 1 else None
    theirs = PublishedTable(source.rates(), PUBLISHED_RATES, source.pair, source.kept) if source else None
    for name, says, alike, is_cosine in shown:
        labels = test.modified_of_O == WORN
        compatible = (scored[name], labels) if len(test.modified) else None
        answered = (
            (answer_scores(network, test, questions), questions.right_Q) if name == "This scorer" and len(questions) else None
        )
        found = evaluate(answered, compatible, np.random.default_rng(_SEED)).to_pylist()
        rows += [r | {"of": name} for r in found]
        values = {r["metric"]: r["value"] for r in found}
        judged.append(Judged(name, says, values, alike.worn, alike.modified, by_threshold(alike), not is_cosine, theirs))
        theirs = None  # it belongs to the raw vectors, which come first
    return rows, judged


def _in_order(outfits: Outfits, alike) -> np.ndarray:
    """Similarities of worn and of modified outfits, each in its outfit's row."""
    found = np.empty(len(outfits), np.float32)
    found[outfits.worn], found[outfits.modified] = alike.worn, alike.modified
    return found


def _charts(history: Sequence[dict]) -> dict[str, list[Curve]]:
    measured = [h for h in history if "val" in h]
    losses = history[0]["losses"] if history else {}
    values = {"On the outfits held out": SELECTS, "Mean score on the outfits held out": ("score of worn", "score of modified")}
    charts = {"Loss": [Curve(n, [(h["step"], h["losses"][n]) for h in history]) for n in losses]}
    for title, names in values.items():
        charts[title] = [Curve(m, [(h["step"], h["val"][m]) for h in measured if m in h["val"]]) for m in names]
    return charts
