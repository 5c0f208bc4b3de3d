"""Who is told how a night ended: a command, a webhook, a file of metrics for Prometheus, OpenLineage. None of them can fail the
night."""

import json
import logging
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import requests

from w2w import storage
from w2w.errors import UsageError
from w2w.nightly import lineage
from w2w.shown import line

log = logging.getLogger("w2w")


@dataclass(frozen=True)
class Tell:
    """Who is told, and when."""

    LEAST = {"wait_s": 1}

    command: list[str] = field(default_factory=list)
    """Program and arguments: it gets the night as JSON on standard input, and W2W_EXIT, W2W_SAYS and W2W_REPORT in its
    environment."""
    webhook_env: str = ""
    """The environment variable with the URL that the night is posted to, as JSON: its `text` is what Slack, Mattermost and
    Teams show."""
    on: Literal["always", "notice", "failure"] = "always"
    """When the command and the webhook are told. notice: of failures, and of nights with notices, such as an index that is held
    back."""
    metrics: str = ""
    """File for the textfile collector of Prometheus' node_exporter, for example /var/lib/node_exporter/w2w.prom."""
    openlineage: str = ""
    """Where each night sends which step read and wrote which version of which table, as OpenLineage events: the URL of a server
    such as Marquez, its token in OPENLINEAGE_API_KEY, or a file (JSON lines)."""
    wait_s: float = 30.0
    """Seconds that the command, the webhook or one event may take."""


def check(tell: Tell) -> None:
    """Raises UsageError for what could never be told."""
    if tell.command and shutil.which(tell.command[0]) is None:
        raise UsageError(f"tell.command={tell.command[0]!r}: there is no such program")
    if tell.webhook_env:
        _url(tell)
    if tell.metrics and not tell.metrics.endswith(".prom"):
        raise UsageError(f"tell.metrics={tell.metrics}: node_exporter reads only files that end in .prom")
    if tell.metrics and not Path(tell.metrics).parent.is_dir():
        raise UsageError(f"tell.metrics={tell.metrics}: there is no such folder")
    if tell.openlineage:
        lineage.check(tell.openlineage)


def tell_all(tell: Tell, store: str, says: str, exit_code: int, report: str | None, night: bytes) -> None:
    """Tells everybody who is to be told; what does not work is logged. ``night``: the result as JSON."""
    plain = json.loads(night)
    if tell.metrics:
        _try("tell.metrics", lambda: storage.write_bytes(tell.metrics, metrics(plain, exit_code).encode()))
    if tell.openlineage:
        _try("tell.openlineage", lambda: lineage.send(tell.openlineage, tell.wait_s, store, plain))
    if exit_code == 0 and (tell.on == "failure" or (tell.on == "notice" and not plain.get("notices"))):
        return
    if tell.command:
        about = os.environ | {"W2W_EXIT": str(exit_code), "W2W_SAYS": says, "W2W_REPORT": report or ""}
        _try("tell.command", lambda: _run(tell, night, about))
    if tell.webhook_env:
        _try("tell.webhook_env", lambda: _post(tell, {"text": says, "exit": exit_code, "report": report, "night": plain}))


def _try(option: str, act: Any) -> None:
    try:
        act()
    except (OSError, UsageError, subprocess.SubprocessError, requests.RequestException) as e:  # a URL may be a secret
        why = type(e).__name__ if isinstance(e, requests.RequestException) else str(e)
        log.warning("%s: nobody was told: %s", option, line(why))


def _run(tell: Tell, night: bytes, about: Mapping[str, str]) -> None:
    done = subprocess.run(tell.command, input=night, env=about, timeout=tell.wait_s, stdout=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise OSError(f"{tell.command[0]} ended with {done.returncode}")


def _post(tell: Tell, message: Mapping[str, Any]) -> None:
    answer = requests.post(_url(tell), json=message, timeout=tell.wait_s, allow_redirects=False)
    if not 200 <= answer.status_code < 300:
        raise OSError(f"HTTP {answer.status_code}")


def _url(tell: Tell) -> str:
    url = os.environ.get(tell.webhook_env, "").strip()
    if not url:
        raise UsageError(f"tell.webhook_env={tell.webhook_env}: the environment has no such variable")
    if not re.match(r"https?://[^\s/]", url):
        raise UsageError(f"tell.webhook_env={tell.webhook_env}: the variable's value is not an http or https URL")
    return url


def metrics(night: Mapping[str, Any], exit_code: int) -> str:
    """The text format of Prometheus (version 0.0.4)."""
    counts = night.get("counts") or {}
    rows = {"in": counts.get("read", 0), "out": counts.get("out", 0), "rejected": sum((counts.get("rejects") or {}).values())}
    steps = {name: step["seconds"] for name, step in night.items() if isinstance(step, dict) and "seconds" in step}
    index = night.get("index") or {}
    told: dict[str, tuple[str, Mapping[str, float]]] = {
        "w2w_night_exit_code": ("Exit code of the last night: 0 done, 1 failed, 2 wrong usage.", {"": exit_code}),
        "w2w_night_end_timestamp_seconds": ("When the last night ended.", {"": night.get("ended", 0)}),
        "w2w_night_seconds": ("How long the last night took.", {"": night.get("seconds", 0)}),
        "w2w_night_step_seconds": ("How long each of its steps took.", {f'step="{n}"': s for n, s in steps.items()}),
        "w2w_night_notices": ("What a person should know though the night went well.", {"": len(night.get("notices") or ())}),
        "w2w_night_rows": ("Rows of all steps together.", {f'kind="{n}"': n_rows for n, n_rows in rows.items()}),
    }
    if index.get("recall") is not None:
        told["w2w_index_recall"] = ("Recall that the gate of the index measured.", {"": index["recall"]})
    if seen := index.get("shoppers_see"):
        labelled = {f'figure="{name}"': value for name, value in seen.items() if value is not None}
        told["w2w_index_shoppers_see"] = ("What shoppers see of the index: shares, as w2w index reports them.", labelled)
    text = []
    for name, (help_text, values) in told.items():
        text += [f"# HELP {name} {help_text}", f"# TYPE {name} gauge"]
        text += [f"{name}{{{label}}} {value:g}" if label else f"{name} {float(value)!r}" for label, value in values.items()]
    return "\n".join(text) + "\n"
