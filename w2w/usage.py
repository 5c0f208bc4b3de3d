"""The options of a config class, and how they are shown: a help that fits a screen, or all of them.

A config class may define: ``SHOWN``, the names in its short help, in one string (default: its own options, then those of its
base); ``PLACES``, the positional options, as {"FEED": "feed.uri"} (default: the store; a list at the end takes all remaining
words); ``unread(given)``, a class method: options that are ignored next to the given ones, which help leaves out; ``KNOWN``,
some names that an option takes.
"""

import dataclasses
import functools
import inspect
import re
import shutil
import textwrap
import types
import typing
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass

import docstring_parser

ALL = "all"  # --help all
_SHOWN = 10
_LINES = 3  # per option in the short help
_WORDS = {int: "INT", float: "NUM", str: "TEXT", bool: "", list: "LIST", tuple: "LIST", dict: "MAP"}
_MOST_COLUMNS = 110
_COLUMN = 36  # maximum column at which texts start


@dataclass(frozen=True)
class Option:
    """One option. ``default`` is MISSING if it is required; ``text`` is its field's docstring."""

    name: str
    kind: typing.Any
    default: typing.Any
    text: str
    known: tuple[str, ...] = ()  # some accepted values, for completion

    @property
    def is_group(self) -> bool:
        return isinstance(self.kind, type) and dataclasses.is_dataclass(self.kind)

    @property
    def group(self) -> type | None:
        """The config class of an option group, also if the group is None by default."""
        return next((k for k in _alternatives(self.kind) if isinstance(k, type) and dataclasses.is_dataclass(k)), None)

    @property
    def is_flag(self) -> bool:
        return _alternatives(self.kind) == [bool]

    @property
    def is_list(self) -> bool:
        return typing.get_origin(self.kind) is list

    @property
    def takes_words(self) -> bool:
        """A list or tuple of text, which may be None."""
        lists = (k for k in _alternatives(self.kind) if typing.get_origin(k) in (list, tuple))
        return any(typing.get_args(k)[0] is str and typing.get_args(k)[1:] in ((), (...,)) for k in lists)

    @property
    def choices(self) -> tuple[str, ...]:
        return typing.get_args(self.kind) if typing.get_origin(self.kind) is typing.Literal else ()

    @property
    def takes_any_key(self) -> bool:
        return any(typing.get_origin(kind) is dict for kind in _alternatives(self.kind))


def options(config_class: type, prefix: str = "", given: object = None) -> Iterator[Option]:
    """Every option of a config class, nested ones (``encoder.name``) right after their group. Defaults are those of the
    instance ``given``, if there is one."""
    hints, texts, known = typing.get_type_hints(config_class), _texts(config_class), getattr(config_class, "KNOWN", {})
    for field in dataclasses.fields(config_class):
        default = field.default if field.default_factory is MISSING else field.default_factory()
        default = default if given is None else getattr(given, field.name)
        option = Option(
            f"{prefix}{field.name}", hints[field.name], default, texts.get(field.name, ""), known.get(field.name, ())
        )
        yield option
        if option.is_group:
            yield from options(option.kind, f"{option.name}.", None if default is MISSING else default)


def within(option: Option) -> Iterator[Option]:
    """The options of a group that is off by default, such as ``tidy`` of a night: ``options`` leaves them out."""
    if not option.is_group and option.group:
        yield from options(option.group, f"{option.name}.")


@functools.cache
def _texts(config_class: type) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for one in reversed(config_class.__mro__[:-1]):
        found |= {p.arg_name: " ".join((p.description or "").split()) for p in docstring_parser.parse_from_object(one).params}
    return found


def places(config_class: type) -> Mapping[str, str]:
    """Positional options: the word shown -> the option, in order."""
    has_store = any(field.name == "store" for field in dataclasses.fields(config_class))
    return getattr(config_class, "PLACES", {"STORE": "store"} if has_store else {})


def shown(config_class: type) -> Sequence[str]:
    """The names of the options in the short help."""
    if hasattr(config_class, "SHOWN"):
        return config_class.SHOWN.split()
    root = [one for one in config_class.__mro__ if dataclasses.is_dataclass(one)][-1]
    names, first = [field.name for field in dataclasses.fields(config_class)], set(places(config_class).values())
    own = {name for one in config_class.__mro__[: config_class.__mro__.index(root)] for name in inspect.get_annotations(one)}
    return sorted(names, key=lambda name: (name not in first, name not in own))[:_SHOWN]


