"""Layers and W_p in one launch: rows where they belong, everything else untouched, gradients of all floats."""

from __future__ import annotations

import pytest
import torch
from session_cases import build, relative_error

from kernels import GatedGraphWeights, ReadoutWeights, gated_graph_project_into, gated_graph_project_pooled
from kernels.gated_graph.reference import gated_graph_layers_reference

pytest.importorskip("triton")
SESSIONS = [[], [3], [0, 1, 0, 1, 2], list(range(40)), [2, 2], list(range(66))]
D = 6


@pytest.fixture(autouse=True)
def triton_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMGR_KERNELS", "triton")


def draw(sessions, columns, dtype=torch.float64, out_dtype=None, d=D):
    """Graph, floats that ask for gradients, and places: every fifth node is left out, no place is taken twice."""
    generator = torch.Generator().manual_seed(0)
    graph = build(sessions).graph
    n = graph.num_nodes
    nodes = torch.randn(n, d, generator=generator).to(dtype).requires_grad_()
    weights = GatedGraphWeights(*[w.to(dtype).requires_grad_() for w in GatedGraphWeights.initial(d, generator)])
    projection = torch.randn(columns, d, generator=generator).to(dtype).requires_grad_()
    out = torch.randn(3, n, columns, generator=generator).to(out_dtype or dtype).requires_grad_()
    cells = torch.randperm(3 * n, generator=generator)[:n]
    rows = torch.where(torch.arange(n) % 5 == 4, -1, cells // n)
    return graph, nodes, weights, projection, out, rows, cells % n


def reference(nodes, graph, weights, layers, projection, out, rows, positions):
    hidden = gated_graph_layers_reference(nodes, graph, weights, layers)
    placed = rows >= 0
    return out.index_put((rows[placed], positions[placed]), hidden[placed] @ projection.T)


@pytest.mark.parametrize(
    ("dtype", "d", "columns", "layers", "tolerance"),
    [
        pytest.param(torch.float64, D, 70, 2, 1e-13, id="fp64"),
        pytest.param(torch.float32, 20, 130, 1, 1e-5, id="fp32"),
        pytest.param(torch.float16, D, 70, 1, 4e-3, id="fp16"),
    ],
)
def test_values_and_gradients_are_the_references(dtype, d, columns, layers, tolerance):
    graph, nodes, weights, projection, out, rows, positions = draw(SESSIONS, columns, dtype, d=d)
    found = gated_graph_project_into(nodes, graph, weights, layers, projection, out, rows, positions)
    pull = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    leaves = [nodes, *weights, projection, out]
    grads = torch.autograd.grad((found * pull.to(dtype)).sum(), leaves)
    doubled = [leaf.detach().double().requires_grad_() for leaf in leaves]
    expected = reference(
        doubled[0], graph, GatedGraphWeights(*doubled[1:-2]), layers, doubled[-2], doubled[-1], rows, positions
    )
    wanted = torch.autograd.grad((expected * pull).sum(), doubled)
    for one, other in zip((found, *grads), (expected, *wanted), strict=True):
        assert one.dtype == dtype
        assert relative_error(one, other) < tolerance


def test_rows_that_no_node_takes_stay_as_they_are():
    graph, nodes, weights, projection, out, rows, positions = draw(SESSIONS, 20, torch.float16, torch.float32)
    found = gated_graph_project_into(nodes, graph, weights, 1, projection, out, rows, positions)
    kept = torch.ones(out.shape[:2], dtype=torch.bool)
    kept[rows[rows >= 0], positions[rows >= 0]] = False
    assert torch.equal(found[kept], out[kept])
    assert not (found[~kept] == out[~kept]).all(dim=1).any()


def test_in_place_moves_the_same_rows_and_has_no_gradient():
    graph, nodes, weights, projection, out, rows, positions = draw(SESSIONS, 20)
    arguments = (nodes, graph, weights, 2, projection, out, rows, positions)
    expected = gated_graph_project_into(*arguments)
    with pytest.raises(ValueError, match="no gradient"):
        gated_graph_project_into(*arguments, in_place=True)
    with torch.no_grad():
        assert gated_graph_project_into(*arguments, in_place=True) is out
        assert torch.equal(out, expected)
        with pytest.raises(ValueError, match="contiguous"):
            gated_graph_project_into(*arguments[:5], out.transpose(0, 1), rows, positions, in_place=True)


def test_a_place_outside_the_prompts_is_refused():
    graph, nodes, weights, projection, out, rows, positions = draw(SESSIONS, 20)
    for wrong in ((rows + 3, positions), (rows, positions + out.shape[1])):
        with pytest.raises(ValueError, match="outside the 3 prompts"):
            gated_graph_project_into(nodes, graph, weights, 1, projection, out, *wrong)


def test_columns_are_shared_where_tiles_are_few_and_each_program_takes_whole_chunks():
    from kernels.gated_graph.project import column_parts

    assert [column_parts(tiles, 4096) for tiles in (1, 4, 100, 132, 133, 5000)] == [64, 64, 2, 2, 1, 1]
    assert column_parts(1, 20) == 1


def test_operators_of_torch():
    from kernels.gated_graph.folding import folded
    from kernels.gated_graph.project_path import gated_project_into, gated_project_into_
    from kernels.gated_graph.triton_path import padded

    graph, nodes, weights, projection, out, rows, positions = draw([[0, 1, 0], [2]], 5)
    nodes, small, projection = padded(nodes.detach(), folded(weights), projection.detach())
    tiles = graph.tiles
    plain = [tensor.detach() for tensor in (nodes, *small, tiles.tile_offsets, tiles.wide_blocks, tiles.planes, tiles.degrees)]
    arguments = (*plain, 1, projection, out.detach(), rows, positions)
    torch.library.opcheck(gated_project_into_, arguments)
    asking = [a.requires_grad_() if isinstance(a, torch.Tensor) and a.is_floating_point() else a for a in arguments]
    torch.library.opcheck(gated_project_into, tuple(asking))


def test_torch_compile_sees_through():
    graph, nodes, weights, projection, out, rows, positions = draw([[0, 1, 0], [2]], 5)
    _ = graph.tiles

    def call(x, w, w_p, prompts):
        return gated_graph_project_into(x, graph, GatedGraphWeights(*w), 1, w_p, prompts, rows, positions).square().sum()

    leaves = [nodes, *weights, projection, out]
    compiled = torch.compile(call, backend="aot_eager", fullgraph=True)
    found = torch.autograd.grad(compiled(nodes, tuple(weights), projection, out), leaves)
    expected = torch.autograd.grad(call(nodes, tuple(weights), projection, out), leaves)
    assert all(torch.allclose(one, other, rtol=1e-12) for one, other in zip(found, expected, strict=True))


def test_pooled_projection_is_the_torch_paths(monkeypatch):
    graph, nodes, weights, projection, *_ = draw(SESSIONS, 20)
    readout = ReadoutWeights(*[w.double().requires_grad_() for w in ReadoutWeights.initial(D)])
    leaves = [nodes, *weights, *readout, projection]
    runs = []
    for path in ("triton", "torch"):
        monkeypatch.setenv("LLMGR_KERNELS", path)
        out = gated_graph_project_pooled(nodes, graph, weights, 2, readout, projection)
        runs.append([out, *torch.autograd.grad(out.square().sum(), leaves)])
    assert all(relative_error(one, other) < 1e-12 for one, other in zip(*runs, strict=True))
