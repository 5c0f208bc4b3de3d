"""Every table of w2w: its columns, its key, its partitions. A column's name is spelled nowhere else.

Delta Lake has neither fixed-size lists nor float16, so a vector is ``array<float>`` for every reader in the world;
``w2w`` reads it back as ``fixed_size_list<float>[d]`` and refuses rows of another length. ``float16`` is kept as float32
values that float16 can hold: byte-stream-split and zstd store them in about half the bytes.
"""

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
# absences and rechecks
NIGHTS, COUNTED_AT, CHECKED_AT = "nights", "counted_at", "checked_at"
# garments, looks, cutouts
GARMENT_ID, BOX, ORIGINAL_LABEL, MASK_RLE = "garment_id", "box_xyxy", "original_label", "mask_rle"
CROP, CROP_SOURCE, PERSON_BOX, NUM_GARMENTS = "crop", "crop_source", "person_box", "num_garments"
SLOTS, SLOT, STABILITY = "slots", "slot", "stability"
# detections: annotated photos, for training and measuring detectors
SPLIT, OBJECTS, IGNORE, LABELLED = "split", "objects", "ignore", "labelled"
# categories: what a classifier says
ACCEPTED = "accepted"
# fingerprints, duplicates, splits, representatives: the groundwork of mining
PHASH_MIRRORED, GRID, CUT_FROM = "phash_mirrored", "grid", "cut_from"
CLUSTER_ID, CLUSTER_SIZE, DUPLICATE_OF, HOW, DISTANCE = "cluster_id", "cluster_size", "duplicate_of", "how", "distance"
COMPONENT_ID, COMPONENT_SIZE, NUM_IMAGES = "component_id", "component_size", "num_images"
PLAIN, BRIGHTNESS, FOREGROUND = "plain", "brightness", "foreground"
# pairs, outfits, negatives: what models are trained on
PAIR_ID, ANCHOR_IMAGE_ID, SIMILARITY, RULE = "pair_id", "anchor_image_id", "similarity", "rule"
OUTFIT_ID, ITEMS, ITEM_ID, MODIFIED_OF, REPLACED = "outfit_id", "items", "item_id", "modified_of", "replaced"
NEGATIVES_LIST = "negatives"
# questions: what models of outfits are asked
QUESTION_ID, ANSWERS, RIGHT = "question_id", "answers", "right"

# evaluations: figures of models, by protocol
EVALUATION_ID, PROTOCOL, DATA_DIGEST, MODEL, METRIC, K = "evaluation_id", "protocol", "data_digest", "model", "metric", "k"
GROUP, VALUE, CI_LOW, CI_HIGH, NUM_QUERIES = "group", "value", "ci_low", "ci_high", "num_queries"
EVALUATED_AT = "evaluated_at"
# recommendations
OUTFITS_LIST, PAIRS_LIST, BESIDE = "outfits", "pairs", "beside"
# found
NUMBER, GARMENTS_LIST, SAME_PICTURE = "number", "garments", "same_picture"

OWN = "own"  # the source of what is mined from the store's own posts, products and photos
# neighbours
QUERY_ID, RANK, SCORE, NEIGHBOUR_LIST = "query_id", "rank", "score", "neighbours"
INDEX_VERSION, SEARCH_VERSION = "index_version", "search_version"
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


def _schema(*fields: tuple[str, pa.DataType] | tuple[str, pa.DataType, str]) -> pa.Schema:
    return pa.schema([pa.field(name, kind, nullable=not required) for name, kind, *rest in fields for required in [not rest]])


PRODUCTS = Table(
    "products",
    _schema(
        (PRODUCT_ID, pa.string()),
        (TITLE, pa.string(), "nullable"),
        (BRAND, pa.string(), "nullable"),
        (PRICE, pa.float64(), "nullable"),
        (CURRENCY, pa.string(), "nullable"),
        (CATEGORY, pa.string()),
        (URL, pa.string(), "nullable"),
        (ATTRIBUTES, pa.map_(pa.string(), pa.string()), "nullable"),  # every other mapped feed column
        (IMAGE_ID, pa.string(), "nullable"),  # null only where the product was withdrawn before it had one
        (IMAGE_URI, pa.string()),
        (IMAGE_FINGERPRINT, pa.string()),  # size and mtime of the source, or its ETag and Last-Modified; "" where it has none
        (ACTIVE, pa.bool_()),
        (
            ROW_DIGEST,
            pa.string(),
        ),  # of all that the feed said: equal = unchanged; "-" at its end: but its picture, an earlier one
        (FETCHED_AT, TIME),
        (FEED, pa.string(), "nullable"),  # whose product it is: feed.id, or site:NAME of a crawl; null: of nobody yet
    ),
    key=(PRODUCT_ID, FETCHED_AT),
)

