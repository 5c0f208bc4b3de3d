"""Which pictures a tagger has not seen yet, how they are tagged, how often each attribute is sure; and training heads on what a
shop's own feed tells."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import schema
from w2w.config import nearest
from w2w.engine.job import Run
from w2w.engine.source import Source
from w2w.engine.tasks import run_task
from w2w.errors import UsageError
from w2w.garments import classifier
from w2w.garments.classifier import HeadConfig, Trained
from w2w.images.decode import DecodeLimits
from w2w.images.stage import PIXELS
from w2w.metrics.retrieval import class_accuracy, confusion
from w2w.models.config import EncoderConfig
from w2w.models.flow import Pictures, picture_stages, pictures_without
from w2w.report.evaluation import Protocol, evaluation_report
from w2w.results import Figure
from w2w.stage import Pool, Stage
from w2w.table import delta
from w2w.table.current import current_products
from w2w.table.parts import Output
from w2w.table.pending import rejected_keys, table_keys
from w2w.table.permitted import TRAINING, permitted, why_refused
from w2w.table.sink import append_mark
from w2w.training.classifier.flow import figure_of, with_vectors
from w2w.training.tags.heads import Head, Tagger, save, thresholds
from w2w.training.tags.stage import SWATCH_GIVES, TAG_GIVES, Swatch, Tag

FEED_COLUMNS = (schema.CATEGORY, schema.BRAND)  # beside a feed's other columns, which are attributes


def untagged(store: str, pictures: Pictures, job: str, version: str, item_rows: int, full_scan: bool = False) -> Source:
    made = table_keys(store, schema.TAGGED, schema.OWNER_ID, stage_version=version)
    return pictures_without(store, pictures, [made, rejected_keys(store, job, version)], "auto", item_rows, full_scan)


def is_tagged(work: Source) -> bool:
    """Whether the tagger had tagged all pictures before, but for those that it rejected."""
    return not work.num_rows and work.skipped > work.rejected


def called(store: str, version: str) -> str:
    """A tagger as people know it, by the name that its runs have recorded with their rows, and its stage version; by that alone
    where they have recorded none."""
    opened = delta.open_table(store, schema.TAGGED)
    told = [e["w2w"] for e in delta.history(opened) if e["w2w"]] if opened is not None else []
    names = ((one.get("config") or {}).get("tagger") for one in told if one["stage_version"] == version)
    name = next(filter(None, names), None)
    return f"{name} (version {version})" if name else version


def read_from_now_on(run: Run, work: Source, version: str) -> dict[str, int]:
    """Marks that this tagger has left nothing to do, so that its tags are read. Returns versions as ``append_mark``."""
    if work.mark is None:
        return {}
    run.check_store()
    mark = replace(work.mark, run_id=run.run_id)
    return append_mark(run.store, Output(schema.TAGGED), run.lineage(version, [schema.IMAGES]), mark)


def tag_stages(
    pictures: Pictures, encoder: EncoderConfig, tagger: str, version: str, limits: DecodeLimits, gpu_pool: Pool | None
) -> list[Stage]:
    """bytes -> pixels -> colour and vector -> attributes."""
    decode, encode = picture_stages(pictures, encoder, limits, gpu_pool)
    swatch = Stage("swatch", Swatch, (PIXELS,), SWATCH_GIVES, {"encoder": encoder})
    model = {"tagger": tagger, "encoder": encoder, "version": version}
    return [decode, swatch, encode, Stage("tag", Tag, (schema.VECTOR,), TAG_GIVES, model)]


def coverage(store: str, version: str, kind: str) -> dict[str, Figure]:
    """Of each attribute the share of the pictures of that owner_kind that are tagged with it."""
    told, asked = Counter[str](), Counter[str]()
    listed = delta.parts(delta.open_table(store, schema.TAGGED), **{schema.STAGE_VERSION: version})
    for rows in delta.read_batches(store, schema.TAGGED, [schema.TAGS, schema.OWNER_KIND], listed):
        tags = pc.list_flatten(rows.column(schema.TAGS).filter(pc.equal(rows.column(schema.OWNER_KIND), kind)))
        sure = tags.filter(pc.is_valid(pc.struct_field(tags, schema.VALUE)))
        for counts, some in ((asked, tags), (told, sure)):
            for one in pc.value_counts(pc.struct_field(some, schema.ATTRIBUTE)).to_pylist():
                counts[one["values"]] += one["counts"]
    return {name: Figure(told[name] / num, num=num) for name, num in asked.items()}


def labelled(store: str, columns: Sequence[str], most: int) -> tuple[list[dict], int]:
    """image_id and the named columns of active products with a picture that may be used, at most ``most``; and how many have
    one that may not. Raises UsageError for a column that no product has, or none that may be used."""
    found = current_products(store, [schema.IMAGE_ID, schema.ACTIVE, schema.ATTRIBUTES, *FEED_COLUMNS])
    active = found.filter(pc.and_(found.column(schema.ACTIVE), pc.is_valid(found.column(schema.IMAGE_ID))))
    usable = permitted(store, TRAINING).of(active)
    found, refused = usable.slice(0, most), active.num_rows - usable.num_rows
    values = {schema.IMAGE_ID: found.column(schema.IMAGE_ID)}
    for name in columns:
        values[name] = _values(found, name)
        if values[name].null_count < found.num_rows:
            continue
        if _values(active, name).null_count < active.num_rows and refused:
            more = ", and no other product has it" if usable.num_rows else ""
            raise UsageError(f"--learn={name}: {why_refused(refused, active.num_rows)}{more}")
        known = {key for chunk in active.column(schema.ATTRIBUTES).chunks for key in pc.unique(chunk.keys).to_pylist()}
        known |= {column for column in FEED_COLUMNS if active.column(column).null_count < active.num_rows}
        raise UsageError(f"--learn={name}: no product has it.{nearest(name, sorted(known))}")
    return pa.table(values).to_pylist(), refused


def _values(products: pa.Table, name: str) -> pa.ChunkedArray:
    """A column of the feed, or an attribute."""
    if name in FEED_COLUMNS:
        return products.column(name)
    return pc.map_lookup(products.column(schema.ATTRIBUTES), name, "first")


def spelled(values: Sequence[str | None]) -> list[str | None]:
    """Each value as it is written most often: upper and lower case, and blanks around it, do not make it another."""
    plain = [" ".join(value.split()) if value else None for value in values]
    often = Counter(filter(None, plain))
    best: dict[str, str] = {}
    for value, _ in sorted(often.items(), key=lambda kv: (-kv[1], kv[0])):
        best.setdefault(value.casefold(), value)
    return [best[value.casefold()] if value else None for value in plain]


def check_labels(products: list[dict], columns: Sequence[str]) -> None:
    """Raises UsageError for a column that has not two values with enough products, whichever of these have a vector."""
    for name in columns:
        examples = Counter(label for label in spelled([p[name] for p in products]) if label is not None)
        with _named(name):
            classifier.learnable(examples, sorted(examples))


def learn(
    store: str,
    products: list[dict],
    columns: Sequence[str],
    encoder: EncoderConfig,
    encoder_version: str,
    config: HeadConfig,
    precision: float,
    folder: str,
    page: str,
    num_cpus: float,
) -> dict[str, Any]:
    """Trains in one Ray task, writes the tagger to ``folder`` and a page; returns fields of the job's result."""
    arguments = (store, products, columns, encoder_version, config)
    by_what, trained = run_task(_fit, *arguments, num_cpus=num_cpus, title="learn")
    heads, figures, protocols = {}, {}, []
    for name, one in trained.items():
        head = Head(one.classifier, thresholds(one.valid_probabilities_MC, one.valid_codes_M, precision))
        told = measured(head, one)
        figures |= {f"{name} {what}": figure for what, figure in told.items()}
        heads[name] = replace(head, test={what: str(figure) for what, figure in told.items()})
        protocols.append(_protocol(name, one))
    tagger = Tagger(encoder.name, encoder.colour, heads, config.test_share)
    save(tagger, folder, {"near_duplicates": by_what, "precision": precision, "products": len(products)})
    evaluation_report(page, "Tags learnt from the feed", {name: str(figure) for name, figure in figures.items()}, protocols)
    return {"figures": figures, "near_duplicates": by_what, "report": page}


