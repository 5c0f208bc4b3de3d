"""Every table of w2w: its columns, key and partitions. Column names are defined only here.

Delta Lake has neither fixed-size lists nor float16, so any other reader sees a vector as ``array<float>``; ``w2w`` reads it
back as ``fixed_size_list<float>[d]`` and refuses rows of another length. ``float16`` is stored as float32 values that float16
can represent: byte-stream-split and zstd store them in about half the bytes.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

TIME = pa.timestamp("us", tz="UTC")

# columns that several tables share
PRODUCT_ID, IMAGE_ID, CATEGORY, FETCHED_AT = "product_id", "image_id", "category", "fetched_at"
MODEL_VERSION, VECTOR, OWNER_ID, OWNER_KIND = "model_version", "vector", "owner_id", "owner_kind"
# products
TITLE, BRAND, PRICE, CURRENCY, URL, ATTRIBUTES = "title", "brand", "price", "currency", "url", "attributes"
IMAGE_URI, IMAGE_FINGERPRINT, ACTIVE, ROW_DIGEST = "image_uri", "image_fingerprint", "active", "row_digest"
FEED = "feed"
IMAGE_LIST, URI, POSITION, ROLE, FINGERPRINT = "images", "uri", "position", "role", "fingerprint"
FRONT, ADDITIONAL, VARIANT = "front", "additional", "variant"  # roles
GROUP_ID, AVAILABILITY, SALE_PRICE, REGULAR_PRICE = "group_id", "availability", "sale_price", "regular_price"
GENDER, COLOUR, SIZE_SAID = "gender", "colour", "size"
# images
BYTES, WIDTH, HEIGHT, FORMAT, PHASH, SOURCE_URI = "bytes", "width", "height", "format", "phash", "source_uri"
# frontier and pages
HOST, KIND, DEPTH, REDIRECTS, FOUND_ON, FOUND_AT = "host", "kind", "depth", "redirects", "found_on", "found_at"
URL_ID, STATE, REASON, DETAIL, VISIT, ATTEMPTS = "url_id", "state", "reason", "detail", "visit", "attempts"
STATUS, ETAG, LAST_MODIFIED, CONTENT_DIGEST = "status", "etag", "last_modified", "content_digest"
UNCHANGED, FAILURES, NOT_BEFORE, LINKS, RECORDS, CONTENT = "unchanged", "failures", "not_before", "links", "records", "content"
READ_BY, SITE = "read_by", "site"
# posts
POST_ID, PRODUCT_IDS, PRODUCT_URLS, STYLE = "post_id", "product_ids", "product_urls", "style"
# rejects; the first two also mark a row on its way through a stage
REJECT_CODE, REJECT_DETAIL = "code", "detail"
KEY, STAGE, STAGE_VERSION, SOURCE, REJECTED_AT, RUN_ID = "key", "stage", "stage_version", "source", "rejected_at", "run_id"
# warnings
WARNING_ID, COLUMN, WARNED_AT = "warning_id", "column", "warned_at"
# absences and rechecks
NIGHTS, COUNTED_AT, CHECKED_AT = "nights", "counted_at", "checked_at"
FILE, NUM_BYTES, APPLIED_AT = "file", "num_bytes", "applied_at"
# garments, looks, cutouts
GARMENT_ID, BOX, ORIGINAL_LABEL, MASK_RLE = "garment_id", "box_xyxy", "original_label", "mask_rle"
CROP, CROP_SOURCE, PERSON_BOX, NUM_GARMENTS = "crop", "crop_source", "person_box", "num_garments"
SLOTS, SLOT, STABILITY = "slots", "slot", "stability"
# detections: annotated photos, for training and measuring detectors
SPLIT, OBJECTS, IGNORE, LABELLED = "split", "objects", "ignore", "labelled"
# categories: classifier output
ACCEPTED = "accepted"
# attributes: what a picture shows
TAGS, ATTRIBUTE, SWATCH = "tags", "attribute", "swatch"
# fingerprints, duplicates, splits, representatives: the basis of mining
PHASH_MIRRORED, GRID, CUT_FROM = "phash_mirrored", "grid", "cut_from"
CLUSTER_ID, CLUSTER_SIZE, DUPLICATE_OF, HOW, DISTANCE = "cluster_id", "cluster_size", "duplicate_of", "how", "distance"
COMPONENT_ID, COMPONENT_SIZE, NUM_IMAGES = "component_id", "component_size", "num_images"
PLAIN, BRIGHTNESS, FOREGROUND = "plain", "brightness", "foreground"
# pairs, outfits, negatives: training data
PAIR_ID, ANCHOR_IMAGE_ID, SIMILARITY, RULE = "pair_id", "anchor_image_id", "similarity", "rule"
OUTFIT_ID, ITEMS, ITEM_ID, MODIFIED_OF, REPLACED = "outfit_id", "items", "item_id", "modified_of", "replaced"
NEGATIVES_LIST = "negatives"
# questions: the test questions of outfit models
QUESTION_ID, ANSWERS, RIGHT = "question_id", "answers", "right"

# evaluations: figures of models, by protocol
EVALUATION_ID, PROTOCOL, DATA_DIGEST, MODEL, METRIC, K = "evaluation_id", "protocol", "data_digest", "model", "metric", "k"
GROUP, VALUE, CI_LOW, CI_HIGH, NUM_QUERIES = "group", "value", "ci_low", "ci_high", "num_queries"
EVALUATED_AT = "evaluated_at"
# recommendations
OUTFITS_LIST, PAIRS_LIST, BESIDE = "outfits", "pairs", "beside"
FLOORS, MARK, PINNED = "floors", "mark", "pinned"
# found: products for the garments of a photo
NUMBER, GARMENTS_LIST, SAME_PICTURE = "number", "garments", "same_picture"

# similar products
SIMILAR_LIST, SPARE, PLACES, COMPLETE, CARD, ALLOWED = "similar", "spare", "places", "complete", "card", "allowed"
LAYER, PLACE = "layer", "place"
# quality and checks
SHARPNESS, CONTRAST, FILLED = "sharpness", "contrast", "filled"
CHECK_ID, SEVERITY, ABOUT, SINCE = "check_id", "severity", "about", "since"
# exports
OP, BATCH, CLASSIFIED, SEEN = "op", "batch", "classified", "seen"

OWN = "own"  # the source of rows mined from the store's own posts, products and photos
# neighbours
QUERY_ID, RANK, SCORE, NEIGHBOUR_LIST = "query_id", "rank", "score", "neighbours"
INDEX_VERSION, SEARCH_VERSION = "index_version", "search_version"
# permissions
PERMISSION_ID, SEARCH, TRAINING, UNTIL, SAID = "permission_id", "search", "training", "until", "said"
ROBOTS_RULE, ROBOTS_SIGNAL, ROBOTS_TAG, CONTENT_SIGNAL = "robots_rule", "robots_signal", "x_robots_tag", "content_signal"
TDM_RESERVATION, TDM_POLICY, TDM_RULE, OWNER_SAYS = "tdm_reservation", "tdm_policy", "tdm_rule", "owner_says"
# judgements
VERDICT, JUDGED_AT = "verdict", "judged_at"
SAME, SIMILAR, NOT_OURS = "same", "similar", "not_ours"  # verdicts


@dataclass(frozen=True)
class Table:
    """A table's name, columns, key (unique among current rows) and Delta partition columns."""

    name: str
    schema: pa.Schema
    key: tuple[str, ...]
    partition_by: tuple[str, ...] = ()

    def fields(self, names: Iterable[str]) -> pa.Schema:
        """Some columns, in the order of ``names``."""
        return pa.schema([self.schema.field(name) for name in names])

    def empty(self, names: Iterable[str]) -> pa.Table:
        """No rows of these columns: what rows that may be none are added to."""
        return self.fields(names).empty_table()


