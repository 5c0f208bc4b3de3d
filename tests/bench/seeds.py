"""The seeds, row by row: what each of the four projects did, done again by the commands of jobs/examples/seeds/*.yaml, as they
stand there; the figures are taken from what the jobs say with --json. The last line is JSON; --out writes the table.

python -m tests.bench.seeds [ROW ...] [--folder FOLDER] [--again] [--out jobs/examples/seeds/README.md]

A ROW is a file's name without .yaml; without one all are run, and with one those that it comes after too. What has been run in
--folder by the same commands is not run again, unless --again says so of the rows that are named. A file has

    after     rows whose files and tables its commands need
    commands  name -> a line of a shell in --folder: `w2w JOB ...` or `python -m MODULE ...`, one that ends in & runs beside the
              others of its row until these have ended
    lines     of the table: seed, did, figure (what was printed), here: a text with figures of the commands' results, such as
              {train[figures][AUC]}, and of those of rows that it comes after

A command that fails ends its row: its lines say so, and the next run tries it again.
"""

import argparse
import glob
import json
import os
import re
import shlex
import string
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import yaml

from w2w import ids
from w2w.results import Figure

ROOT = Path(__file__).parents[2]
FILES = ROOT / "jobs" / "examples" / "seeds"
TABLE = "| seed | what it did | its figure | command here | figure here |"
_RULE = "|---|---|---|---|---|"
_KEPT = 2000  # characters of what a command said, where it failed


@dataclass(frozen=True)
class Line:
    """One of the table."""

    seed: str
    did: str
    figure: str
    here: str

    @property
    def commands(self) -> list[str]:
        """Names of the commands whose figures ``here`` states, in their order there."""
        named = (field for _, field, _, _ in string.Formatter().parse(self.here) if field)
        return list(dict.fromkeys(re.split(r"[.\[]", field)[0] for field in named))


@dataclass(frozen=True)
class Row:
    """A file of jobs/examples/seeds."""

    name: str
    after: tuple[str, ...]
    commands: Mapping[str, str]
    lines: tuple[Line, ...]


class Failed(Exception):
    """A command that did not end well."""


def read_rows(files: Path = FILES) -> dict[str, Row]:
    """Rows by name, each after those that it needs."""
    found = {}
    for file in sorted(files.glob("*.yaml")):
        said = yaml.safe_load(file.read_text(encoding="utf-8"))
        lines = tuple(Line(**line) for line in said["lines"])
        found[file.stem] = Row(file.stem, tuple(said.get("after", ())), said["commands"], lines)
    return {name: found[name] for name in TopologicalSorter({name: row.after for name, row in found.items()}).static_order()}


def with_needed(rows: Mapping[str, Row], names: Sequence[str]) -> list[Row]:
    """The rows of these names, and those that they come after; all of them without a name."""
    wanted = set(names or rows)
    for name in reversed(rows):
        wanted |= set(rows[name].after) if name in wanted else set()
    return [row for name, row in rows.items() if name in wanted]


def digest(row: Row, rows: Mapping[str, Row]) -> str:
    """Of its commands, in their order, and of those of all that it comes after."""
    return ids.digest(list(row.commands.items()), *(digest(rows[name], rows) for name in row.after))


def run(row: Row, folder: Path) -> dict[str, Any]:
    """What each command said as JSON, by its name. Raises Failed."""
    results: dict[str, Any] = {}
    with beside(folder) as start:
        for name, command in row.commands.items():
            print(f"{row.name}: {command}", flush=True)
            if command.rstrip().endswith("&"):
                start(command.rstrip().removesuffix("&"))
            else:
                results[name] = _by_w2w(command) if command.startswith("w2w ") else _by_python(command)
    return results


@contextmanager
def beside(folder: Path) -> Iterator[Any]:
    """Within, commands run in ``folder``, and what ``start`` was given runs beside them, from its first line of output on."""
    before, running = os.getcwd(), []

    def start(command: str) -> None:
        running.append(subprocess.Popen(_words(command), stdout=subprocess.PIPE, text=True, env=_environment()))
        if not running[-1].stdout.readline():
            raise Failed(f"{command}: ended at once, with {running[-1].wait()}")

    os.chdir(folder)
    try:
        yield start
    finally:
        os.chdir(before)
        for process in running:
            process.terminate()
            process.wait()
            process.stdout.close()


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}


def _words(command: str) -> list[str]:
    """As a shell has them: names of files that are there for words with wildcards."""
    words = [file for word in shlex.split(command) for file in sorted(glob.glob(word)) or [word]]
    return [sys.executable if words[0] == "python" else words[0], *words[1:]]