def measured(head: Head, trained: Trained) -> dict[str, Figure]:
    """On the test examples: how often it is right, how often where it is sure, and how often it is sure."""
    right_N = (trained.truth_N == trained.predicted_N).astype(float)
    places_N = np.array([head.classifier.labels.index(label) for label in trained.predicted_N])
    sure_N = trained.probability_N >= head.thresholds_C[places_N]
    told = {
        "accuracy": figure_of(right_N, trained.keys_N),
        "accuracy where sure": figure_of(right_N[sure_N], trained.keys_N[sure_N]),
        "share that is sure": figure_of(sure_N.astype(float), trained.keys_N),
    }
    return {what: replace(figure, num=len(right_N)) for what, figure in told.items() if figure is not None}


def _fit(
    store: str, products: list[dict], columns: Sequence[str], encoder_version: str, config: HeadConfig
) -> tuple[str, dict[str, Trained]]:
    """Runs in a worker."""
    kept, vectors_ND, keys, by_what = with_vectors(store, products, encoder_version)
    trained = {}
    for name in columns:
        labels = spelled([p[name] for p in kept])
        there = np.flatnonzero([label is not None for label in labels])
        known = [label for label in labels if label is not None]
        mine = [keys[i] for i in there]
        with _named(name):
            trained[name] = classifier.train(vectors_ND[there], known, mine, encoder_version, config, sorted(set(known)))
    return by_what, trained


@contextmanager
def _named(column: str) -> Iterator[None]:
    try:
        yield
    except UsageError as e:
        raise UsageError(f"--learn={column}: {e}") from e


def _protocol(name: str, trained: Trained) -> Protocol:
    rng = np.random.default_rng(0)
    metrics = class_accuracy(trained.truth_N, trained.predicted_N, trained.truth_N, rng)
    labels = list(trained.classifier.labels)
    text = "Test products: neither they nor a near-duplicate of their picture was in training."
    return Protocol(
        name, text, metrics, (confusion(trained.truth_N, trained.predicted_N, labels), labels), "products", "products"
    )