def _schema(*fields: tuple[str, pa.DataType] | tuple[str, pa.DataType, str]) -> pa.Schema:
    return pa.schema([pa.field(name, kind, nullable=not required) for name, kind, *rest in fields for required in [not rest]])


PICTURE = pa.struct(
    [
        pa.field(IMAGE_ID, pa.string()),
        pa.field(URI, pa.string()),
        pa.field(POSITION, pa.int32()),  # 1 = the front
        pa.field(ROLE, pa.string()),  # FRONT, ADDITIONAL, VARIANT
        pa.field(FINGERPRINT, pa.string()),  # as image_fingerprint
    ]
)

PRODUCTS = Table(
    "products",
    _schema(
        (PRODUCT_ID, pa.string()),
        (TITLE, pa.string(), "nullable"),
        (BRAND, pa.string(), "nullable"),
        (PRICE, pa.float64(), "nullable"),  # what it costs now: the sale price where there is one
        (CURRENCY, pa.string(), "nullable"),
        (CATEGORY, pa.string()),
        (URL, pa.string(), "nullable"),
        (ATTRIBUTES, pa.map_(pa.string(), pa.string()), "nullable"),  # the feed's columns, but for those of the seven above
        (IMAGE_ID, pa.string(), "nullable"),  # null only if the product was withdrawn before it had one
        (IMAGE_URI, pa.string()),
        (IMAGE_FINGERPRINT, pa.string()),  # size and mtime of the source, or its ETag and Last-Modified; "" if it has neither
        (ACTIVE, pa.bool_()),
        (
            ROW_DIGEST,
            pa.string(),
        ),  # of the feed's whole row: equal = unchanged; a trailing "-": except its picture, which is an earlier one
        (FETCHED_AT, TIME),
        (FEED, pa.string(), "nullable"),  # the owner: feed.id, or site:NAME of a crawl; null: no owner yet
        # null in rows of an earlier w2w; the front picture is the one in image_id (table/pictures.py reads either)
        (IMAGE_LIST, pa.list_(PICTURE), "nullable"),
        (GROUP_ID, pa.string(), "nullable"),  # shared by the variants of a product
        (AVAILABILITY, pa.string(), "nullable"),  # in_stock, out_of_stock, preorder, backorder
        (SALE_PRICE, pa.float64(), "nullable"),  # where it is reduced
        (REGULAR_PRICE, pa.float64(), "nullable"),  # where it is reduced: what it costs otherwise
        (GENDER, pa.string(), "nullable"),
        (COLOUR, pa.string(), "nullable"),
        (SIZE_SAID, pa.string(), "nullable"),
    ),
    key=(PRODUCT_ID, FETCHED_AT),
)

# Active products currently missing from their full feed: one snapshot per feed.
ABSENCES = Table(
    "absences",
    _schema(
        (SOURCE, pa.string()),  # feed.id
        (PRODUCT_ID, pa.string()),
        (NIGHTS, pa.int32()),  # consecutive
        (COUNTED_AT, TIME),  # the latest of them
    ),
    key=(PRODUCT_ID, SOURCE),
    partition_by=(SOURCE,),
)

