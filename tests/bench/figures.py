"""What a run measured: values per round, their spread, ratios to the baseline of the same round."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Least, middle and greatest of one figure over the rounds."""

    least: float
    median: float
    greatest: float

    @property
    def width(self) -> float:
        """Greatest over least: 1.0 is perfectly steady."""
        return self.greatest / self.least if self.least else 0.0


def spread_of(values: Sequence[float]) -> Spread:
    """Return the spread of at least one value."""
    return Spread(least=min(values), median=statistics.median(values), greatest=max(values))


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure of the product beside its baseline; values are in the order of the rounds.

    Attributes:
        scenario: Name on the command line.
        label: What was measured.
        unit: Of both columns of values.
        values: The product's.
        baseline: What the baseline is, or empty when the figure stands alone.
        baseline_values: The baseline's, one per round.
        notes: What a reader must know to judge the figure.
        details: Further figures for the JSON file.
    """

    scenario: str
    label: str
    unit: str
    values: Sequence[float]
    baseline: str = ""
    baseline_values: Sequence[float] = ()
    notes: Sequence[str] = ()
    details: Mapping[str, object] = field(default_factory=dict)

    @property
    def ratios(self) -> tuple[float, ...]:
        """Product over baseline, round by round, so that slow changes of the machine cancel out."""
        if not self.baseline_values:
            return ()
        pairs = zip(self.values, self.baseline_values, strict=True)
        return tuple(value / baseline for value, baseline in pairs if baseline)
