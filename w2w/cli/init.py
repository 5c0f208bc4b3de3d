"""Init: write a commented config for a first night, with the columns of your feed."""

import os
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from w2w import schema, storage
from w2w.engine.job import console
from w2w.errors import UsageError
from w2w.garments.taxonomy import class_called
from w2w.ingest import download
from w2w.ingest.feed import FeedConfig, check_feed, column_names, columns_read, read_feed
from w2w.ingest.headings import pictures_in
from w2w.ingest.images import is_web
from w2w.ingest.loading import FeedFetchConfig
from w2w.ingest.presets import PRESETS, guess, may_be, told_by
from w2w.ingest.raw import COLUMNS, IMAGE, REQUIRED
from w2w.nightly import job as nightly
from w2w.usage import comment, options

_FILE = "night.yaml"
_OF_FEED = "uri headers_env auth_env preset columns category_map csv_delimiter encoding"
_OPTIONS = (
    "store feed.uri feed.headers_env feed.auth_env feed.preset feed.columns feed.category_map feed.full feed.use feed.encoding"
)
_OPTIONS += " fetch.contact fetch.allow_private_hosts encoder.name"
_OPTIONS += " index.target_recall index.memory_budget_mb looks recommend similar tag check export"
# shown if they differ from the default
_UNUSUAL = {"feed.preset", "feed.encoding", "feed.headers_env", "feed.auth_env", "fetch.contact", "fetch.allow_private_hosts"}


@dataclass(frozen=True)
class Config:
    """Write DIR/night.yaml, a commented config for a first night; `w2w nightly DIR/night.yaml` runs it."""

    PLACES = {"DIR": "dir"}

    dir: str
    """Local folder of the config; created if missing."""
    feed: str = ""
    """A product feed: its columns are read, and mapped where their names differ from ours. Default: DIR/products.csv, which
    you put there."""
    columns: dict[str, str] = field(default_factory=dict)
    """Our column -> theirs, where the name does not tell."""
    encoding: str = FeedConfig.encoding
    """Encoding of the CSV or JSON lines: any Python codec."""
    headers_env: dict[str, str] = field(default_factory=dict)
    """Of a feed on the web: header -> the environment variable that has its value."""
    auth_env: str = ""
    """Of a feed on the web: the environment variable that has USER:PASSWORD."""
    fetch: FeedFetchConfig = FeedFetchConfig()
    """How a feed on the web is fetched."""
    store: str = ""
    """Where tables and indexes will live: a local path or an s3:// prefix. Default: DIR/store."""


def main(config: Config) -> None:
    if storage.is_s3(config.dir) or not config.dir:
        raise UsageError(f"--dir={config.dir}: a local folder, for people to edit what is in it")
    folder = Path(_without_dots(storage.absolute(config.dir)))
    file = folder / _FILE
    if file.exists():
        raise UsageError(f"{file} already exists and is kept: name another folder, or remove it")
    uri = config.feed if is_web(config.feed) else _without_dots(storage.source(config.feed or str(folder / "products.csv")))
    feed = asked = FeedConfig(uri=uri, headers_env=config.headers_env, auth_env=config.auth_env)
    names: list[str] = []
    read: dict[str, list[str]] = {}
    if config.feed:
        if is_web(uri):
            download.check(feed, config.fetch)
        with download.at_hand(asked, config.fetch, keep=False, judge=column_names) as found:
            known = mapped(found.feed.uri, config.columns, config.encoding, found.feed.image_root)
            names, read = column_names(known), columns_read(known)
        feed = replace(known, uri=uri, image_root="", headers_env=asked.headers_env, auth_env=asked.auth_env)
    told = {f"feed.{name}": getattr(feed, name) for name in _OF_FEED.split()}
    told |= {f"fetch.{name}": getattr(config.fetch, name) for name in ("contact", "allow_private_hosts")}
    text = night(told | {"store": _without_dots(storage.absolute(config.store or str(folder / "store")))})
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8") as f:
            f.write(text)
    except OSError as e:
        raise UsageError(f"--dir={config.dir}: cannot write there: {e.strerror}") from e
    out = console()
    out.print(f"{file} is written.")
    if names:
        ours = {**{name: [name] for name in names if name in COLUMNS}, **read}
        said = {"No column for": [c for c in COLUMNS if c not in ours]}
        taken = {name for several in ours.values() for name in several}
        said["Kept as attributes"] = [name for name in names if name not in taken]
        for what, which in said.items():
            if which:
                out.print(f"{what}: {', '.join(which)}")
        if not feed.preset and schema.CATEGORY not in ours:
            out.print(
                "Without categories, find and recommend cannot tell a top from a shoe: if a column has them, name it in "
                f"{file} (feed.columns: {{category: YOURS}}), and what its values are (feed.category_map)."
            )
    if not config.feed:
        out.print(f"Put your feed at {feed.uri}, or name another one there: feed.uri.")
    if feed.category_map:
        out.print(f"Read from the feed: {', '.join(sorted(set(feed.category_map.values())))}. Look at feed.category_map.")
    out.print(f"Then: w2w nightly {shlex.quote(str(file))} --dry-run, and without --dry-run.")


