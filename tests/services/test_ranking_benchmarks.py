"""The benchmarks of approximate search, of freshness and of restarts run from beginning to end."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner


def test_ann_reports_recall_and_time_over_probes(tmp_path):
    pytest.importorskip("faiss")
    from benchmarks.approximate_ranking import command

    out = tmp_path / "ann.json"
    options = ["--items", "8000", "--sessions", "20", "--probes", "1,100000", "--out", str(out)]
    done = CliRunner().invoke(command, options, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    result = json.loads(out.read_text())
    one, all_cells = result["approximate"]
    assert 0.0 < one["recall"] <= all_cells["recall"]
    # Half precision may exchange neighbours of nearly the same score, no more.
    assert all_cells["recall"] >= 0.99
    assert result["exact"]["p50_ms"] > 0.0
    assert "recall" in done.output


@pytest.mark.slow
def test_freshness_under_load_reports_percentiles_of_every_kind_of_call(tmp_path):
    from benchmarks.freshness import command

    out = tmp_path / "freshness.json"
    options = ["--direct", "--inserts", "10", "--repeats", "1", "--load", "20", "--out", str(out)]
    done = CliRunner().invoke(command, options, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    result = json.loads(out.read_text())
    for name in ("rankable", "call with min_sequence", "call for a known item"):
        assert 0.0 < result["figures"][name]["p50_ms"] <= result["figures"][name]["max_ms"]
    assert sum(one["calls"] for one in result["figures"]["load"]) > 0
    assert result["protocol"]["load_per_s"] == 20
    assert out.with_name("freshness-distribution.svg").exists()


def test_restart_reports_kills_of_the_server_and_of_a_worker_beside_floors(tmp_path):
    from benchmarks.restart import command

    out = tmp_path / "restart.json"
    done = CliRunner().invoke(command, ["--items", "200", "--rounds", "1", "--out", str(out)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    result = json.loads(out.read_text())
    figures = result["figures"]
    assert 0.0 < figures["exec to SERVING"]["median"] <= figures["kill to SERVING"]["median"]
    assert all(figures[name]["worst"] > 0.0 for name in ("Python", "Python and the libraries", "processor time"))
    assert len(figures["kill of a worker to its successor's SERVING"]["all"]) == 1
    assert set(result["reached"]) == {"kill to SERVING", "kill of a worker to its successor's SERVING"}
    assert result["protocol"]["items"] == 200
    assert "first ranking" in done.output
