"""Erasing, step by step: what is sought is written down first, so that a run that is killed anywhere is finished by the next.

The order: the plan, the block list (from here on nothing comes back), exports, indexes, tables with their old files and logs,
other files; then every file of the store is searched, and the plan goes.
"""

import json
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import schema, storage
from w2w.crawl.frontier import url_id
from w2w.erase import flow_exports
from w2w.erase.rules import COLUMNS, Kind, Marks, json_without, named_in, rewritten
from w2w.erase.scan import Sought, in_file, piece, vector_pieces
from w2w.errors import JobFailed
from w2w.table import delta, erased, purge
from w2w.table.pending import holding

_DIGEST_CHARS = 32  # of a picture's id, as table `pages` has it
_ROWS = 4096
_PLAN = "plan.json"
# what is made of the tables, by the folder that goes whole: (first folder, folders below it)
_PAGES, _SITE = ("reports", 2), ("gallery", 0)
_WHOLE = (_PAGES, _SITE, ("_work", 1), ("_feeds", 1))


@dataclass(frozen=True)
class Plan:
    """What is sought, and what was asked for. ``shared``: pictures that others have too, and that stay; ``there``: whether the
    store had any of it, so that pages with pictures may show it."""

    sought: Sought
    pictures: frozenset[str] = frozenset()
    shared: int = 0
    there: bool = False

    def to_json(self) -> bytes:
        marks = self.sought.marks
        plain = {name: sorted(value) for name, value in vars(marks).items() if isinstance(value, frozenset)}
        plain |= {name: sorted(p.hex() for p in getattr(self.sought, name)) for name in ("pictures", "vectors")}
        told = {"salt": marks.salt, "asked": sorted(self.pictures), "shared": self.shared, "there": self.there}
        return json.dumps(plain | told).encode()

    @staticmethod
    def from_json(data: bytes) -> "Plan":
        plain = json.loads(data)
        names = ("products", "posts", "keys", "places", "cards", "unlisted")
        marks = Marks(**{name: frozenset(plain[name]) for name in names}, salt=plain["salt"])
        pictures, vectors = (frozenset(bytes.fromhex(p) for p in plain[name]) for name in ("pictures", "vectors"))
        return Plan(Sought(marks, pictures, vectors), frozenset(plain["asked"]), plain["shared"], plain["there"])

    def also(self, other: "Plan") -> "Plan":
        """Both: what an earlier run left, and what is asked for now."""
        mine, theirs = vars(self.sought.marks), vars(other.sought.marks)
        sets = {name: value | theirs[name] for name, value in mine.items() if isinstance(value, frozenset)}
        one, two = self.sought, other.sought
        sought = Sought(Marks(**sets, salt=self.sought.marks.salt), one.pictures | two.pictures, one.vectors | two.vectors)
        return Plan(sought, self.pictures | other.pictures, self.shared + other.shared, self.there or other.there)


def _plan_uri(store: str) -> str:
    return storage.join(store, erased.FOLDER, _PLAN)


def left_plan(store: str) -> Plan | None:
    """What an earlier run was to erase and did not finish."""
    try:
        return Plan.from_json(storage.read_bytes(_plan_uri(store)))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as e:
        raise JobFailed(f"{_plan_uri(store)} is damaged: delete it, and erase again what it was to erase") from e


def write_plan(store: str, plan: Plan) -> None:
    storage.write_bytes(_plan_uri(store), plan.to_json())


def forget_plan(store: str) -> None:
    storage.delete(_plan_uri(store))


def tables_of(store: str) -> list[schema.Table]:
    """Every table that is there, those of stages from outside too."""
    known = [t for t in schema.TABLES.values() if delta.open_table(store, t) is not None]
    return known + list(delta.own_tables(store).values())


def _read(store: str, table: schema.Table, columns: Sequence[str]) -> Iterator[pa.Table]:
    yield from delta.read_batches(store, table, columns, delta.parts(delta.open_table(store, table)), _ROWS)


# what belongs to it


