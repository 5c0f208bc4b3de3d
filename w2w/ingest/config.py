"""What is said of a product feed."""

from dataclasses import dataclass, field

from w2w.web.permission import UseConfig


@dataclass(frozen=True)
class FeedConfig:
    """One product source."""

    id: str = "main"
    """Name of this source: a product belongs to the feed that brought it."""
    uri: str = ""
    """A CSV, JSON, JSON lines, XML (.gz and .zst too) or Parquet file, a folder of Parquet files, images or
    tars, or shards x-{000..009}.tar; for `w2w ingest`, `nightly` and `init` also https://: fetched when it has changed."""
    headers_env: dict[str, str] = field(default_factory=dict)
    """Of a feed on the web: header -> the environment variable that has its value, such as {Authorization: SHOP_TOKEN}. Only
    the host of feed.uri gets them, over https."""
    auth_env: str = ""
    """Of a feed on the web: the environment variable that has USER:PASSWORD."""
    max_mb: int = 500
    """Of a feed on the web: the most megabytes to fetch."""
    deadline_s: float = 900.0
    """Of a feed on the web: seconds to fetch it."""
    kind: str = "auto"
    """csv, jsonl, xml, parquet, images, tar, auto (by the suffix, or by what the folder holds), or module:attribute, a reader
    of your own."""
    preset: str = ""
    """What the feed was exported by: shopify, shopify_json, google, woocommerce, magento, bigcommerce or plain; "": told from
    its columns."""
    columns: dict[str, list[str] | str] = field(default_factory=dict)
    """Our column (product_id, title, brand, price, category, image, images, colour ...) -> theirs, or a path: images[].src. Of
    several, [image1, image2], the first that has a value counts; of pictures all do."""
    attributes: list[str] | None = None
    """Columns of the feed to keep as attributes; null keeps all that are not mapped, [] none."""
    category_map: dict[str, str] = field(default_factory=dict)
    """Their category (case ignored) -> ours; of a path (Apparel > Topwear > Tshirts) its longest beginning that is named here
    counts. Empty: categories are kept, lower-cased."""
    category_default: str = "etc"
    """Category of products that have none, or one that category_map lacks."""
    image_root: str = ""
    """Folder, prefix on s3://, gs:// or az://, or URL that image values are relative to; "": the feed's own folder."""
    max_pictures: int = 10
    """Most pictures of a product, the front one included; what a feed lists beyond is left out and counted."""
    currency: str = ""
    """ISO code of the currency of prices that say none, such as EUR."""
    decimal: str = ""
    """Decimal sign of prices, "." or ","; "": told by each price (1,299.99) or, of 1,299, by the others of the column."""
    csv_delimiter: str = ""
    r"""Column separator of a CSV: one character, or \t; "": the commonest of , ; | and tab in its first line."""
    encoding: str = ""
    """Encoding of CSV and JSON: any Python codec; "": UTF-8 or UTF-16, and cp1252 where the first megabyte is neither."""
    where: dict[str, list[str]] = field(default_factory=dict)
    """Only rows whose column (theirs, mapped or kept as attribute) has one of these values, for example {view: [main]}."""
    full: bool = False
    """The feed lists the whole catalog: this feed's products that it no longer lists are withdrawn."""
    grace_nights: int = 2
    """With full: nights in a row that a product has to be missing before it is withdrawn. Runs within 12 hours count as one
    night."""
    changes: bool = False
    """The feed lists what has changed: a product that it lacks stays, and so do columns that it lacks and the pictures of a row
    that names none. Of several rows of a product the last counts.
    feed.uri is a file, or a folder whose files are applied in the order of their names, each once; one called NAME.deleted
    lists the ids of products that are gone. Not with full."""
    deleted: str = ""
    """Column (theirs, or a path) that says which products are gone: true, 1, yes or deleted. Such a row needs no more than an
    id. Out of stock is not gone."""
    deletions: str = ""
    """A file of product ids, one a line, that are gone; it outweighs the feed."""
    use: UseConfig = UseConfig()
    """What its pictures may be used for, as table `permissions` records. {search: allowed, training: allowed} says that they
    are your own, whatever their host says (noindex, ai-train=no)."""
    max_unread_rate: float = 0.1
    """Refuse a feed of which a larger share of the products has lost a field (title, brand, price, currency, link,
    availability) because it cannot be read: most likely it is written in another way now. 1: never. Not for fewer rows than
    min_rejects."""
    max_unreadable: int = 0
    """With full: nothing is withdrawn while more rows than this have no readable product_id."""

    @property
    def named(self) -> dict[str, str]:
        """``columns``, of several the first."""
        return {ours: theirs if isinstance(theirs, str) else theirs[0] for ours, theirs in self.columns.items()}

    @property
    def several(self) -> dict[str, list[str]]:
        """Those of ``columns`` for which there are several."""
        return {ours: theirs for ours, theirs in self.columns.items() if not isinstance(theirs, str) and len(theirs) > 1}
