"""What a chain of jobs did: the one page that shows whether it works."""

from w2w.report.page import write_page


def run_report(
    out: str,
    title: str,
    intro: str,
    jobs: list[dict],
    plans: dict[str, list[dict]],
    pictures: list[dict],
    links: dict[str, str],
) -> None:
    """Writes the page to ``out``.

    ``jobs``: job, rows_in, rows_out, rejects (by code), skipped, seconds, rows_per_s, facts. ``plans``: group -> candidates
    that the index planner measured. ``pictures``: label and image (a data URI). ``links``: text -> relative path.
    """
    write_page(out, "run.html.j2", title=title, intro=intro, jobs=jobs, plans=plans, pictures=pictures, links=links)