# When all web images of a feed were last re-fetched: one row each time.
RECHECKS = Table(
    "rechecks",
    _schema((SOURCE, pa.string()), (CHECKED_AT, TIME), (RUN_ID, pa.string())),
    key=(RUN_ID, SOURCE),
    partition_by=(SOURCE,),
)

# Files of a folder of changes that have been applied: the cursor of a feed.
CHANGE_FILES = Table(
    "change_files",
    _schema(
        (SOURCE, pa.string()),  # feed.id
        (FILE, pa.string()),  # its name
        (NUM_BYTES, pa.int64()),
        (APPLIED_AT, TIME),
        (RUN_ID, pa.string()),
    ),
    key=(FILE, SOURCE),
    partition_by=(SOURCE,),
)

IMAGES = Table(
    "images",
    _schema(
        (IMAGE_ID, pa.string()),
        (BYTES, pa.binary()),
        (WIDTH, pa.int32()),  # upright, after EXIF rotation
        (HEIGHT, pa.int32()),
        (FORMAT, pa.string()),
        (PHASH, pa.int64()),
        (SOURCE_URI, pa.string()),  # one of the places it was read from
        (FETCHED_AT, TIME),
    ),
    key=(IMAGE_ID,),
)

EMBEDDINGS = Table(
    "embeddings",
    _schema(
        (OWNER_ID, pa.string()),
        (OWNER_KIND, pa.string()),
        (MODEL_VERSION, pa.string()),
        (VECTOR, pa.list_(pa.float32())),
    ),
    key=(OWNER_ID, MODEL_VERSION),
    partition_by=(MODEL_VERSION,),
)

NEIGHBOUR = pa.struct(
    [
        pa.field(RANK, pa.int32()),  # 1 = nearest
        pa.field(PRODUCT_ID, pa.string()),
        pa.field(IMAGE_ID, pa.string()),
        pa.field(CATEGORY, pa.string()),
        pa.field(SCORE, pa.float32()),  # cosine
    ]
)

NEIGHBOURS = Table(
    "neighbours",
    _schema(
        (KEY, pa.string()),  # the query's id and content
        (QUERY_ID, pa.string()),
        (CATEGORY, pa.string()),  # of the query, as given by its source
        (ATTRIBUTES, pa.map_(pa.string(), pa.string()), "nullable"),  # of the query
        (IMAGE_URI, pa.string()),
        (NEIGHBOUR_LIST, pa.list_(NEIGHBOUR)),  # nearest first
        (SEARCH_VERSION, pa.string()),  # digest of index version, k and filter
        (INDEX_VERSION, pa.string()),
        (RUN_ID, pa.string()),
    ),
    key=(KEY, SEARCH_VERSION),
    partition_by=(SEARCH_VERSION,),
)

XYXY = pa.list_(pa.float32())  # x0, y0, x1, y1 in pixels of the upright photo, the last two exclusive
RLE = pa.struct([pa.field("size", pa.list_(pa.int32())), pa.field("counts", pa.string())])  # COCO: height and width, runs

FOUND_PRODUCT = pa.struct([*NEIGHBOUR, pa.field(SAME_PICTURE, pa.list_(pa.string()))])  # others that share its picture
FOUND_GARMENT = pa.struct(
    [
        pa.field(NUMBER, pa.int32()),  # in its photo, from the top down; 0: the whole photo
        pa.field(CATEGORY, pa.string()),  # null for the whole photo
        pa.field(SCORE, pa.float32()),  # of the detection; null for the whole photo
        pa.field(BOX, XYXY),
        pa.field(NEIGHBOUR_LIST, pa.list_(FOUND_PRODUCT)),  # nearest first; null if the index has nothing of its class
    ]
)

# The products found for the garments of a photo: one row per photo.
FOUND = Table(
    "found",
    _schema(
        (KEY, pa.string()),  # the photo's id and content
        (QUERY_ID, pa.string()),  # the photo's id
        (IMAGE_URI, pa.string()),
        (WIDTH, pa.int32()),  # upright
        (HEIGHT, pa.int32()),
        (GARMENTS_LIST, pa.list_(FOUND_GARMENT)),
        (SEARCH_VERSION, pa.string()),  # digest of index version, models and options
        (INDEX_VERSION, pa.string()),
        (RUN_ID, pa.string()),
    ),
    key=(KEY, SEARCH_VERSION),
    partition_by=(SEARCH_VERSION,),
)

GARMENTS = Table(
    "garments",
    _schema(
        (GARMENT_ID, pa.string()),  # sha256 of image_id, category, box and stage_version
        (IMAGE_ID, pa.string()),
        (CATEGORY, pa.string()),
        (ORIGINAL_LABEL, pa.string()),  # the model's own name for it
        (SCORE, pa.float32()),
        (BOX, XYXY),
        (MASK_RLE, RLE, "nullable"),  # of the photo as it was decoded: `size` says how large; a pixel is one garment's
        (CROP, pa.binary()),  # JPEG, at most 384 px a side
        (CROP_SOURCE, pa.string()),  # box; mask: on white; or whole if a data set gives the photo without a box
        (STAGE_VERSION, pa.string()),
    ),
    key=(GARMENT_ID,),
    partition_by=(STAGE_VERSION,),
)

