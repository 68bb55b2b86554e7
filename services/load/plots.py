"""Pictures of the services' benchmarks, made from their JSON alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from llmgr_core.evaluation.drawing import svg_figure

SHOWN_QUANTILES = {"p50_ms": "-", "p90_ms": "--", "p99_ms": ":"}


def benchmark_plots(result: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Name and SVG text of each picture of a benchmark's result.

    Args:
        result: as the benchmark writes it. Loads: latency over load and the distribution of latencies at each load, from
            ``loads``, a list of {"rate", "latency", "floor", "curve", "floor_curve"}. Freshness: the distribution of
            ``curves``, {name: {"share", "ms"}}. Approximate ranking: recall over latency.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    if result["benchmark"] == "freshness":
        yield "distribution", _freshness(result)
    elif result["benchmark"] == "approximate_ranking":
        yield "recall", _recall(result)
    else:
        yield "load", _over_load(result)
        yield "distribution", _distribution(result)


def _freshness(result: Mapping[str, Any]) -> str:
    with svg_figure((6.4, 4.2)) as (figure, written):
        axes = figure.subplots()
        for name, curve in result["curves"].items():
            axes.plot(curve["ms"], curve["share"], label=name)
        axes.axvline(result["targets"]["ms"], color="C3", linewidth=0.8)
        axes.annotate(
            f"target: {result['targets']['share']:.0%} within {result['targets']['ms']:g} ms ",
            (result["targets"]["ms"], 0.02),
            color="C3",
            ha="right",
        )
        axes.set_xscale("log")
        axes.set_xlabel(f"ms from {result['protocol']['from']}")
        axes.set_ylabel("share of the items")
        axes.grid(alpha=0.3, which="both")
        axes.legend(frameon=False, fontsize=7)
        axes.set_title(f"Freshness, {result['protocol']['load_per_s']:g} sessions/s beside it")
    return written()


def _recall(result: Mapping[str, Any]) -> str:
    with svg_figure((6.4, 4.2)) as (figure, written):
        axes = figure.subplots()
        rows = result["approximate"]
        for name, label in (("latency", "approximate"), ("with_full_tail", "with new items beside the index")):
            axes.plot(
                [row[name]["p50_ms"] for row in rows], [row["recall"] for row in rows], marker="o", markersize=4, label=label
            )
        for row in rows:
            axes.annotate(f" {row['probes']} cells", (row["latency"]["p50_ms"], row["recall"]), fontsize=7, va="top")
        axes.axvline(result["exact"]["p50_ms"], color="C7", label="exact")
        axes.set_xscale("log")
        axes.set_xlabel("p50 of a ranking in process, ms")
        axes.set_ylabel(f"recall of the {result['protocol']['top_k']} best")
        axes.grid(alpha=0.3, which="both")
        axes.legend(frameon=False, fontsize=7)
        axes.set_title(f"{result['protocol']['items']:,} items, {result['protocol']['cells']} cells")
    return written()


def _over_load(result: Mapping[str, Any]) -> str:
    loads = [load for load in result["loads"] if load.get("name") == result["loads"][0].get("name")]
    rates = [load["rate"] for load in loads]
    with svg_figure((6.4, 4.2)) as (figure, written):
        axes = figure.subplots()
        for name, style in SHOWN_QUANTILES.items():
            label = name.removesuffix("_ms")
            ours = [load["latency"][name] for load in loads]
            floors = [load["floor"][name] for load in loads]
            axes.plot(rates, ours, style, marker="o", markersize=4, color="C0", label=f"{result['method']} {label}")
            axes.plot(rates, floors, style, marker="o", markersize=3, color="C7", label=f"no-op call {label}")
        for name, value in result["targets"].get("latency", {}).items():
            axes.axhline(value, color="C3", linewidth=0.8)
            axes.annotate(f"target {name.removesuffix('_ms')}: {value:g} ms", (rates[0], value), color="C3", va="bottom")
        axes.set_xlabel("calls a second, Poisson arrivals")
        axes.set_ylabel("ms from when a call was due")
        axes.set_yscale("log")
        axes.grid(alpha=0.3, which="both")
        axes.legend(frameon=False, fontsize=7)
        axes.set_title(result["title"])
    return written()


def _distribution(result: Mapping[str, Any]) -> str:
    with svg_figure((6.4, 4.2)) as (figure, written):
        axes = figure.subplots()
        for number, load in enumerate(result["loads"]):
            for curve, style, name in (("curve", "-", ""), ("floor_curve", ":", "no-op call ")):
                shares = load[curve]["share"]
                axes.plot(load[curve]["ms"], shares, style, color=f"C{number}", label=f"{name}{_name_of(load)}")
        axes.set_xscale("log")
        axes.set_xlabel("ms from when a call was due")
        axes.set_ylabel("share of the calls answered")
        axes.grid(alpha=0.3, which="both")
        axes.legend(frameon=False, fontsize=7)
        axes.set_title(result["title"])
    return written()


def _name_of(load: Mapping[str, Any]) -> str:
    return f"{load['name']}, {load['rate']:g}/s" if "name" in load else f"{load['rate']:g}/s"
