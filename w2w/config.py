"""Configuration: a frozen dataclass, filled from a YAML file and dotted overrides by jsonargparse.

Unknown keys are reported with the nearest valid one before anything starts. A bare ``--flag`` sets a boolean to true, and
``--dry-run`` and ``--dry_run`` are the same option.
"""

import dataclasses
import difflib
import io
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import Any, TypeVar

import jsonargparse
import yaml

from w2w.errors import UsageError
from w2w.shown import lines
from w2w.usage import ALL, Option, help_text, options, places, within

C = TypeVar("C")


class UnknownKey(UsageError):
    """A file has a key that this job's options lack; ``keys``: all that it has at the top."""

    def __init__(self, message: str, file: str, key: str, keys: Sequence[str]):
        super().__init__(message)
        self.file, self.key, self.keys = file, key, keys


def parse(config_class: type[C], argv: Sequence[str], prog: str) -> C:
    """The config given by ``--config FILE`` and the dotted options in ``argv``; options override the file.

    Positional options (see ``usage.places``) may be given without their name, and a word that ends in .yaml is the config.
    Raises UsageError naming the wrong file, key or value. ``--help`` prints the options that matter, ``--help all`` every one,
    ``--help GROUP`` those of a group; all exit 0.
    """
    given, wants_help = _given(config_class, argv, prog)
    if wants_help is not None:
        known = [option.name for option in options(config_class)]
        if wants_help not in ("", ALL, *known):
            raise UsageError(f"--help {wants_help}: there is no such option.{nearest(wants_help, known)}")
        unread = getattr(config_class, "unread", lambda given: ())
        sys.stdout.write(help_text(config_class, prog, wants_help, unread(dict(given))))
        sys.exit(0)
    known = _known(config_class)
    for name, value in given:
        if name == "config":
            _check_file(known, value, prog)
        elif name != "print_config":
            _check_key(name.removesuffix("+"), known, f"option --{name}", prog)
            if name in known and known[name].takes_any_key:
                _check_pairs(_mapping(value), f"option --{name}")
    parser = _parser(config_class, prog)
    printed = io.StringIO()
    try:
        with redirect_stdout(printed) if any(name == "print_config" for name, _ in given) else nullcontext():
            parsed = parser.parse_args([f"--{name}={value}" if value is not None else f"--{name}" for name, value in given])
        return _within(parser.instantiate(parsed).config_value, "--")
    except (jsonargparse.ArgumentError, TypeError, ValueError) as e:
        if isinstance(e, UsageError):
            raise
        text = _plain(str(e), known)
        if text.startswith("missing"):
            getattr(config_class, "unread", dict)(dict(given))  # raises for a name that there is not, which is what is wrong
        more = f"; give it here or in a FILE.yaml: see {prog} --help" if prog and text.startswith("missing") else ""
        raise UsageError(text + more) from e
    finally:
        sys.stdout.write(lines(printed.getvalue()))


def in_file(message: str, config_class: type, argv: Sequence[str], prog: str) -> str:
    """The message, with the config file before it if it begins with an option whose value a file in ``argv`` gave."""
    about = re.match(r"(?:option )?(?:--)?([A-Za-z]\w*(?:\.\w+)*)(?=[=:+])", message)
    if not about:
        return message
    set_by: dict[str, str] = {}
    try:
        for name, value in _given(config_class, argv, prog)[0]:
            if name == "config":
                set_by |= dict.fromkeys(_flat(yaml.safe_load(Path(str(value)).read_text(encoding="utf-8"))), str(value))
            elif not name.endswith("+"):
                set_by = {key: file for key, file in set_by.items() if not f"{key}.".startswith(f"{name}.")}
    except (OSError, ValueError, yaml.YAMLError, RecursionError):  # that message says which
        return message
    file = next((file for key, file in set_by.items() if f"{key}.".startswith(f"{about[1]}.")), None)
    return f"{file}: {message[about.start(1) :]}" if file else message


