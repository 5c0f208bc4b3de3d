"""Loaded models and index that answer photos: detect, crop, embed, search each garment in its own category. No Ray."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from w2w import ids, schema
from w2w.errors import Reject, RejectCode, UsageError
from w2w.find.crops import LEAST_CROP_PX, Crops
from w2w.find.rules import GARMENT, FindOptions, Garment, Hit, best_of, pictures_of, with_words
from w2w.garments.detector import DetectorConfig, detector_version, tells_pixels
from w2w.garments.found import Found
from w2w.garments.segmenter import SegmenterConfig, segmenter_version
from w2w.garments.taxonomy import CATEGORIES, PERSON
from w2w.index.groups import Groups
from w2w.index.manifest import Manifest, index_uri
from w2w.index.passing import Passing
from w2w.index.publish import read_manifest
from w2w.index.search import QUERY, check_category, check_encoder, open_index
from w2w.index.spec import GROUP
from w2w.models import sources
from w2w.models.config import EncoderConfig
from w2w.models.encoder import as_precise, check_version, finite_rows, following, load_encoder, model_version
from w2w.models.parts import part_weights, weighed
from w2w.table import bridges, delta

CODE = 1  # bump when the same photo would have other answers
_AT_ONCE = 32  # crops per encoder batch
_MOST_THREADS = 4  # of a model in this process


@dataclass(frozen=True)
class Models:
    """The detector, encoder and segmenter to use."""

    encoder: EncoderConfig = EncoderConfig()
    detector: DetectorConfig = DetectorConfig()
    segmenter: SegmenterConfig = SegmenterConfig()

    def on_all_cores(self) -> "Models":
        """The same with all of this machine's cores for each model, unless the user set fewer."""
        cores = min(_MOST_THREADS, len(os.sched_getaffinity(0)))
        return Models(
            replace(self.encoder, threads=max(cores, self.encoder.threads)),
            replace(self.detector, threads=max(cores, self.detector.threads)),
            replace(self.segmenter, threads=max(cores, self.segmenter.threads)),
        )


@dataclass(frozen=True)
class Plan:
    """Everything that decides the answers, as plain values: built once per run, so that all its workers give the same ones."""

    store: str
    options: FindOptions
    models: Models
    index_version: str
    model_version: str
    products_version: int | None  # of the table, for a filter or groups
    passing: Passing | None  # of a filter
    search_version: str

    def on_all_cores(self) -> "Plan":
        """As ``Models.on_all_cores``."""
        return replace(self, models=self.models.on_all_cores())


def plan_of(store: str, options: FindOptions, models: Models) -> Plan:
    """Raises UsageError if nothing is published under that name, for a category that the index does not have, for an impossible
    filter, and if its vectors are from another encoder. If no encoder is named, the one recorded in the index is used."""
    manifest = read_manifest(index_uri(store, options.index))
    check_category(manifest, options.category)
    sold = manifest.rows_by_category()
    if not (options.whole or options.category or options.text or sold.keys() & set(CATEGORIES)):
        raise UsageError(
            f"index {manifest.name!r} has the categories {', '.join(sorted(sold)[:10])}: none is a garment's class "
            f"({', '.join(CATEGORIES)}). Map them with feed.category_map (w2w init reads it off a feed), or search with --whole"
        )
    encoder = encoder_of(models.encoder, manifest)
    if not encoder.bridge and encoder.name == manifest.encoder and (bridged := bridges.find(store, manifest.model_version)):
        encoder = replace(encoder, bridge=bridged[0])
    models = replace(models, encoder=as_precise(following(encoder, manifest.model_version), manifest.model_version))
    pixels = not options.whole and tells_pixels(models.detector)
    options = options.decided(pixels)
    if options.cut_out_by == GARMENT and not pixels:
        raise UsageError(
            f"--cut_out_by={GARMENT}: detector.name={models.detector.name} does not tell which pixels are a garment's: use "
            f"--cut_out_by={PERSON}, or a detector of 'w2w train detector'"
        )
    version = model_version(models.encoder)
    check_encoder(manifest, models.encoder)
    part_weights(models.encoder, options.weigh, "weigh")
    passing = Passing.of(store, options.filter)
    products = delta.open_table(store, schema.PRODUCTS) if options.one_per == GROUP and not passing else None
    products_version = passing.products_version if passing else products.version() if products is not None else None
    chosen = {name: value for name, value in asdict(options).items() if name != "weigh" or value}
    chosen |= {"one_per": GROUP} if chosen.pop("one_per") == GROUP else {}
    if not options.cut_out:
        chosen.pop("cut_out_by")
    parts = [CODE, manifest.version, chosen, version, products_version]
    if not options.whole:
        parts.append(detector_version(models.detector))
    if options.by_person:
        parts.append(segmenter_version(models.segmenter))
    if passing and passing.tagger:
        parts.append(passing.tagger)
    return Plan(store, options, models, manifest.version, version, products_version, passing, ids.digest(*parts))


def encoder_of(config: EncoderConfig, manifest: Manifest) -> EncoderConfig:
    """The config, or, if it names none, the same with the encoder recorded in the index, and its part for colours.
    Custom code (module:attribute) is named only by options: an index may be a stranger's."""
    name = manifest.encoder
    if config.is_named and config.name != name:
        return config
    if name != config.name and not sources.is_data(name):
        raise UsageError(f"index {manifest.name!r} was made with custom code: name it with --encoder.name={name}")
    return replace(config, name=name, colour=config.colour or manifest.colour)


@dataclass(frozen=True)
class Find:
    """A garment and the products found for it, nearest first; None if the index has nothing of its class."""

    garment: Garment
    hits: list[Hit] | None