def not_there(store: str, products: set[str], posts: set[str], images: set[str]) -> tuple[str, ...]:
    """Those that no row of the store has, as 'product ID'."""
    told = []
    for kind, table, keys in (
        ("product", schema.PRODUCTS, products),
        ("post", schema.POSTS, posts),
        ("image", schema.IMAGES, images),
    ):
        there, _ = holding(store, table, pa.array(sorted(keys), pa.string()))
        told += [f"{kind} {key}" for key in sorted(keys - set(there.to_pylist()))]
    return tuple(told)


def plan_of(store: str, products: set[str], posts: set[str], pictures: set[str]) -> Plan:
    """Finds all that belongs to products, posts and pictures. A post is its picture: it goes with it. A picture that another
    product or post has too stays, unless it is asked for itself."""
    owned, others = set[str](), set[str]()
    mine, theirs = set[str](), set[str]()
    posts = posts | {
        row[schema.POST_ID]
        for rows in _read(store, schema.POSTS, [schema.POST_ID, schema.IMAGE_ID])
        for row in rows.to_pylist()
        if row[schema.IMAGE_ID] in pictures
    }
    told = (
        (schema.PRODUCTS, products, (schema.URL, schema.IMAGE_URI, schema.IMAGE_LIST)),
        (schema.POSTS, posts, (schema.URL, schema.IMAGE_URI)),
    )
    for table, wanted, columns in told:
        for rows in _read(store, table, [table.key[0], schema.IMAGE_ID, *columns]):
            for row in rows.to_pylist():
                is_ours = row[table.key[0]] in wanted
                listed = [(row[schema.IMAGE_ID], row[schema.IMAGE_URI])]
                listed += [(one[schema.IMAGE_ID], one[schema.URI]) for one in row.get(schema.IMAGE_LIST) or []]
                (owned if is_ours else others).update(image for image, _ in listed if image)
                for image, uri in listed:
                    (mine if is_ours or image in pictures else theirs).add(uri)
                (mine if is_ours else theirs).add(row[schema.URL])
    gone = pictures | (owned - others)
    places = frozenset(filter(None, mine - theirs))
    known = Marks(frozenset(products), frozenset(posts), frozenset(gone), places, salt=secrets.token_hex(8))
    return _with_what_was_made(store, known, pictures, len(owned & others - pictures))


def _with_what_was_made(store: str, known: Marks, asked: set[str], shared: int) -> Plan:
    """Adds what was made of the pictures, and pieces of their bytes and vectors."""
    keys = set(known.keys) | {key[:_DIGEST_CHARS] for key in known.keys} | {url_id(place) for place in known.places}
    blobs, vectors, cards, unlisted = set[bytes](), set[bytes](), set[str](), set[str]()

    def add(table: schema.Table, key: str | None = None, column: str | None = None) -> None:
        columns = [f.name for f in table.schema if COLUMNS.get(f.name) != Kind.DATA]
        for rows in _read(store, table, [*columns, *([column] if column else [])]):
            marks = Marks(known.products, known.posts, frozenset(keys), known.places)
            found = rows.filter(pa.array(named_in(table.name, rows, marks)))
            if key:
                keys.update(found.column(key).to_pylist())
            for value in found.column(column).to_pylist() if column else ():
                blobs.update(filter(None, [piece(value)] if value else []))

    add(schema.IMAGES, None, schema.BYTES)
    for table, key in (
        (schema.GARMENTS, schema.GARMENT_ID),
        (schema.PAIRS, schema.PAIR_ID),
        (schema.OUTFITS, schema.OUTFIT_ID),
    ):
        add(table, key, schema.CROP if table is schema.GARMENTS else None)
    for table, column in ((schema.LOOKS, schema.CROP), (schema.CUTOUTS, schema.BYTES), (schema.DETECTIONS, schema.BYTES)):
        add(table, None, column)
    marks = Marks(known.products, known.posts, frozenset(keys), known.places)
    for rows in _read(store, schema.EMBEDDINGS, [schema.OWNER_ID, schema.VECTOR]):
        for row in rows.filter(pa.array(named_in("embeddings", rows.select([schema.OWNER_ID]), marks))).to_pylist():
            vectors |= vector_pieces(np.asarray(row[schema.VECTOR], np.float32))
    columns = [schema.PRODUCT_ID, schema.IMAGE_ID, schema.CARD]
    for rows in _read(store, schema.SIMILAR_PRODUCTS, columns):
        named = rows.filter(pa.array(named_in("similar", rows, marks)))
        cards.update(named.column(schema.CARD).to_pylist())
        unlisted.update(named.column(schema.PRODUCT_ID).to_pylist())
    whole = replace(marks, cards=frozenset(cards), unlisted=frozenset(unlisted), salt=known.salt)
    there = bool(blobs or vectors) or _any_row(store, whole)
    return Plan(Sought(whole, frozenset(blobs), frozenset(vectors)), frozenset(asked), shared, there)


