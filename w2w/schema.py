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
# images
BYTES, WIDTH, HEIGHT, FORMAT, PHASH, SOURCE_URI = "bytes", "width", "height", "format", "phash", "source_uri"
# rejects; the first two also mark a row on its way through a stage
REJECT_CODE, REJECT_DETAIL = "code", "detail"
KEY, STAGE, STAGE_VERSION, SOURCE, REJECTED_AT, RUN_ID = "key", "stage", "stage_version", "source", "rejected_at", "run_id"
# neighbours
QUERY_ID, RANK, SCORE, NEIGHBOUR_LIST = "query_id", "rank", "score", "neighbours"
INDEX_VERSION, SEARCH_VERSION = "index_version", "search_version"


@dataclass(frozen=True)
class Table:
    """A table's name, columns, key (unique among current rows) and Delta partition columns."""

    name: str
    schema: pa.Schema
    key: tuple[str, ...]
    partition_by: tuple[str, ...] = ()


def _schema(*fields: tuple[str, pa.DataType] | tuple[str, pa.DataType, bool]) -> pa.Schema:
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
        (IMAGE_FINGERPRINT, pa.string()),  # size and mtime or ETag of the source; "" where it has none
        (ACTIVE, pa.bool_()),
        (ROW_DIGEST, pa.string()),  # of everything the feed said: equal digest = unchanged product
        (FETCHED_AT, TIME),
    ),
    key=(PRODUCT_ID, FETCHED_AT),
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
        (SOURCE_URI, pa.string()),
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

TABLES = {t.name: t for t in (PRODUCTS, IMAGES, EMBEDDINGS, NEIGHBOURS, REJECTS)}
