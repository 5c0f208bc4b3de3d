"""What a feed tells of itself where its config does not: encoding, separator, and which of its columns is which of ours."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from w2w import schema, storage
from w2w.ingest import presets, readers, trees
from w2w.ingest.config import FeedConfig
from w2w.ingest.raw import IMAGE

UTF8 = "utf-8-sig"  # with or without a byte order mark
_SEPARATORS = ",;|\t"
_SAMPLE_BYTES = 1024 * 1024
_MAX_BAD_LINES = 0.01  # of the sample: if more, the encoding is wrong; if fewer, those lines are
_WIDE = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


@dataclass(frozen=True)
class Look:
    """A feed with nothing left open. With a preset every column is read, and ``attributes`` are those to keep of them."""

    config: FeedConfig
    names: Sequence[str]
    attributes: list[str] | None
    preset: presets.Preset | None = None

    def told(self, asked: FeedConfig) -> str | None:
        """What was found beyond what was asked for."""
        name = next((name for name, known in presets.PRESETS.items() if known is self.preset), "")
        said = [name] if name and name != asked.preset else []
        said += [f"{ours} = {theirs}" for ours, theirs in self.config.columns.items() if ours not in asked.columns]
        said += [self.config.encoding] if not asked.encoding and self.config.encoding not in ("", UTF8) else []
        return ", ".join(said) or None


def look(config: FeedConfig, encoding: str, kind: str, file: str) -> Look:
    """``encoding``: of its text. ``file``: the first of the feed. Raises UsageError if its header cannot be read."""
    config = replace(config, encoding=encoding)
    if kind == "csv":
        separator = config.csv_delimiter.replace("\\t", "\t") or _separator(config.uri, encoding)
        config = replace(config, csv_delimiter=separator)
    names = _names(config, kind, file)
    known = config.preset or (presets.told_by(names) if names and presets.lacks_required(names, config.columns) else "")
    if not names or not known:
        return Look(config, names, config.attributes)
    if known == "plain":
        outer = {name[: at.start()] for name in names for at in re.finditer(r"\.|\[", name)}  # objects and lists, not values
        values = [name for name in names if name not in outer]
        found = presets.guess(values, config.columns.values())
        ours = {o: theirs for o, theirs in found.items() if o not in config.columns and o not in values}
        if schema.IMAGE_LIST not in config.columns | ours and "[" in (ours | config.columns).get(IMAGE, ""):
            ours[schema.IMAGE_LIST] = (ours | config.columns)[IMAGE]  # images[].src: all of them
        return Look(replace(config, columns=ours | config.columns), names, config.attributes)
    preset = presets.PRESETS[known]
    columns = preset.first_of(names) | config.columns
    return Look(replace(config, columns=columns, attributes=None), names, config.attributes, preset)


def _names(config: FeedConfig, kind: str, file: str) -> list[str]:
    """The columns of a CSV, JSON, XML or Parquet file, and the paths to what lies in them; [] for images and tars."""
    if kind == "csv":
        return readers.csv_header(config.uri, config.csv_delimiter, config.encoding)
    if kind == "jsonl":
        return trees.json_keys(config.uri, config.encoding)
    if kind == "xml":
        return trees.xml_keys(config.uri)
    return list(readers.open_parquet(file).schema_arrow.names) if kind == "parquet" else []


def bad_lines(uri: str, encoding: str) -> list[int]:
    """Numbers of the lines in the first megabyte that are not text in this encoding; [] if these are few."""
    lines = _first_lines(uri, encoding)
    bad = [i for i, line in enumerate(lines, 1) if readers.MARK in line]
    return bad if len(bad) > _MAX_BAD_LINES * len(lines) else []


def _first_lines(uri: str, encoding: str) -> list[str]:
    with readers.open_text(uri, encoding) as stream:
        return stream.read(_SAMPLE_BYTES).decode("utf-8", "ignore").split("\n")


def encoding_of(uri: str) -> str:
    """cp1252 only where hardly any letter beyond ASCII is UTF-8: of a damaged UTF-8 file every letter would change."""
    system, path = storage.filesystem(uri)
    with system.open_input_stream(path) as stream:
        if wide := _WIDE.get(stream.read(2)):
            return wide
    bad = bad_lines(uri, UTF8)
    beyond = sum(not line.isascii() and readers.MARK not in line for line in _first_lines(uri, UTF8)) if bad else 0
    return "cp1252" if bad and beyond <= _MAX_BAD_LINES * len(bad) else UTF8


def _separator(uri: str, encoding: str) -> str:
    return max(_SEPARATORS, key=_first_lines(uri, encoding)[0].count)
