"""Tables of the benchmark on photographs, in Markdown: a row a way of quantizing, a column a data set, and their mean."""

from __future__ import annotations

from typing import Any, Iterable, Iterator, Sequence

from real_statistics import mean_of_seeds, mean_of_sets

from quantization.evaluation.wording import points_text

KEYS = {"merged": "classes merged", "map": "mean over classes"}


def table_head(title: str, sets: Iterable[str]) -> Iterator[str]:
    """The heading, and what stands above the rows.

    Args:
        title: of the table.
        sets: names of the data sets.
    """
    names = list(sets)
    yield from ("", f"## {title}", "")
    yield f"| | seeds | {' | '.join(names)} | mean |"
    yield "|---|---|" + "---:|" * (len(names) + 1)


def table_row(name: str, groups: Sequence[Sequence[dict[str, Any]]]) -> str:
    """The row of a way: the mean over the seeds of each set, and that of the sets; empty where there is none.

    Args:
        name: what the row is called.
        groups: of each set, the difference of each seed in points.
    """
    apart = [mean_of_seeds(group) if group else None for group in groups]
    cells = ["" if part is None else points_text(part) for part in [*apart, mean_of_sets(apart)]]
    return f"| {name} | {seed_counts(groups)} | {' | '.join(cells)} |"


def seed_counts(groups: Iterable[Sequence[Any]]) -> str:
    """How many seeds the sets have: "3", or "1 to 3"; sets without any do not count."""
    counts = sorted({len(group) for group in groups if group})
    return " to ".join(map(str, counts[:: max(1, len(counts) - 1)]))
