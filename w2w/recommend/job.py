"""Recommend: what to wear with a product, a photo, some garments, or every product."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from w2w import schema, storage
from w2w.engine.job import JobConfig, Run
from w2w.engine.run import run_pending
from w2w.engine.snapshot import replace_rows
from w2w.errors import UsageError
from w2w.garments.detector import DetectorConfig
from w2w.garments.taxonomy import CATEGORIES
from w2w.images.decode import DecodeLimits
from w2w.models.config import EncoderConfig
from w2w.models.default import check_default
from w2w.models.pairing import TrainedPairs
from w2w.recommend import flow
from w2w.recommend.answers import Answer, answer_of, lines, pins_not_met
from w2w.recommend.flow import Catalog, Scored
from w2w.recommend.flow_catalog import STAGE, offer_of, source_of, stored_outfits, version_of, write_work
from w2w.recommend.flow_photo import Seen, look_at
from w2w.recommend.page import given_of_row, recommend_report
from w2w.recommend.published import published
from w2w.recommend.rules import OutfitConfig, Stylist
from w2w.recommend.scorers import slots_of_classes
from w2w.recommend.shelf import Applied, apply_house
from w2w.recommend.stage import GIVES, NEW, WORK, Recommend
from w2w.recommend.worn import WornConfig
from w2w.report.page import folder_of
from w2w.results import Summary
from w2w.shown import without_secrets
from w2w.stage import Counts, Pool, Stage
from w2w.table import work
from w2w.table.parts import Output
from w2w.table.pending import values_by_key
from w2w.table.published import catalog_made_by
from w2w.web.fetch import ListedFetchConfig

_INPUTS = (schema.PRODUCTS, schema.EMBEDDINGS)
_LINES = "outfits.jsonl"


@dataclass(frozen=True)
class Wanted:
    """What is recommended, and by whom."""

    scorer: str = flow.WORN
    """worn (counts which looks were worn together; no training), or the folder of a scorer: w2w train outfits."""
    worn: WornConfig = WornConfig()
    """Of the scorer worn: where outfits are, and how they are counted."""
    outfit: OutfitConfig = OutfitConfig()
    """What is recommended."""
    rules: str | None = None
    """A YAML file of a merchandiser: filters, prices, stock, brands, pins, bans. jobs/examples/rules.yaml is an example."""
    classes: dict[str, str] | None = None
    """The feed's categories -> one of the seven classes, where they have other names."""
    classifier: str = "none"
    """Whose classes count instead: a model version of table `categories`, auto: the newest, or none."""
    product_key: list[str] = field(default_factory=list)
    """Attributes that together make a product, for a feed with a row a picture."""


@dataclass(frozen=True)
class Config(Wanted, JobConfig):
    """Complete outfits: top, bottom and shoes, or a dress and shoes. A product, a photo or a few items are answered in this
    process, without Ray; without any of them every product of the catalog is, by workers, into table `recommendations`."""

    SHOWN = "store product photo items scorer rules outfit.extras outfit.answers out dry_run"

    product: str | None = None
    """What it should go with: a product_id."""
    photo: str | None = None
    """What it should go with: the garments of a photo, a file or a URL. Where nothing is missing, they are scored."""
    keep: str = ""
    """Of the photo, only these garments: classes, or numbers from the top down, for example top or 1,3."""
    items: list[str] | str | None = None
    """What it should go with: several product_ids, as A,B. Where nothing is missing, they are scored."""
    published: bool = False
    """What2Wear's own procedure: every combination of top, bottom and shoes, the one with the lowest loss. Needs a scorer that
    was trained with --outfits.loss=what2wear."""
    encoder: EncoderConfig = EncoderConfig()
    """Whose vectors are compared."""
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    """What finds the garments of a photo."""
    decode: DecodeLimits = DecodeLimits()
    """What a photo may be."""
    fetch: ListedFetchConfig = ListedFetchConfig()
    """How a photo on the web is fetched."""
    pool: Pool = Pool(batch_rows=64)
    """Workers."""
    out: str | None = None
    """Folder of the page and the JSON lines. Default: one below <store>/reports/recommend."""
    shown: int = 24
    """Products on the page; 0 for no page."""


