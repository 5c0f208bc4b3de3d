"""The ``w2w`` command: one subcommand a job. ``w2w embed ...`` and ``python jobs/embed.py ...`` are the same."""

import ast
import importlib
import pkgutil
import sys

import jobs
import w2w
from w2w.config import nearest
from w2w.shown import Patient, line


def names() -> list[str]:
    return sorted(m.name.replace("_", "-") for m in pkgutil.iter_modules(jobs.__path__) if not m.name.startswith("_"))


def module_of(name: str) -> str:
    return f"jobs.{name.replace('-', '_')}"


def describe(name: str) -> str:
    """The first line of the job's docstring, read without importing it (and torch, and ray)."""
    spec = importlib.util.find_spec(module_of(name))
    with open(spec.origin, encoding="utf-8") as f:
        return (ast.get_docstring(ast.parse(f.read())) or "").splitlines()[0]


def main() -> None:
    argv, sys.stdout = sys.argv[1:], Patient(sys.stdout)
    if not argv or argv[0] in ("-h", "--help", "help"):
        print("usage: w2w JOB [--config FILE] [--option value ...]      w2w JOB --help shows a job's options\n")
        for name in names():
            print(f"  {name:<14} {describe(name)}")
        sys.exit(0 if argv else 2)
    if argv[0] == "--version":
        print(f"w2w {w2w.__version__}")
        sys.exit(0)
    if argv[0] not in names():
        print(line(f"w2w: there is no job {argv[0]!r}.{nearest(argv[0], names())}"), file=sys.stderr)
        sys.exit(2)
    from w2w.engine.job import start

    job = importlib.import_module(module_of(argv[0]))
    start(job.main, job.Config, argv[1:], prog=f"w2w {argv[0]}")


if __name__ == "__main__":
    main()