def _any_row(store: str, marks: Marks) -> bool:
    for table in (schema.PRODUCTS, schema.POSTS):
        columns = [table.key[0], schema.IMAGE_ID]
        if any(named_in(table.name, rows, marks).any() for rows in _read(store, table, columns)):
            return True
    return False


def block(store: str, plan: Plan) -> None:
    """From here on no job takes them in again. Addresses too: a crawl would come by them."""
    marks = plan.sought.marks
    pictures = {key for key in marks.keys if len(key) == 64} - {url_id(place) for place in marks.places}
    asked = {schema.PRODUCT_ID: marks.products, schema.POST_ID: marks.posts, schema.IMAGE_ID: plan.pictures}
    erased.add(store, asked, {schema.IMAGE_ID: pictures, schema.URL: marks.places})


# tables


@dataclass
class Rows:
    """Of one table: rows that went, and rows that stay without something."""

    gone: int = 0
    changed: int = 0
    old_files: int = 0


def count(store: str, table: schema.Table, marks: Marks) -> Rows:
    """What ``erase_rows`` would do."""
    told = Rows()
    for rows in _read(store, table, _sought_columns(table)):
        _, found, gone = rewritten(table, rows, marks)
        told.gone, told.changed = told.gone + gone, told.changed + int(found.sum()) - gone
    return told


def _sought_columns(table: schema.Table) -> list[str]:
    return [f.name for f in table.schema if COLUMNS.get(f.name) != Kind.DATA or pa.types.is_string(f.type)]


def erase_rows(store: str, table: schema.Table, sought: Sought) -> Rows:
    """Takes the rows out of the newest version, then old files that have them, then what the log says of those."""
    marks = sought.marks
    told = count(store, table, marks)

    def change(rows: pa.Table) -> pa.Table | None:
        now, found, _ = rewritten(table, rows, marks)
        if not found.any():
            return None
        return rows.slice(0, 0) if table.name == schema.OFFERED.name else now  # all rows are compared anew

    if told.gone or told.changed:
        purge.rewrite(store, table, _sought_columns(table), change)
    told.old_files = erase_old_files(store, table, sought)
    return told


def erase_old_files(store: str, table: schema.Table, sought: Sought) -> int:
    """Files of older versions and of killed runs that have it, and the log; returns how many files went."""
    old = [uri for uri in purge.old_files(store, table) if in_file(uri, sought)]
    for uri in old:
        storage.delete(uri)
    purge.forget(store, table, lambda line: _clean(line, sought.marks))
    return len(old)


def _clean(line: str, marks: Marks) -> str:
    return json_without(line, marks) if marks.in_any(line) else line


# files


def stray_files(store: str, plan: Plan) -> dict[str, set[str]]:
    """Folders and files besides tables, indexes and exports that go, by their first folder. Pictures on pages are drawn anew,
    and cannot be told from others: where the store had anything of it, every page with pictures goes."""
    found: dict[str, set[str]] = {}
    for uri, parts in _others(store):
        in_page = plan.there and parts[0] in (_PAGES[0], _SITE[0]) and _has_pictures(uri)
        if in_page or in_file(uri, plan.sought):
            depth = next((deep for name, deep in _WHOLE if name == parts[0]), len(parts) - 1)
            whole = parts[: min(depth, len(parts) - 1) + 1]
            found.setdefault(parts[0], set()).add(storage.join(store, *whole))
    return found


def _has_pictures(uri: str) -> bool:
    if not uri.endswith((".html", ".js")):
        return uri.endswith((".jpg", ".png", ".webp"))
    return b"data:image/" in storage.read_bytes(uri)