# One row per photo that a detector has seen, whatever it found: the whole outfit, and the mark that the photo is done.
LOOKS = Table(
    "looks",
    _schema(
        (IMAGE_ID, pa.string()),
        (NUM_GARMENTS, pa.int32()),
        (PERSON_BOX, XYXY, "nullable"),
        (CROP, pa.binary(), "nullable"),  # the person, JPEG, at most 384 px a side
        (CROP_SOURCE, pa.string()),  # person, garments, dress; or why it is null: few_garments, small
        (STAGE_VERSION, pa.string()),
    ),
    key=(IMAGE_ID, STAGE_VERSION),
    partition_by=(STAGE_VERSION,),
)

SLOT_CROP = pa.struct(
    [
        pa.field(SLOT, pa.string()),  # top, bottom, shoes
        pa.field(BOX, XYXY),  # in the cut-out
        pa.field(CROP_SOURCE, pa.string()),  # boxes of a detector, dress: part of such a box, or ratios of the mask's box
        pa.field(CROP, pa.binary()),  # from the cut-out, JPEG, at most 384 px a side
    ]
)

CUTOUTS = Table(
    "cutouts",
    _schema(
        (IMAGE_ID, pa.string()),
        (BYTES, pa.binary()),  # the person on white, JPEG, the photo's size or smaller
        (WIDTH, pa.int32()),  # of the cut-out and its mask
        (HEIGHT, pa.int32()),
        (MASK_RLE, RLE),
        (PERSON_BOX, XYXY),  # tight around the mask, in the cut-out
        (SCORE, pa.float32(), "nullable"),  # IoU predicted by the model, if it predicts one
        (STABILITY, pa.float32(), "nullable"),
        (SLOTS, pa.list_(SLOT_CROP)),
        (STAGE_VERSION, pa.string()),
    ),
    key=(IMAGE_ID, STAGE_VERSION),
    partition_by=(STAGE_VERSION,),
)

OBJECT = pa.struct(
    [
        pa.field(BOX, XYXY),
        pa.field(CATEGORY, pa.string()),  # null where ignored
        pa.field(ORIGINAL_LABEL, pa.string()),
        pa.field(IGNORE, pa.bool_()),  # a detection here counts neither as right nor as wrong
        pa.field(MASK_RLE, RLE),  # null where the data set has boxes only
    ]
)

DETECTIONS = Table(
    "detections",
    _schema(
        (KEY, pa.string()),  # source and the photo's name in it
        (SOURCE, pa.string()),  # the data set
        (SPLIT, pa.string()),
        (IMAGE_ID, pa.string()),
        (BYTES, pa.binary()),
        (WIDTH, pa.int32()),
        (HEIGHT, pa.int32()),
        (OBJECTS, pa.list_(OBJECT)),
        (LABELLED, pa.list_(pa.string())),  # classes that this source labels; others may appear without a box
        (ROW_DIGEST, pa.string(), "nullable"),  # of the photo's entry in the source file; null in rows of older versions
        (STAGE_VERSION, pa.string()),  # of the reader
    ),
    key=(KEY, STAGE_VERSION),
    partition_by=(STAGE_VERSION,),
)

CLASSIFICATIONS = Table(
    "categories",
    _schema(
        (OWNER_ID, pa.string()),
        (OWNER_KIND, pa.string()),
        (CATEGORY, pa.string()),  # the most probable class, or etc
        (SCORE, pa.float32()),  # its probability, calibrated
        (ACCEPTED, pa.bool_()),  # probable enough, and not etc
        (MODEL_VERSION, pa.string()),  # of the classifier
    ),
    key=(OWNER_ID, MODEL_VERSION),
    partition_by=(MODEL_VERSION,),
)

TAG = pa.struct(
    [
        pa.field(ATTRIBUTE, pa.string()),  # type, colour, ..., or a column of the shop's feed
        pa.field(VALUE, pa.string()),  # null if nothing is probable enough
        pa.field(SCORE, pa.float32()),  # probability of the most probable value, calibrated
    ]
)

# What each picture shows: one row a picture and tagger.
TAGGED = Table(
    "attributes",
    _schema(
        (OWNER_ID, pa.string()),
        (OWNER_KIND, pa.string()),
        (TAGS, pa.list_(TAG)),
        (SWATCH, pa.string()),  # #rrggbb: the most frequent colour of the foreground
        (STAGE_VERSION, pa.string()),  # of the tagger
    ),
    key=(OWNER_ID, STAGE_VERSION),
    partition_by=(STAGE_VERSION,),
)

# The background of each product image: one row per image, written once.
GROUNDS = Table(
    "grounds",
    _schema(
        (IMAGE_ID, pa.string()),
        (PLAIN, pa.float32()),  # share of the border with one colour
        (BRIGHTNESS, pa.float32()),  # of that colour, 0 black to 1 white
        (FOREGROUND, pa.float32()),  # share of the picture with any other colour
        (STAGE_VERSION, pa.string()),
    ),
    key=(IMAGE_ID, STAGE_VERSION),
    partition_by=(STAGE_VERSION,),
)

# What is kept of an image to find its near-duplicates without decoding it again: one row per image, written once.
FINGERPRINTS = Table(
    "fingerprints",
    _schema(
        (IMAGE_ID, pa.string()),
        (PHASH, pa.int64()),
        (PHASH_MIRRORED, pa.int64()),  # of the mirrored picture
        (GRID, pa.binary()),  # uint8, 3 planes (red, green, blue) of 32 x 32 cells
        (STAGE_VERSION, pa.string()),
    ),
    key=(IMAGE_ID, STAGE_VERSION),
    partition_by=(STAGE_VERSION,),
)

