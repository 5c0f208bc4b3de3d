"""Evaluate: a published protocol, or search with known answers; and a leaderboard."""

import json
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from w2w import ids, schema, storage
from w2w.config import check_label
from w2w.engine.job import Run, options_of
from w2w.errors import RejectCode, UsageError
from w2w.evaluation import flow_lookbook, flow_outfits, flow_tags
from w2w.evaluation.flow import Model, VectorReader, find_model, read_gallery, read_queries, read_ranked
from w2w.evaluation.flow_shown import Shown, worst_blanks, worst_rows
from w2w.evaluation.flow_table import Measured, add, write_leaderboard
from w2w.evaluation.protocols import CROPS, Attributes, Looks, OutfitQuestions, Retrieval, protocol_of, set_of
from w2w.evaluation.rules import MACRO, OWNER, data_digest, figures, relevant, sought
from w2w.metrics import retrieval
from w2w.models.default import check_default
from w2w.models.sources import file_sha256
from w2w.models.weights import WEIGHTS
from w2w.report.evaluation import Failure, Protocol, evaluation_report
from w2w.report.page import page_of
from w2w.results import Figure, Summary
from w2w.search import job_search as search
from w2w.search import pictures as pages
from w2w.search.flow import pictures_of
from w2w.search.worst import worst_classes, worst_queries
from w2w.stage import Counts
from w2w.table.judgements import Judgements, read_judgements
from w2w.table.published import catalog_made_by
from w2w.training.tags.job import find_tagger

KS = (1, 5, 10, 20)
NEAREST = {k: f"{k}-NN" for k in (1, 10)}  # number of neighbours that vote on a class
_MEAN = "mean of the groups below"  # on the page
_SEARCHES = ("match", "classes", "judged", "feed", "weigh")  # options of a search with known answers


@dataclass(frozen=True)
class Config(search.Config):
    """Measure by --protocol on a set that `w2w convert` has read, every figure added to table `evaluations`; or, without one,
    search as `w2w search` does and compare with --match."""

    SHOWN = "store protocol source scorer feed.uri match classes search.own_category encoder.name name out"

    protocol: str = ""
    """street2shop, deepfashion2, in-shop, consumer-to-shop, lookbench, wardrobe, own (the store's mined pairs), lookbook-1,
    lookbook-2, own-outfits (the store's own worn test outfits), polyvore-nondisjoint, polyvore-disjoint, tags (what w2w tag
    says, against the feed)."""
    source: str | None = None
    """Of a protocol: the set's name in the tables. Default: its format."""
    scorer: str | None = None
    """Of a protocol: folder of a trained network, of `w2w train outfits` for polyvore, of `w2w train siamese` for lookbook, of
    `w2w tag --learn` for tags.
    Default: the cosine of the encoder's vectors."""
    compute: int = 5000
    """Of a protocol: pictures without a vector are embedded in this process if there are no more than this."""
    judged: bool = False
    """Also (or only): answers that people judged (`w2w judge-answers`): the same is right and similar is wrong, whatever
    --match says, and queries that are not ours are left out."""
    classes: bool = False
    """Also (or only): accuracy of the query's category by its nearest product, and by the majority of its ten nearest."""
    name: str = "retrieval"
    """What to call it in the report."""
    seed: int = 0
    """Seed of the bootstrap."""


@dataclass(frozen=True, kw_only=True)
class Result(Summary):
    """The figures of a model; for a search with known answers also what was searched."""

    encoder: str
    protocol: str | None = None
    source: str | None = None
    """The set."""
    model_version: str | None = None
    queries: int | None = None
    gallery: int | None = None
    """Pictures or products in the gallery."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Left out because they have no vector."""
    index: str | None = None
    index_version: str | None = None
    search_version: str | None = None
    pending: int | None = None
    """Queries that a search must embed; in a dry run of a protocol the pictures that this process would embed."""
    anchors_without_a_vector: int | None = None
    figures: dict[str, Figure] = field(default_factory=dict)
    """By name of the metric, such as recall@1; for --classes prefixed by 1-NN or 10-NN."""
    neighbours: str | None = None
    """The JSON lines of a search."""
    report: str | None = None
    """The page of a search's results."""
    evaluation: str | None = None
    """The page of the figures."""
    leaderboard: str | None = None
    """The page of all evaluated models."""