def _flat(values: Any, prefix: str = "") -> list[str]:
    """The keys of nested mappings, with dots."""
    if not isinstance(values, dict) or not values:
        return [prefix.removesuffix(".")]
    return [name for key, value in values.items() for name in _flat(value, f"{prefix}{key}.")]


def check_name(name: str, option: str, most: int = 100) -> None:
    """Raises UsageError for a name that cannot be part of keys and folder names."""
    if not re.fullmatch(rf"[A-Za-z0-9_-][A-Za-z0-9_.-]{{0,{most - 1}}}", name):
        raise UsageError(f"{option}={name[:200]!r}: letters, digits, '-', '_' and '.', at most {most}, no '.' first")


def check_label(text: str, option: str) -> None:
    """Raises UsageError unless the name of a class or figure is one short, printable line."""
    if not text.strip() or not text.isprintable() or len(text) > 100:
        raise UsageError(f"{option}={text[:200]!r}: a name of 1 to 100 printable characters")


def build(config_class: type[C], values: Mapping[str, Any], prog: str) -> C:
    """The config for these options (a mapping, or a config object, per group), checked as on the command line. ``prog``: the
    command whose help lists them, or a function, "w2w.NAME".

    Raises UsageError naming the wrong option or value.
    """
    known, plain = {option.name: option for option in options(config_class)}, _plain_values(values)
    _check_keys(known, plain, "option ", prog)
    parser = _parser(config_class, prog)
    try:
        return _within(parser.instantiate(parser.parse_object(plain)).config_value, "")
    except (jsonargparse.ArgumentError, TypeError, ValueError) as e:
        if isinstance(e, UsageError):
            raise
        raise UsageError(_plain(str(e), known).replace("option --", "option ")) from e


def _within(config: C, prefix: str) -> C:
    """Returns the config. Raises UsageError for a number below its class's ``LEAST`` (option -> number; default 0)."""
    least = {name: bound for one in reversed(type(config).__mro__) for name, bound in vars(one).get("LEAST", {}).items()}
    for field in dataclasses.fields(config):  # type: ignore[arg-type]
        value, bound = getattr(config, field.name), least.get(field.name, 0)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            _within(value, f"{prefix}{field.name}.")
        elif isinstance(value, int | float) and value < bound:
            said = f"must be at least {bound:g}" if bound else "must not be negative"
            raise UsageError(f"{prefix}{field.name}={value:g}: {said}")
    return config