# The mining tables are snapshots: a run computes one whole and replaces it in one commit, so a table version is a version of
# the data set, and older ones stay readable.

DUPLICATES = Table(
    "duplicates",
    _schema(
        (IMAGE_ID, pa.string()),
        (CLUSTER_ID, pa.string()),  # the smallest image_id connected by near-duplicates; its own if it has none
        (CLUSTER_SIZE, pa.int32()),
        (DUPLICATE_OF, pa.string(), "nullable"),  # the most similar image of the cluster; null if it is alone
        (HOW, pa.string(), "nullable"),  # its relation to that image: copy, cropped, flipped, flipped and cropped
        (DISTANCE, pa.float32(), "nullable"),  # 0 = the same picture, 1 = the most that versions of a picture differ
    ),
    key=(IMAGE_ID,),
)

SPLITS = Table(
    "splits",
    _schema(
        (OWNER_ID, pa.string()),
        (OWNER_KIND, pa.string()),  # product, post
        (COMPONENT_ID, pa.string()),  # kind:id of the first owner connected through products, posts and near-duplicates
        (COMPONENT_SIZE, pa.int32()),
        (CUT_FROM, pa.string(), "nullable"),  # the component that was too large for one split, if this is a part of it
        (SPLIT, pa.string()),  # train, val, test
    ),
    key=(OWNER_ID, OWNER_KIND),
)

REPRESENTATIVES = Table(
    "representatives",
    _schema(
        (PRODUCT_ID, pa.string()),  # the product as mining identifies it: the feed's id, or its identifying attributes
        (IMAGE_ID, pa.string()),
        (SCORE, pa.float32()),  # 0 to 1: the product alone on a plain background
        (REASON, pa.string()),  # why this one, in words
        (NUM_IMAGES, pa.int32()),  # number of candidates
    ),
    key=(PRODUCT_ID,),
)

PAIRS = Table(
    "pairs",
    _schema(
        (PAIR_ID, pa.string()),  # digest of garment and product; for a data set, of the picture too
        (GARMENT_ID, pa.string()),  # the anchor, whose crop is in `garments`
        (ANCHOR_IMAGE_ID, pa.string()),  # the photo it was cut from
        (POST_ID, pa.string()),
        (PRODUCT_ID, pa.string()),  # as in `representatives`
        (IMAGE_ID, pa.string()),  # the positive: the product's representative image
        (CATEGORY, pa.string()),
        (SCORE, pa.float32()),  # of the detection
        (SIMILARITY, pa.float32(), "nullable"),  # cosine of anchor and positive, if an encoder was used
        (RULE, pa.string()),  # how they were matched: single, similarity, annotated
        (SPLIT, pa.string()),
        (SOURCE, pa.string()),  # OWN, or the public data set: one snapshot each
    ),
    key=(PAIR_ID,),
    partition_by=(SOURCE,),
)

OUTFIT_ITEM = pa.struct(
    [
        pa.field(SLOT, pa.string()),  # top, bottom, shoes; a data set may have more
        pa.field(ITEM_ID, pa.string()),  # owner of a vector: image_id:slot of a cut-out, or a product's image_id
        pa.field(IMAGE_ID, pa.string()),
        pa.field(CATEGORY, pa.string()),
    ]
)

OUTFITS = Table(
    "outfits",
    _schema(
        (OUTFIT_ID, pa.string()),
        (ITEMS, pa.list_(OUTFIT_ITEM)),
        (MODIFIED_OF, pa.string(), "nullable"),  # the outfit whose items were replaced; null for one that was worn
        (REPLACED, pa.list_(pa.string())),  # slots
        (SPLIT, pa.string()),
        (SOURCE, pa.string()),  # OWN, or the public data set
    ),
    key=(OUTFIT_ID,),
    partition_by=(SOURCE,),
)

QUESTIONS = Table(
    "questions",
    _schema(
        (QUESTION_ID, pa.string()),
        (KIND, pa.string()),  # fill_in_blank: which answer completes the items; compatibility: do the items go together
        (ITEMS, pa.list_(OUTFIT_ITEM)),
        (ANSWERS, pa.list_(OUTFIT_ITEM)),  # shuffled; none for compatibility
        (RIGHT, pa.int32()),  # fill_in_blank: position of the right answer, from 0; compatibility: 1 yes, 0 no
        (SPLIT, pa.string()),
        (SOURCE, pa.string()),
    ),
    key=(QUESTION_ID,),
    partition_by=(SOURCE,),
)

NEGATIVES = Table(
    "negatives",
    _schema(
        (PAIR_ID, pa.string()),
        (NEGATIVES_LIST, pa.list_(NEIGHBOUR)),  # hardest first
        (INDEX_VERSION, pa.string()),  # the index they were found in
    ),
    key=(PAIR_ID,),
)