def main(config: Config) -> Result:
    if config.limit:
        raise UsageError("--limit: an evaluation of some queries would be reported as one of all; use --feed.where")
    if config.filter:
        raise UsageError("--filter: an evaluation in a part of the catalog would be reported as one in all of it; omit it")
    return _by_protocol(config) if config.protocol else _by_search(config)


def _by_protocol(config: Config) -> Result:
    protocol, default = protocol_of(config.protocol), Config(store=config.store)
    if given := [name for name in _SEARCHES if getattr(config, name) != getattr(default, name)]:
        raise UsageError(f"--{given[0]}: is for a search with known answers; --protocol={config.protocol} fixes the queries")
    if config.scorer and isinstance(protocol, Retrieval):
        raise UsageError(f"--scorer={config.scorer}: {config.protocol} measures only encoders")
    if config.compute < 0:
        raise UsageError(f"--compute={config.compute}: must not be negative")
    run, catalog = Run("evaluate", config), config.source or set_of(protocol)
    if not isinstance(protocol, Attributes):  # which measures a tagger, that names its encoder
        check_default(run.store, config.encoder, catalog_made_by(run.store))
    model = find_model(run.store, config.encoder)
    vectors = VectorReader(run.store, model, config.compute, config.max_reject_rate)
    of = {"protocol": config.protocol, "source": catalog}
    result = run.result(Result, encoder=config.encoder.name, **of, model_version=model.version)
    work = {Retrieval: _ranks, Looks: _looks, OutfitQuestions: _outfits, Attributes: _tags}[type(protocol)]
    result, measured, worst = work(run, config, protocol, catalog, model, vectors, result)
    if measured is None:
        return result
    versions = add(run, measured, config.seed, (schema.PAIRS, schema.QUESTIONS, schema.PRODUCTS, schema.EMBEDDINGS))
    page = _page(config, run.store, run.run_id)
    found = _figures(measured.metrics)
    text = f"{protocol.says} Source: {protocol.source}."
    headline = {name: str(figure) for name, figure in found.items()}
    evaluation_report(
        page,
        f"{config.protocol}: {measured.model}",
        headline,
        [Protocol(catalog, text, _with_row(measured.metrics), over="products, or questions", worst=worst)],
    )
    told = {"figures": found, "evaluation": page, "leaderboard": write_leaderboard(run.store), "versions": versions}
    return run.done(result, **told)


def _ranks(run, config, protocol, catalog, model, vectors, result) -> tuple[Result, Measured | None, list[Failure]]:
    queries, gallery = (read(run.store, protocol, catalog) for read in (read_queries, read_gallery))
    result = replace(result, queries=queries.num_rows, gallery=gallery.num_rows)
    vectors.crops = protocol.queries == CROPS
    if config.dry_run:
        pending = vectors.pending(queries, "queries") + vectors.pending(gallery, "gallery")
        return replace(result, pending=pending), None, []
    run.check_store()
    ranked = read_ranked(protocol, queries, gallery, vectors)
    owners = (ranked.queries.column(OWNER).to_pylist(), ranked.gallery.column(OWNER).to_pylist())
    of = (config.protocol, catalog, protocol.split, data_digest(*owners), model.name, model.version)
    told = figures(protocol, ranked, np.random.default_rng(config.seed))
    hits = relevant(ranked, protocol.hits[0])[0]
    worst = worst_rows(run.store, vectors.crops, ranked, hits, sought(ranked, protocol.hits[0]), partial(_said, hits))
    counts = Counts(
        queries.num_rows, len(ranked), {RejectCode.NO_VECTOR: n} if (n := vectors.missing.get("queries", 0)) else {}
    )
    return replace(result, left_out=vectors.missing, counts=counts), Measured(*of, told), worst


def _said(hits_QK: np.ndarray, query: int) -> str:
    return f"first hit at rank {int(hits_QK[query].argmax()) + 1}" if hits_QK[query].any() else f"no hit in {hits_QK.shape[1]}"