@dataclass(frozen=True, kw_only=True)
class Result(Summary):
    """Of one scorer, rules and options."""

    scorer: str
    """What it is, and what it knows."""
    outfits_known: int | None = None
    scorer_version: str
    products: int
    """Products that can be recommended or queried."""
    recommendable: int
    """Of them, those that the rules allow."""
    left_out: dict[str, int] = field(default_factory=dict)
    """By rule."""
    of_no_class: int | None = None
    """Active products of none of the seven classes."""
    not_permitted: int | None = None
    """Products left out because search may not use their picture (table `permissions`)."""
    without_a_vector: int | None = None
    rules_not_met: tuple[str, ...] = ()
    nothing_to_show: tuple[str, ...] = ()
    """For the whole catalog: the classes that no outfit can have, and why."""
    left_out_of_photo: tuple[str, ...] = ()
    """Garments of a photo that one outfit cannot have, and why."""
    pending: int | None = None
    """For the whole catalog: products whose outfits are computed."""
    new: int | None = None
    changed: int | None = None
    """Of them, those that may have had others: a product near them, the scorer or a rule has changed."""
    gone: int | None = None
    """Of them, those that are no longer sold."""
    as_before: int | None = None
    """Of the changed ones, those that follow from the same candidates as before, and keep their row."""
    combinations: int | None = None
    """Combinations that --published considered."""
    of_lowest_loss: int | None = None
    """How many of them share the lowest loss: the first is taken."""
    outfits: tuple[Answer, ...] = field(default=(), repr=False)
    """The answers that were made in this process."""
    lines: str | None = None
    """The same as JSON lines."""
    report: str | None = None

    def __rich__(self) -> Any:
        from rich.console import Group

        return Group(*lines(self.outfits), super().__rich__())


def check(wanted: Wanted) -> None:
    """Raises UsageError for rules that cannot be read and a scorer that is not there: what is wrong whatever the store has."""
    flow.read_rules(wanted.rules)
    flow.trained_scorer(wanted.scorer)


def main(config: Config) -> Result:
    asked = _asked(config)
    house = flow.read_rules(config.rules)
    run = Run("recommend", config)
    check_default(run.store, config.encoder, catalog_made_by(run.store))
    catalog = flow.read_catalog(run.store, config.encoder, config.classes, config.classifier, config.product_key)
    given = _rows_of(run.store, catalog, asked, config.classifier) if asked else []
    trained = flow.trained_scorer(config.scorer)
    seen, of_photo = _seen(config, trained) if config.photo else ([], [])
    applied = apply_house(house, catalog.shelf, catalog.known_ids)
    given += range(len(catalog.shelf), len(catalog.shelf) + len(seen))
    if not given:
        return _whole(run, config, catalog, applied, trained)
    scorer = flow.scored(run.store, trained, config.worn, catalog, [(s.category, s.vector_D) for s in seen])
    stylist = Stylist(catalog.shelf, applied, scorer.space, config.outfit, [s.category for s in seen])
    result = _about(run, catalog, applied, scorer, left_out_of_photo=tuple(of_photo))
    if config.dry_run:
        return result
    if config.published:
        answer, combinations, ties = published(stylist, given, scorer.trained)
        result = run.done(result, combinations=combinations, of_lowest_loss=ties)
    else:
        answer = answer_of(stylist, stylist.question(given))
        not_met = (*result.rules_not_met, *pins_not_met(stylist, answer, given))
        result = run.done(result, rules_not_met=not_met)
    result = run.done(result, outfits=(answer,), counts=Counts(1, 1))
    folder = folder_of(config.out, run.store, run.job, run.run_id)
    text = json.dumps(without_secrets(asdict(answer)), ensure_ascii=False) + "\n"
    storage.write_bytes(storage.join(folder, _LINES), text.encode())
    crops = {row: s.crop for row, s in zip(range(len(catalog.shelf), stylist.size), seen)}
    page = _page(run, config, [answer], result, [crops[row] for row in given if row in crops])
    return run.done(result, lines=storage.join(folder, _LINES), report=page)


def _asked(config: Config) -> list[str]:
    """The given products."""
    items = config.items.split(",") if isinstance(config.items, str) else config.items
    items = None if items is None else [item.strip() for item in items if item.strip()]
    ways = {"product": config.product, "photo": config.photo, "items": items}
    given = [f"--{name}" for name, value in ways.items() if value is not None]
    for name, value in ways.items():
        if value is not None and not (value.strip() if isinstance(value, str) else value):
            raise UsageError(f"--{name}: is empty; without it every product of the catalog is asked")
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)}: give one of them")
    if config.keep and not config.photo:
        raise UsageError("--keep: chooses garments of a --photo")
    if config.shown < 0:
        raise UsageError(f"--shown={config.shown}: must not be negative")
    if config.published and not given:
        raise UsageError("--published: completes one product, photo or some items; name it")
    if config.published and config.rules:
        raise UsageError("--published: considers every product; omit --rules")
    return [config.product] if config.product else items or []


def _seen(config: Config, trained: TrainedPairs | None) -> tuple[list[Seen], list[str]]:
    """The garments of the photo, and what was left out of it."""
    known = slots_of_classes(trained.slots) if trained else CATEGORIES
    return look_at(str(config.photo), config.encoder, config.detector, config.keep, config.decode, config.fetch, known)