def _by_w2w(command: str) -> dict[str, Any]:
    """In this process: Ray is started by the first command, and the others find it."""
    from w2w.cli import main as command_line

    with tempfile.TemporaryDirectory() as place:
        said, argv = Path(place, "said.json"), sys.argv
        sys.argv = [*_words(command), f"--json={said}"]
        try:
            command_line.main()
        except SystemExit as e:
            if e.code:
                error = json.loads(said.read_text())["error"] if said.exists() else f"exit code {e.code}"
                raise Failed(f"{command}: {error}") from e
        finally:
            sys.argv = argv
        return json.loads(said.read_text())


def _by_python(command: str) -> Any:
    """Its last line, where that is JSON."""
    done = subprocess.run(_words(command), capture_output=True, text=True, env=_environment())
    if done.returncode:
        raise Failed(f"{command}: {done.stderr[-_KEPT:]}")
    try:
        return json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        return {}


def shown(value: Any) -> Any:
    """The JSON of results as texts are made of it: a figure with its interval, lists and objects by their items."""
    if isinstance(value, list):
        return [shown(v) for v in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"value", "low", "high", "num"}:
        return Figure(**value)
    return {k: shown(v) for k, v in value.items()}


def by_seed(rows: Sequence[Row]) -> list[tuple[Row, Line]]:
    """Rows with their lines, those of one seed together, as the seeds first come."""
    found = [(row, line) for row in rows for line in row.lines]
    first = list(dict.fromkeys(line.seed for _, line in found))
    return sorted(found, key=lambda one: first.index(one[1].seed))


def told_commands(row: Row, line: Line, rows: Mapping[str, Row]) -> str:
    """The commands whose figures a line states."""
    known = {name: command for other in (*row.after, row.name) for name, command in rows[other].commands.items()}
    return " <br> ".join(f"`{known[name]}`" for name in line.commands)


def table(rows: Sequence[Row], kept: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Cells of the lines of rows that were run. Raises KeyError where a result has no such figure."""
    named, cells = {row.name: row for row in rows}, []
    for row, line in by_seed(rows):
        results = {name: value for other in (*row.after, row.name) for name, value in kept[other]["results"].items()}
        error = kept[row.name]["error"]
        here = "not run: " + error.split("\n")[0] if error else line.here.format_map(shown(results))
        cells.append([line.seed, line.did, line.figure, told_commands(row, line, named), here])
    return cells


def write_table(out: Path, cells: Sequence[Sequence[str]]) -> None:
    """In place of the table of that Markdown file, which ends it; what stands before it stays."""
    before = out.read_text(encoding="utf-8").partition(TABLE)[0] if out.exists() else ""
    lines = ["| " + " | ".join(" ".join(c.replace("|", "\\|").split()) for c in line) + " |" for line in cells]
    out.write_text("\n".join([before.rstrip(), "", TABLE, _RULE, *lines, ""]), encoding="utf-8")


def run_all(
    names: Sequence[str], folder: Path, again: bool = False, files: Path = FILES
) -> tuple[list[Row], dict[str, dict[str, Any]]]:
    """Runs what has not been run in ``folder`` by these commands; returns the rows, and what each has said."""
    rows = read_rows(files)
    if strange := sorted(set(names) - set(rows)):
        raise SystemExit(f"{strange[0]}: there is no such row, only {', '.join(rows)}")
    (folder / "rows").mkdir(parents=True, exist_ok=True)
    chosen, kept = with_needed(rows, names), {}
    for row in chosen:
        file, made_by = folder / "rows" / f"{row.name}.json", digest(row, rows)
        known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        if known.get("digest") == made_by and not known["error"] and not (again and row.name in (names or rows)):
            kept[row.name] = known
            continue
        began, results, error = time.monotonic(), {}, None
        try:
            if failed := [name for name in row.after if kept[name]["error"]]:
                raise Failed(f"comes after {failed[0]}, which failed")
            results = run(row, folder)
        except Failed as e:
            error = str(e)
            print(f"{row.name}: {error}", file=sys.stderr, flush=True)
        said = {"digest": made_by, "seconds": round(time.monotonic() - began, 1), "results": results, "error": error}
        file.write_text(json.dumps(said, indent=1), encoding="utf-8")
        kept[row.name] = json.loads(file.read_text(encoding="utf-8"))
    return chosen, kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW")
    parser.add_argument("--folder", type=Path, help="of shops, stores, models and what was measured; default: one for this run")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--out", type=Path, help="Markdown: the table at its end is made anew")
    options = parser.parse_args()
    os.environ.setdefault("W2W_RAY_LEAN", "1")
    rows, kept = run_all(options.rows, (options.folder or Path(tempfile.mkdtemp())).absolute(), options.again)
    cells = table(rows, kept)
    if options.out:
        write_table(options.out, cells)
    names = ("seed", "did", "figure", "command", "here")
    told = {"rows": [dict(zip(names, line)) for line in cells], "seconds": {n: said["seconds"] for n, said in kept.items()}}
    print(json.dumps({"bench": "seeds", **told, "failed": {n: said["error"] for n, said in kept.items() if said["error"]}}))


if __name__ == "__main__":
    main()