def _looks(run, config, protocol, catalog, model, vectors, result) -> tuple[Result, Measured | None, list[Failure]]:
    test = flow_lookbook.read_looks(run.store, protocol, catalog, protocol.split)
    result = replace(result, queries=sum(len(p.worn) for p in test), gallery=len(test))
    folder = _folder(config.scorer)
    if config.dry_run:
        return result, None, []
    run.check_store()
    scorer = flow_lookbook.by_network(run.store, folder, test) if folder else flow_lookbook.by_vectors(vectors)
    told, digest, wrong = flow_lookbook.measure(run.store, protocol, catalog, scorer, test, config.seed)
    shown = Shown(run.store, False, [w.photo for w in wrong], [one.image for w in wrong for one in w.found])
    worst = [shown.row(w.photo, "photo", w.said, w.found) for w in wrong]
    of = (config.protocol, catalog, protocol.split, digest, *_scored_by(model, folder, own_pixels=True))
    return replace(result, model_version=of[-1]), Measured(*of, told), worst


def _outfits(run, config, protocol, catalog, model, vectors, result) -> tuple[Result, Measured | None, list[Failure]]:
    folder = _folder(config.scorer)
    score, slots = flow_outfits.find_scorer(folder)
    asked = flow_outfits.read_asked(run.store, protocol, catalog, model.version, slots)
    result = replace(result, queries=len(asked.blank_ids) + len(asked.outfit_ids))
    result = replace(result, left_out={"questions": asked.left_out} if asked.left_out else {})
    if config.dry_run:
        return result, None, []
    run.check_store()
    answered = flow_outfits.answer(asked, score)
    told = flow_outfits.figures(asked, answered, np.random.default_rng(config.seed))
    worst = worst_blanks(run.store, catalog, asked, answered[0]) if protocol.variant else []
    digest = data_digest(asked.blank_ids, asked.outfit_ids)
    of = (config.protocol, catalog, protocol.split, digest, *_scored_by(model, folder))
    return replace(result, model_version=of[-1]), Measured(*of, told), worst


def _tags(run, config, protocol, catalog, model, vectors, result) -> tuple[Result, Measured | None, list[Failure]]:
    name, tagger, encoder, version = find_tagger(run.store, config.scorer or "", config.encoder)
    told = flow_tags.read_told(run.store, tagger, version)
    result = replace(result, encoder=encoder.name, model_version=version, queries=len(told.said))
    if config.dry_run:
        return result, None, []
    run.check_store()
    digest = data_digest([f"{a}/{o}/{t}" for a, o, t in zip(told.attributes, told.owners, told.truth)], [])
    metrics = flow_tags.figures(told, np.random.default_rng(config.seed))
    return result, Measured(config.protocol, catalog, protocol.split, digest, name, version, metrics), []


def _page(config: Config, store: str, run_id: str) -> str:
    return storage.join(storage.absolute(config.out), "evaluation.html") if config.out else page_of(store, "evaluate", run_id)


def _says_judged(judged: Judgements, matched: str) -> str:
    num = len({*judged.same, *judged.similar})
    text = f"Of {num:,} queries people judged answers: the same is right, similar is wrong. Left out: {len(judged.not_ours):,} "
    text += (
        "that the shop sells nothing like. Only answers that a page showed can have been judged: a search that finds others "
    )
    return text + f"has lower figures than it deserves. {matched}".rstrip()


def _folder(scorer: str | None) -> Path | None:
    """Raises UsageError if there is no network."""
    return flow_outfits.folder_of(scorer) if scorer else None


def _scored_by(model: Model, folder: Path | None, own_pixels: bool = False) -> tuple[str, str]:
    """Name and version of a network on an encoder's vectors, or on pictures; without one those of the encoder."""
    if folder is None:
        return model.name, model.version
    return str(folder), ids.digest(file_sha256(folder / WEIGHTS), "" if own_pixels else model.version)


def _with_row(metrics: pa.Table) -> pa.Table:
    """Adds the means over the groups as a row of their own, for which a page's table has room."""
    rows = metrics.to_pylist()
    for row in rows:
        if row["metric"].startswith(f"{MACRO} "):
            row |= {"metric": row["metric"].removeprefix(f"{MACRO} "), "group": _MEAN}
    rows.sort(key=lambda row: (row["group"] is not None, row["group"] != _MEAN))
    return pa.Table.from_pylist(rows, metrics.schema)


