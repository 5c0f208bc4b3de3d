"""Two encoders, indexes, scorers or detectors on the same queries, each run in this process."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import schema
from w2w.errors import UsageError
from w2w.evaluation import flow_outfits
from w2w.evaluation.compare import Gain, churn, gains, won
from w2w.evaluation.flow import Model, VectorReader, find_model, read_gallery, read_queries, read_ranked
from w2w.evaluation.flow_shown import Shown, hits_of
from w2w.evaluation.protocols import CROPS, PROTOCOLS, OutfitQuestions, Retrieval, convert_command
from w2w.evaluation.rules import OWNER, Ranked, relevant, sought, values
from w2w.index.manifest import index_uri
from w2w.index.publish import read_manifest
from w2w.index.search import QUERY, open_index
from w2w.metrics.outfit import auc, auc_resampled, fill_in_blank
from w2w.metrics.retrieval import ALL, interval
from w2w.mining.sets.rows import PRODUCT
from w2w.models.config import EncoderConfig
from w2w.models.sources import file_sha256
from w2w.models.weights import WEIGHTS
from w2w.report.evaluation import Failure
from w2w.table import delta
from w2w.table.current import current_products
from w2w.table.delta import need_table
from w2w.training.outfits.flow import Asked

CHURN_AT = 10  # neighbours that are compared
SHOWN = 10  # queries of each kind on the page


@dataclass(frozen=True)
class Compared:
    """The outcome for A and B. ``gains``: the deciding metric first; ``won_b``, ``won_a``: queries that one answers better;
    ``rows``: pairs of rows for the page, for queries that B won and that it lost."""

    versions: tuple[str, str]
    gains: list[Gain]
    num_queries: int
    won_b: tuple[str, ...]
    won_a: tuple[str, ...]
    tied: int
    churn: list[Gain] = field(default_factory=list)
    rows: tuple[list[tuple[Failure, Failure]], list[tuple[Failure, Failure]]] = ((), ())  # type: ignore[assignment]
    left_out: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Settings:
    """Options common to all kinds."""

    store: str
    encoder: EncoderConfig
    protocol: str
    catalog: str
    metric: str
    compute: int
    most_missing: float
    seed: int

    @property
    def version(self) -> str:
        """Of the vectors that scorers are asked with."""
        return find_model(self.store, self.encoder).version


def named_encoder(settings: Settings, name: str) -> EncoderConfig:
    """How A or B is loaded."""
    return replace(settings.encoder, name=name)


def check_two(settings: Settings, of: str, a: str, b: str) -> None:
    """Raises UsageError if A and B are one and the same, by their versions."""
    versions = [_version(settings, of, name) for name in (a, b)]
    if versions[0] == versions[1]:
        told = "" if a == b else f" ({versions[0]})"
        raise UsageError(f"{a} and {b} are the same{told}: there is nothing to compare")


def _version(settings: Settings, of: str, name: str) -> str:
    if of == "indexes":
        return read_manifest(index_uri(settings.store, name.partition("@")[0]), name.partition("@")[2] or None).version
    if of == "scorers":
        folder = flow_outfits.folder_of(name)
        return flow_outfits.COSINE if folder is None else file_sha256(folder / WEIGHTS)
    return find_model(settings.store, named_encoder(settings, name)).version


def count_questions(settings: Settings) -> int:
    """The number of questions. Raises UsageError if there is none."""
    protocol = PROTOCOLS[settings.protocol]
    assert isinstance(protocol, OutfitQuestions)
    if not protocol.variant:
        asked = flow_outfits.read_asked(settings.store, protocol, settings.catalog, settings.version, None)
        return len(asked.blank_ids) + len(asked.outfit_ids)
    need_table(settings.store, schema.QUESTIONS, "convert")
    rows = delta.read(settings.store, schema.QUESTIONS, [schema.SPLIT], source=settings.catalog)
    count = pc.sum(pc.equal(rows.column(0), protocol.split)).as_py() or 0
    if not count:
        raise UsageError(f"the store has no questions of {settings.catalog!r}: run '{convert_command(protocol)}'")
    return count


def decided(found: list[Gain], metric: str) -> list[Gain]:
    """The gains with the deciding metric first. Raises UsageError if there is no such metric."""
    names = list(dict.fromkeys(gain.metric for gain in found))
    if metric and metric not in names:
        raise UsageError(f"--metric={metric}: must be one of {', '.join(names)}")
    first = metric or names[0]
    return sorted(found, key=lambda gain: gain.metric != first)


def named(metric: str, k: int) -> str:
    return f"{metric}@{k}" if k else metric


def encoders(settings: Settings, a: str, b: str) -> Compared:
    """By vectors of table `embeddings`, or computed here. The gallery is the pictures that both have vectors of."""
    protocol = PROTOCOLS[settings.protocol]
    assert isinstance(protocol, Retrieval)
    models = [find_model(settings.store, named_encoder(settings, name)) for name in (a, b)]
    readers = [VectorReader(settings.store, m, settings.compute, settings.most_missing) for m in models]
    queries, gallery = (read(settings.store, protocol, settings.catalog) for read in (read_queries, read_gallery))
    ranked = read_ranked(protocol, queries, gallery, readers[0])
    other = read_ranked(protocol, ranked.queries, _among(gallery, ranked), readers[1])
    left: Counter[str] = Counter(readers[0].missing) + Counter(readers[1].missing)
    if len(other) < len(ranked) or other.gallery.num_rows < ranked.gallery.num_rows:
        ranked = read_ranked(protocol, other.queries, _among(gallery, other), readers[0])
    versions = models[0].version, models[1].version
    return _retrieved(settings, protocol, (ranked, other), versions, dict(left))


def _among(gallery: pa.Table, ranked: Ranked) -> pa.Table:
    return gallery.filter(pc.is_in(gallery.column(OWNER), value_set=ranked.gallery.column(OWNER).combine_chunks()))


def _retrieved(
    settings: Settings, protocol: Retrieval, both: tuple[Ranked, Ranked], versions: tuple[str, str], left_out: dict[str, int]
) -> Compared:
    ranked = both[0]
    clusters_Q = np.array([c or "" for c in ranked.queries.column(protocol.clusters).to_pylist()], dtype=str)
    of_a, of_b = (values(protocol, one) for one in both)
    if not len(ranked):
        raise UsageError("no query has a vector of both")
    found = [
        gain
        for key in of_a
        for gain in gains(named(*key), [of_a[key]], [of_b[key]], ranked.groups_Q, clusters_Q, settings.seed)
    ]
    found = decided(found, settings.metric)
    (key,) = (key for key in of_a if named(*key) == found[0].metric)
    names_QK = [_names(one) for one in both]
    changed, name = churn(names_QK[0], names_QK[1], CHURN_AT), f"neighbours changed of {CHURN_AT}"
    told = gains(name, [np.zeros(len(changed))], [changed], ranked.groups_Q, clusters_Q, settings.seed)
    by = won(of_a[key], of_b[key])
    owners = ranked.queries.column(OWNER).to_pylist()
    rows = _rows(settings, protocol, both, by.b[:SHOWN], by.a[:SHOWN], (of_a[key], of_b[key]), found[0].metric)
    return Compared(
        versions,
        found,
        len(ranked),
        tuple(owners[q] for q in by.b),
        tuple(owners[q] for q in by.a),
        by.num_tied,
        told,
        rows,
        left_out,
    )


def _names(ranked: Ranked) -> np.ndarray:
    """(Q, K): the images found, padded with ""."""
    names = np.array([*ranked.gallery.column(OWNER).to_pylist(), ""], dtype=object)
    return names[ranked.found_QK]


def _rows(
    settings: Settings,
    protocol: Retrieval,
    both: tuple[Ranked, Ranked],
    won_b: np.ndarray,
    won_a: np.ndarray,
    scored: tuple[np.ndarray, np.ndarray],
    metric: str,
) -> tuple[list[tuple[Failure, Failure]], list[tuple[Failure, Failure]]]:
    owners = both[0].queries.column(OWNER).to_pylist()
    hits = [relevant(one, protocol.hits[0])[0] for one in both]
    answers = [sought(one, protocol.hits[0]) for one in both]
    chosen = [int(q) for q in (*won_b, *won_a)]
    found = {(side, q): hits_of(one, hits[side], answers[side], q) for side, one in enumerate(both) for q in chosen}
    images = [one.image for some in found.values() for one in some]
    shown = Shown(settings.store, protocol.queries == CROPS, [owners[q] for q in chosen], images)

    def row(side: int, q: int) -> Failure:
        said = f"{'AB'[side]}: {metric} {scored[side][q]:.3g}"
        return shown.row(owners[q], str(both[0].groups_Q[q]), said, found[side, q])

    return tuple([(row(0, int(q)), row(1, int(q))) for q in some] for some in (won_b, won_a))  # type: ignore[return-value]


def indexes(settings: Settings, a: str, b: str) -> Compared:
    """Each searched with the vectors of its own model, in the query's class if it has that. A name may be NAME@VERSION."""
    protocol = PROTOCOLS[settings.protocol]
    assert isinstance(protocol, Retrieval)
    queries = read_queries(settings.store, protocol, settings.catalog)
    shows = _products_shown(settings.store, settings.catalog, queries)
    opened = []
    for name in (a, b):
        uri = index_uri(settings.store, name.partition("@")[0])
        manifest = read_manifest(uri, name.partition("@")[2] or None)
        model = Model(manifest.model_version, manifest.model_version, None)
        if settings.encoder.name and (found := find_model(settings.store, settings.encoder)).version == manifest.model_version:
            model = found
        reader = VectorReader(settings.store, model, settings.compute, settings.most_missing, crops=protocol.queries == CROPS)
        queries, _ = reader(queries, "queries")
        opened.append((open_index(uri, version=manifest.version), reader, manifest))
    both = tuple(_searched(index, reader, queries, protocol, shows) for index, reader, _ in opened)
    versions = opened[0][2].version, opened[1][2].version
    return _retrieved(settings, protocol, both, versions, {})  # type: ignore[arg-type]