# Every figure of every evaluated model, by protocol: one row each, never changed.
EVALUATIONS = Table(
    "evaluations",
    _schema(
        (EVALUATION_ID, pa.string()),  # digest of protocol, data, model, metric and group: each figure is stored once
        (PROTOCOL, pa.string()),
        (SOURCE, pa.string()),  # the set, as table `pairs` or `questions` calls it
        (SPLIT, pa.string()),
        (DATA_DIGEST, pa.string()),  # of queries and gallery: rows with different digests do not compare
        (MODEL, pa.string()),  # its name or folder
        (MODEL_VERSION, pa.string()),  # of the encoder, or of the scorer on its vectors
        (METRIC, pa.string()),
        (K, pa.int32()),  # 0 if the metric has none
        (GROUP, pa.string(), "nullable"),  # a category or subset; null for all queries
        (VALUE, pa.float64()),
        (CI_LOW, pa.float64(), "nullable"),
        (CI_HIGH, pa.float64(), "nullable"),
        (NUM_QUERIES, pa.int32()),
        (EVALUATED_AT, TIME),
        (RUN_ID, pa.string()),
    ),
    key=(EVALUATION_ID,),
    partition_by=(PROTOCOL,),
)

# People's judgements of search results: one row each; the newest per query and product counts (table/judgements.py).
JUDGEMENTS = Table(
    "judgements",
    _schema(
        (KEY, pa.string()),  # digest of the whole judgement
        (KIND, pa.string()),  # of the query: feed, garments (a garment_id), photos
        (QUERY_ID, pa.string()),
        (PRODUCT_ID, pa.string(), "nullable"),  # null for not_ours: the shop sells nothing like the query
        (VERDICT, pa.string()),  # same, similar, not_ours
        (JUDGED_AT, TIME),
        (SOURCE, pa.string()),  # the file
        (RUN_ID, pa.string()),
    ),
    key=(KEY,),
    partition_by=(KIND,),
)

RECOMMENDED = pa.struct(
    [
        pa.field(RANK, pa.int32()),  # 1 = best
        pa.field(SCORE, pa.float32()),  # the mean over its pairs
        pa.field(ITEMS, pa.list_(pa.struct([(CATEGORY, pa.string()), (PRODUCT_ID, pa.string()), (IMAGE_ID, pa.string())]))),
        pa.field(PAIRS_LIST, pa.list_(pa.struct([(CATEGORY, pa.string()), (BESIDE, pa.string()), (SCORE, pa.float32())]))),
    ]
)

# What goes with each product: a history, like products. A product's newest row counts, if it is active.
RECOMMENDATIONS = Table(
    "recommendations",
    _schema(
        (PRODUCT_ID, pa.string()),
        (OUTFITS_LIST, pa.list_(RECOMMENDED)),  # best first; empty if nothing goes with it
        (REASON, pa.string(), "nullable"),  # why it is empty
        (ACTIVE, pa.bool_()),  # false: no longer sold
        (ROW_DIGEST, pa.string()),  # of everything that decides the outfits: a row with another digest is stale
        (STAGE_VERSION, pa.string()),  # of scorer and options
        (RUN_ID, pa.string()),
        (FETCHED_AT, TIME),  # when it was computed
        (FLOORS, pa.list_(pa.float32()), "nullable"),  # by class: the least score of a candidate, NaN where none was sought
    ),
    key=(PRODUCT_ID, FETCHED_AT),
)

# The states of products that rows of `recommendations` may follow from: one each after a run that came to its end. A snapshot.
OFFERED = Table(
    "offered",
    _schema(
        (PRODUCT_ID, pa.string()),
        (MARK, pa.int64()),  # of everything that its place in an outfit follows from
        (IMAGE_ID, pa.string()),
        (CATEGORY, pa.string()),  # one of the seven
        (PINNED, pa.bool_()),
    ),
    key=(PRODUCT_ID,),
)

SIMILAR_PRODUCT = pa.struct([pa.field(PRODUCT_ID, pa.string()), pa.field(SCORE, pa.float32())])  # score: cosine

# The products most like each active one that has a vector. For each name a snapshot, and rows of the nights since, in layers:
# of several rows of a product that of the highest layer counts (``w2w.table.layered``).
SIMILAR_PRODUCTS = Table(
    "similar",
    _schema(
        (PRODUCT_ID, pa.string()),
        (SIMILAR_LIST, pa.list_(SIMILAR_PRODUCT)),  # best first
        (SPARE, pa.list_(SIMILAR_PRODUCT)),  # the next best: they move up when a product of the list goes
        (PLACES, pa.list_(pa.int32()), "nullable"),  # the places of those of both lists
        (COMPLETE, pa.bool_()),  # there are no others
        (IMAGE_ID, pa.string()),
        (CATEGORY, pa.string()),
        (CARD, pa.string()),  # product_id of the first of the products that look the same; a list has one of a card
        (ALLOWED, pa.bool_()),  # passes the filter, so that lists may have it
        (MODEL_VERSION, pa.string()),
        (STAGE_VERSION, pa.string()),  # of model and options
        (SOURCE, pa.string()),  # the name
        (LAYER, pa.int32(), "nullable"),  # 0 or null: of the snapshot
        (PLACE, pa.int32(), "nullable"),  # of the product: in the snapshot by product_id, later ones behind
        (ACTIVE, pa.bool_(), "nullable"),  # false: the product has no list any more
    ),
    key=(PRODUCT_ID, SOURCE, LAYER),
    partition_by=(SOURCE,),
)

