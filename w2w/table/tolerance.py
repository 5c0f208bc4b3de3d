"""How many rejects make a job fail."""

from collections.abc import Sequence
from dataclasses import dataclass

from w2w.errors import TooManyRejects

_NAMED = 5  # rejected rows in a message
_SHOWS = "'w2w tables --rejects' of this store shows them"


@dataclass(frozen=True)
class Tolerance:
    """A job tolerates rejects up to ``max_rate`` of its rows, and always fewer than ``min_rejects`` if any row is good."""

    max_rate: float = 1.0
    min_rejects: int = 1

    def exceeded(self, rejected: int, rows: int) -> bool:
        return rejected > self.max_rate * rows and rejected >= min(self.min_rejects, rows)

    def check(
        self, rejects: dict[str, int], rows: int, before: int = 0, named: Sequence[str] = (), by_code: bool = False
    ) -> None:
        """Raises TooManyRejects if too many of ``rows`` are rejected: ``rejects`` by code, and ``before`` by earlier runs.
        ``named``: each with its reason, where they are in no table `rejects`; ``by_code``: one of each code."""
        rejected = sum(rejects.values()) + before
        if self.exceeded(rejected, rows):
            worst = [f"{n} {code}" for code, n in sorted(rejects.items(), key=lambda kv: -kv[1])]
            worst += [f"{before} by earlier runs"] if before else []
            left = f"; and {rejected - _NAMED:,} more" if rejected > _NAMED and not by_code else ""
            where = f": {'; '.join(named[:_NAMED])}{left}. Mend" if named else f". {_SHOWS}; mend"
            raise TooManyRejects(
                f"{rejected} of {rows} rows were rejected ({', '.join(worst)}): more than max_reject_rate={self.max_rate:g} "
                f"allows{where} the input, or raise --max_reject_rate."
            )
