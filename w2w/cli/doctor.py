"""Doctor: checks what this machine, installation and credentials can do."""

from dataclasses import dataclass, field

from rich.table import Table as RichTable

import w2w
from w2w import storage
from w2w.cli.checks import checks
from w2w.engine.job import new_run_id, show
from w2w.errors import JobFailed, UsageError
from w2w.garments.detector import DetectorConfig
from w2w.garments.segmenter import SegmenterConfig
from w2w.models.config import EncoderConfig
from w2w.results import Summary


@dataclass(frozen=True)
class Config:
    """Check the machine, installed packages, models and, with --store, whether tables can be read and written. Nothing is
    created, downloaded or changed."""

    SHOWN = "store encoder.name encoder.device encoder.engine detector.name segmenter.name"

    store: str | None = None
    """A local path or s3:// prefix to test."""
    encoder: EncoderConfig = EncoderConfig()
    """The model to test."""
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    """Whose weights are looked for."""
    segmenter: SegmenterConfig = SegmenterConfig()
    """Whose weights are looked for."""


@dataclass(frozen=True)
class Check:
    """One check and its result in words."""

    name: str
    text: str
    passed: bool


@dataclass(frozen=True, kw_only=True)
class Result(Summary):
    """All checks."""

    checks: tuple[Check, ...]

    def __rich__(self) -> RichTable:
        shown = RichTable("check", "result", "", title=f"w2w {w2w.__version__}", title_justify="left")
        for check in self.checks:
            shown.add_row(check.name, check.text, "ok" if check.passed else "FAILED")
        return shown


def main(config: Config) -> Result:
    found, store = [], config.store and storage.absolute(config.store)
    for name, check in checks(config.encoder, config.detector, config.segmenter, store):
        try:
            found.append(Check(name, str(check()), True))
        except (UsageError, JobFailed, OSError, ImportError, AssertionError) as e:
            found.append(Check(name, f"{type(e).__name__}: {e}", False))
    result = Result(job="doctor", run_id=new_run_id("doctor"), checks=tuple(found))
    if failed := [check.name for check in found if not check.passed]:
        show(result)
        raise JobFailed(f"failed: {', '.join(failed)}")
    return result
