"""Tag: what each picture shows, as attributes that a filter knows: type, colour, or what your feed tells of others."""

from dataclasses import dataclass, field, replace
from typing import Literal

from w2w import schema, storage
from w2w.engine.job import JobConfig, Run
from w2w.engine.run import run_pending
from w2w.errors import UsageError
from w2w.garments.classifier import HeadConfig
from w2w.images.decode import DecodeLimits
from w2w.models import sources
from w2w.models.config import TAGS, TAGS_FILE, EncoderConfig
from w2w.models.default import check_default
from w2w.models.earlier import left_out
from w2w.models.encoder import model_version, try_encoder
from w2w.models.flow import pictures_of
from w2w.report.page import page_of
from w2w.results import Figure, Summary
from w2w.stage import Pool
from w2w.table import delta
from w2w.table.parts import Output
from w2w.table.permitted import explained, why_refused
from w2w.table.published import catalog_made_by
from w2w.training.classifier.flow import need_vectors
from w2w.training.tags.flow import (
    called,
    check_labels,
    coverage,
    is_tagged,
    labelled,
    learn,
    read_from_now_on,
    tag_stages,
    untagged,
)
from w2w.training.tags.heads import Tagger, load
from w2w.training.tags.stage import tagger_version

OWN = "tags"  # folder of a store's own tagger
_SWITCH = "filters, exports and similar products {} this tagger's tags from now on, in place of those of {}"


@dataclass(frozen=True)
class TagConfig:
    """What says it."""

    tagger: str = ""
    """Folder of a tagger of your own, read, or with --learn written; or w2w-tags, which comes with w2w. Default: tags/ in the
    store if there is one, else w2w-tags."""


@dataclass(frozen=True)
class Config(TagConfig, JobConfig):
    """Give every picture its attributes, in table `attributes`; with --learn, first learn them from columns of your own feed.
    A value that is not probable enough is left out: null, not a guess."""

    LEAST = {"max_examples": 1}
    SHOWN = "store of learn tagger precision encoder.name max_examples pool.workers limit dry_run"

    of: Literal["images", "garments"] = "images"
    """What is tagged: images, or garments (the crops that a detector cut out)."""
    pool: Pool = Pool()
    """Workers that decode; on a CPU they also run the model."""
    gpu_pool: Pool | None = None
    """Separate workers for the model, for example {num_gpus: 1, num_cpus: 1, batch_rows: 256}."""
    learn: list[str] = field(default_factory=list)
    """Train on these columns of the feed (colour, category, ...) and the embeddings of --encoder, instead of tagging."""
    precision: float = 0.9
    """With --learn: the share of a value's answers that should be right; from it follows the probability that is needed."""
    encoder: EncoderConfig = EncoderConfig()
    """With --learn: whose embeddings it learns from (`w2w embed` made them). Later the tagger names its encoder."""
    decode: DecodeLimits = DecodeLimits()
    """Limits of an image."""
    head: HeadConfig = HeadConfig()
    """With --learn: how the heads are trained."""
    max_examples: int = 100_000
    """With --learn: most products to train on."""


@dataclass(frozen=True, kw_only=True)
class Result(Summary):
    """Of tagging, or with --learn of training."""

    tagger: str
    """w2w-tags, or its folder."""
    encoder: str
    stage_version: str | None = None
    """Of the rows in table `attributes`."""
    pending: int | None = None
    left_out: str | None = None
    """Photos whose garments are not tagged, as the newest detector has not looked at them and an earlier one has."""
    tagged: dict[str, Figure] = field(default_factory=dict)
    """By attribute, the share of all pictures of this kind and version whose value is sure."""
    still_read: str | None = None
    """Another tagger, by its name and stage version, whose rows filters, exports and similar products go on reading: this one
    has not tagged all pictures yet, or a run with --limit found them tagged."""
    switched: str | None = None
    """That they go back to this tagger's rows: it had tagged all pictures already, and another one has since."""
    products: int | None = None
    """With --learn: how many there are to learn from."""
    not_permitted: int | None = None
    """With --learn: products left out because training may not use their picture (table `permissions`)."""
    figures: dict[str, Figure] = field(default_factory=dict)
    """With --learn: of each attribute, on products that it has not learnt from."""
    near_duplicates: str | None = None
    """How near-duplicates were found; they stay in one split."""
    report: str | None = None


