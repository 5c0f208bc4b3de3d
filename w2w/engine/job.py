"""What every job shares: common options, the result, and how it ends.

A job's module has ``Config``, ``Result`` and ``main(config) -> Result``; ``start(main, Config)`` does the rest: parses the
options, reports a user's mistake as a sentence instead of a traceback, prints the result as a table and as JSON, and sets the
exit code (0 done, 1 failed, 2 wrong usage).
"""

import dataclasses
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import w2w
from w2w import config as configuration
from w2w import schema, storage
from w2w.engine.cluster import RayConfig, connect
from w2w.errors import JobFailed, UsageError
from w2w.results import Summary, to_json
from w2w.shown import LogLines, Patient, line, lines, quiet
from w2w.shown import terminal as console
from w2w.table import delta
from w2w.table.rejects import one_of_each_code
from w2w.table.sink import Lineage
from w2w.table.tolerance import Tolerance

log = logging.getLogger("w2w")
R = TypeVar("R", bound=Summary)
STDOUT = "-"  # as the value of --json
STOPPED = 130  # exit code of what Ctrl-C or SIGTERM has ended


@dataclass(frozen=True)
class JobConfig:
    """Options of every job that writes tables."""

    LEAST = {"limit": 1, "item_rows": 1, "min_rejects": 1}

    store: str
    """Where tables and indexes live: a local path or an s3:// prefix."""
    limit: int | None = None
    """Work on at most this many pending rows."""
    dry_run: bool = False
    """Say what would be done, without doing it."""
    max_reject_rate: float = 0.05
    """The job fails if a larger share of its rows is rejected, counting rejects of earlier runs."""
    min_rejects: int = 5
    """Fewer rejects than this never fail a job, unless all its rows are bad."""
    commit_every_s: float = 20.0
    """Seconds between commits: the most work that a killed driver loses."""
    full_scan: bool = False
    """Compare all rows with all results, not only what came since the last run (by its watermark in the table's log)."""
    item_rows: int = 1024
    """Rows that a worker reads, computes and writes at a time: the most that a killed worker repeats."""
    ray: RayConfig = RayConfig()
    """Where the work runs."""

    @property
    def tolerance(self) -> Tolerance:
        return Tolerance(self.max_reject_rate, self.min_rejects)


class Run:
    """One run of one job: its id, its clock, its lineage."""

    first: ClassVar["Run | None"] = None
    """The run of the job that ``start`` started; a job may run others."""

    def __init__(self, job: str, config: JobConfig):
        check_common(config)
        self.job, self.config = job, config
        self.store = storage.folder(config.store, "--store")
        self.run_id = new_run_id(job)
        self._start = time.monotonic()
        self._seen = delta.FirstSeen()
        Run.first = Run.first or self

    def check_store(self) -> None:
        """Raises UsageError if the store cannot be written."""
        storage.check_writable(self.store, "--store")

    def begin(self) -> None:
        """Checks the store and joins the cluster; called once there is work to do."""
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

    def result(self, kind: type[R], **values: Any) -> R:
        """The job's result so far; see ``done``."""
        return kind(job=self.job, run_id=self.run_id, seconds=self.seconds, dry_run=self.config.dry_run, **values)

    def done(self, result: R, **values: Any) -> R:
        """The same, with the outcome of the work, and one of each kind of reject."""
        done = replace(result, seconds=self.seconds, **values)
        if not done.counts.rejects or done.of_those_rejected or done.dry_run:
            return done
        return replace(done, of_those_rejected=one_of_each_code(self.store, self.run_id))


def new_run_id(job: str) -> str:
    return f"{job}-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{uuid.uuid4().hex[:6]}"


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
    """The options of ``config`` that ``config_class`` shares: for a job that runs other jobs."""
    return {f.name: getattr(config, f.name) for f in dataclasses.fields(config_class) if hasattr(config, f.name)}