def _rows_of(store: str, catalog: Catalog, product_ids: Sequence[str], classifier: str) -> list[int]:
    found = catalog.shelf.find(product_ids).tolist()
    for product, row in zip(product_ids, found):
        if product in catalog.without_vector:
            raise UsageError(f"product {product!r} has no vector of this --encoder: run 'w2w embed'")
        if row < 0 and pc.is_in(pa.scalar(product), value_set=catalog.known_ids).as_py():
            raise UsageError(f"product {product!r} {flow.why_absent(store, product, classifier)}")
        if row < 0:
            raise UsageError(f"there is no product {product!r}")
    return list(dict.fromkeys(found))


def _about(run: Run, catalog: Catalog, applied: Applied, scorer: Scored, **more: Any) -> Result:
    return run.result(
        Result,
        scorer=scorer.says,
        outfits_known=scorer.outfits,
        scorer_version=scorer.version,
        products=len(catalog.shelf),
        recommendable=int(applied.allowed_N.sum()),
        left_out=applied.left_out,
        of_no_class=catalog.of_no_class or None,
        without_a_vector=len(catalog.without_vector) or None,
        not_permitted=catalog.refused or None,
        rules_not_met=applied.told,
        **more,
    )


def _whole(run: Run, config: Config, catalog: Catalog, applied: Applied, trained: TrainedPairs | None) -> Result:
    """Every product, by workers, those that may have other outfits than before."""
    if not config.dry_run:
        run.check_store()
    attributes = [] if trained else config.worn.attributes
    offer = offer_of(run.store, catalog.shelf, applied, attributes)
    of_old = flow.vectors_of(run.store, catalog, offer.placed[schema.IMAGE_ID])
    states = zip(offer.placed[schema.CATEGORY], offer.placed[schema.IMAGE_ID])
    # what attributes said before is not known: without the old states, all rows are asked again
    more = [(category, of_old[image]) for category, image in states if image in of_old and not attributes]
    scorer = flow.scored(run.store, trained, config.worn, catalog, more)
    stylist = Stylist(catalog.shelf, applied, scorer.space, config.outfit, [category for category, _ in more])
    version = version_of(scorer.version, applied.house, config.outfit)
    result = _about(run, catalog, applied, scorer, nothing_to_show=tuple(stylist.emptied()))
    try:
        arguments = (run.store, run.run_id, stylist, offer, catalog.without_vector, version, config.item_rows, config.dry_run)
        found = write_work(*arguments)
        told = {"pending": found.pending, "new": found.new, "changed": found.changed, "gone": found.gone}
        result = run.done(result, skipped=found.done, **told)
        if config.dry_run:
            return result
        lineage = run.lineage(version, _INPUTS)
        if not offer.settled:
            replace_rows(run.store, schema.OFFERED, [offer.both()], lineage)
        source = source_of(run.store, run.run_id, found, config.item_rows).first(config.limit)
        sold = Stylist(catalog.shelf, applied, scorer.space, config.outfit)
        stage = {"stylist": sold, "mark_N": offer.mark_N, "version": version, "run_id": run.run_id}
        steps = [Stage(STAGE, Recommend, tuple(WORK.names), GIVES, stage)]
        outputs = [Output(schema.RECOMMENDATIONS, only=NEW)]
        result = run_pending(run, result, source, steps, outputs, version, _INPUTS, config.pool)
        if (offer.old.height or (offer.before.height and len(offer.fresh))) and not source.in_all:
            replace_rows(run.store, schema.OFFERED, [offer.only_now()], lineage)
    finally:
        work.clean(run.store, run.run_id)
    result = run.done(result, as_before=result.counts.left_out.get(schema.RECOMMENDATIONS.name) or None)
    if not config.shown:
        return result
    rows = stored_outfits(run.store, config.shown)
    answers = [given_of_row(stylist, row) for row in rows]
    return run.done(result, report=_page(run, config, [a for a in answers if a], result, []))


def _page(run: Run, config: Config, answers: Sequence[Answer], result: Result, crops: Sequence[bytes]) -> str | None:
    if not config.shown:
        return None
    page = storage.join(folder_of(config.out, run.store, run.job, run.run_id), "index.html")
    on_page = [i.image_id for a in answers for items in (a.given, *(o.items for o in a.outfits)) for i in items]
    images = values_by_key(run.store, schema.IMAGES, on_page, schema.BYTES)
    facts = {"scorer": result.scorer, "products": result.products, "recommendable": result.recommendable}
    facts |= {f"left out: {why.replace('_', ' ')}": number for why, number in result.left_out.items()}
    told = (*result.left_out_of_photo, *result.rules_not_met, *result.nothing_to_show)
    recommend_report(page, answers, images, crops, facts, told, config.outfit.diversity, result.products)
    return page
