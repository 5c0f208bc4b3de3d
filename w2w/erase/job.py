"""Erase: products, posts and pictures, with every trace of them in the store, so that they do not come back."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from w2w import schema, storage
from w2w.engine.job import new_run_id
from w2w.erase import flow, flow_exports, flow_index
from w2w.errors import JobFailed, UsageError
from w2w.results import Summary
from w2w.similar import base
from w2w.table import delta, erased, lease

log = logging.getLogger("w2w")


@dataclass(frozen=True)
class Config:
    """Erase products, posts and pictures: rows, pictures, vectors, indexes, pages, older versions of tables; exports delete
    them at their next run. Then every file of the store is searched for them. No job takes them in again, until --allow. Run
    it while no other job is at work. Without Ray."""

    SHOWN = "store product post image from_file allow search dry_run"
    PLACES = {"STORE": "store"}

    store: str
    """The store: a local path or an s3:// prefix."""
    product: list[str] = field(default_factory=list)
    """product_ids, with the pictures that no other product or post has."""
    post: list[str] = field(default_factory=list)
    """post_ids, likewise."""
    image: list[str] = field(default_factory=list)
    """image_ids, wherever they are. A post goes with its picture; a product without another one is no longer sold."""
    from_file: str = ""
    """A file with a line each: product ID, post ID or image ID."""
    allow: bool = False
    """Erase nothing: let these be taken in again."""
    search: bool = True
    """Search every file of the store afterwards."""
    dry_run: bool = False
    """Say what would go, without touching anything."""


@dataclass(frozen=True, kw_only=True)
class Result(Summary):
    """What went."""

    OF_ROWS = False

    rows_erased: dict[str, int] = field(default_factory=dict)
    """By table."""
    rows_changed: dict[str, int] = field(default_factory=dict)
    """Rows of others that named it: what names it is gone from them."""
    old_files: dict[str, int] = field(default_factory=dict)
    """Files of older versions of a table, and of killed runs, that had it."""
    indexes: dict[str, str] = field(default_factory=dict)
    pages_and_files: dict[str, int] = field(default_factory=dict)
    """Pages (of a run each), galleries and other files that went, by their folder in the store."""
    export_files: dict[str, int] = field(default_factory=dict)
    """By export: files that went; what else was in them is sent again."""
    pictures_that_stay: int | None = None
    """Pictures that other products or posts have too."""
    models: dict[str, str] = field(default_factory=dict)
    """Models in the store: whether they were trained on it. Of those elsewhere nothing is known."""
    waiting: dict[str, int] = field(default_factory=dict)
    """By export: products that its target has yet to delete."""
    searched: int | None = None
    """Files of the store that were read afterwards."""
    found: tuple[str, ...] = ()
    """Files that still have something of it."""
    allowed: int | None = None
    still_blocked: int | None = None
    receipt: str | None = None
    not_there: tuple[str, ...] = ()
    """Asked for, and in no row of its table now: misspelt, or erased before. It is kept out all the same."""
    then: str | None = None


def main(config: Config) -> Result:
    store, run_id = storage.absolute(config.store), new_run_id("erase")
    if not config.store:
        raise UsageError("--store is empty: give a local path or an s3:// prefix")
    wanted = _wanted(config)
    if delta.open_table(store, schema.PRODUCTS) is None and delta.open_table(store, schema.POSTS) is None:
        raise UsageError(f"there are no products and posts at {store!r}: check --store")
    result, start = Result(job="erase", run_id=run_id, dry_run=config.dry_run), time.monotonic()
    if config.allow:
        return _allow(store, wanted, result)
    left = flow.left_plan(store)
    if left is None and not any(wanted.values()):
        raise UsageError("--product, --post, --image or --from_file: say what to erase")
    result = replace(result, not_there=flow.not_there(store, *wanted.values()))
    if config.dry_run:
        plan = flow.plan_of(store, *wanted.values())
        return _dry(store, plan if left is None else left.also(plan), result)
    storage.check_writable(store, "--store")
    with lease.hold(store, run_id, log.warning):
        plan = flow.plan_of(store, *wanted.values())
        plan = plan if left is None else left.also(plan)
        return replace(_erase(store, plan, config, result), seconds=time.monotonic() - start)


