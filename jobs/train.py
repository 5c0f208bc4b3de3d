"""Train: an encoder from table `pairs`, or a head on vectors that are there; measured on its test split."""

from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from w2w import ids, schema, storage
from w2w.errors import UsageError
from w2w.models.encoder import EncoderConfig, model_version
from w2w.runtime.encoders import TEST, TRAIN, VAL, check, make_training, pair_table
from w2w.runtime.job import JobConfig, Run, Summary, git_revision, need_table, start
from w2w.runtime.retrieving import measure
from w2w.runtime.training import Workers, train
from w2w.training.config import LoopConfig
from w2w.training.encoders.card import model_card
from w2w.training.encoders.config import ENCODER, HEAD, LearnConfig

CODE = 1  # raise it when a checkpoint of the old code must not be gone on with


@dataclass(frozen=True)
class Config(JobConfig):
    """Train on the train split, choose the step on the val split, measure on the test split; writes the model, its card,
    metrics.json and report.html."""

    recipe: str = ENCODER
    """encoder: backbone and head learn from pictures; head: only the head, from vectors of table `embeddings` (minutes)."""
    encoder: EncoderConfig = EncoderConfig()
    """What it starts from: any encoder, or one of its own that goes on."""
    sources: list[str] | None = None
    """Data sets to train and measure on. Default: all of table `pairs`."""
    learn: LearnConfig = field(default_factory=LearnConfig)
    """Loss, batches, head and augmentation."""
    train: LoopConfig = field(default_factory=LoopConfig)
    """Steps, rate and selection."""
    workers: Workers = Workers()
    """Processes."""
    test_pairs: int = 2000
    """Test pairs that are measured on, at most: their pictures are the gallery."""
    out: str | None = None
    """Local folder of the model. Default: encoders/<run's digest> in the store."""
    resume: bool = True
    """Go on where an interrupted run of the same options and pairs stopped. --resume=false begins anew."""


def main(config: Config) -> Summary:
    run = Run("train", config)
    if config.recipe not in (ENCODER, HEAD):
        raise UsageError(f"--recipe={config.recipe}: it is {ENCODER} or {HEAD}")
    if storage.is_s3(config.out or config.store):
        raise UsageError("--out: the model is written to a local folder: give one")
    need_table(run.store, schema.PAIRS, "mine")
    version = model_version(config.encoder)
    table = pair_table(run.store, config.sources, config.limit)
    counts = {split: len(table.read(split)) for split in (TRAIN, VAL, TEST)}
    for split, count in counts.items():
        if not count:
            raise UsageError(f"table `pairs` has no pairs of split {split!r}: see 'w2w split'")
    check(table, config.recipe, config.encoder, config.learn, config.train, config.workers)
    digest = ids.digest(
        *(CODE, config.recipe, version, asdict(config.learn), asdict(config.train)),
        *(config.workers.num_workers, table.version, table.sources, table.limit),
    )
    out = Path(config.out).expanduser().absolute() if config.out else Path(run.store, "encoders", digest)
    facts: dict[str, object] = {"recipe": config.recipe, "starts from": config.encoder.name}
    facts |= {f"{split} pairs": f"{count:,}" for split, count in counts.items()}
    facts |= {"table `pairs`": f"version {table.version}", "model": str(out)}
    if config.dry_run:
        return run.summary(facts=facts)
    run.begin()
    make = partial(make_training, table, config.recipe, config.encoder, config.learn, config.train)
    history = train(make, config.workers, storage.join(run.store, "_training", digest), out, config.resume)
    kept = next((h["step"] for h in reversed(history) if h.get("kept")), None)
    facts |= {"step kept": f"{kept} of {history[-1]['step']}"}
    figures = measure(table, config.encoder, out, config.test_pairs, history, facts)
    card = model_card(config.encoder, config.learn, config.train, facts, figures, git_revision())
    (out / "README.md").write_text(card, encoding="utf-8")
    return run.summary(facts=facts | figures | {"use": f"w2w embed --encoder.name={out}"})


if __name__ == "__main__":
    start(main, Config)