def _products_shown(store: str, catalog: str, queries: pa.Table) -> dict[str, set[str]]:
    """The products that each picture shows, as far as needed: from pairs, and for products by their own id, by the attribute
    that identifies them in a set, or by their representative picture."""
    wanted = set(queries.column(PRODUCT).to_pylist())
    shows: dict[str, set[str]] = {}

    def add(images: Sequence[str | None], products: Sequence[str | None]) -> None:
        for image, product in zip(images, products):
            if image is not None and product in wanted:
                shows.setdefault(image, set()).add(product)  # type: ignore[arg-type]

    pairs = delta.read(store, schema.PAIRS, [schema.IMAGE_ID, schema.PRODUCT_ID], source=catalog)
    add(*(c.to_pylist() for c in pairs.columns))
    rows = current_products(store, [schema.IMAGE_ID, schema.PRODUCT_ID, schema.ATTRIBUTES])
    images = rows.column(0).to_pylist()
    add(images, rows.column(1).to_pylist())
    add(images, pc.map_lookup(rows.column(2), PRODUCT, "first").to_pylist())
    if delta.open_table(store, schema.REPRESENTATIVES) is not None:
        chosen = delta.read(store, schema.REPRESENTATIVES, [schema.IMAGE_ID, schema.PRODUCT_ID])
        add(*(c.to_pylist() for c in chosen.columns))
    return shows


