"""Completion: print the script that completes jobs, options and files in bash, zsh or fish."""

import argparse
import importlib
import logging
import sys
from dataclasses import dataclass
from typing import Literal

import shtab

from w2w.cli.main import JOBS, describe, module_of
from w2w.usage import COMMON, Option, head, options, places


@dataclass(frozen=True)
class Config:
    """Print the script that completes `w2w` when TAB is pressed; print it again after an update. Save it as
    ~/.local/share/bash-completion/completions/w2w (bash), as _w2w in a folder of $fpath (zsh), or as
    ~/.config/fish/completions/w2w.fish (fish)."""

    PLACES = {"SHELL": "shell"}

    shell: Literal["bash", "zsh", "fish"]
    """Which shell."""


def main(config: Config) -> None:
    logging.disable(logging.INFO)  # log messages of libraries when all jobs are imported
    try:
        sys.stdout.write(shtab.complete(command(), config.shell) + "\n")
    finally:
        logging.disable(logging.NOTSET)


def command() -> argparse.ArgumentParser:
    """All jobs with their options, for the shell script. It parses nothing."""
    parser = argparse.ArgumentParser("w2w")
    parser.add_argument("--version", action="store_true", help="the version")
    jobs = parser.add_subparsers()
    for name in JOBS:
        job = jobs.add_parser(name, help=_plain(describe(name)))
        config_class = importlib.import_module(module_of(name)).Config
        found = {option.name: option for option in options(config_class)}
        placed = [found[option] for option in places(config_class).values()]
        for number, option in enumerate(placed):
            several: dict = {"nargs": "*"} if option.is_list else {}
            action = job.add_argument(f"place{number}", choices=option.choices or option.known or None, **several)
            _complete(action, option)
        if not placed:
            job.add_argument("file").complete = shtab.FILE  # type: ignore[attr-defined]
        for option in [*found.values(), *COMMON]:
            _add(job, option)
    return parser


def _add(job: argparse.ArgumentParser, option: Option) -> None:
    name, text = head(option).split(" ")[0], _plain(option.text)
    if option.is_flag and option.default is not False:
        job.add_argument(name, choices=("true", "false"), help=text)
    elif option.is_flag:
        job.add_argument(name, action="store_true", help=text)
    elif not option.is_group:
        _complete(job.add_argument(name, choices=option.choices or option.known or None, help=text), option)


def _complete(action: argparse.Action, option: Option) -> None:
    if not option.choices and not option.known and head(option).endswith("PATH"):
        action.complete = shtab.FILE  # type: ignore[attr-defined]


def _plain(text: str) -> str:
    """Text that argparse formats, on one line."""
    return text.partition(". ")[0].replace("%", "%%")