def _wanted(config: Config) -> dict[str, set[str]]:
    found = {"product": set(config.product), "post": set(config.post), "image": set(config.image)}
    if config.from_file:
        try:
            text = storage.read_bytes(storage.source(config.from_file)).decode("utf-8-sig")
        except (OSError, UnicodeDecodeError) as e:
            raise UsageError(f"--from_file={config.from_file}: cannot be read: {e}") from e
        for number, line in enumerate(text.splitlines(), 1):
            kind, _, key = line.strip().partition(" ")
            if not line.strip():
                continue
            if kind not in found or not key.strip():
                raise UsageError(f"--from_file={config.from_file}, line {number}: write 'product ID', 'post ID' or 'image ID'")
            found[kind].add(key.strip())
    for kind, keys in found.items():
        if "" in keys:
            raise UsageError(f"--{kind}: an empty id")
    return found


def _allow(store: str, wanted: dict[str, set[str]], result: Result) -> Result:
    before = erased.read(store)
    keys = {schema.PRODUCT_ID: wanted["product"], schema.POST_ID: wanted["post"], schema.IMAGE_ID: wanted["image"]}
    known = sum(before.has(column, key) for column, some in keys.items() for key in some)
    if not result.dry_run:
        left = flow.readmit(store, keys)
    else:
        left = sum(map(len, before.asked.values())) - known
    return replace(result, allowed=known, still_blocked=left)


def _dry(store: str, plan: flow.Plan, result: Result) -> Result:
    marks = plan.sought.marks
    told = {t.name: flow.count(store, t, marks) for t in flow.tables_of(store) if t.name != schema.EXPORTED.name}
    waiting = flow_exports.with_something(store, marks.products)
    indexes = {n: str(found) for n in _indexes(store) if (found := flow_index.erase(store, n, plan.sought, dry_run=True))}
    exports = flow_exports.affected(store, plan.sought, waiting)
    return replace(
        result,
        rows_erased={name: rows.gone for name, rows in told.items() if rows.gone},
        rows_changed={name: rows.changed for name, rows in told.items() if rows.changed},
        indexes=indexes,
        pages_and_files={name: len(some) for name, some in flow.stray_files(store, plan).items()},
        export_files={name: len(files) for name, files in exports.items()},
        pictures_that_stay=plan.shared or None,
        models=flow.models(store, marks),
        waiting=waiting,
    )


def _indexes(store: str) -> Sequence[str]:
    return storage.list_folders(storage.join(store, "index"))


def _erase(store: str, plan: flow.Plan, config: Config, result: Result) -> Result:
    sought = plan.sought
    flow.write_plan(store, plan)
    flow.block(store, plan)
    models = flow.models(store, sought.marks)
    exports = flow_exports.erase(store, sought)
    indexes = {name: found for name in _indexes(store) if (found := flow_index.erase(store, name, sought))}
    told = {}
    for table in flow.tables_of(store):
        lease.check(store)
        if table.name == schema.EXPORTED.name:
            told[table.name] = flow.Rows(old_files=flow.erase_old_files(store, table, sought))
        else:
            told[table.name] = flow.erase_rows(store, table, sought)
    storage.delete(storage.join(store, base.FOLDER))  # hashes of ids; the next night reads the lists themselves
    stray = flow.stray_files(store, plan)
    for folder in sorted(one for some in stray.values() for one in some):
        storage.delete(folder)
    done = flow.search(store, sought) if config.search else None
    waiting = done.waiting if done else flow_exports.with_something(store, sought.marks.products)
    say = (
        "run the exports that wait and load their files, then run this again: it takes the ids out of what they remember, and "
        "the files that tell of the deletion"
    )
    result = replace(
        result,
        rows_erased={name: rows.gone for name, rows in told.items() if rows.gone},
        rows_changed={name: rows.changed for name, rows in told.items() if rows.changed},
        old_files={name: rows.old_files for name, rows in told.items() if rows.old_files},
        indexes={name: str(found) for name, found in indexes.items()},
        pages_and_files={name: len(some) for name, some in stray.items()},
        export_files=exports,
        pictures_that_stay=plan.shared or None,
        models=models,
        waiting=waiting,
        searched=done.files if done else None,
        found=tuple(f"{name}: {what}" for name, what in done.found) if done else (),
        then=say if waiting else None,
    )
    said = {n: v for n, v in vars(result).items() if n in _TOLD}
    result = replace(result, receipt=flow.receipt(store, result.run_id, plan, said))
    if result.found:
        failed = JobFailed(
            f"{len(result.found)} files still have something of it, such as {result.found[0]}: see {result.receipt}; run this "
            "again, and while no other job is at work"
        )
        failed.result = result
        raise failed
    flow.forget_plan(store)
    return result


_TOLD = {"rows_erased", "rows_changed", "old_files", "indexes", "pages_and_files", "export_files", "pictures_that_stay"}
_TOLD |= {"models", "waiting", "searched", "found"}