def main(config: Config) -> Result:
    if not 0 < config.precision <= 1:
        raise UsageError(f"--precision={config.precision}: a share above 0, at most 1")
    run = Run("tag" if config.of == "images" else f"tag-{config.of}", config)
    if config.learn:
        check_default(run.store, config.encoder, catalog_made_by(run.store))
        own = storage.join(run.store, OWN)
        if config.tagger == TAGS:
            raise UsageError(f"--tagger={TAGS}: is w2w's own; name a folder for yours, or none for {own}")
        return _learn(config, run, storage.absolute(config.tagger) if config.tagger else own)
    return _tag(config, run)


def find_tagger(store: str, name: str, config: EncoderConfig) -> tuple[str, Tagger, EncoderConfig, str]:
    """Name, tagger, its encoder and the stage version of its rows; by default the store's own, else w2w's. Raises UsageError as
    ``load`` and ``encoder_of``."""
    own = storage.join(store, OWN)
    name = name or (own if storage.exists(storage.join(own, TAGS_FILE.with_suffix(".json").name)) else TAGS)
    tagger = load(name)
    encoder = encoder_of(config, tagger, name)
    return name, tagger, encoder, tagger_version(tagger, encoder)


def _tag(config: Config, run: Run) -> Result:
    pictures = pictures_of(config.of)
    name, _, encoder, version = find_tagger(run.store, config.tagger, config.encoder)
    how = (config.item_rows, config.full_scan)
    work = untagged(run.store, pictures, run.job, version, *how).first(config.limit)
    unseen = left_out(run.store) if config.of == "garments" else None
    told = {"tagger": name, "encoder": encoder.name, "stage_version": version, "left_out": unseen}
    result = run.result(Result, **told, pending=work.num_rows, skipped=work.skipped)
    if work.num_rows:
        try_encoder(encoder)
    run.config = replace(config, tagger=name)  # the commits record which, where the options leave it to the store
    stages = tag_stages(pictures, encoder, name, version, config.decode, config.gpu_pool)
    done = run_pending(run, result, work, stages, [Output(schema.TAGGED)], version, [pictures.table], config.pool)
    read = delta.finished_version(run.store, schema.TAGGED, run.job) if config.of == "images" else version
    switches = read not in (None, version) and config.limit is None and is_tagged(work)
    stays = f" (a run without tagger={config.tagger}, as of a night, may go back)" if config.tagger else ""
    other = called(run.store, read) if read not in (None, version) else None
    if config.dry_run:
        return replace(done, switched=_SWITCH.format("would read", other) + stays if switches else None)
    if switches and (versions := read_from_now_on(run, work, version)):
        done, other = run.done(done, switched=_SWITCH.format("read", other) + stays, versions=versions), None
    return replace(done, tagged=coverage(run.store, version, pictures.owner_kind), still_read=other)


def encoder_of(config: EncoderConfig, tagger: Tagger, name: str) -> EncoderConfig:
    """The encoder that the tagger reads, run as ``config`` says. Raises UsageError where the options name another, or its files
    have changed since. Custom code is named only by options: a folder may be a stranger's."""
    if config.is_named and config.name != tagger.encoder:
        raise UsageError(f"--encoder.name={config.name}: tagger {name} reads vectors of {tagger.encoder}: name none, or that")
    if config.name != tagger.encoder and not sources.is_data(tagger.encoder):
        raise UsageError(f"--tagger={name}: was trained with custom code: name it with --encoder.name={tagger.encoder}")
    encoder = replace(config, name=tagger.encoder, colour=tagger.colour)
    trained_on, found = {h.classifier.encoder_version for h in tagger.heads.values()} - {""}, model_version(encoder)
    if trained_on - {found}:
        raise UsageError(f"--tagger={name}: was trained on vectors {min(trained_on)}, and {encoder.name} makes {found} now")
    return encoder


def _learn(config: Config, run: Run, folder: str) -> Result:
    if twice := [name for name in config.learn if config.learn.count(name) > 1]:
        raise UsageError(f"--learn={twice[0]}: is named twice")
    delta.need_table(run.store, schema.EMBEDDINGS, "embed")
    version = model_version(config.encoder)
    products, refused = labelled(run.store, config.learn, config.max_examples)
    with explained(lambda: why_refused(refused, refused + len(products))):
        check_labels(products, config.learn)
        need_vectors(run.store, products, config.encoder.name, version)
    told = {"products": len(products), "not_permitted": refused or None}
    result = run.result(Result, tagger=folder, encoder=config.encoder.name, **told)
    if config.dry_run:
        return result
    run.begin()
    page = page_of(run.store, run.job, run.run_id)
    arguments = (run.store, products, config.learn, config.encoder, version, config.head, config.precision, folder, page)
    with explained(lambda: why_refused(refused, refused + len(products))):
        return run.done(result, **learn(*arguments, config.pool.num_cpus))