def git_revision() -> str | None:
    """Git revision of the running code, if it runs from a checkout."""
    here = os.path.dirname(os.path.dirname(os.path.abspath(w2w.__file__)))
    try:
        found = subprocess.run(["git", "-C", here, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() if found.returncode == 0 else None


def start(
    main: Callable,
    config_class: type,
    argv: Sequence[str] | None = None,
    prog: str | None = None,
    whose: Callable[[configuration.UnknownKey], str] = lambda e: "",
) -> None:
    """Runs a job from the command line and ends the process with its exit code. ``whose``: what to say of a file with keys of
    another job."""
    sys.stdout = Patient(sys.stdout)
    logging.basicConfig(level=logging.INFO, handlers=[_log_lines()])
    for noisy in ("botocore", "httpx"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    prog = prog or f"python {sys.argv[0]}"
    name = Path(prog.split()[-1]).stem.replace("_", "-")
    json_file, code, error, result, Run.first = "", 0, None, None, None
    rest = list(sys.argv[1:] if argv is None else argv)
    try:
        json_file, rest = _json_option(rest)
        config = configuration.parse(config_class, rest, prog)
        where, json_file = json_file, ""  # a file that cannot be written is not tried again
        _write_json(where, name, None, None, None)  # an earlier run's result must not be taken for this one's
        json_file = where
        with quiet(json_file == STDOUT), _stoppable():
            result = main(config)
            if result is not None:
                show(result)
    except UsageError as e:
        code, error = 2, configuration.in_file(str(e), config_class, rest, prog)
        error += whose(e) if isinstance(e, configuration.UnknownKey) else ""
    except JobFailed as e:
        code, error, result = 1, str(e), e.result
        if isinstance(result, Summary) and result.dry_run:  # what one needs to know to mend it
            with quiet(json_file == STDOUT):
                show(result)
    except KeyboardInterrupt:
        code, error = STOPPED, "stopped. What was committed stays; run it again to go on."
    except OSError as e:
        code, error = 1, f"cannot read or write: {e}"
    except Exception as e:
        print(lines(traceback.format_exc()), end="", file=sys.stderr)
        code, error = 1, f"bug: {type(e).__name__}: {e}"
    if error is not None:
        print(f"w2w: {line(error)}", file=sys.stderr)
    try:
        _write_json(json_file, name, result, code, error, final=True)
    except (UsageError, OSError) as e:
        print(f"w2w: {line(e)}", file=sys.stderr)
        code = code or 1
    sys.exit(code)


@contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM, by which Kubernetes, systemd and Ray stop a job, ends it as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_IGN)  # what is done now is said first
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def show(result: Summary) -> None:
    """Prints the result as a table."""
    console().print(result)


@contextmanager
def verbose() -> Iterator[None]:
    """Within this context, a job logs as on the command line."""
    handler, level = _log_lines(), log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


def _log_lines() -> logging.Handler:
    handler = logging.StreamHandler()
    handler.setFormatter(LogLines("%(asctime)s %(message)s", "%H:%M:%S"))
    return handler


def _json_option(argv: Sequence[str]) -> tuple[str, list[str]]:
    """Splits off ``--json``: the file that it names, and the other arguments."""
    rest, where = [], ""
    given = iter(argv)
    for token in given:
        name, _, value = token.partition("=")
        if name != "--json":
            rest.append(token)
        elif not (where := value or next(given, "")):
            raise UsageError("--json needs the path of a file, or - for standard output")
    return where, rest


def _write_json(where: str, job: str, result: Summary | None, code: int | None, error: str | None, final: bool = False) -> None:
    """Writes the result with exit code and error. ``final``: nothing is written after it."""
    run_id = Run.first.run_id if Run.first else None
    data = to_json(result, **({} if result else {"job": job, "run_id": run_id}), exit=code, error=error and line(error))
    if where == STDOUT:
        if final:
            sys.stdout.write(data.decode())
            sys.stdout.flush()
    elif where:
        try:
            storage.write_bytes(storage.absolute(where), data)
        except OSError as e:
            raise UsageError(f"--json={where}: cannot write there: {str(e).rpartition(': ')[2]}") from e
