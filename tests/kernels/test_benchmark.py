"""The benchmark: baselines are right, wrong results get no figure, sizes and files are as it says."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from waits_found import WaitsFound

from benchmarks.kernel_functions import command
from kernels.benchmark import timing
from kernels.benchmark.cases import OURS, Case, Deviation, Prepared, Setting, Way, against, deviation
from kernels.benchmark.command_line import main
from kernels.benchmark.counting import launches, peak_bytes
from kernels.benchmark.machine import NO_GPU, machine
from kernels.benchmark.measure import measure
from kernels.benchmark.ops import OPS, ranking
from kernels.benchmark.ops.gated_graph import graph_bytes
from kernels.benchmark.ops.projection import readout_bytes
from kernels.benchmark.report import as_json, lines_of
from kernels.benchmark.request import Request
from kernels.benchmark.roofs import H200, Roofs
from kernels.benchmark.sessions import PUBLISHED_MEAN, session_source
from kernels.benchmark.ways import ways_of
from kernels.session_graph import build_session_graph

CPU = torch.device("cpu")
ROOFS = Roofs(1e10, 1e11)


@pytest.fixture(scope="module")
def setting() -> Setting:
    return Setting(CPU, torch.float32, "tiny", session_source("published", None), compile=False, memory_bytes=1e9)


@pytest.mark.parametrize("op", OPS)
def test_every_way_of_every_op_computes_what_the_definition_says(op: str, setting: Setting) -> None:
    for case in OPS[op](setting):
        rows = list(measure(case, setting, None, 0.0))
        assert rows[0].way == OURS
        assert len(rows) >= 2
        assert {row.way: row.problem for row in rows if row.problem and "cannot be imported" not in row.problem} == {}


@pytest.mark.slow
@pytest.mark.parametrize("op", [op for op in OPS if op != "session_graph"])
def test_compiled_baselines_are_right_as_well(op: str, setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    # The compiler cannot trace through the tests' poisoned torch.empty.
    monkeypatch.undo()
    for case in OPS[op](replace(setting, compile=True)):
        rows = list(measure(case, replace(setting, compile=True), None, 0.0))
        assert "torch.compile" in {row.way for row in rows}
        assert not [row.problem for row in rows if row.wrong]


def case_of(*ways: Way) -> Case:
    expected = torch.arange(6.0, dtype=torch.float64)
    return Case("op", "N=6", 48.0, 6.0, lambda: Prepared({"x": torch.arange(6.0)}, ways, against([expected])))


def same(x: torch.Tensor) -> torch.Tensor:
    return x * 1


def test_a_wrong_result_gets_no_figure_but_a_red_line(setting: Setting) -> None:
    case = case_of(Way(OURS, same), Way("off", lambda x: x + 1e-3), Way("broken", lambda x: x.view(7)))
    right, off, broken = measure(case, setting, ROOFS, 0.01)
    assert right.times is not None
    assert right.ratio == 1.0
    for row in (off, broken):
        assert row.wrong
        assert row.times is row.ratio is row.launches is row.peak_bytes is None
        assert "median_ms" not in as_json(row)
    lines = lines_of([right, off, broken], colour=True)
    assert "WRONG: off by 2.0e-04" in lines[2]
    assert "FAILED with RuntimeError" in lines[3]
    assert [line.startswith("\x1b[31m") for line in lines] == [False, False, True, True]


def test_nothing_is_compared_with_a_wrong_result_of_ours(setting: Setting) -> None:
    ours, other = measure(case_of(Way(OURS, lambda x: -x), Way("other", same)), setting, ROOFS, 0.01)
    assert ours.wrong
    assert other.times is not None
    assert other.ratio is None


def test_what_cannot_run_says_why(setting: Setting) -> None:
    ways = Way(OURS, same), Way("library", same, missing="library cannot be imported"), Way("large", same, takes_bytes=2e9)
    _, absent, large = measure(case_of(*ways), setting, ROOFS, 0.01)
    assert absent.problem == "not run: library cannot be imported"
    assert large.problem == "not run: takes 2 GB"
    assert not absent.wrong
    assert not large.wrong


def test_cases_beyond_the_machine_are_left_out_before_they_are_made(setting: Setting) -> None:
    def never() -> Prepared:
        raise AssertionError

    slow = Case("op", "", moved_bytes=10.0, flop=1e15, prepare=never)
    large = Case("op", "", moved_bytes=1e9, flop=0.0, prepare=never)
    assert [row.problem for row in measure(slow, setting, ROOFS, 0.1)] == ["left out: its floor alone is 10000 s"]
    assert [row.problem for row in measure(large, setting, ROOFS, 0.1)] == ["left out: its tensors take 1 GB"]


def test_deviations_see_shapes_and_nan() -> None:
    exact = torch.tensor([3.0, 4.0], dtype=torch.float64)
    assert deviation([torch.tensor([3.0, 4.0])], [exact]) == Deviation(0.0, 0.0)
    found = deviation([torch.tensor([3.0, 5.0])], [exact])
    assert found.maximum == pytest.approx(0.25)
    assert found.rms == pytest.approx(0.2)
    for wrong in ([torch.tensor([3.0])], [torch.tensor([3.0, float("nan")])], []):
        assert deviation(wrong, [exact]).maximum == float("inf")


def test_operations_and_memory_are_counted() -> None:
    x = torch.ones(1000)

    def call() -> torch.Tensor:
        return (x.view(10, 100).T + 1).sum(0) @ torch.ones(10)

    assert launches(call, CPU, compiled=False) == 4
    assert launches(call, CPU, compiled=True) is None
    assert 4000 <= peak_bytes(call, CPU) <= 8000
    assert peak_bytes(lambda: np.ones(100_000), CPU) >= 800_000


def test_floors_are_the_longer_of_moving_and_computing() -> None:
    assert H200.floor_seconds(4.3e12, 1.0) == 1.0
    assert H200.floor_seconds(1.0, 790e12) == 1.0


@pytest.mark.parametrize("kind", ["published", "even"])
def test_drawn_sessions_have_the_lengths_they_claim(kind: str) -> None:
    source = session_source(kind, None)
    items, offsets = source.draw(20_000)
    lengths = np.diff(offsets)
    assert offsets[-1] == len(items)
    assert lengths.min() == (3 if kind == "even" else 2)
    assert lengths.mean() == pytest.approx(11.5 if kind == "even" else PUBLISHED_MEAN, rel=0.02)
    graph = source.graph(2000)
    assert graph.num_nodes < np.diff(source.draw(2000)[1]).sum(), "some clicks return to an item"
    assert np.array_equal(items, source.draw(20_000)[0])


def test_sessions_come_from_the_data_where_there_is_some(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    with gzip.open(tmp_path / "shop" / "sessions.jsonl.gz", "wt") as file:
        file.writelines(json.dumps({"items": items}) + "\n" for items in (["a", "b", "a"], [], ["c", "d"]))
    source = session_source("auto", str(tmp_path))
    assert source.name == "sessions of shop"
    items, offsets = source.draw(50)
    drawn = {tuple(items[begin:end]) for begin, end in pairwise(offsets)}
    assert drawn == {(0, 1, 0), (2, 3)}
    assert session_source("published", str(tmp_path)).kind == "published"
    with pytest.raises(ValueError, match="holds no"):
        session_source("data", None)


@pytest.fixture
def small_op(monkeypatch: pytest.MonkeyPatch) -> None:
    """One op whose cases are tiny."""
    from kernels.benchmark import command_line

    def cases(setting: Setting) -> Iterator[Case]:
        yield from OPS["gated_layers"](replace(setting, scale="tiny", compile=False))

    monkeypatch.setattr(command_line, "OPS", {"gated_layers": cases})
    monkeypatch.setattr(command_line, "measured_roofs", lambda *_: ROOFS)


@pytest.mark.usefixtures("small_op")
def test_a_run_prints_a_table_and_writes_json_and_plots(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--quick", "--device", "cpu", "--sessions", "even", "--out", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == NO_GPU
    assert any(line.lstrip().startswith("eager RecBole-style cell") for line in lines)
    result = json.loads((tmp_path / "kernels-cpu.json").read_text())
    assert result["device"] == NO_GPU
    assert result["machine"]["threads"] == torch.get_num_threads()
    assert result["versions"]["torch"] == torch.__version__
    assert result["command"].startswith("python -m kernels.benchmark --quick")
    ours = result["rows"][0]
    assert ours["way"] == OURS
    assert ours["times_ours"] == 1.0
    assert ours["share_of_floor"] == pytest.approx(ours["floor_ms"] / ours["median_ms"], rel=1e-2)
    assert (tmp_path / "kernels-cpu.png").stat().st_size > 1000
    assert "</svg>" in (tmp_path / "kernels-cpu.svg").read_text()


@pytest.mark.usefixtures("small_op")
def test_a_wrong_result_makes_the_command_fail(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from kernels.benchmark.ops import gated_graph

    monkeypatch.setattr(gated_graph, "gated_graph_layers", lambda nodes, *_: nodes)
    assert main(["--quick", "--device", "cpu", "--check-only", "--json"]) == 1
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert {row["way"] for row in rows if row.get("wrong")} == {OURS}


def test_what_names_the_machine_is_not_reported() -> None:
    assert set(machine(CPU)) == {"system", "processor", "cores", "threads"}


def test_floors_are_printed_without_running_anything(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--quick", "--floors", "--op", "score_topk"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("floors, not measurements")
    assert len(lines) == 5


def test_unknown_options_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--threads", "0"])
    assert ended.value.code == 2
    assert "--threads 0: at least 1" in capsys.readouterr().err


def test_the_command_line_hands_its_options_on() -> None:
    done = CliRunner().invoke(command, ["--quick", "--floors", "--op", "session_graph"])
    assert done.exit_code == 0, done.output
    assert "session_graph  4096 sessions" in done.output


def test_the_benchmark_needs_neither_the_rest_of_the_project_nor_its_libraries() -> None:
    code = "import sys, kernels.benchmark.command_line; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {"llmgr_core", "click", "rich", "matplotlib", "triton", "pydantic", "torch_geometric"}


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_run_on_a_gpu_replays_cuda_graphs_and_counts_launches(dtype: str, tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    arguments = ["--tiny", "--device", "cuda", "--dtype", dtype, "--sessions", "even", "--no-compile", "--out", str(tmp_path)]
    assert main(arguments) == 0
    result = json.loads((tmp_path / "kernels-cuda.json").read_text())
    ours = {row["op"]: row for row in result["rows"] if row["way"] == OURS}
    assert ours["gated_layers"]["launches"] == 1
    assert "wrapper_ms" not in ours.pop("session_graph"), "the host builds it"
    assert [op for op, row in ours.items() if not row["in_cuda_graph"]] == []
    assert all(row["wrapper_ms"] > 0 for row in ours.values())


@pytest.mark.usefixtures("small_op")
def test_no_case_begins_after_the_time_is_over(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--quick", "--device", "cpu", "--check-only", "--seconds", "1e-9", "--json"]) == 0
    assert {row["problem"] for row in json.loads(capsys.readouterr().out)["rows"]} == {"left out: the time is over"}


def test_a_rank_that_is_off_by_one_is_wrong(setting: Setting) -> None:
    case = next(OPS["target_rank"](setting))
    prepared = case.prepare()
    ranks = prepared.ways[0].call(**prepared.streamed)
    assert prepared.check(ranks) == Deviation(0.0, 0.0)
    for off in (ranks + 1, ranks - 1):
        assert prepared.check(off).rms > setting.allowed.rms


def test_threads_are_limited_for_numpy_too_by_starting_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from kernels.benchmark import command_line

    started: list[tuple[list[str], dict[str, str]]] = []

    def start(_: str, command: list[str], environment: dict[str, str]) -> None:
        started.append((command, environment))

    monkeypatch.setattr(command_line.os, "execve", start)
    monkeypatch.setattr(command_line.torch, "set_num_threads", lambda _: None)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "7")
    assert main(["--threads", "1", "--quick", "--floors", "--op", "session_graph"]) == 0
    ((command, environment),) = started
    assert command[1:] == ["-m", "kernels.benchmark", "--threads", "1", "--quick", "--floors", "--op", "session_graph"]
    assert environment["OPENBLAS_NUM_THREADS"] == "1"
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    assert main(["--threads", "1", "--quick", "--floors", "--op", "session_graph"]) == 0
    assert len(started) == 1


def test_the_bytes_of_a_graph_are_those_of_its_tiles(setting: Setting) -> None:
    graph = setting.sessions.graph(70)
    assert int(graph.node_offsets.diff().max()) <= 64
    assert graph_bytes(graph) == graph.tiles.planes.nbytes + graph.tiles.degrees.nbytes
    assert readout_bytes(graph) == graph.node_clicks.nbytes + graph.last_node.nbytes + graph.node_offsets[1:].nbytes


ON_CUDA = Setting(torch.device("cuda"), torch.bfloat16, "full", session_source("even", None), compile=True, memory_bytes=1e9)


def test_on_cuda_every_baseline_is_measured_in_a_graph_as_ours_is() -> None:
    ways = ways_of(ON_CUDA, same, {"eager": same, "other": same}, compiled="eager")
    assert ways[0].name == OURS
    assert ways[0].captured
    captured = {way.name for way in ways if way.captured}
    assert captured == {OURS, "eager, CUDA graph", "other, CUDA graph", "torch.compile, CUDA graph"}
    assert {way.name for way in ways if way.own_graph} == {"torch.compile reduce-overhead"}
    assert {way.name for way in ways if way.compiled} == {name for name in (way.name for way in ways) if "compile" in name}


def test_torchs_own_graph_counts_only_where_torch_made_one() -> None:
    counters = torch._dynamo.utils.counters
    counters.clear()
    assert timing._captures_itself(Way("compiled", same, own_graph=True))
    assert not timing._captures_itself(Way("compiled", same))
    counters["inductor"]["cudagraph_skips"] += 1
    assert not timing._captures_itself(Way("compiled", same, own_graph=True))
    counters.clear()


def request_case(setting: Setting, items: list[int]) -> Prepared:
    return ranking.prepare(setting, build_session_graph(np.array(items), np.array([0, len(items)])), 300, as_request=True)


def test_a_request_is_ranked_right_by_every_way_and_timed_from_host_to_host(setting: Setting) -> None:
    prepared = request_case(setting, [3, 9, 3, 3, 27])
    case = Case("ranking_path", "", 1.0, 1.0, lambda: prepared)
    rows = list(measure(case, setting, ROOFS, 0.01))
    assert [row.problem for row in rows] == [""] * len(rows)
    assert all(row.times is not None and row.times.rounds >= 5 and not row.times.in_graph for row in rows)
    found = prepared.ways[0].call(**prepared.streamed)
    assert found.dtype == torch.float32
    assert found.shape == (3 * ranking.K + 1,)


def test_a_request_reads_what_the_host_has_written_last(setting: Setting) -> None:
    """One copy there, one start of what was captured, one copy back; all tensors stay where they are."""
    prepared, other = request_case(setting, [3, 9, 4]), request_case(setting, [7, 1, 2])
    memory = prepared.request
    assert memory is not None
    assert other.request is not None
    table = prepared.streamed["table"]

    def work() -> torch.Tensor:
        return prepared.ways[0].call(table=table)

    answer, replays = torch.empty(3 * ranking.K + 1), []

    def replay() -> None:
        replays.append(answer.copy_(work()))

    request = Request(memory, work, (replay, answer))
    first = request().clone()
    places = {name: tensor.data_ptr() for name, tensor in memory.read.items()}
    for name, tensor in other.request.host.items():
        memory.host[name].copy_(tensor)
    second = request()
    assert torch.equal(second, Request(other.request, lambda: other.ways[0].call(table=table))())
    assert not torch.equal(first, second)
    assert len(replays) == 2
    assert places == {name: tensor.data_ptr() for name, tensor in memory.read.items()}
    assert all(place % 8 == 0 for place in places.values())


def test_the_way_of_a_request_never_waits_for_the_device(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    if torch.cuda.is_available():
        pytest.skip("the interpreter's case; on a GPU a capture would fail")
    monkeypatch.setenv("LLMGR_KERNELS", "triton")
    # Checks of index ranges read the indices, on the host alone.
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    prepared = request_case(setting, [3, 9, 3])
    with torch.inference_mode(), WaitsFound() as waits:
        prepared.ways[0].call(**prepared.streamed)
    assert "llmgr.score_topk.default" in waits.seen
    assert waits.found == []


def test_the_row_of_a_request_says_what_is_captured() -> None:
    case = next(iter(OPS["ranking_path"](ON_CUDA)))
    assert case.shape.endswith("a request: copy in, one graph (rows, layer, readout, top-k), copy out")
    assert "graph" not in next(iter(OPS["ranking_path"](replace(ON_CUDA, device=CPU)))).shape


def test_what_one_way_wrote_in_place_does_not_stand_for_another(setting: Setting) -> None:
    case = next(iter(OPS["project_into_in_place"](setting)))
    prepared = case.prepare()
    idle = Way("idle", lambda nodes, out: out)
    rows = list(measure(replace(case, prepare=lambda: replace(prepared, ways=[*prepared.ways, idle])), setting, None, 0.0))
    assert [row.way for row in rows if row.wrong] == ["idle"]
