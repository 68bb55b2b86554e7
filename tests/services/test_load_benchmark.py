"""The load benchmarks: what they judge, what they draw, and that they run from beginning to end."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.ranking_load import TARGETS, command, judged
from services.load.outcomes import Outcomes
from services.load.plots import benchmark_plots


def load(rate: float, milliseconds: float) -> dict:
    """Figures of a load whose calls all took about as long."""
    due = np.linspace(0.0, 1.0, 200)
    took = np.linspace(0.5, 1.0, 200) * milliseconds / 1e3
    zeros = np.zeros(200, dtype=int)
    outcomes = Outcomes(("RankSession",), zeros, due, due, due + took, zeros, 1.0, 0.1)
    return {
        "rate": rate,
        "latency": outcomes.summary(),
        "floor": outcomes.summary(),
        "curve": outcomes.curve(),
        "floor_curve": outcomes.curve(),
        "server_cpu_us": 450.0,
        "floor_cpu_us": 130.0,
    }


RESULT = {
    "benchmark": "ranking_load",
    "method": "RankSession",
    "title": "RankSession, 12,101 items",
    "protocol": {"items": 12_101},
    "targets": TARGETS,
    "floors": {"in process cpu_us": 100.0, "raw scan": {"p50_ms": 0.04}},
    "loads": [load(500.0, 1.0), load(1000.0, 2.0)],
    "overload": {
        "goodput_share": 0.95,
        "admitted": {"p99_ms": 200.0},
        "timeout_ms": 500.0,
        "shed": {"p99_ms": 3.0},
        "seconds_to_normal": 0.0,
        "resident_growth": 0.02,
    },
    "swap": {"statuses": {"OK": 500}, "p99_factor": 1.2},
}


def test_a_target_is_reached_or_missed_by_its_own_figure_alone():
    assert set(judged(RESULT).values()) == {True}
    for path, value, name in (
        (("loads", 1, "latency", "p99_ms"), 8.1, "p99_ms"),
        (("loads", 1, "latency", "statuses"), {"OK": 199, "UNAVAILABLE": 1}, "no errors"),
        (("loads", 1, "server_cpu_us"), 461.0, "cpu_factor"),
        (("overload", "goodput_share"), 0.89, "goodput_share"),
        (("overload", "shed", "p99_ms"), 5.1, "shed_p99_ms"),
        (("overload", "admitted", "p99_ms"), None, "admitted in time"),
        (("overload", "seconds_to_normal"), None, "seconds_to_normal"),
        (("overload", "resident_growth"), 0.06, "resident_growth"),
        (("swap", "p99_factor"), 1.6, "swap_p99_factor"),
        (("swap", "statuses"), {"OK": 499, "INTERNAL": 1}, "swap without errors"),
    ):
        worse = copy.deepcopy(RESULT)
        *way, last = path
        place = worse
        for step in way:
            place = place[step]
        place[last] = value
        assert [one for one, reached in judged(worse).items() if not reached] == [name]


def test_a_large_table_has_targets_of_its_own():
    large = copy.deepcopy(RESULT)
    large["protocol"]["items"] = 1_000_000
    large["floors"]["raw scan"]["p50_ms"] = 10.0
    large["one at a time"] = {"RankSession": {"p50_ms": 14.0}}
    large["loads"] = [load(150.0, 49.0)]
    assert judged(large)["scan_factor"]
    assert judged(large)["large p99_ms"]
    large["one at a time"]["RankSession"]["p50_ms"], large["loads"] = 16.0, [load(150.0, 51.0)]
    assert not judged(large)["scan_factor"]
    assert not judged(large)["large p99_ms"]


def test_pictures_come_from_the_json_alone_and_are_the_same_every_time():
    stored = json.loads(json.dumps(RESULT))
    pictures = dict(benchmark_plots(stored))
    assert sorted(pictures) == ["distribution", "load"]
    assert pictures == dict(benchmark_plots(stored))
    assert "target p99: 8 ms" in pictures["load"]
    assert "1000/s" in pictures["distribution"]


def test_freshness_and_approximate_ranking_have_pictures_too():
    curve = {"share": [0.0, 0.5, 1.0], "ms": [1.0, 13.0, 27.0]}
    freshness = {
        "benchmark": "freshness",
        "protocol": {"from": "the commit of the store", "load_per_s": 100.0},
        "targets": {"ms": 100.0, "share": 0.99},
        "curves": {"rankable": curve, "call for a known item": curve},
    }
    assert list(dict(benchmark_plots(freshness))) == ["distribution"]
    assert "call for a known item" in dict(benchmark_plots(freshness))["distribution"]
    row = {"probes": 8, "recall": 0.93, "latency": {"p50_ms": 1.2}, "with_full_tail": {"p50_ms": 1.9}}
    approximate = {
        "benchmark": "approximate_ranking",
        "protocol": {"items": 1_000_000, "cells": 4000, "top_k": 20},
        "exact": {"p50_ms": 12.0},
        "approximate": [row, row | {"probes": 16, "recall": 0.97}],
    }
    assert "16 cells" in dict(benchmark_plots(approximate))["recall"]


@pytest.mark.slow
def test_the_ranking_benchmark_runs_and_writes_what_it_found(tmp_path):
    out = tmp_path / "result.json"
    options = ["--items", "1000", "--rates", "20,40", "--seconds", "2", "--overload-seconds", "2", "--swap-rate", "20"]
    done = CliRunner().invoke(command, [*options, "--out", str(out)], catch_exceptions=False)
    assert done.exit_code == 0
    result = json.loads(out.read_text())
    assert [one["rate"] for one in result["loads"]] == [20.0, 40.0]
    assert result["swap"]["exchanged"]
    assert result["overload"]["during"]["calls"] > 0
    assert {"raw scan", "in process"} <= result["floors"].keys()
    assert "no-op call" in done.output
    assert sorted(path.name for path in tmp_path.glob("*.svg")) == ["result-distribution.svg", "result-load.svg"]
