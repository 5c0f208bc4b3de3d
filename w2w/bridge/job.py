"""Bridge: a map from a new model's vectors into the space of the model before it, measured before it is used."""

from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime

from w2w import ids, storage
from w2w.bridge import flow, rules
from w2w.config import check_name
from w2w.engine.job import JobConfig, Run
from w2w.errors import JobFailed, UsageError
from w2w.images.decode import DecodeLimits
from w2w.models.config import EncoderConfig
from w2w.models.default import standing_default
from w2w.models.encoder import model_version
from w2w.results import Figure, Summary
from w2w.stage import Pool
from w2w.table import bridges
from w2w.table.bridges import Bridge
from w2w.table.published import catalog_made_by

_OF_OLD = "of old"


@dataclass(frozen=True)
class Config(JobConfig):
    """Fit a map from the vectors of --encoder, a new model, to those of --old, on a sample of both, and write it where it keeps
    enough of the old model's neighbours. With --encoder.bridge=FILE new queries and products are then served from the old
    model's index, while `w2w embed` computes new vectors over several nights."""

    SHOWN = "store encoder.name old.name sample min_recall name seed pool.workers dry_run"
    LEAST = JobConfig.LEAST | {"sample": rules.LEAST_PICTURES}

    encoder: EncoderConfig = EncoderConfig()
    """The new model."""
    old: EncoderConfig = EncoderConfig()
    """The model whose vectors are in the store, and in its index. auto: w2w-fashion, or the default of an earlier w2w that
    filled the store."""
    sample: int = 4000
    """Pictures to fit and measure on. Their new vectors are computed, and count for the re-embedding."""
    min_recall: float = 0.7
    """Refused where mapped vectors find a smaller share of the ten neighbours that the old ones find."""
    name: str | None = None
    """Of the file, <store>/bridges/NAME.safetensors. Default: the bridge's version."""
    seed: int = 0
    """Of the sample, its parts, and the intervals."""
    decode: DecodeLimits = DecodeLimits()
    """Limits of an image."""
    pool: Pool = Pool()
    """Workers that compute the sample's new vectors."""


@dataclass(frozen=True, kw_only=True)
class Result(Summary):
    """Of one bridge. Figures are recall@10 on products that it was not fitted to, with 95 % intervals."""

    new: str
    """Model version of the new encoder."""
    old: str
    sample: int
    """Pictures with vectors of both."""
    to_embed: int
    """Of the sample, without a new vector before this run."""
    map: str | None = None
    """The kind that was chosen."""
    recall: dict[str, Figure] = field(default_factory=dict)
    """Of old: of the neighbours that the old vector finds in the old space, what the mapped one finds. Of new: of those in the
    new space. Old of new: what the old vector finds of these. With new products: what old vectors find as before while the
    test's products have mapped ones."""
    tried: dict[str, float] = field(default_factory=dict, repr=False)
    """Of each candidate, by which it was chosen."""
    bridge: str | None = None
    """The file, for --encoder.bridge."""
    bridge_version: str | None = None
    unchanged: bool = False
    """It was there before, made of the same sample."""


def main(config: Config) -> Result:
    run = Run("bridge", config)
    if config.limit:
        raise UsageError("--limit: use --sample")
    if config.name is not None:
        check_name(config.name, "name")
    if not 0 <= config.min_recall <= 1:
        raise UsageError(f"--min_recall={config.min_recall}: a share between 0 and 1")
    if config.encoder.bridge or config.old.bridge:
        raise UsageError("encoder.bridge: a bridge leads from a model itself")
    config = replace(config, old=standing_default(run.store, config.old, catalog_made_by(run.store)))
    new, old = model_version(config.encoder), model_version(config.old)
    if new == old:
        raise UsageError(f"--encoder and --old are the same model, version {new}: name the new one with --encoder.name")
    sample = flow.sample_of(run.store, old, config.old.name, config.sample, config.seed)
    rules.check_sample(rules.parts_of(sample.rows.column(0), config.seed))
    work = flow.without_new(run.store, sample, new, config.item_rows)
    told = {"new": new, "old": old, "sample": sample.rows.num_rows, "to_embed": work.num_rows}
    result = run.result(Result, **told, skipped=sample.rows.num_rows - work.num_rows)
    made_of = ids.digest(sample.digest, new, old, config.seed)
    wanted = config.name and bridges.uri_of(run.store, config.name)
    same = [(uri, bridge) for uri, bridge in bridges.listed(run.store) if bridge.told.get("made_of") == made_of]
    same = [(uri, bridge) for uri, bridge in same if wanted in (None, uri) and _OF_OLD in bridge.recall]
    if wanted and not same and storage.exists(wanted):
        raise UsageError(f"--name={config.name}: is another bridge, which an index may need: choose another name")
    if same and not work.num_rows:
        uri, bridge = same[0]
        result = run.done(result, map=bridge.told.get("map"), recall=bridge.recall, unchanged=True)
        return run.done(_passed(config, result), bridge=uri, bridge_version=bridge.version)
    if config.dry_run:
        return result
    if work.num_rows:
        run.begin()
    else:
        run.check_store()
    counts = flow.embed(run, work, new, config.encoder, config.decode, config.pool)
    products, new_ND, old_ND = flow.both_vectors(run.store, sample, new, old)
    parts_N = rules.parts_of(products, config.seed)
    rules.check_sample(parts_N)
    begun = run.seconds
    fitted = rules.fit(new_ND, old_ND, parts_N)
    recall = rules.measure(fitted.map, new_ND, old_ND, parts_N, products, config.seed)
    about = {
        "new_encoder": config.encoder.name,
        "old_encoder": config.old.name,
        "map": fitted.map.name,
        "sample": len(products),
        "seed": config.seed,
        "seconds": run.seconds - begun,
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "made_of": made_of,
        bridges.RECALL: {name: asdict(figure) for name, figure in recall.items()},
    }
    bridge = Bridge(old, new, fitted.map.matrix, fitted.map.bias, about)
    shown = {"sample": len(products), "map": fitted.map.name, "recall": recall, "tried": fitted.tried}
    result = _passed(config, run.done(result, counts=counts, **shown))
    uri = wanted or bridges.uri_of(run.store, bridge.version)
    bridges.write(uri, bridge)
    return run.done(result, bridge=uri, bridge_version=bridge.version)


def _passed(config: Config, result: Result) -> Result:
    """The result. Raises JobFailed if the bridge keeps too little."""
    kept = result.recall[_OF_OLD]
    if kept.value < config.min_recall:
        error = JobFailed(
            f"the bridge is not to be used: mapped vectors find {kept} of the ten neighbours that the old ones find, and "
            f"--min_recall={config.min_recall:g}; a larger --sample helps, or re-embed without a bridge"
        )
        error.result = replace(result, bridge=None)
        raise error
    return result