# Active products that their full feed does not list at present: a snapshot a feed.
ABSENCES = Table(
    "absences",
    _schema(
        (SOURCE, pa.string()),  # feed.id
        (PRODUCT_ID, pa.string()),
        (NIGHTS, pa.int32()),  # in a row
        (COUNTED_AT, TIME),  # the last of them
    ),
    key=(PRODUCT_ID, SOURCE),
    partition_by=(SOURCE,),
)

# When all pictures of a feed that are on the web were asked for again: one row each time.
RECHECKS = Table(
    "rechecks",
    _schema((SOURCE, pa.string()), (CHECKED_AT, TIME), (RUN_ID, pa.string())),
    key=(RUN_ID, SOURCE),
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
        (SOURCE_URI, pa.string()),  # one of the places that it was read from
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
        (CATEGORY, pa.string()),  # of the query, as its source says
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

FOUND_PRODUCT = pa.struct([*NEIGHBOUR, pa.field(SAME_PICTURE, pa.list_(pa.string()))])  # others that have its picture
FOUND_GARMENT = pa.struct(
    [
        pa.field(NUMBER, pa.int32()),  # in its photo, from the top down; 0: the whole photo
        pa.field(CATEGORY, pa.string()),  # null for the whole photo
        pa.field(SCORE, pa.float32()),  # of the detection; null for the whole photo
        pa.field(BOX, XYXY),
        pa.field(NEIGHBOUR_LIST, pa.list_(FOUND_PRODUCT)),  # nearest first; null where the index has nothing of its class
    ]
)

# The products that were found for the garments of a photo: one row a photo.
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
        (ORIGINAL_LABEL, pa.string()),  # as the model calls it
        (SCORE, pa.float32()),
        (BOX, XYXY),
        (MASK_RLE, RLE, "nullable"),
        (CROP, pa.binary()),  # JPEG, at most 384 px a side
        (CROP_SOURCE, pa.string()),  # box; whole where a data set has the photo and no box
        (STAGE_VERSION, pa.string()),
    ),
    key=(GARMENT_ID,),
    partition_by=(STAGE_VERSION,),
)

# One row a photo that a detector has seen, whatever it found: the whole outfit, and the mark that the photo is done.
LOOKS = Table(
    "looks",
    _schema(
        (IMAGE_ID, pa.string()),
        (NUM_GARMENTS, pa.int32()),
        (PERSON_BOX, XYXY, "nullable"),
        (CROP, pa.binary(), "nullable"),  # the person, JPEG, at most 384 px a side
        (CROP_SOURCE, pa.string()),  # person, garments, dress; or why there is none: few_garments, small
        (STAGE_VERSION, pa.string()),
    ),
    key=(IMAGE_ID, STAGE_VERSION),
    partition_by=(STAGE_VERSION,),
)

