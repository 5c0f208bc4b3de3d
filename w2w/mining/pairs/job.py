"""Mine: pairs of a garment in a post's photo and the product that it shows."""

from dataclasses import dataclass, field, replace

from w2w import schema
from w2w.engine.job import JobConfig, Run
from w2w.engine.tasks import run_task
from w2w.errors import UsageError
from w2w.garments.classifier import check_mapping
from w2w.mining.catalog import check_product_key, chosen_version, is_current, read_catalog, snapshot_version
from w2w.mining.pairs.flow import GateConfig, mine
from w2w.mining.pairs.rules import PairRules
from w2w.mining.pairs.shown import report_mining
from w2w.models.earlier import POSTED, left_out
from w2w.report.page import page_of
from w2w.results import Summary
from w2w.table import delta
from w2w.table.delta import need_table
from w2w.table.permitted import TRAINING, permitted

STAGE_CODE = 1  # bump when the same tables would give other pairs


@dataclass(frozen=True)
class Config(JobConfig):
    """Match the products that each post tags with the garments found in its photo: table `pairs`; every tag that is no pair is
    in `rejects`, with the reason."""

    SHOWN = "store gate.matches rules.sure_score product_key detector classifier classes out shown dry_run"

    max_reject_rate: float = 1.0
    """The job fails when a larger share of the tags is rejected."""
    rules: PairRules = PairRules()
    """What makes a pair."""
    gate: GateConfig = GateConfig()
    """What similarity decides."""
    product_key: list[str] = field(default_factory=list)
    """Attributes that together make a product, as in `w2w represent`."""
    detector: str = "auto"
    """Whose garments: a stage version of `looks`, or auto: the newest."""
    classifier: str = "none"
    """Whose class of a product's image counts where it is sure (`w2w classify --threshold`; published: .8): a model version of
    `categories`, auto: the newest, or none: the shop's own category."""
    classes: dict[str, str] | None = None
    """The feed's categories as ours: {Topwear: top, Sandal: shoes, ...}. Other categories are not mined."""
    out: str = ""
    """The report. Default: index.html in <store>/reports/mine/<run>."""
    shown: int = 12
    """Pairs, negatives, and rejects of each reason in the report; 0 for no report."""


@dataclass(frozen=True, kw_only=True)
class Result(Summary):
    """Of one stage version; ``unchanged``: its pairs were made of these very tables before."""

    detector: str
    left_out: str | None = None
    """Photos of posts whose garments give no pairs, as the newest detector has not looked at them and an earlier one has."""
    classifier: str | None
    """None: the shop's own categories."""
    gate: str | None = None
    """What similarity decides, if anything."""
    gate_model_version: str | None = None
    stage_version: str
    pictures_not_permitted: int | None = None
    """Pictures of the store that training may not use; tags with one of them are rejected."""
    unchanged: bool = False
    report: str | None = None


def main(config: Config) -> Result:
    run = Run("mine", config)
    store = run.store
    need_table(store, schema.POSTS, "crawl")
    need_table(store, schema.SPLITS, "split")
    check_product_key(store, schema.REPRESENTATIVES, config.product_key, "represent")
    check_product_key(store, schema.SPLITS, config.product_key, "split")
    check_mapping(config.classes or {})
    detector = chosen_version(store, schema.LOOKS, config.detector, "detector")
    if detector is None:
        raise UsageError("--detector: pairs need garments: run 'w2w detect' first, and give its stage version or auto")
    classifier = chosen_version(store, schema.CLASSIFICATIONS, config.classifier, "classifier")
    if classifier is None and config.classifier == "auto":
        raise UsageError("--classifier=auto: nothing was classified yet: run 'w2w classify' first, or give none")
    asked = config.gate.asked()
    inputs = [
        schema.POSTS,
        schema.PRODUCTS,
        schema.IMAGES,
        schema.LOOKS,
        schema.GARMENTS,
        schema.REPRESENTATIVES,
        schema.SPLITS,
    ]
    inputs += [schema.CLASSIFICATIONS] if classifier else []
    inputs += [schema.EMBEDDINGS] if asked else []
    inputs += [schema.JUDGEMENTS] if delta.count_rows(delta.open_table(store, schema.JUDGEMENTS), kind="garments") else []
    may = permitted(store, TRAINING)
    options = (config.rules, asked, config.product_key, detector, classifier, config.classes, *may.told)
    version = snapshot_version(STAGE_CODE, options, store, inputs)
    gate = {"gate": config.gate.matches, "gate_model_version": asked.model_version} if asked else {}
    told = {"detector": detector, "left_out": left_out(store, POSTED) if config.detector == "auto" else None}
    told |= {"classifier": classifier, "stage_version": version}
    result = run.result(Result, **told, pictures_not_permitted=may.num, **gate)
    if is_current(store, schema.PAIRS, version):
        return run.done(result, unchanged=True)
    if config.dry_run:
        return result
    run.begin()
    catalog = run_task(read_catalog, store, config.product_key, config.classes, classifier, title="catalog")
    lineage = run.lineage(version, inputs)
    lineage = replace(lineage, config=lineage.config | {"detector": detector, "classifier": classifier})  # instead of auto
    counts, versions = mine(store, detector, catalog, config.rules, asked, lineage, config.tolerance, may=may)
    report = report_mining(store, config.out or page_of(store, run.job, run.run_id), config.shown) if config.shown else None
    return run.done(result, counts=counts, versions=versions, report=report)
