"""The ``w2w`` command: one subcommand a job. ``w2w embed ...`` and ``python jobs/embed.py ...`` are the same."""

import ast
import importlib
import importlib.util
import sys

import w2w
from w2w.config import nearest
from w2w.shown import Patient, line

JOBS = {  # name -> its module in w2w
    "annotate": "garments.job_annotate",
    "audit": "mining.audit.job",
    "classify": "training.classifier.job",
    "compose": "mining.outfits.job",
    "convert": "mining.sets.job",
    "crawl": "crawl.job",
    "deduplicate": "mining.duplicates.job",
    "demo": "cli.demo",
    "detect": "garments.job_detect",
    "doctor": "cli.doctor",
    "embed": "models.job",
    "evaluate": "search.job_evaluate",
    "harden": "mining.negatives.job",
    "index": "index.job",
    "ingest": "ingest.job",
    "judge": "training.detectors.job_judge",
    "mine": "mining.pairs.job",
    "nightly": "cli.nightly",
    "represent": "mining.representatives.job",
    "search": "search.job_search",
    "segment": "garments.job_segment",
    "show": "garments.job_show",
    "split": "mining.splits.job",
    "tables": "cli.tables",
    "train": "training.job",
    "train-detector": "training.detectors.job",
}


def module_of(name: str) -> str:
    return f"w2w.{JOBS[name]}"


def describe(name: str) -> str:
    """The first line of the job's docstring, read without importing it (and torch, and ray)."""
    spec = importlib.util.find_spec(module_of(name))
    with open(spec.origin, encoding="utf-8") as f:
        return (ast.get_docstring(ast.parse(f.read())) or "").splitlines()[0]


def main() -> None:
    argv, sys.stdout = sys.argv[1:], Patient(sys.stdout)
    if not argv or argv[0] in ("-h", "--help", "help"):
        print("usage: w2w JOB [--config FILE] [--option value ...]      w2w JOB --help shows a job's options\n")
        for name in JOBS:
            print(f"  {name:<14} {describe(name)}")
        sys.exit(0 if argv else 2)
    if argv[0] == "--version":
        print(f"w2w {w2w.__version__}")
        sys.exit(0)
    if argv[0] not in JOBS:
        print(line(f"w2w: there is no job {argv[0]!r}.{nearest(argv[0], list(JOBS))}"), file=sys.stderr)
        sys.exit(2)
    from w2w.engine.job import start

    job = importlib.import_module(module_of(argv[0]))
    start(job.main, job.Config, argv[1:], prog=f"w2w {argv[0]}")


if __name__ == "__main__":
    main()