def _searched(index: Any, reader: VectorReader, queries: pa.Table, protocol: Retrieval, shows: dict[str, set[str]]) -> Ranked:
    """An index's results in the form of a search: each query's answers are a gallery of their own, in which a picture that
    shows its product has that product, and others have none."""
    found, rows_ND = reader.of(queries.column(OWNER).combine_chunks(), reader.crops)
    sold = {shard.info.category for shard in index.shards}
    categories = queries.column(schema.CATEGORY).to_pylist()
    k = max(protocol.most, CHURN_AT)
    table = index.search(rows_ND[found], k, [c if c in sold else None for c in categories], one_per_product=True)
    wanted = queries.column(PRODUCT).to_pylist()
    places, images, scores = (table.column(c).to_pylist() for c in (QUERY, schema.IMAGE_ID, schema.SCORE))
    products = [wanted[q] if wanted[q] in shows.get(image, ()) else None for q, image in zip(places, images)]
    found_QK, scores_QK = np.full((len(wanted), k), -1, np.int64), np.full((len(wanted), k), -np.inf, np.float32)
    spans_Q2 = np.zeros((len(wanted), 2), np.int64)
    for row, (q, rank) in enumerate(zip(places, table.column(schema.RANK).to_pylist())):
        found_QK[q, rank - 1], scores_QK[q, rank - 1] = row, scores[row]
        spans_Q2[q] = (min(row, spans_Q2[q, 0]) if spans_Q2[q, 1] else row, row + 1)
    gallery = pa.table({OWNER: pa.array(images, pa.string()), PRODUCT: pa.array(products, pa.string())})
    groups = np.array([c or "" for c in categories], dtype=object)
    return Ranked(queries, gallery, found_QK, scores_QK, groups, spans_Q2)


