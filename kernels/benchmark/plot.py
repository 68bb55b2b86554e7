"""The roofline: how near each op comes to what the machine can do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kernels.benchmark.cases import OURS
from kernels.benchmark.measure import Row
from kernels.benchmark.roofs import Roofs

FORMATS = ("png", "svg")


def draw_roofline(rows: Sequence[Row], roofs: Roofs, title: str, stem: Path) -> list[Path]:
    """FLOP a byte against FLOP a second, both of the op whatever the way: ours filled, the fastest baseline hollow.

    Args:
        rows: those with figures and FLOP are drawn.
        roofs: of the machine.
        title: says what was measured.
        stem: path of the pictures without their ending.

    Returns:
        The PNG and the SVG.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError("the plot needs matplotlib: pip install 'llmgr[plots]'") from error
    matplotlib.use("agg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "kernels"
    drawn = [row for row in rows if row.times is not None and row.flop and "read of the table" not in row.way]
    figure, axes = pyplot.subplots(figsize=(9, 5.5))
    cases = list(dict.fromkeys((row.op, row.shape) for row in drawn))
    ops = list(dict.fromkeys(op for op, _ in cases))
    colours = {op: f"C{number}" for number, op in enumerate(ops)}
    labelled: set[str] = set()
    intensities = [1.0]
    for case in cases:
        of_case = [row for row in drawn if (row.op, row.shape) == case]
        ours = [row for row in of_case if row.way == OURS]
        others = sorted((row for row in of_case if row.way != OURS), key=_seconds)[:1]
        for row, filled in [(row, True) for row in ours] + [(row, False) for row in others]:
            intensity = row.flop / row.moved_bytes
            intensities.append(intensity)
            colour = colours[row.op]
            label = row.op if filled and row.op not in labelled else None
            labelled |= {row.op} if filled else set()
            face = colour if filled else "none"
            axes.plot(intensity, row.flop / _seconds(row) / 1e9, "o", color=colour, markerfacecolor=face, label=label)
    ridge = roofs.flop_per_second / roofs.bytes_per_second
    ends = [min(*intensities, ridge) / 2, ridge, max(*intensities, ridge) * 2]
    axes.plot(
        ends, [min(x * roofs.bytes_per_second, roofs.flop_per_second) / 1e9 for x in ends], color="0.3", label="measured roofs"
    )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("FLOP a byte of the op")
    axes.set_ylabel("GFLOP/s")
    axes.set_title(f"{title}\nfilled: ours, hollow: the fastest baseline", fontsize=10)
    axes.grid(True, which="major", alpha=0.3)
    axes.legend(fontsize=8)
    figure.tight_layout()
    paths = [stem.with_suffix(f".{ending}") for ending in FORMATS]
    for path in paths:
        figure.savefig(path, dpi=120, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)
    return paths


def _seconds(row: Row) -> float:
    return row.times.median if row.times is not None else float("inf")
