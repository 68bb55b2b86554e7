"""Pictures of a load benchmark, made from its JSON alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from llmgr_core.evaluation.drawing import svg_figure

SHOWN_QUANTILES = {"p50_ms": "-", "p90_ms": "--", "p99_ms": ":"}


def load_plots(result: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Name and SVG text of each picture: latency over load, and the distribution of latencies at each load.

    Args:
        result: as the benchmark writes it: ``loads`` is a list of {"rate", "latency", "floor", "curve", "floor_curve"}.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    yield "load", _over_load(result)
    yield "distribution", _distribution(result)


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
