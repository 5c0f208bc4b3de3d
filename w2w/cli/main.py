"""The ``w2w`` command: one subcommand per job. ``w2w embed ...`` and ``python jobs/embed.py ...`` are the same."""

import ast
import importlib
import logging
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten

import w2w
from w2w.config import UnknownKey, nearest
from w2w.shown import Patient, line
from w2w.usage import options

GROUPS = {  # purpose -> name -> module in w2w
    "Data in": {
        "ingest": "ingest.job",
        "crawl": "crawl.job",
        "annotate": "garments.job_annotate",
        "convert": "mining.sets.job",
    },
    "Garments": {
        "detect": "garments.job_detect",
        "segment": "garments.job_segment",
        "classify": "training.classifier.job",
        "tag": "training.tags.job",
        "judge": "training.detectors.job_judge",
        "show": "garments.job_show",
    },
    "Training data": {
        "deduplicate": "mining.duplicates.job",
        "split": "mining.splits.job",
        "represent": "mining.representatives.job",
        "mine": "mining.pairs.job",
        "compose": "mining.outfits.job",
        "harden": "mining.negatives.job",
        "audit": "mining.audit.job",
    },
    "Training": {
        "train": "training.job",
        "train-detector": "training.detectors.job",
    },
    "Search": {
        "embed": "models.job",
        "index": "index.job",
        "bridge": "bridge.job",
        "find": "find.job",
        "style": "style.job",
        "search": "search.job_search",
        "judge-answers": "search.job_judge_answers",
        "recommend": "recommend.job",
        "similar": "similar.job",
        "gallery": "gallery.job",
        "check": "check.job",
        "export": "export.job",
        "evaluate": "evaluation.job_evaluate",
        "compare": "evaluation.job_compare",
    },
    "Night and care": {
        "init": "cli.init",
        "nightly": "nightly.job",
        "plan": "plan.job",
        "tables": "cli.tables",
        "erase": "erase.job",
        "apply": "cli.apply",
        "doctor": "cli.doctor",
        "demo": "cli.demo",
        "completion": "cli.completion",
    },
}
JOBS = {name: module for jobs in GROUPS.values() for name, module in jobs.items()}
HERE = ("init", "completion")  # only for the user's own machine: nothing in jobs/ starts it on a cluster


def module_of(name: str) -> str:
    return f"w2w.{JOBS[name]}"


def describe(name: str) -> str:
    """The first line of the job's docstring, read without importing it (and torch, and ray)."""
    file = Path(w2w.__file__).parent.joinpath(*JOBS[name].split(".")).with_suffix(".py")
    said = (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").splitlines()[0]
    return said.partition(": ")[2] or said


def overview() -> str:
    """The output of `w2w --help`: the jobs by purpose, one line each."""
    lines = ["usage: w2w JOB [FILE.yaml] [--option value ...]", ""]
    for title, jobs in GROUPS.items():
        lines += [title, *(f"  {name:<14}  {shorten(describe(name), 82, placeholder=' ...')}" for name in jobs), ""]
    return "\n".join([*lines, "w2w JOB --help shows the options that matter, w2w JOB --help all every one.", ""])


def owner_of(unknown: UnknownKey, asked: str) -> str:
    """Which job a config file may be meant for, where it has a key that the one that was ``asked`` lacks."""
    logging.getLogger("faiss.loader").setLevel(logging.WARNING)  # it tells of its import
    for name in dict.fromkeys(["nightly", *JOBS]):
        if name != asked and name not in HERE:
            known = {option.name for option in options(importlib.import_module(module_of(name)).Config)}
            if known.issuperset(unknown.keys):
                said = f" The file is a config of w2w {name}, which has {unknown.key!r}: w2w {name} {unknown.file}"
                return said + (_part_of_a_night(unknown, asked) if name == "nightly" else "")
    return ""


def _part_of_a_night(unknown: UnknownKey, asked: str) -> str:
    """How one of its steps is run, and what of its file that job takes."""
    if asked not in importlib.import_module(module_of("nightly")).STEPS:
        return ""
    own = {option.name for option in options(importlib.import_module(module_of(asked)).Config)}
    keys = ", ".join(key for key in unknown.keys if key in own)
    alone = f"; this step alone: w2w nightly {unknown.file} --from={asked} --until={asked}"
    return alone + (f"; a file of its own for w2w {asked} may have of these keys {keys}" if keys else "")


_POSTS = {"feed.uri": "set.path", "feed.id": "set.source", "feed.columns": "set.columns", "feed.image_root": "set.images"}


def posts_of_ingest(argv: Sequence[str]) -> list[str]:
    """`ingest --kind=posts ...` as `convert posts ...`, which reads them; other arguments as they are."""
    words = re.sub(r"(?m)^--kind\n", "--kind=", "\n".join(argv)).split("\n")
    if argv[:1] != ["ingest"] or "--kind=posts" not in words:
        return list(argv)
    words.remove("--kind=posts")
    known = "|".join(map(re.escape, _POSTS))
    rest = [re.sub(rf"^--({known})(?=[=.+]|$)", lambda found: f"--{_POSTS[found[1]]}", word) for word in words[1:]]
    return ["convert", "--set.format=posts", *_placed(rest)]


def _placed(words: Sequence[str]) -> list[str]:
    """The feed's place is the second one of `convert`."""
    first = words[:1] if words and not words[0].startswith("-") and not words[0].endswith((".yaml", ".yml")) else []
    return [*(f"--set.path={word}" for word in first), *words[len(first) :]]


def main() -> None:
    argv, sys.stdout = posts_of_ingest(sys.argv[1:]), Patient(sys.stdout)
    if not argv or argv[0] in ("-h", "--help", "help"):
        sys.stdout.write(overview())
        sys.exit(0 if argv else 2)
    if argv[0] == "--version":
        print(f"w2w {w2w.__version__}")
        sys.exit(0)
    if argv[0] not in JOBS:
        print(line(f"w2w: there is no job {argv[0]!r}.{nearest(argv[0], list(JOBS))}"), file=sys.stderr)
        sys.exit(2)
    from w2w.engine.job import start

    job = importlib.import_module(module_of(argv[0]))
    start(job.main, job.Config, argv[1:], prog=f"w2w {argv[0]}", whose=lambda e: owner_of(e, argv[0]))


if __name__ == "__main__":
    main()