# How clear each product picture is: one row per picture, written once.
QUALITY = Table(
    "quality",
    _schema(
        (IMAGE_ID, pa.string()),
        (SHARPNESS, pa.float32()),  # variance of the Laplacian of its grey levels, at 256 px
        (CONTRAST, pa.float32()),  # variance of these grey levels
        (FILLED, pa.float32()),  # share of the picture that has not its median colour
        (GRID, pa.binary()),  # uint8, 8 x 8 cells of red, green, blue
        (STAGE_VERSION, pa.string()),
    ),
    key=(IMAGE_ID, STAGE_VERSION),
    partition_by=(STAGE_VERSION,),
)

# What is wrong in the catalog, as `w2w check` found it. A snapshot: a finding that is gone has no row.
CHECKS = Table(
    "checks",
    _schema(
        (CHECK_ID, pa.string()),  # digest of kind, product and, where a product may have several of a kind, about
        (KIND, pa.string()),  # w2w.check.kinds.KINDS
        (SEVERITY, pa.string()),  # high, medium, low
        (PRODUCT_ID, pa.string()),
        (ABOUT, pa.string(), "nullable"),  # the column; the picture that products share; the class that is seen
        (REJECT_DETAIL, pa.string()),  # a sentence
        (IMAGE_LIST, pa.list_(pa.string())),  # ids of pictures that show it
        (URL, pa.string(), "nullable"),  # of the product
        (SINCE, TIME),  # when it was first found
        (CHECKED_AT, TIME),  # when it was last looked at
        (RUN_ID, pa.string()),  # which did
    ),
    key=(CHECK_ID,),
)

# What the links of products led to when `w2w check` last asked: a row a link. A snapshot.
LINKS_ASKED = Table(
    "links",
    _schema(
        (URL, pa.string()),
        (REJECT_CODE, pa.string(), "nullable"),  # why there was no page; null where there was
        (REJECT_DETAIL, pa.string(), "nullable"),
        (CHECKED_AT, TIME),
    ),
    key=(URL,),
)

# What the target of an export has of each product, by the digest of what was sent; the row of the highest batch counts.
EXPORTED = Table(
    "exported",
    _schema(
        (PRODUCT_ID, pa.string()),
        (ROW_DIGEST, pa.string(), "nullable"),  # null: it was deleted there
        (BATCH, pa.int64()),  # from 1
        (SOURCE, pa.string()),  # the export's name
    ),
    key=(PRODUCT_ID, BATCH, SOURCE),
    partition_by=(SOURCE,),
)

_NOT_SENT = (IMAGE_URI, IMAGE_FINGERPRINT, ACTIVE, ROW_DIGEST, FETCHED_AT)
# A change that an export sends. Of a deletion only op and product_id are set.
CHANGE = pa.schema(
    [
        pa.field(OP, pa.string()),  # upsert, delete
        *(field.with_nullable(True) for field in PRODUCTS.schema if field.name not in _NOT_SENT),
        pa.field(CLASSIFIED, pa.string()),  # the classifier's category, where it is sure
        pa.field(SEEN, pa.map_(pa.string(), pa.string())),  # what its picture shows, where that is sure
        pa.field(SIMILAR_LIST, pa.list_(SIMILAR_PRODUCT)),
        pa.field(MODEL_VERSION, pa.string()),  # of the vector
        pa.field(VECTOR, pa.list_(pa.float32())),
    ]
)

REJECTS = Table(
    "rejects",
    _schema(
        (KEY, pa.string()),
        (STAGE, pa.string()),
        (STAGE_VERSION, pa.string()),
        (REJECT_CODE, pa.string()),
        (REJECT_DETAIL, pa.string()),
        (SOURCE, pa.string(), "nullable"),  # the file, URL or line for a person to look at
        (REJECTED_AT, TIME),
        (RUN_ID, pa.string()),
    ),
    key=(KEY, STAGE, STAGE_VERSION),
    partition_by=(STAGE,),
)

# Values of a feed that could not be read, and stand as null in `products`: one row each. Those whose row_digest is their
# product's still hold.
WARNINGS = Table(
    "warnings",
    _schema(
        (WARNING_ID, pa.string()),  # digest of product_id, row_digest, column and detail
        (PRODUCT_ID, pa.string()),
        (ROW_DIGEST, pa.string()),  # of the feed's row
        (COLUMN, pa.string()),  # ours, or an attribute's name
        (REJECT_CODE, pa.string()),
        (REJECT_DETAIL, pa.string()),
        (SOURCE, pa.string(), "nullable"),  # as in `rejects`
        (FEED, pa.string(), "nullable"),
        (WARNED_AT, TIME),
        (RUN_ID, pa.string()),
    ),
    key=(WARNING_ID,),
)

POSTS = Table(
    "posts",
    _schema(
        (POST_ID, pa.string()),
        (URL, pa.string(), "nullable"),
        (IMAGE_ID, pa.string()),
        (IMAGE_URI, pa.string()),
        (PRODUCT_IDS, pa.list_(pa.string())),  # worn in the picture, as far as known
        (PRODUCT_URLS, pa.list_(pa.string())),  # what the post links to, known or not
        (STYLE, pa.string(), "nullable"),  # the post's label: casual, street, minimal
        (ACTIVE, pa.bool_()),
        (ROW_DIGEST, pa.string()),
        (FETCHED_AT, TIME),
    ),
    key=(POST_ID, FETCHED_AT),
)

