"""Configuration: a frozen dataclass, filled from a YAML file and dotted overrides, by jsonargparse.

Unknown keys are named with the nearest valid one before anything starts. A bare ``--flag`` sets a boolean to true, and
``--dry-run`` and ``--dry_run`` are the same option.
"""

import dataclasses
import difflib
import io
import re
import sys
import types
import typing
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import TypeVar

import jsonargparse
import yaml

from w2w.errors import UsageError
from w2w.shown import lines

C = TypeVar("C")


def parse(config_class: type[C], argv: Sequence[str], prog: str) -> C:
    """The config that ``--config FILE`` and the dotted options in ``argv`` describe; options win over the file.

    Raises UsageError naming the wrong file, key or value. ``--help`` prints the options and exits 0.
    """
    argv = _normalise(config_class, argv)
    parser = _parser(config_class, prog)
    printed = io.StringIO()
    try:
        with redirect_stdout(printed) if any(a.startswith("--print_config") for a in argv) else nullcontext():
            parsed = parser.parse_args(list(argv))
        return parser.instantiate(parsed).config_value
    except (jsonargparse.ArgumentError, TypeError, ValueError) as e:
        if isinstance(e, UsageError):
            raise
        raise UsageError(_plain(str(e), dict(option_names(config_class)))) from e
    finally:
        sys.stdout.write(lines(printed.getvalue()))


def option_names(config_class: type, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Dotted name and type of every option below a config class, nested classes included."""
    hints = typing.get_type_hints(config_class)
    for field in dataclasses.fields(config_class):
        kind, name = hints[field.name], f"{prefix}{field.name}"
        yield name, kind
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            yield from option_names(kind, f"{name}.")


def nearest(word: str, valid: Sequence[str]) -> str:
    """' Did you mean ...?' or the list of what is allowed, for the end of an error sentence."""
    close = difflib.get_close_matches(word, valid, n=1, cutoff=0.6)
    if close:
        return f" Did you mean {close[0]!r}?"
    if not valid:
        return " There are none."
    shown = ", ".join(sorted(valid)[:20])
    return f" Allowed: {shown}{', ...' if len(valid) > 20 else '.'}"


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


def _normalise(config_class: type, argv: Sequence[str]) -> list[str]:
    known = dict(option_names(config_class))
    booleans = {name for name, kind in known.items() if kind is bool}
    result: list[str] = []
    tokens = list(argv)
    for i, token in enumerate(tokens):
        if not token.startswith("--"):
            result.append(token)
            continue
        name, equals, value = token[2:].partition("=")
        name = name.replace("-", "_").removesuffix("+") if name not in ("help", "print_config") else name
        name = f"{name}_" if f"{name}_" in known else name  # a field called try_ is the option --try
        if name == "config":
            _check_file(config_class, value if equals else (tokens[i + 1] if i + 1 < len(tokens) else ""))
        elif name not in ("help", "print_config"):
            _check_key(name, known, f"option --{name}")
        if name in booleans and not equals and (i + 1 == len(tokens) or tokens[i + 1].lower() not in ("true", "false")):
            token = f"--{name}=true"
        else:
            token = f"--{name}{'+' if token[2:].partition('=')[0].endswith('+') else ''}{equals}{value}"
        result.append(token)
    return result


def _check_key(name: str, known: dict[str, object], where: str) -> None:
    if name in known:
        return
    parent = name
    while "." in parent:
        parent = parent.rpartition(".")[0]
        if parent in known and _takes_any_key(known[parent]):
            return
    raise UsageError(f"{where} does not exist.{nearest(name, list(known))}")


def _takes_any_key(kind: object) -> bool:
    options = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    return any(typing.get_origin(o) is dict for o in options)


def _check_file(config_class: type, path: str) -> None:
    if not path:
        raise UsageError("--config needs the path of a YAML file")
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as e:
        raise UsageError(f"--config={path}: {e.strerror}") from e
    except UnicodeDecodeError as e:
        raise UsageError(f"--config={path}: not UTF-8 text") from e
    except yaml.YAMLError as e:
        mark = getattr(e, "problem_mark", None)
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise UsageError(f"--config={path}{place}: not valid YAML: {getattr(e, 'problem', e)}") from e
    if not isinstance(values, dict):
        raise UsageError(f"--config={path}: expected keys and values at the top level, found {type(values).__name__}")
    known = dict(option_names(config_class))

    def walk(mapping: dict, prefix: str) -> None:
        for key, value in mapping.items():
            name = f"{prefix}{key}"
            _check_key(name, known, f"{path}: key {name!r}")
            if isinstance(value, dict) and name in known and not _takes_any_key(known[name]):
                walk(value, f"{name}.")

    walk(values, "")


def _plain(message: str, known: dict[str, object]) -> str:
    """jsonargparse's message as one sentence: which option, what it got, what it takes."""
    wrong = re.search(r'Parser key "([^"]+)"', message)
    given = re.search(r"Given value: (.*)", message)
    if wrong and given and wrong[1] in known:
        kind = known[wrong[1]]
        return f"option --{wrong[1]}: {given[1]!r} is not of type {kind.__name__ if isinstance(kind, type) else kind}"
    text = " ".join(line.strip(" -") for line in message.splitlines() if line.strip()).replace("Parser key", "option")
    return text.replace("the following arguments are required:", "missing required option:")