def _without_dots(uri: str) -> str:
    """The absolute path without ".." in it; links are kept where they do not matter."""
    if storage.is_s3(uri):
        return uri
    short = os.path.normpath(uri)
    return short if os.path.realpath(short) == os.path.realpath(uri) else os.path.realpath(uri)


def mapped(uri: str, columns: Mapping[str, str], encoding: str, image_root: str = "") -> FeedConfig:
    """The feed with its columns mapped to ours. Raises UsageError as ``check_feed``, and if no column
    can be identified as the id or the image."""
    feed = FeedConfig(uri=uri, encoding=encoding, image_root=image_root)
    names = column_names(feed)
    preset = told_by(names)
    own = PRESETS[preset].first_of(names) if preset in PRESETS else {}
    if own and PRESETS[preset].guessed:
        own = guess(names, columns.values()) | own
    told = own or guess(names, columns.values())
    guessed: dict[str, list[str] | str] = {**told, **columns}
    if IMAGE not in guessed and not own and (pictures := pictures_in(names)):
        guessed |= {IMAGE: list(pictures)}
    for ours in REQUIRED if names else ():
        if ours not in guessed and not own:
            raise UsageError(f"feed.uri={uri}: which column is {ours}? Say --columns.{ours}=NAME; it has {', '.join(names)}")
    feed = replace(feed, preset=preset, columns=dict(columns)) if own else replace(feed, columns=_others(guessed))
    check_feed(feed)
    chosen = columns.get(schema.CATEGORY, own.get(schema.CATEGORY))
    return _with_classes(feed, [chosen] if chosen else [n for n in names if may_be(schema.CATEGORY, n)])


def _with_classes(feed: FeedConfig, candidates: Iterable[str]) -> FeedConfig:
    """The feed with the category column that names our classes most often in its first rows, and the mapping; unchanged if none
    does."""
    best, most = feed, 0
    for name in candidates:
        told = replace(feed, columns=_others({**feed.columns, schema.CATEGORY: name}), category_map={})
        counts = Counter(next(read_feed(told)).rows.column(schema.CATEGORY).to_pylist())
        classes = {value: found for value in sorted(counts) if (found := class_called(value))}
        if (rows := sum(counts[value] for value in classes)) > most:
            best, most = replace(told, category_map=classes), rows
    return best


def _others(columns: Mapping[str, list[str] | str]) -> dict[str, list[str] | str]:
    """The columns whose names differ from ours."""
    return {ours: theirs for ours, theirs in columns.items() if ours != theirs}


def night(told: Mapping[str, Any]) -> str:
    """The config as YAML: the options of a first night, as given or with their defaults."""
    known = {option.name: option for option in options(nightly.Config)}
    lines = ["# A night: w2w nightly FILE. w2w nightly --help all shows the options that are not here."]
    group = ""
    for name in _OPTIONS.split():
        option, value = known[name], told.get(name, known[name].default)
        if name in _UNUSUAL and value == option.default:
            continue
        parent = name.rpartition(".")[0]
        if parent != group:
            lines += ["", *comment(known[parent], ""), f"{parent}:"] if parent else []
            group = parent
        indent = "  " if parent else ""
        lines += [*([] if lines[-1].endswith(":") else [""]), *comment(option, indent)]
        lines.append(f"{indent}{name.rpartition('.')[2]}: {_yaml(asdict(value) if option.is_group else value)}")
    return "\n".join(lines) + "\n"


def _yaml(value: Any) -> str:
    return (
        yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True, sort_keys=False)
        .removesuffix("...\n")
        .strip()
    )
