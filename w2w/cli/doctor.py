"""Doctor: what this machine, installation and credentials can do; exits 1 where something that jobs need is missing."""

from dataclasses import dataclass

from rich.table import Table as RichTable

import w2w
from w2w import storage
from w2w.cli.checks import checks
from w2w.engine.job import console
from w2w.errors import JobFailed, UsageError
from w2w.models.config import EncoderConfig


@dataclass(frozen=True)
class Config:
    """Check the machine, the encoder and, with --store, whether tables can be read and written there."""

    SHOWN = "store encoder.name encoder.device encoder.engine"

    store: str | None = None
    """A local path or s3:// prefix to try."""
    encoder: EncoderConfig = EncoderConfig()
    """The model to try."""


def main(config: Config) -> None:
    shown = RichTable("check", "result", "", title=f"w2w {w2w.__version__}", title_justify="left")
    failed = []
    for name, check in checks(config.encoder, config.store and storage.absolute(config.store)):
        try:
            text, good = check(), True
        except (UsageError, JobFailed, OSError, ImportError, AssertionError) as e:
            text, good = f"{type(e).__name__}: {e}", False
            failed.append(name)
        shown.add_row(name, str(text), "ok" if good else "FAILED")
    console().print(shown)
    if failed:
        raise JobFailed(f"failed: {', '.join(failed)}")