SLOT_CROP = pa.struct(
    [
        pa.field(SLOT, pa.string()),  # top, bottom, shoes
        pa.field(BOX, XYXY),  # in the cut-out
        pa.field(CROP_SOURCE, pa.string()),  # boxes of a detector, dress: part of such a box, or ratios of the mask's tight box
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
        (SCORE, pa.float32(), "nullable"),  # IoU that the model expects, where it does
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
        pa.field(IGNORE, pa.bool_()),  # finding something here is neither right nor wrong
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
        (LABELLED, pa.list_(pa.string())),  # classes that this source labels; others may be in the photo without a box
        (ROW_DIGEST, pa.string(), "nullable"),  # of what its file says of the photo; null in rows of older versions
        (STAGE_VERSION, pa.string()),  # of how it was read
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

# What stands behind the product in its picture, one row a product image: looked at once.
GROUNDS = Table(
    "grounds",
    _schema(
        (IMAGE_ID, pa.string()),
        (PLAIN, pa.float32()),  # share of the border that has one colour
        (BRIGHTNESS, pa.float32()),  # of that colour, 0 black to 1 white
        (FOREGROUND, pa.float32()),  # share of the picture that has another colour
        (STAGE_VERSION, pa.string()),
    ),
    key=(IMAGE_ID, STAGE_VERSION),
    partition_by=(STAGE_VERSION,),
)

# What is kept of an image so that its near-duplicates are found without decoding it again: one row an image, written once.
FINGERPRINTS = Table(
    "fingerprints",
    _schema(
        (IMAGE_ID, pa.string()),
        (PHASH, pa.int64()),
        (PHASH_MIRRORED, pa.int64()),  # of the picture flipped left to right
        (GRID, pa.binary()),  # uint8, 3 planes (red, green, blue) of 32 x 32 cells
        (STAGE_VERSION, pa.string()),
    ),
    key=(IMAGE_ID, STAGE_VERSION),
    partition_by=(STAGE_VERSION,),
)

# The tables of mining are snapshots: a run computes one whole and replaces it in one commit, so a version of the table is a
# version of the data set, and an older one can be read again.

DUPLICATES = Table(
    "duplicates",
    _schema(
        (IMAGE_ID, pa.string()),
        (CLUSTER_ID, pa.string()),  # the smallest image_id that near-duplicates connect it to; its own where it has none
        (CLUSTER_SIZE, pa.int32()),
        (DUPLICATE_OF, pa.string(), "nullable"),  # the most alike image of the cluster; null where it is alone
        (HOW, pa.string(), "nullable"),  # what it is of that one: copy, cropped, flipped, flipped and cropped
        (DISTANCE, pa.float32(), "nullable"),  # 0 = the same picture, 1 = the most that one picture differs from itself
    ),
    key=(IMAGE_ID,),
)

SPLITS = Table(
    "splits",
    _schema(
        (OWNER_ID, pa.string()),
        (OWNER_KIND, pa.string()),  # product, post
        (COMPONENT_ID, pa.string()),  # kind:id of the first owner that products, posts and near-duplicates connect it with
        (COMPONENT_SIZE, pa.int32()),
        (CUT_FROM, pa.string(), "nullable"),  # the component that was too large for one split, where this is a part of it
        (SPLIT, pa.string()),  # train, val, test
    ),
    key=(OWNER_ID, OWNER_KIND),
)

REPRESENTATIVES = Table(
    "representatives",
    _schema(
        (PRODUCT_ID, pa.string()),  # the product as mining knows it: the feed's id, or the attributes that make one
        (IMAGE_ID, pa.string()),
        (SCORE, pa.float32()),  # 0 to 1: the product alone on plain ground
        (REASON, pa.string()),  # why this one, in words
        (NUM_IMAGES, pa.int32()),  # it was chosen from
    ),
    key=(PRODUCT_ID,),
)

PAIRS = Table(
    "pairs",
    _schema(
        (PAIR_ID, pa.string()),  # digest of garment and product; of a data set's, of the picture too
        (GARMENT_ID, pa.string()),  # the anchor, whose crop stands in `garments`
        (ANCHOR_IMAGE_ID, pa.string()),  # the photo it was cut from
        (POST_ID, pa.string()),
        (PRODUCT_ID, pa.string()),  # as in `representatives`
        (IMAGE_ID, pa.string()),  # the positive: the product's representative image
        (CATEGORY, pa.string()),
        (SCORE, pa.float32()),  # of the detection
        (SIMILARITY, pa.float32(), "nullable"),  # cosine of anchor and positive, where an encoder was asked
        (RULE, pa.string()),  # how the two were matched: single, similarity, annotated
        (SPLIT, pa.string()),
        (SOURCE, pa.string()),  # OWN, or the public data set: each is a snapshot of its own
    ),
    key=(PAIR_ID,),
    partition_by=(SOURCE,),
)

OUTFIT_ITEM = pa.struct(
    [
        pa.field(SLOT, pa.string()),  # top, bottom, shoes; a data set's own where it has more
        pa.field(ITEM_ID, pa.string()),  # owner of a vector: image_id:slot of a cut-out, or the image_id of a product
        pa.field(IMAGE_ID, pa.string()),
        pa.field(CATEGORY, pa.string()),
    ]
)

OUTFITS = Table(
    "outfits",
    _schema(
        (OUTFIT_ID, pa.string()),
        (ITEMS, pa.list_(OUTFIT_ITEM)),
        (MODIFIED_OF, pa.string(), "nullable"),  # the outfit of which items were replaced; null for one that was worn
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
        (INDEX_VERSION, pa.string()),  # where they were found
    ),
    key=(PAIR_ID,),
)

# Every figure of every model that was measured by a protocol, one row each, never changed.
EVALUATIONS = Table(
    "evaluations",
    _schema(
        (EVALUATION_ID, pa.string()),  # digest of protocol, data, model, metric and group: the same figure stands here once
        (PROTOCOL, pa.string()),
        (SOURCE, pa.string()),  # the set, as table `pairs` or `questions` calls it
        (SPLIT, pa.string()),
        (DATA_DIGEST, pa.string()),  # of queries and gallery: rows with two digests do not compare
        (MODEL, pa.string()),  # its name or folder
        (MODEL_VERSION, pa.string()),  # of the encoder, or of the scorer on its vectors
        (METRIC, pa.string()),
        (K, pa.int32()),  # 0 where the metric has none
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

# What people said of search results: a row a word; the newest on a query and a product counts (table/judgements.py).
JUDGEMENTS = Table(
    "judgements",
    _schema(
        (KEY, pa.string()),  # digest of all that is said
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
        pa.field(SCORE, pa.float32()),  # the mean of its pairs'
        pa.field(ITEMS, pa.list_(pa.struct([(CATEGORY, pa.string()), (PRODUCT_ID, pa.string()), (IMAGE_ID, pa.string())]))),
        pa.field(PAIRS_LIST, pa.list_(pa.struct([(CATEGORY, pa.string()), (BESIDE, pa.string()), (SCORE, pa.float32())]))),
    ]
)

# What goes with each product: a history, as of products. The newest row of a product counts, where it is active.
RECOMMENDATIONS = Table(
    "recommendations",
    _schema(
        (PRODUCT_ID, pa.string()),
        (OUTFITS_LIST, pa.list_(RECOMMENDED)),  # best first; none where nothing goes with it
        (REASON, pa.string(), "nullable"),  # why there is none
        (ACTIVE, pa.bool_()),  # false: the product is no longer sold
        (ROW_DIGEST, pa.string()),  # of all that decides the outfits: a row with another one is stale
        (STAGE_VERSION, pa.string()),  # of scorer and options
        (RUN_ID, pa.string()),
        (FETCHED_AT, TIME),  # when it was computed
    ),
    key=(PRODUCT_ID, FETCHED_AT),
)

REJECTS = Table(
    "rejects",
    _schema(
        (KEY, pa.string()),
        (STAGE, pa.string()),
        (STAGE_VERSION, pa.string()),
        (REJECT_CODE, pa.string()),
        (REJECT_DETAIL, pa.string()),
        (SOURCE, pa.string(), "nullable"),  # the file, URL or line that a person can look at
        (REJECTED_AT, TIME),
        (RUN_ID, pa.string()),
    ),
    key=(KEY, STAGE, STAGE_VERSION),
    partition_by=(STAGE,),
)

POSTS = Table(
    "posts",
    _schema(
        (POST_ID, pa.string()),
        (URL, pa.string(), "nullable"),
        (IMAGE_ID, pa.string()),
        (IMAGE_URI, pa.string()),
        (PRODUCT_IDS, pa.list_(pa.string())),  # worn in the picture, as far as they are known
        (PRODUCT_URLS, pa.list_(pa.string())),  # what the post links to, known or not
        (STYLE, pa.string(), "nullable"),  # as the post is labelled: casual, street, minimal
        (ACTIVE, pa.bool_()),
        (ROW_DIGEST, pa.string()),
        (FETCHED_AT, TIME),
    ),
    key=(POST_ID, FETCHED_AT),
)

# What a crawl knows of: one row a URL, written when it is first heard of, and never changed.
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
        (STATE, pa.string()),  # queued, or excluded by the limits; what became of a queued one stands in its newest page row
        (REASON, pa.string()),
        (DETAIL, pa.string(), "nullable"),
        (FOUND_AT, TIME),
    ),
    key=(URL_ID, SITE),
    partition_by=(SITE,),
)

LINK = pa.struct([pa.field(URL, pa.string()), pa.field(KIND, pa.string())])

# What came of asking: one row a URL and visit, committed whole, so that a visit is finished exactly when its row is there.
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
        (STATUS, pa.int32(), "nullable"),  # of HTTP; null where no answer came
        (ATTEMPTS, pa.int32()),  # requests of this visit
        (FAILURES, pa.int32()),  # visits that failed, in a row
        (UNCHANGED, pa.int32()),  # visits that brought nothing new, in a row
        (NOT_BEFORE, TIME, "nullable"),  # what the host asked for
        (ETAG, pa.string(), "nullable"),
        (LAST_MODIFIED, pa.string(), "nullable"),
        (CONTENT_DIGEST, pa.string(), "nullable"),
        (IMAGE_ID, pa.string(), "nullable"),  # of a new image
        (LINKS, pa.list_(LINK)),
        (RECORDS, pa.list_(pa.string())),  # JSON: products and posts on a new page
        (CONTENT, pa.binary(), "nullable"),  # the page itself, zlib, where it is kept
        (READ_BY, pa.string()),  # version of the profile
        (RUN_ID, pa.string()),
        (FETCHED_AT, TIME),
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
        POSTS,
        IMAGES,
        GARMENTS,
        LOOKS,
        CUTOUTS,
        DETECTIONS,
        CLASSIFICATIONS,
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
        FRONTIER,
        PAGES,
        REJECTS,
    )
}
