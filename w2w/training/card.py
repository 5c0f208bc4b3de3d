"""The model card of a trained network."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from w2w.shown import without_secrets


def model_card(
    title: str,
    what: Sequence[str],
    facts: Mapping[str, object],
    figures: Mapping[str, object],
    licence: str,
    settings: Mapping[str, Any],
    git_revision: str | None,
    header: Sequence[str] = (),
) -> str:
    """Markdown with the hub's header: what it is (lines of text), data and training, figures, licence. ``settings``: config
    dataclasses by the name of their options."""
    lines = ["---", *header, "library_name: w2w", "---", f"# {title}", "", *what, "", "## Data", ""]
    lines += [f"- {name}: {value}" for name, value in facts.items()]
    lines += ["", "## Figures on the test split, of which nothing was in training", ""]
    lines += [f"- {name}: {value}" for name, value in figures.items()]
    lines += ["", "## Licence", "", licence, "", "## Settings", ""]
    for name, config in settings.items():
        lines += [f"- {name}.{key}: {value}" for key, value in asdict(config).items()]
    return without_secrets("\n".join([*lines, f"- git revision: {git_revision}"]) + "\n")
