"""What every job shares: its common options, its summary, and how it ends.

A file in ``jobs/`` has a config dataclass and ``main(config) -> Summary``; ``start(main, Config)`` is the rest: options,
sentences instead of tracebacks for a user's mistake, the summary table, exit codes (0 done, 1 failed, 2 wrong usage).
"""

import dataclasses
import logging
import os
import subprocess
import sys
import time
import traceback
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rich.table import Table as RichTable

import w2w
from w2w import config as configuration
from w2w import schema, storage
from w2w.engine.cluster import RayConfig, connect
from w2w.errors import JobFailed, UsageError
from w2w.shown import LogLines, Patient, line, lines
from w2w.shown import terminal as console
from w2w.stage import Counts
from w2w.table import delta
from w2w.table.sink import Lineage, Tolerance

log = logging.getLogger("w2w")


@dataclass(frozen=True)
class JobConfig:
    """Options of every job that writes tables."""

    store: str
    """Where the tables and indexes lie: a local path or an s3:// prefix."""
    limit: int | None = None
    """Work on at most this many pending rows."""
    dry_run: bool = False
    """Say what would be done, and do nothing."""
    max_reject_rate: float = 0.05
    """The job fails when a larger share of its rows than this is rejected, those of earlier runs included."""
    min_rejects: int = 5
    """Fewer rejects than this never fail a job, unless all its rows are bad."""
    commit_every_s: float = 20.0
    """Seconds between commits: what a killed driver loses at most."""
    item_rows: int = 1024
    """Rows that a worker reads, computes and writes in one go: what a killed worker repeats."""
    ray: RayConfig = RayConfig()
    """Where the work runs."""

    @property
    def tolerance(self) -> Tolerance:
        return Tolerance(self.max_reject_rate, self.min_rejects)


@dataclass
class Summary:
    """What a job did, for the table at its end, the caller, and reports."""

    job: str
    run_id: str
    counts: Counts = field(default_factory=Counts)
    seconds: float = 0.0
    versions: dict[str, int] = field(default_factory=dict)  # table -> version written
    skipped: int = 0  # rows that were done before this run
    facts: dict[str, object] = field(default_factory=dict)  # what else a person wants to read
    dry_run: bool = False

    @property
    def rows_per_s(self) -> float:
        return self.counts.read / self.seconds if self.seconds else 0.0


class Run:
    """One run of one job: its id, its clock, its lineage."""

    def __init__(self, job: str, config: JobConfig):
        check_common(config)
        self.job, self.config = job, config
        self.store = storage.absolute(config.store)
        self.run_id = f"{job}-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{uuid.uuid4().hex[:6]}"
        self._start = time.monotonic()
        self._seen = delta.FirstSeen()

    def check_store(self) -> None:
        """Raises UsageError where the store cannot be written."""
        storage.check_writable(self.store, "--store")

    def begin(self) -> None:
        """Checks the store and joins the cluster: called when there is work to do."""
        self.check_store()
        connect(self.config.ray)

    def lineage(self, stage_version: str, inputs: Sequence[schema.Table], stage: str | None = None) -> Lineage:
        opened = {t.name: delta.open_table(self.store, t) for t in inputs}
        return Lineage(
            job=self.job,
            run_id=self.run_id,
            stage=stage or self.job,
            stage_version=stage_version,
            config=dataclasses.asdict(self.config),
            inputs={name: t.version() for name, t in opened.items() if t is not None},
            w2w_version=w2w.__version__,
            git_revision=git_revision(),
            seen=self._seen,
        )

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start

    def summary(self, **values) -> Summary:
        return Summary(self.job, self.run_id, seconds=self.seconds, dry_run=self.config.dry_run, **values)


def check_common(config: JobConfig) -> None:
    if not config.store:
        raise UsageError("--store is empty: give a local path or an s3:// prefix")
    if config.limit is not None and config.limit < 1:
        raise UsageError(f"--limit={config.limit}: must be at least 1")
    if config.item_rows < 1:
        raise UsageError(f"--item_rows={config.item_rows}: must be at least 1")
    if not 0 <= config.max_reject_rate <= 1:
        raise UsageError(f"--max_reject_rate={config.max_reject_rate}: a share between 0 and 1")
    if config.min_rejects < 1:
        raise UsageError(f"--min_rejects={config.min_rejects}: must be at least 1")
    if config.commit_every_s < 0:
        raise UsageError(f"--commit_every_s={config.commit_every_s}: must not be negative")


def options_of(config: object, config_class: type) -> dict:
    """The options of ``config`` that ``config_class`` has too: for a job that runs other jobs."""
    return {f.name: getattr(config, f.name) for f in dataclasses.fields(config_class) if hasattr(config, f.name)}


def git_revision() -> str | None:
    """Of the code that runs, where it runs from a checkout."""
    here = os.path.dirname(os.path.dirname(os.path.abspath(w2w.__file__)))
    try:
        found = subprocess.run(["git", "-C", here, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() if found.returncode == 0 else None


def start(main: Callable, config_class: type, argv: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Runs a job from the command line and ends the process with its exit code."""
    sys.stdout = Patient(sys.stdout)
    handler = logging.StreamHandler()
    handler.setFormatter(LogLines("%(asctime)s %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for noisy in ("botocore", "httpx"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    prog = prog or f"python {sys.argv[0]}"
    try:
        config = configuration.parse(config_class, sys.argv[1:] if argv is None else argv, prog)
        summary = main(config)
    except UsageError as e:
        _fail(str(e), 2)
    except JobFailed as e:
        _fail(str(e), 1)
    except KeyboardInterrupt:
        _fail("stopped. What was committed stays; run it again to go on.", 130)
    except OSError as e:
        _fail(f"cannot read or write: {e}", 1)
    except Exception:
        print(lines(traceback.format_exc()), file=sys.stderr)
        sys.exit(1)
    for one in summary if isinstance(summary, list) else [summary]:
        if isinstance(one, Summary):
            show(one)
    sys.exit(0)


def show(summary: Summary) -> None:
    """Prints the summary table."""
    title = f"{summary.job}{' (dry run: nothing was done)' if summary.dry_run else ''}"
    table = RichTable(title=title, title_justify="left", show_header=False, title_style="bold")
    table.add_column()
    table.add_column(overflow="fold")  # a path is there to be copied whole
    counts = summary.counts
    rows: list[tuple[str, object]] = [("run", summary.run_id)]
    if not summary.dry_run:
        rows += [("rows in", f"{counts.read:,}"), ("rows out", f"{counts.out:,}"), ("rejects", f"{counts.rejected:,}")]
        rows += [(f"  {code}", f"{n:,}") for code, n in sorted(counts.rejects.items(), key=lambda kv: -kv[1])]
        rows += [("already done", f"{summary.skipped:,}")]
        rows += [(f"rows through {name}", f"{n:,}") for name, n in counts.stages.items()]
        rows += [("seconds", f"{summary.seconds:,.1f}"), ("rows/s", f"{summary.rows_per_s:,.1f}")]
        rows += [(f"table {name}", f"version {v}") for name, v in summary.versions.items()]
    rows += [(name, value) for name, value in summary.facts.items()]
    for name, value in rows:
        table.add_row(str(name), str(value))
    console().print(table)


def _fail(message: str, code: int) -> None:
    print(f"w2w: {line(message)}", file=sys.stderr)
    sys.exit(code)