def _others(store: str) -> Iterator[tuple[str, list[str]]]:
    tables = {t.name for t in tables_of(store)}
    root = storage.filesystem(store)[1]
    for info in storage.list_files(store):
        parts = info.path.removeprefix(root).strip("/").split("/")
        if parts[0] not in tables | {"index", "exports", "_export", erased.FOLDER, "leases"}:
            yield storage.join(store, *parts), parts


def models(store: str, marks: Marks) -> dict[str, str]:
    """Folders of models in the store -> whether they were trained on it, as far as that is known: the card of an encoder names
    the version of table `pairs` that it was trained on."""
    told = {}
    root = storage.filesystem(store)[1]
    for info in storage.list_files(store):
        if info.base_name in ("config.json", "classifier.json", "tagger.json") and "/_work/" not in info.path:
            folder = info.path.removeprefix(root).strip("/").rpartition("/")[0]
            told[folder] = _trained_on(store, folder, marks)
    return told


def _trained_on(store: str, folder: str, marks: Marks) -> str:
    unknown = "not known: nothing says of which rows it was trained"
    try:
        card = storage.read_bytes(storage.join(store, folder, "README.md")).decode("utf-8", "replace")
    except FileNotFoundError:
        return unknown
    version = next((line.rpartition(":")[2].strip() for line in card.splitlines() if line.startswith("- table version")), "")
    if not version.replace(",", "").isdigit():
        return unknown
    try:
        opened = delta.open_table(store, schema.PAIRS, int(version.replace(",", "")))
        columns = _sought_columns(schema.PAIRS)
        for rows in delta.read_batches(store, schema.PAIRS, columns, delta.parts(opened)):
            named = rows.filter(pa.array(named_in("pairs", rows, marks)))
            if pc.any(pc.equal(named.column(schema.SPLIT), "train")).as_py():
                return "yes: pairs of it were in training"
    except Exception:  # vacuumed, or never there; the exception depends on the version of deltalake
        return f"not known: version {version} of table pairs is gone"
    return "no: no pair of it was in training"


# the search


@dataclass
class Searched:
    """Files of the store that were read, and what was found: (file, what)."""

    files: int = 0
    found: list[tuple[str, str]] = field(default_factory=list)
    waiting: dict[str, int] = field(default_factory=dict)  # exports that have deletions to send


def search(store: str, sought: Sought) -> Searched:
    """Every file of the store; what exports have to delete yet is told apart."""
    done = Searched(waiting=flow_exports.with_something(store, sought.marks.products))
    root = storage.filesystem(store)[1]
    own = {storage.join(erased.FOLDER, _PLAN)}
    waits = {f"{schema.EXPORTED.name}/{part.path}" for part in delta.parts(delta.open_table(store, schema.EXPORTED))}
    for info in storage.list_files(store):
        name = info.path.removeprefix(root).strip("/")
        if name in own or (done.waiting and name in waits):
            continue
        done.files += 1
        if what := in_file(storage.join(store, name), sought):
            done.found.append((name, what))
    return done


def receipt(store: str, run_id: str, plan: Plan, told: dict) -> str:
    """Writes what was done, with hashes in place of ids (``w2w.table.erased``); returns its place."""
    now = erased.read(store)
    marks = plan.sought.marks
    kinds = ((schema.PRODUCT_ID, marks.products), (schema.POST_ID, marks.posts), (schema.IMAGE_ID, plan.pictures))
    hashes = {erased.KINDS[column]: sorted(now.hashed(column, key) for key in some) for column, some in kinds}
    where = storage.join(store, erased.FOLDER, f"{run_id}.json")
    plain = {"run_id": run_id, "sha256 of salt/kind/key": hashes} | told
    storage.write_bytes(where, json.dumps(plain, indent=1).encode())
    return where


def readmit(store: str, keys: dict[str, set[str]]) -> int:
    """Takes keys off the block list, and rejects that say so, so that the next night tries again; returns how many are left."""
    after = erased.allow(store, keys)

    def change(rows: pa.Table) -> pa.Table | None:
        mask = pc.equal(rows.column(schema.REJECT_CODE), "erased")
        return rows.filter(pc.invert(mask)) if pc.any(mask).as_py() else None

    purge.rewrite(store, schema.REJECTS, [schema.REJECT_CODE], change)
    return sum(map(len, after.asked.values()))