def _plain_values(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain_values(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain_values(one) for one in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value


_FUNCTION = "w2w."  # how a function's name begins; a command is "w2w NAME"
_MANY = 200  # names: more than any option has, fewer than a shop has products


def nearest(word: str, valid: Sequence[str]) -> str:
    """' Did you mean ...?' or the list of allowed names, to end an error message."""
    close = difflib.get_close_matches(word, valid, n=1, cutoff=0.6)
    if close:
        return f" Did you mean {close[0]!r}?"
    if not valid:
        return " There are none."
    if len(valid) > _MANY:
        return f" Allowed: {len(valid):,} others, for example {', '.join(sorted(valid)[:5])}."
    return f" Allowed: {', '.join(sorted(valid))}."


def _parser(config_class: type, prog: str) -> jsonargparse.ArgumentParser:
    jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = jsonargparse.ArgumentParser(prog=prog, description=config_class.__doc__, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--config", action="config", help="YAML file with the same keys as the options below")
    parser.add_class_arguments(config_class, as_group=False)

    def build(namespace: jsonargparse.Namespace) -> jsonargparse.Namespace:
        built = instantiate(namespace)
        values = {f.name: built[f.name] for f in dataclasses.fields(config_class)}
        return jsonargparse.Namespace(config_value=config_class(**values))

    instantiate, parser.instantiate = parser.instantiate, build
    return parser


def _known(config_class: type) -> dict[str, Option]:
    """Every option by name, those of groups that are off by default, too."""
    return {one.name: one for option in options(config_class) for one in (option, *within(option))}


def _given(config_class: type, argv: Sequence[str], prog: str) -> tuple[list[tuple[str, str | None]], str | None]:
    """Names and values of the options, in whatever form they were typed; and the requested help, or None."""
    known = _known(config_class)
    by_place = list(places(config_class).values())
    several = by_place[-1] if by_place and known[by_place[-1]].is_list else None  # takes all remaining words
    given: list[tuple[str, str | None]] = []
    gathered: list[str] = []
    placed, wants_help, words = 0, None, list(argv)
    while words:
        word = words.pop(0)
        if not word.startswith("-"):
            if word.endswith((".yaml", ".yml")):
                given.append(("config", word))
            elif several and placed >= len(by_place) - 1:
                gathered.append(word)
            elif placed == len(by_place):
                names = [f"--{name}" for name in by_place]
                takes = f"only {' and '.join(names)} can go without a name" if names else "options have names"
                raise UsageError(f"{word!r} is not expected here: {takes}; see {prog} --help")
            else:
                given.append((by_place[placed], word))
                placed += 1
            continue
        name, equals, value = word.lstrip("-").partition("=")
        more = "+" if name.endswith("+") else ""
        name = name.removesuffix("+").replace("-", "_")
        name = f"{name}_" if f"{name}_" in known else name  # a field called try_ is the option --try
        takes_word = bool(words) and not re.match("--?[A-Za-z]", words[0])
        if name in ("help", "h"):
            wants_help = value or (words.pop(0) if takes_word else "")
        elif name == "print_config":
            given.append((name, value if equals else None))
        elif name in known and known[name].is_flag and not equals:
            given.append((name, words.pop(0) if takes_word and words[0].lower() in ("true", "false") else "true"))
        elif not equals and not takes_word:
            if name == "config":
                raise UsageError("--config needs the path of a YAML file")
            _check_key(name, known, f"option --{name}", prog)
            raise UsageError(f"option --{name} needs a value")
        else:
            value = value if equals else words.pop(0)
            listed = name in known and known[name].takes_words and not more
            given.append((f"{name}{more}", _as_list(value, name != several) if listed else value))
    if several and gathered:
        given.append((several, json.dumps(gathered)))
    _check_once(given)
    return given, wants_help


def _as_list(value: str, parted: bool) -> str:
    """Words as YAML's list, ``parted`` at commas; what is a list or null already stays so."""
    if re.match(r"\s*(\[|-\s|null$)", value):
        return value
    return json.dumps([word.strip() for word in value.split(",") if word.strip()] if parted else [value])


def _check_once(given: Sequence[tuple[str, str | None]]) -> None:
    """Files override one another, and lists grow with ``--name+``; any other option has one value."""
    values: dict[str, str | None] = {}
    for name, value in given:
        if name != "config" and not name.endswith("+") and values.setdefault(name, value) != value:
            raise UsageError(f"option --{name} has two values: {values[name]!r} and {value!r}")


def _mapping(text: str | None) -> object:
    try:
        return yaml.safe_load(text or "")
    except (yaml.YAMLError, ValueError, RecursionError):  # jsonargparse says what is wrong
        return None


def _check_pairs(values: object, where: str) -> None:
    """Raises UsageError where a mapping lacks the blanks behind its colons, so that YAML reads each pair as a name alone."""
    for key, value in values.items() if isinstance(values, dict) else ():
        name, colon, said = str(key).partition(":")
        if value is None and colon:
            raise UsageError(
                f"{where}: {{{key}}} is a name without a value: write a blank behind the colon, {{{name}: {said}}}"
            )


def _check_key(name: str, known: Mapping[str, Option], where: str, prog: str) -> None:
    if name in known:
        return
    parent = name
    while "." in parent:
        parent = parent.rpartition(".")[0]
        if parent in known and known[parent].takes_any_key:
            return
    close = difflib.get_close_matches(name, list(known), n=1)
    more = f" See {prog} --help {ALL}." if prog else ""
    if prog.startswith(_FUNCTION):  # which has no help that lists its options
        group = name[: name.rfind(".") + 1]
        inside = (one.removeprefix(group).partition(".")[0] for one in known if one.startswith(group))
        more = f" {prog}{f' ({group[:-1]})' if group else ''} takes {', '.join(dict.fromkeys(inside))}."
    raise UsageError(f"{where} does not exist.{nearest(name, close) if close else more}")


class _OncePerKey(yaml.SafeLoader):
    """Refuses a repeated key in a mapping, of which YAML's own loader silently keeps the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(problem=f"duplicate key {key.value!r}", problem_mark=key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def _check_file(known: Mapping[str, Option], path: str | None, prog: str) -> None:
    if not path:
        raise UsageError("--config needs the path of a YAML file")
    try:
        values = yaml.load(Path(path).read_text(encoding="utf-8"), _OncePerKey)
    except OSError as e:
        raise UsageError(f"--config={path}: {e.strerror}") from e
    except UnicodeDecodeError as e:
        raise UsageError(f"--config={path}: not UTF-8 text") from e
    except RecursionError as e:
        raise UsageError(f"--config={path}: nested too deeply") from e
    except yaml.YAMLError as e:
        mark = getattr(e, "problem_mark", None)
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise UsageError(f"--config={path}{place}: not valid YAML: {getattr(e, 'problem', e)}") from e
    if not isinstance(values, dict):
        found = "nothing" if values is None else type(values).__name__
        raise UsageError(f"--config={path}: expected keys and values at the top level, found {found}")

    try:
        _check_keys(known, values, f"{path}: key ", prog)
    except UsageError as e:
        if strange := [key for key in values if key not in known]:
            raise UnknownKey(str(e), path, str(strange[0]), [str(key) for key in values]) from None
        raise


def _check_keys(known: Mapping[str, Option], values: Mapping[str, Any], where: str, prog: str, prefix: str = "") -> None:
    for key, value in values.items():
        name = f"{prefix}{key}"
        _check_key(name, known, f"{where}{name!r}", prog)
        if name in known and known[name].is_group and not isinstance(value, dict):
            raise UsageError(f"{where}{name!r}: {value!r} is not a mapping of its options")
        if name in known and known[name].takes_any_key:
            _check_pairs(value, f"{where}{name!r}")
        if isinstance(value, dict) and name in known and not known[name].takes_any_key:
            within = known[name].group
            more = {option.name: option for option in options(within, f"{name}.")} if within else {}
            _check_keys({**known, **more}, value, where, prog, f"{name}.")


def _plain(message: str, known: Mapping[str, Option]) -> str:
    """jsonargparse's message as one sentence: the option, the value it got, and what it takes."""
    wrong = re.search(r'Parser key "([^"]+)"', message)
    given = re.search(r"(?:Given|Got) value: (.*)", message)
    if wrong and given and wrong[1] in known:
        option = known[wrong[1]]
        kind = option.kind.__name__ if isinstance(option.kind, type) else option.kind
        takes = f"one of {', '.join(option.choices)}" if option.choices else f"of type {kind}"
        takes = "a list of words, such as [a, b]" if option.takes_words else takes
        takes = "a mapping, such as '{a: b}'" if option.takes_any_key else takes
        takes = f"what it or one of its options takes: see --help {wrong[1]}" if option.group else takes
        return f"option --{wrong[1]}: {given[1]!r} is not {takes}"
    text = " ".join(line.strip(" -") for line in message.splitlines() if line.strip()).replace("Parser key", "option")
    return text.replace("the following arguments are required:", "missing required option:")
