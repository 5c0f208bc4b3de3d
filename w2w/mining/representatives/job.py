"""Represent: the image that stands for each product, if possible alone on a plain background."""

from dataclasses import dataclass, field

from w2w import ids, schema
from w2w.engine.job import JobConfig, Run
from w2w.engine.run import run_stages
from w2w.engine.source import pending_rows
from w2w.garments.classifier import check_mapping
from w2w.images.decode import DecodeLimits
from w2w.mining.catalog import chosen_version, is_current, keyed_products, snapshot_version
from w2w.mining.representatives import rules as representatives
from w2w.mining.representatives.flow import product_images, represent
from w2w.mining.representatives.rules import GROUND_GIVES, look_at_ground
from w2w.results import Summary
from w2w.stage import Pool, Stage
from w2w.table.delta import need_table
from w2w.table.parts import Output
from w2w.table.pending import rejected_keys, table_keys

STAGE_CODE = 1  # bump when the same tables would give other rows


@dataclass(frozen=True)
class Config(JobConfig):
    """Choose, of every product's images, the one that shows it alone on plain ground: table `representatives`. New images are
    looked at once (table `grounds`)."""

    product_key: list[str] = field(default_factory=list)
    """Attributes that together make a product, for a feed with a row for every picture; none: its product_id does."""
    detector: str = "auto"
    """Whose garments tell that a picture shows a person: a stage version of `looks`, none, or auto: the newest, if any."""
    classifier: str = "none"
    """Whose class has to be the product's: a model version of `categories`, none, or auto: the newest, if any."""
    classes: dict[str, str] | None = None
    """The feed's categories as ours: {Topwear: top, Sandal: shoes, ...}."""
    decode: DecodeLimits = DecodeLimits()
    """Limits of an image."""
    pool: Pool = Pool()
    """Workers that look at images."""


@dataclass(frozen=True, kw_only=True)
class Result(Summary):
    """Of one stage version; ``unchanged``: its rows were made of these very tables before."""

    product_key: tuple[str, ...]
    detector: str | None
    classifier: str | None
    images_not_seen_yet: int
    stage_version: str | None = None
    unchanged: bool = False
    representatives: int | None = None


def main(config: Config) -> Result:
    run = Run("represent", config)
    need_table(run.store, schema.PRODUCTS, "ingest")
    need_table(run.store, schema.IMAGES, "ingest")
    check_mapping(config.classes or {})
    keyed_products(run.store, config.product_key)  # raises for an attribute that no product has
    detector = chosen_version(run.store, schema.LOOKS, config.detector, "detector")
    classifier = chosen_version(run.store, schema.CLASSIFICATIONS, config.classifier, "classifier")
    ground = ids.digest(representatives.CODE)
    done = [
        table_keys(run.store, schema.GROUNDS, schema.IMAGE_ID, stage_version=ground),
        rejected_keys(run.store, "represent", ground),
    ]
    columns = [schema.IMAGE_ID, schema.BYTES, schema.SOURCE_URI]
    among = product_images(run.store)
    work = pending_rows(run.store, schema.IMAGES, columns, done, schema.SOURCE_URI, config.item_rows, among, config.limit)
    result = run.result(
        Result,
        product_key=tuple(config.product_key) or (schema.PRODUCT_ID,),
        detector=detector,
        classifier=classifier,
        images_not_seen_yet=work.num_rows,
        skipped=work.skipped,
    )
    if config.dry_run:
        return result
    run.begin()
    if not work.is_done(config.tolerance):
        counts, versions = run_stages(
            run.store,
            work,
            [Stage("look", look_at_ground, (schema.BYTES,), GROUND_GIVES, {"limits": config.decode, "stage_version": ground})],
            [Output(schema.GROUNDS)],
            run.lineage(ground, [schema.IMAGES]),
            pool=config.pool,
            tolerance=config.tolerance,
            commit_every_s=config.commit_every_s,
        )
        result = run.done(result, counts=counts, versions=versions)
    inputs = [schema.PRODUCTS, schema.GROUNDS]
    inputs += [schema.LOOKS, schema.GARMENTS] if detector else []
    inputs += [schema.CLASSIFICATIONS] if classifier else []
    options = (config.product_key, ground, detector, classifier, config.classes if classifier else None)
    version = snapshot_version(STAGE_CODE, options, run.store, inputs)
    if is_current(run.store, schema.REPRESENTATIVES, version):
        return run.done(result, stage_version=version, unchanged=True)
    arguments = (config.product_key, ground, detector, classifier, config.classes, run.lineage(version, inputs))
    chosen, versions = represent(run.store, *arguments)
    return run.done(result, versions=result.versions | versions, stage_version=version, representatives=chosen.out)