def help_text(config_class: type, prog: str, part: str = "", unread: Collection[str] = ()) -> str:
    """The help of a command: the options that matter; with ``part`` all of them, or those of one group. ``unread``: options and
    groups to leave out."""
    found = {option.name: option for option in options(config_class) if option.name.partition(".")[0] not in unread}
    if part:
        chosen = [o for o in found.values() if part in (ALL, o.name) or o.name.startswith(f"{part}.")]
        chosen += list(within(found[part])) if part in found else []
        chosen += COMMON if part == ALL else ()
    else:
        chosen = [found[name] for name in shown(config_class) if name in found]
    width = min(shutil.get_terminal_size((100, 24)).columns, _MOST_COLUMNS)
    by_place = {word: name for word, name in places(config_class).items() if name in found}
    usage = " ".join(
        [
            "usage:",
            prog,
            *(f"[{word}{' ...' * found[name].is_list}]" for word, name in by_place.items()),
            "[FILE.yaml] [--option value ...]",
        ]
    )
    about = " ".join((config_class.__doc__ or "").split())
    lines = [usage, "", *textwrap.wrap(about if part else _sentences(about, 2), width), ""]
    heads = [head(option, bool(part)) for option in chosen]
    column = min(max(map(len, heads), default=0) + 4, _COLUMN)
    for option, typed in zip(chosen, heads):
        text = _default_said(option, option.text if part else _sentences(option.text, 1, "Default:"))
        wrapped = textwrap.wrap(text, width - column, max_lines=None if part else _LINES, placeholder=" ...") or [""]
        if len(typed) + 4 > column:
            lines.append(f"  {typed}")
        else:
            wrapped[0] = f"{'  ' + typed:<{column}}{wrapped[0]}"
        lines += [line if line.startswith("  -") else " " * column + line for line in wrapped]
    stands = [*(f"{word} is --{_spelled(name)}" for word, name in by_place.items()), "FILE.yaml is --config: the same keys"]
    lines += ["", "; ".join(stands) + "."]
    if not part:
        lines.append(f"--help {ALL} shows all {len(found)} options, --help GROUP those of one group.")
    return "\n".join(lines) + "\n"


def comment(option: Option, indent: str) -> list[str]:
    """The option's text as lines of a YAML comment."""
    return textwrap.wrap(option.text, _MOST_COLUMNS, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")


_CONFIG = Option("config", str, MISSING, "YAML file with the same keys as the options above; they win over it.")
COMMON = (  # options of every job that are not config keys
    _CONFIG,
    Option("print_config", bool, False, "Print the resulting configuration as YAML and exit."),
    Option("json", str, "", "Write the result to this file as JSON; - is standard output."),
)


def head(option: Option, whole: bool = True) -> str:
    """An option as it is typed: --name TYPE."""
    if option.is_group:
        return f"--{option.name}" if whole else f"--{option.name}.*"
    kind = _alternatives(option.kind)[0]
    word = "|".join(map(str, option.choices)) or _WORDS.get(typing.get_origin(kind) or kind, "MAP")
    if option.name.rpartition(".")[2] in ("store", "out", "path", "uri", "config", "json"):
        word = "PATH"
    if option.is_flag and option.default is not False:
        word = "true|false"
    return f"--{_spelled(option.name)} {word}".rstrip()


def _default_said(option: Option, text: str) -> str:
    if option.default is MISSING:
        return f"{text} (required)" if option is not _CONFIG else text
    value = option.default
    if option.is_flag and value is True:
        return f"{text} [true]"
    if option.is_group or option.is_flag or value in (None, "", [], (), {}):
        return text
    told = (
        ", ".join(map(str, value)) if isinstance(value, list | tuple) else f"{value:g}" if isinstance(value, float) else value
    )
    return f"{text} [{told}]"


def _spelled(name: str) -> str:
    return name.removesuffix("_")  # a field called try_ is the option --try


def _alternatives(kind: typing.Any) -> Sequence[typing.Any]:
    """The values that an option takes, other than None."""
    several = isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union
    return [k for k in typing.get_args(kind) if k is not types.NoneType] if several else [kind]


def _sentences(text: str, number: int, besides: str = "\n") -> str:
    """The first sentences, as many as fit."""
    found = re.split(r"(?<=\.) (?=[A-Z`])", text)
    return " ".join([*found[:number], *(s for s in found[number:] if s.startswith(besides))])
