"""What a feed tells of itself where its config does not: encoding, separator, and which of its columns is which of ours."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from w2w import schema, storage
from w2w.config import nearest
from w2w.errors import UsageError
from w2w.ingest import delimited, headings, parquet, presets, text, trees
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
    pictures: Sequence[str] = ()  # columns of pictures, where there are several

    def told(self, asked: FeedConfig) -> str | None:
        """What was found beyond what was asked for."""
        name = next((name for name, known in presets.PRESETS.items() if self.preset and known.signs == self.preset.signs), "")
        said = [name] if name and name != asked.preset else []
        named = {ours: theirs for ours, theirs in self.config.named.items() if ours not in asked.columns}
        if self.pictures and not {IMAGE, schema.IMAGE_LIST} & asked.several.keys():
            named[schema.IMAGE_LIST] = " + ".join(self.pictures)
        said += [f"{ours} = {theirs}" for ours, theirs in named.items() if ours != theirs]
        said += [self.config.encoding] if not asked.encoding and self.config.encoding not in ("", UTF8) else []
        return ", ".join(said) or None


def look(config: FeedConfig, encoding: str, kind: str, file: str) -> Look:
    """``encoding``: of its text. ``file``: the first of the feed. Raises UsageError if its header cannot be read."""
    several, config = config.several, replace(config, encoding=encoding, columns=dict(config.named))
    if kind == "csv":
        separator = config.csv_delimiter.replace("\\t", "\t") or _separator(config.uri, encoding)
        config = replace(config, csv_delimiter=separator)
    names = _names(config, kind, file)
    if not names:
        return Look(config, names, config.attributes)
    for ours, theirs in several.items():
        if strange := [one for one in theirs if one not in names]:
            raise UsageError(
                f"feed.uri={config.uri}: no column {strange[0]!r} for feed.columns.{ours}.{nearest(strange[0], names)}"
            )
    texts = parquet.text_columns(file) if kind == "parquet" else _values(names, kind)
    own = not presets.lacks_required(names, config.named)
    known = config.preset or presets.told_by(names)
    known = f"{known}_json" if known == "shopify" and kind == "jsonl" else known
    preset = presets.PRESETS.get(known, presets.Preset("", {}))
    if own and not config.preset and not preset.guessed:
        known, preset = "plain", presets.Preset("", {})
    is_plain, sure = known == "plain" or preset.guessed, own and not config.preset
    told = (_plain_columns(config.named, names, texts, sure) if is_plain else {}) | preset.first_of(names)
    columns = told | config.named
    pictures = [*several.get(IMAGE, []), *several.get(schema.IMAGE_LIST, [])]
    if not pictures and (is_plain or IMAGE not in columns):
        pictures = [one for one in headings.pictures_in(names) if one not in (columns | {IMAGE: ""}).values()]
        front = columns.get(IMAGE, IMAGE if IMAGE in names else pictures[0] if pictures else "")
        pictures = list(dict.fromkeys([front, *pictures])) if pictures else []
        columns |= {IMAGE: front} if pictures else {}
    if known == "plain" and not pictures and not several:
        return Look(replace(config, columns=dict(columns)), names, config.attributes)
    firsts = {ours: " ".join(map(headings.plain, theirs)) for ours, theirs in several.items() if ours != schema.IMAGE_LIST}
    front = {IMAGE: " ".join(map(headings.plain, pictures))} if pictures and IMAGE not in several else {}
    preset = replace(preset, columns={**preset.columns, **front, **firsts}, pictures=tuple(map(headings.plain, pictures)))
    return Look(replace(config, columns=dict(columns), attributes=None), names, config.attributes, preset, pictures)


def _plain_columns(given: Mapping[str, str], names: Sequence[str], texts: Sequence[str], sure: bool) -> dict[str, str]:
    """Our columns -> theirs, among ``texts``, where ``given`` and our own names leave them open."""
    found = presets.guess(texts, given.values(), sure)
    ours = {o: theirs for o, theirs in found.items() if o not in given and o not in (names if sure else texts)}
    if schema.IMAGE_LIST not in {*given, *ours} and "[" in (ours | dict(given)).get(IMAGE, ""):
        ours[schema.IMAGE_LIST] = (ours | dict(given))[IMAGE]  # images[].src: all of them
    return ours


def _values(names: Sequence[str], kind: str) -> list[str]:
    """The names of values, without those of objects and lists; in XML a list holds what is repeated."""
    if kind == "xml":
        return [name for name in names if "[" not in name]
    outer = {name[: at.start()] for name in names for at in re.finditer(r"\.|\[", name)}
    return [name for name in names if name not in outer]


def _names(config: FeedConfig, kind: str, file: str) -> list[str]:
    """The columns of a CSV, JSON, XML or Parquet file, and the paths to what lies in them; [] for images and tars."""
    if kind == "csv":
        return delimited.csv_header(config.uri, config.csv_delimiter, config.encoding)
    if kind == "jsonl":
        return trees.json_keys(config.uri, config.encoding)
    if kind == "xml":
        return trees.xml_keys(config.uri)
    return list(parquet.open_parquet(file).schema_arrow.names) if kind == "parquet" else []


def bad_lines(uri: str, encoding: str) -> list[int]:
    """Numbers of the lines in the first megabyte that are not text in this encoding; [] if these are few."""
    lines = _first_lines(uri, encoding)
    bad = [i for i, line in enumerate(lines, 1) if text.MARK in line]
    return bad if len(bad) > _MAX_BAD_LINES * len(lines) else []


def _first_lines(uri: str, encoding: str) -> list[str]:
    with text.open_text(uri, encoding) as stream:
        return stream.read(_SAMPLE_BYTES).decode("utf-8", "ignore").split("\n")


def encoding_of(uri: str) -> str:
    """cp1252 only where hardly any letter beyond ASCII is UTF-8: of a damaged UTF-8 file every letter would change."""
    system, path = storage.filesystem(uri)
    with system.open_input_stream(path) as stream:
        if wide := _WIDE.get(stream.read(2)):
            return wide
    bad = bad_lines(uri, UTF8)
    beyond = sum(not line.isascii() and text.MARK not in line for line in _first_lines(uri, UTF8)) if bad else 0
    return "cp1252" if bad and beyond <= _MAX_BAD_LINES * len(bad) else UTF8


def _separator(uri: str, encoding: str) -> str:
    return max(_SEPARATORS, key=_first_lines(uri, encoding)[0].count)
