"""The table of results: each number with its spread, and its ratio to what it is measured beside."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from rich import box
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Series:
    """The same thing measured several times. The median counts."""

    values: Sequence[float]
    unit: str

    @property
    def middle(self) -> float:
        """Return the median."""
        return median(self.values)

    def __str__(self) -> str:
        """Return the median, in its unit."""
        return f"{_short(self.middle)} {self.unit}"

    @property
    def spread(self) -> str:
        """Return the least and the most."""
        least, most = min(self.values), max(self.values)
        return "" if least == most else f"{_short(least)} to {_short(most)}"


@dataclass(frozen=True, slots=True)
class Row:
    """One line. ``beside`` is what the ratio is to: a name and a value in the same unit."""

    what: str
    series: Series
    beside: tuple[str, float] | None = None
    aim: str = ""


def print_table(rows: Sequence[Row], footnote: str) -> None:
    """Print the rows, as a table that Markdown understands, and a line below it."""
    table = Table("measured", "median", "spread", "beside", "ratio", "aim", box=box.MARKDOWN)
    for row in rows:
        name, value = row.beside or ("", 0.0)
        beside = f"{name}: {_short(value)} {row.series.unit}" if row.beside else ""
        ratio = f"{row.series.middle / value:.2f}" if row.beside else ""
        table.add_row(row.what, str(row.series), row.series.spread, beside, ratio, row.aim)
    console = Console(width=140)
    console.print(table)
    console.print(footnote, highlight=False)


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
