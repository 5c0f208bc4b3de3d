"""How many rejects make a job fail."""

from dataclasses import dataclass

from w2w.errors import TooManyRejects


@dataclass(frozen=True)
class Tolerance:
    """A job tolerates rejects up to ``max_rate`` of its rows, and always fewer than ``min_rejects`` if any row is good."""

    max_rate: float = 1.0
    min_rejects: int = 1

    def exceeded(self, rejected: int, rows: int) -> bool:
        return rejected > self.max_rate * rows and rejected >= min(self.min_rejects, rows)

    def check(self, rejects: dict[str, int], rows: int, before: int = 0) -> None:
        """Raises TooManyRejects if too many of ``rows`` are rejected: ``rejects`` by code, and ``before`` by earlier runs."""
        rejected = sum(rejects.values()) + before
        if self.exceeded(rejected, rows):
            worst = [f"{n} {code}" for code, n in sorted(rejects.items(), key=lambda kv: -kv[1])]
            worst += [f"{before} by earlier runs"] if before else []
            raise TooManyRejects(
                f"{rejected} of {rows} rows were rejected ({', '.join(worst)}): more than max_reject_rate={self.max_rate:g} "
                f"allows. 'w2w tables --rejects' of this store shows them; mend the input, or raise --max_reject_rate."
            )