def scorers(settings: Settings, a: str, b: str) -> Compared:
    """Folders of 'w2w train outfits', or `cosine`, on the questions of a set."""
    protocol = PROTOCOLS[settings.protocol]
    assert isinstance(protocol, OutfitQuestions)
    version = settings.version
    sides = []
    for name in (a, b):
        score, slots = flow_outfits.find_scorer(flow_outfits.folder_of(name))
        asked = flow_outfits.read_asked(settings.store, protocol, settings.catalog, version, slots)
        sides.append((asked, flow_outfits.answer(asked, score)))
    asked = sides[0][0]
    return _answered(settings, asked, [scored for _, scored in sides], (a, b))


def _answered(settings: Settings, asked: Asked, scored: list, versions: tuple[str, str]) -> Compared:
    found: list[Gain] = []
    right = [fill_in_blank(one[0], asked.blanks.right_Q) for one in scored]
    nothing = np.full(len(asked.blanks), "", dtype=object)
    if len(asked.blanks):
        found += [g for g in gains("FITB", right[:1], right[1:], nothing, None, settings.seed) if g.group is ALL]
    if asked.together_B.any() and not asked.together_B.all():
        drawn = [auc_resampled(one[1], asked.together_B, np.random.default_rng(settings.seed)) for one in scored]
        areas = [auc(one[1], asked.together_B) for one in scored]
        low, high = interval(drawn[1] - drawn[0])
        found.append(Gain(ALL, "AUC", areas[0], areas[1], areas[1] - areas[0], low, high, len(asked.together_B)))
    if not found:
        raise UsageError(f"the store asks no question of {settings.catalog!r} whose items have vectors: run 'w2w embed'")
    found = decided(found, settings.metric)
    by = won(*right)
    chosen = [one[0].argmax(axis=1) if one[0].size else np.zeros(0, int) for one in scored]
    changed = (chosen[0] != chosen[1]).astype(float)
    told = gains("answers changed", [np.zeros(len(changed))], [changed], nothing, None, settings.seed) if len(changed) else []
    ids = asked.blank_ids
    return Compared(
        versions,
        found,
        len(ids) + len(asked.outfit_ids),
        tuple(ids[q] for q in by.b),
        tuple(ids[q] for q in by.a),
        by.num_tied,
        [g for g in told if g.group is ALL],
        left_out={"questions": asked.left_out} if asked.left_out else {},
    )


def check_protocol(of: str, protocol: str) -> None:
    """Raises UsageError if a protocol does not measure that kind."""
    kind = OutfitQuestions if of == "scorers" else Retrieval
    if not isinstance(PROTOCOLS[protocol], kind):
        fitting = [name for name, p in PROTOCOLS.items() if isinstance(p, kind)]
        raise UsageError(f"--protocol={protocol}: does not measure {of}; must be one of {', '.join(fitting)}")


KINDS: dict[str, Callable[[Settings, str, str], Compared]] = {"encoders": encoders, "indexes": indexes, "scorers": scorers}