# What a picture may be used for, and what was said of that at each place where it was fetched: a history. A row holds until the
# next one of its picture and place; one is written where it differs. Pictures without a row: nothing was asked.
PERMISSIONS = Table(
    "permissions",
    _schema(
        (PERMISSION_ID, pa.string()),  # digest of picture and place
        (IMAGE_ID, pa.string()),
        (URI, pa.string()),  # the place
        (FEED, pa.string()),  # whose: feed.id, or site:NAME of a crawl
        (SEARCH, pa.bool_()),  # whether search may use it
        (TRAINING, pa.bool_()),  # whether training may
        (REASON, pa.string()),  # why not; "" if both may
        (UNTIL, TIME, "nullable"),  # search may use it until then
        (ROBOTS_RULE, pa.string(), "nullable"),  # robots.txt: whose group, allow or disallow, the pattern; or unreachable
        (ROBOTS_SIGNAL, pa.string(), "nullable"),  # Content-Signal of that group: search=yes, ai-train=no
        (ROBOTS_TAG, pa.string(), "nullable"),  # X-Robots-Tag: the directives that matter here
        (CONTENT_SIGNAL, pa.string(), "nullable"),  # of the header
        (TDM_RESERVATION, pa.string(), "nullable"),  # of the header: 0, 1
        (TDM_POLICY, pa.string(), "nullable"),
        (TDM_RULE, pa.string(), "nullable"),  # of /.well-known/tdmrep.json: 0 or 1, and the policy; or unreachable
        (OWNER_SAYS, pa.string(), "nullable"),  # the option `use` of the feed or crawl: training=allowed
        (ROW_DIGEST, pa.string()),  # of what is said and what follows
        (FETCHED_AT, TIME),
        (RUN_ID, pa.string()),
    ),
    key=(PERMISSION_ID, FETCHED_AT),
)

# URLs known to a crawl: one row each, written on discovery and never changed.
FRONTIER = Table(
    "frontier",
    _schema(
        (SITE, pa.string()),  # name of the profile
        (URL_ID, pa.string()),  # sha256 of the canonical URL
        (URL, pa.string()),
        (HOST, pa.string()),
        (KIND, pa.string()),
        (DEPTH, pa.int32()),  # links from a start URL
        (REDIRECTS, pa.int32()),  # of them, how many in a row were redirects
        (FOUND_ON, pa.string(), "nullable"),  # the page that links to it; null for a start URL
        (STATE, pa.string()),  # queued, or excluded by the limits; the outcome of a queued one is in its newest page row
        (REASON, pa.string()),
        (DETAIL, pa.string(), "nullable"),
        (FOUND_AT, TIME),
    ),
    key=(URL_ID, SITE),
    partition_by=(SITE,),
)

LINK = pa.struct([pa.field(URL, pa.string()), pa.field(KIND, pa.string())])

# Fetch outcomes: one row per URL and visit, committed whole, so that a visit is finished exactly when its row exists.
PAGES = Table(
    "pages",
    _schema(
        (SITE, pa.string()),
        (KEY, pa.string()),  # url_id and visit
        (URL_ID, pa.string()),
        (URL, pa.string()),
        (KIND, pa.string()),
        (DEPTH, pa.int32()),
        (REDIRECTS, pa.int32()),
        (VISIT, pa.int32()),  # counted from 0
        (STATE, pa.string()),  # w2w.crawl.frontier.State
        (REASON, pa.string()),  # a reject code, or ok, not_modified, same_content, moved
        (DETAIL, pa.string(), "nullable"),
        (STATUS, pa.int32(), "nullable"),  # of HTTP; null if there was no response
        (ATTEMPTS, pa.int32()),  # requests of this visit
        (FAILURES, pa.int32()),  # consecutive failed visits
        (UNCHANGED, pa.int32()),  # consecutive visits without anything new
        (NOT_BEFORE, TIME, "nullable"),  # as the host requested
        (ETAG, pa.string(), "nullable"),
        (LAST_MODIFIED, pa.string(), "nullable"),
        (CONTENT_DIGEST, pa.string(), "nullable"),
        (IMAGE_ID, pa.string(), "nullable"),  # of a new image
        (LINKS, pa.list_(LINK)),
        (RECORDS, pa.list_(pa.string())),  # JSON: products and posts on a new page
        (CONTENT, pa.binary(), "nullable"),  # the page itself, zlib, if kept
        (READ_BY, pa.string()),  # version of the profile
        (RUN_ID, pa.string()),
        (FETCHED_AT, TIME),
        (SAID, pa.string(), "nullable"),  # of a picture: what headers and the host's files said of its use, JSON
    ),
    key=(KEY, SITE),
    partition_by=(SITE,),
)

TABLES = {
    t.name: t
    for t in (
        PRODUCTS,
        ABSENCES,
        RECHECKS,
        CHANGE_FILES,
        POSTS,
        IMAGES,
        PERMISSIONS,
        GARMENTS,
        LOOKS,
        CUTOUTS,
        DETECTIONS,
        CLASSIFICATIONS,
        TAGGED,
        GROUNDS,
        FINGERPRINTS,
        DUPLICATES,
        SPLITS,
        REPRESENTATIVES,
        PAIRS,
        OUTFITS,
        QUESTIONS,
        NEGATIVES,
        EMBEDDINGS,
        NEIGHBOURS,
        EVALUATIONS,
        FOUND,
        JUDGEMENTS,
        RECOMMENDATIONS,
        OFFERED,
        SIMILAR_PRODUCTS,
        QUALITY,
        CHECKS,
        LINKS_ASKED,
        EXPORTED,
        FRONTIER,
        PAGES,
        REJECTS,
        WARNINGS,
    )
}
