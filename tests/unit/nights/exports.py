"""One catalog as six shop systems export it: 120 products with two to four pictures and, of every third, variants."""

import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

SIZES = ("S", "M", "L")
_STOCK = ("in stock", "out of stock", "preorder")


@dataclass(frozen=True)
class Piece:
    """A product, as the catalog has it."""

    id: str
    title: str
    gender: str
    path: str  # of its category
    colour: str
    price: str
    sale: str
    pictures: tuple[str, ...]
    sizes: tuple[str, ...]
    stock: str

    @property
    def brand(self) -> str:
        return self.title.split()[0]

    @property
    def url(self) -> str:
        return f"https://shop.example/p/{self.id}?a=1&b=2"


def pieces(catalog: Path, num: int = 120) -> list[Piece]:
    """The first products of the catalog; the pictures beside a product's own are those of the next ones."""
    with (catalog / "products.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for _, row in zip(range(num), csv.DictReader(file))]
    made = []
    for n, row in enumerate(rows):
        pictures = tuple(rows[(n + i) % num]["image"] for i in range(2 + n % 3))
        price, sale = f"{20 + n}.50", f"{10 + n}.25" if n % 4 == 0 else ""
        path = " > ".join(row[c] for c in ("category", "sub_category", "product_type"))
        sizes = SIZES if n % 3 == 0 else SIZES[:1]
        said = (row["product_id"], row["title"], row["gender"], path, row["colour"], price, sale)
        made.append(Piece(*said, pictures, sizes, _STOCK[n % 2]))
    return made


def _table(rows: list[list[str]], delimiter: str = ",") -> str:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows(rows)
    return text.getvalue()


def shopify(catalog: list[Piece]) -> bytes:
    """A row for each variant or picture, whichever are more; only the first has a title."""
    header = ["Handle", "Title", "Body (HTML)", "Vendor", "Type", "Published", "Option1 Name", "Option1 Value", "Option2 Name"]
    header += [
        "Option2 Value",
        "Variant Inventory Qty",
        "Variant Inventory Policy",
        "Variant Price",
        "Variant Compare At Price",
    ]
    header += ["Image Src", "Image Position", "Google Shopping / Gender", "Status"]
    rows = [header]
    for p in catalog:
        for n in range(max(len(p.sizes), len(p.pictures))):
            first, size = n == 0, p.sizes[n] if n < len(p.sizes) else ""
            about = [p.title, "<p>x</p>", p.brand, p.path, "true"] if first else [""] * 5
            options = ["Size" if first else "", size, "Color" if first else "", p.colour if size else ""]
            stock = ["5" if p.stock == "in stock" else "0", "deny", p.sale or p.price, p.price if p.sale else ""]
            picture = [p.pictures[n], str(n + 1)] if n < len(p.pictures) else ["", ""]
            end = [p.gender, "active"] if first else ["", ""]
            rows.append([p.id, *about, *options, *(stock if size else [""] * 4), *picture, *end])
    return _table(rows).encode()


def google_xml(catalog: list[Piece]) -> bytes:
    """An item for each size of a product."""
    items = []
    for p in catalog:
        for size in p.sizes:
            said = {"id": f"{p.id}-{size}", "title": p.title, "link": p.url, "brand": p.brand, "product_type": p.path}
            said |= {"price": f"{p.price} EUR", "availability": p.stock, "gender": p.gender, "color": p.colour, "size": size}
            said |= {"item_group_id": p.id, "image_link": p.pictures[0]} | ({"sale_price": f"{p.sale} EUR"} if p.sale else {})
            texts = [*said.items(), *(("additional_image_link", one) for one in p.pictures[1:])]
            items.append("<item>" + "".join(f"<g:{name}>{escape(text)}</g:{name}>" for name, text in texts) + "</item>")
    head = '<?xml version="1.0"?><rss version="2.0" xmlns:g="http://base.google.com/ns/1.0"><channel><title>Shop</title>'
    return (head + "\n".join(items) + "</channel></rss>").encode()


def google_tsv(catalog: list[Piece]) -> bytes:
    rows = [["id", "title", "link", "brand", "product type", "price", "sale price", "availability", "gender", "color", "size"]]
    rows[0] += ["item group id", "image link", "additional image link"]
    for p in catalog:
        for size in p.sizes:
            money = [f"{p.price} EUR", f"{p.sale} EUR" if p.sale else "", p.stock, p.gender, p.colour, size]
            pictures = [p.id, p.pictures[0], ",".join(p.pictures[1:])]
            rows.append([f"{p.id}-{size}", p.title, p.url, p.brand, p.path, *money, *pictures])
    return _table(rows, "\t").encode()


def woocommerce(catalog: list[Piece]) -> bytes:
    """A row for each product, below it one for each of its variations."""
    header = [
        "ID",
        "Type",
        "SKU",
        "Name",
        "Published",
        "In stock?",
        "Sale price",
        "Regular price",
        "Categories",
        "Images",
        "Brands",
    ]
    header += ["Attribute 1 name", "Attribute 1 value(s)", "Attribute 2 name", "Attribute 2 value(s)", "Parent"]
    rows = [header]
    for p in catalog:
        kind, stock = "variable" if len(p.sizes) > 1 else "simple", "1" if p.stock == "in stock" else "0"
        about = [p.id, kind, f"sku{p.id}", p.title, "1", stock, p.sale, p.price, p.path, ", ".join(p.pictures), p.brand]
        rows.append([*about, "Size", ", ".join(p.sizes), "Color", p.colour, ""])
        for n, size in enumerate(p.sizes if len(p.sizes) > 1 else ()):
            variation = [
                f"{p.id}{n}",
                "variation",
                f"sku{p.id}{n}",
                p.title,
                "1",
                stock,
                p.sale,
                p.price,
                "",
                p.pictures[0],
                "",
            ]
            rows.append([*variation, "Size", size, "Color", p.colour, f"id:{p.id}"])
    return _table(rows).encode()


def german(catalog: list[Piece]) -> bytes:
    """cp1252, semicolons, decimal commas: as a spreadsheet saves it."""
    rows = [["SKU", "Product Name", "Brand", "Price", "Sale Price", "Category", "Product Link", "Availability", "Gender"]]
    rows[0] += ["Colour", "Size", "Group ID", "Image URL", "Additional Images"]
    for p in catalog:
        for size in p.sizes:
            prices = [text.replace(".", ",") + " €" if text else "" for text in (p.price, p.sale)]
            about = [p.path, p.url, p.stock, p.gender, p.colour, size, p.id, p.pictures[0], "|".join(p.pictures[1:])]
            rows.append([f"{p.id}-{size}", f"{p.title} für Größe {size}", p.brand, *prices, *about])
    return _table(rows, ";").encode("cp1252", "ignore")


def nested(catalog: list[Piece]) -> bytes:
    def record(p: Piece) -> dict:
        money = {"amount": float(p.price), "currency": "EUR"}
        about = {"sku": p.id, "name": p.title, "brand": {"name": p.brand}, "price": money, "category": {"name": p.path}}
        about |= {"salePrice": float(p.sale)} if p.sale else {}
        about |= {"url": p.url, "inStock": p.stock == "in stock", "gender": p.gender, "color": p.colour, "sizes": list(p.sizes)}
        return about | {"images": [{"src": one, "alt": "x"} for one in p.pictures]}

    return "\n".join(json.dumps(record(p), ensure_ascii=False) for p in catalog).encode()


# name of the file -> (its text, whether each size is a product of its own, options)
EXPORTS: dict[str, tuple[Callable[[list[Piece]], bytes], bool, dict]] = {
    "products_export.csv": (shopify, False, {"currency": "EUR"}),
    "google.xml": (google_xml, True, {}),
    "google.tsv": (google_tsv, True, {}),
    "wc-products.csv": (woocommerce, False, {"currency": "EUR"}),
    "artikel.csv": (german, True, {}),
    "products.jsonl": (nested, False, {}),
}
