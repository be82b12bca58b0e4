"""The figures as a table for people and as JSON for machines."""

from collections.abc import Mapping, Sequence
from typing import Final

from tests.bench.figures import Row, Spread, spread_of
from tests.bench.machine import MachineNoise

_HEAD: Final = (
    "measured",
    "median (least .. greatest)",
    "baseline of the same run",
    "ratio, median (least .. greatest)",
)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _spread(spread: Spread) -> str:
    return f"{_number(spread.median)} ({_number(spread.least)} .. {_number(spread.greatest)})"


def _cells(row: Row) -> tuple[str, str, str, str]:
    own = f"{_spread(spread_of(row.values))} {row.unit}"
    if not row.ratios:
        return row.label, own, row.baseline, ""
    baseline = f"{row.baseline}: {_spread(spread_of(row.baseline_values))}"
    return row.label, own, baseline, _spread(spread_of(row.ratios))


def render_table(rows: Sequence[Row]) -> str:
    """Return the rows as aligned columns, each followed by its notes."""
    cells = [_cells(row) for row in rows]
    widths = [max(len(line[column]) for line in (_HEAD, *cells)) for column in range(len(_HEAD))]

    def line_of(texts: Sequence[str]) -> str:
        padded = (text.ljust(width) for text, width in zip(texts, widths, strict=True))
        return "  ".join(padded).rstrip()

    lines = [line_of(_HEAD), line_of([width * "-" for width in widths])]
    for row, texts in zip(rows, cells, strict=True):
        lines.append(line_of(texts))
        lines += [f"    {note}" for note in row.notes]
    return "\n".join(lines)


def render_machine(machine: Mapping[str, object], noise: MachineNoise) -> str:
    """Return what ran the benchmark and how steady it was."""
    loop = noise.loop()
    described = ", ".join(f"{name} {value}" for name, value in machine.items())
    return (
        f"machine: {described}\n"
        f"noise: a fixed loop took {_spread(loop)} ms, greatest over least {loop.width:.2f}; "
        f"{noise.stolen_percent():.1f} % of the processors given to others by the hypervisor; "
        f"load average at the start {noise.load_at_start:.2f}\n"
        "       that is the processor alone; the spread of each figure stands in its row\n"
        "       compare ratios, which are taken round by round, not figures of two runs"
    )


def _spread_document(values: Sequence[float]) -> dict[str, object]:
    spread = spread_of(values)
    return {
        "least": spread.least,
        "median": spread.median,
        "greatest": spread.greatest,
        "rounds": list(values),
    }


def document_of(
    rows: Sequence[Row], machine: Mapping[str, object], noise: MachineNoise
) -> dict[str, object]:
    """Return everything that was measured, values of single rounds included."""
    loop = noise.loop()
    return {
        "machine": dict(machine),
        "noise": {
            "loop_milliseconds": {
                "least": loop.least,
                "median": loop.median,
                "greatest": loop.greatest,
            },
            "stolen_percent": noise.stolen_percent(),
            "load_average_at_start": noise.load_at_start,
        },
        "rows": [
            {
                "scenario": row.scenario,
                "label": row.label,
                "unit": row.unit,
                "values": _spread_document(row.values),
                "baseline": row.baseline or None,
                "baseline_values": _spread_document(row.baseline_values)
                if row.baseline_values
                else None,
                "ratio": _spread_document(row.ratios) if row.ratios else None,
                "notes": list(row.notes),
                "details": dict(row.details),
            }
            for row in rows
        ],
    }