def _figures(metrics: pa.Table, before: str = "") -> dict[str, Figure]:
    """The figures over all queries, by name."""
    rows = [r for r in metrics.to_pylist() if r["group"] is retrieval.ALL]
    names = (f"{r['metric']}@{r['k']}" if r["k"] else r["metric"] for r in rows)
    return {f"{before}{name}": Figure.of(r, r["num_queries"]) for name, r in zip(names, rows)}


def _by_search(config: Config) -> Result:
    if not (config.match or config.classes or config.judged):
        raise UsageError(
            "--protocol: name one, or --match: the attributes that make a product the right answer, or set --classes"
        )
    check_label(config.name, "--name")
    if config.classes and config.name in NEAREST.values():
        raise UsageError(f"--name={config.name}: is what the figures of --classes are called")
    config = replace(config, search=replace(config.search, k=max(config.search.k, KS[-1])))
    judged = read_judgements(config.store, config.of) if config.judged else None
    if judged is not None and not judged:
        raise UsageError(
            f"--judged: nobody judged queries of this kind ({config.of}): run 'w2w judge-answers' with what a page of "
            "'w2w search' saved; what pages of 'w2w find' save is about photos, and kept, but not measured"
        )
    result, searched = search.search(search.Config(**options_of(config, search.Config)))
    told = {f.name for f in fields(Result)}
    result = Result(**{f.name: getattr(result, f.name) for f in fields(result) if f.name in told} | {"job": "evaluate"})
    if config.dry_run:
        return result
    protocols = []
    if config.match or config.judged:
        relevant, num_relevant, truth, _, num_without = pages.relevance(searched, config.match, config.search.k, judged)
        table = retrieval.evaluate(relevant, num_relevant, truth, KS, np.random.default_rng(config.seed))
        said = " and ".join(config.match)
        num_asked = int((num_relevant > 0).sum())
        text = (
            f"A hit is a picture of a product with the same {said}. Left out: {len(truth) - num_asked - num_without} queries "
        )
        text += f"without one in the catalog, {num_without} whose {said} is not known."
        if judged is not None:
            text = _says_judged(judged, text if config.match else "")
        shown = worst_queries(searched, config.match, relevant, num_relevant, partial(pictures_of, config, searched.store))
        protocols.append(Protocol(config.name, text, table, None, worst=shown))
    if config.classes:
        relevant, num_relevant, everything, nearest, _ = pages.relevance(searched, ["category"], config.search.k)
        rng = np.random.default_rng(config.seed)
        asked = num_relevant > 0  # no product of that class: no neighbour could be right
        truth, found = everything[asked], nearest[asked]
        labels = sorted({*truth.tolist(), *found[:, :10].flatten().tolist()})
        for k, name in NEAREST.items():
            predicted = retrieval.nearest_class(found, k)
            table = retrieval.class_accuracy(truth, predicted, truth, rng)
            matrix = retrieval.confusion(truth, predicted, labels)
            text = f"The query's category, taken from its {k} nearest product{'s' if k > 1 else ''}."
            text += f" {int((~asked).sum())} queries of classes that the catalog does not have are left out."
            taken_for = retrieval.nearest_class(nearest, k)
            shown = worst_classes(searched, taken_for, relevant, num_relevant, partial(pictures_of, config, searched.store))
            protocols.append(Protocol(name, text, table, (matrix, labels), worst=shown))
    found = {}
    for protocol in protocols:
        found |= _figures(protocol.metrics, f"{protocol.name} " if protocol.confusion else "")
    page = _page(config, searched.store, result.run_id)
    text = json.dumps({p.name: p.metrics.to_pylist() for p in protocols}, indent=1)
    storage.write_bytes(storage.join(page.rpartition("/")[0], "metrics.json"), text.encode())
    evaluation_report(
        page, config.name[:1].upper() + config.name[1:], {name: str(figure) for name, figure in found.items()}, protocols
    )
    return replace(result, figures=found, evaluation=page)