@dataclass(frozen=True)
class Query:
    """One crop of garment number ``garment`` of photo number ``photo``, ready for the encoder."""

    photo: int
    garment: int
    category: str | None
    pixels: np.ndarray


class Shelves:
    """The opened index, and the products that may be found."""

    def __init__(self, plan: Plan):
        self._options = plan.options
        self._weights = part_weights(plan.models.encoder, plan.options.weigh, "weigh")
        self._index = open_index(index_uri(plan.store, plan.options.index), version=plan.index_version)
        self._within = self._index.rows_of(plan.passing.product_ids) if plan.passing else None
        self._groups = Groups.of(plan.store, plan.products_version) if plan.options.one_per == GROUP else None
        self.sold = self._index.manifest.rows_by_category()

    def search(self, vectors_ND: np.ndarray, categories: Sequence[str | None]) -> list[list[Hit]]:
        """The products of the k nearest pictures of each vector, and possibly some more, in its category."""
        hits: list[list[Hit]] = [[] for _ in categories]
        asked, left = 2 * self._options.k, list(range(len(categories)))
        asked_ND = weighed(vectors_ND, self._weights)
        while len(left):
            within = [categories[i] for i in left]
            table = self._index.search(asked_ND[left], asked, within, one_per_product=True, within=self._within)
            for i in left:
                hits[i] = []
            for hit in table.to_pylist():
                hits[left[hit.pop(QUERY)]].append(hit)
            # as long as the next picture would have to be included, the k-th may have other products
            full = [i for i in left if len(hits[i]) == asked]
            if self._groups:
                for i in left:
                    hits[i] = [hits[i][at] for at in self._groups.first([hit[schema.PRODUCT_ID] for hit in hits[i]])]
            left = [i for i in full if len(pictures_of(hits[i])) <= self._options.k]
            asked *= 4
        return hits

    def products_of(self, words_D: np.ndarray) -> list[Hit]:
        """The products matching a text alone."""
        return self.best(self.search(words_D[None], [self._options.category]))

    def best(self, lists: list[list[Hit]]) -> list[Hit]:
        """Merges the lists of one garment's crops."""
        options, key = self._options, self._groups.key if self._groups else str
        return best_of(lists, options.k, options.min_score, key)


class Finder:
    """Photos in, garments with products out."""

    def __init__(self, plan: Plan):
        self.options, models = plan.options, plan.models
        self._encoder = load_encoder(models.encoder)
        check_version(f"encoder.name={models.encoder.name}", plan.model_version, self._encoder.model_version)
        self.crops = Crops(self.options, models.detector, models.segmenter)
        self.shelves = Shelves(plan)

    def __call__(self, photos: Sequence[np.ndarray], words_D: np.ndarray | None = None) -> list[list[Find] | Reject]:
        """For each photo, uint8 (H, W, 3), its garments from the top down with their products; or the reject. ``words_D``: a
        text's unit vector, mixed into every garment's."""
        found = self.crops.detect(photos)
        garments = [f if isinstance(f, Reject) else self.crops.chosen(f, photo) for f, photo in zip(found, photos)]
        queries = self.queries(photos, found, garments)
        vectors_ND = self.embed(queries, words_D)
        bad = {queries[i].photo for i in np.flatnonzero(~finite_rows(vectors_ND)).tolist()}
        good = [i for i, query in enumerate(queries) if query.photo not in bad]
        hits: dict[tuple[int, int], list[list[Hit]]] = {}
        for i, some in zip(good, self.shelves.search(vectors_ND[good], [queries[i].category for i in good])):
            hits.setdefault((queries[i].photo, queries[i].garment), []).append(some)
        rejected = Reject(RejectCode.NOT_FINITE, f"{self._encoder.name} gave NaN or infinity")
        answers: list[list[Find] | Reject] = []
        for p, of_photo in enumerate(garments):
            if isinstance(of_photo, Reject) or p in bad:
                answers.append(of_photo if isinstance(of_photo, Reject) else rejected)
            else:
                lists = [hits.get((p, g)) for g in range(len(of_photo))]
                answers.append([Find(g, None if some is None else self.shelves.best(some)) for g, some in zip(of_photo, lists)])
        return answers

    def queries(
        self, photos: Sequence[np.ndarray], found: Sequence[Found | Reject], garments: Sequence[list[Garment] | Reject]
    ) -> list[Query]:
        """The crops of those garments whose class the index has, ready for the encoder."""
        longest_px = max(LEAST_CROP_PX, self._encoder.input.resize_px)
        queries = []
        for place, (photo, of_photo, seen) in enumerate(zip(photos, garments, found)):
            if isinstance(of_photo, Reject) or isinstance(seen, Reject):
                continue
            wanted = [(g, garment, self.options.category or garment.category) for g, garment in enumerate(of_photo)]
            wanted = [w for w in wanted if w[2] is None or w[2] in self.shelves.sold]
            crops = self.crops(photo, seen, [garment for _, garment, _ in wanted], longest_px)
            for (g, _, category), of_garment in zip(wanted, crops):
                queries += [Query(place, g, category, self._encoder.prepare(crop)) for crop in of_garment]
        return queries

    def embed(self, queries: Sequence[Query], words_D: np.ndarray | None = None) -> np.ndarray:
        """float32 (N, D), with the words mixed in; NaN if the encoder failed."""
        parts = [np.empty((0, self._encoder.dim), np.float32)]
        for start in range(0, len(queries), _AT_ONCE):
            parts.append(self._encoder.encode(np.stack([q.pixels for q in queries[start : start + _AT_ONCE]])))
        vectors_ND = np.concatenate(parts)
        return vectors_ND if words_D is None else with_words(vectors_ND, words_D, self.options.text_weight)
