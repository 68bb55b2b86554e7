"""The gated layer is SR-GNN's, on every path, with the right gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from session_cases import ODD_SESSIONS, SESSIONS, build, doubles, relative_error, repeatable

from kernels import (
    GatedGraphWeights,
    ReadoutWeights,
    attention_readout,
    gated_graph_layers,
    gated_graph_project_into,
    gated_graph_project_pooled,
)
from kernels.gated_graph import folded
from kernels.gated_graph.reference import gated_graph_layers_reference

D = 6
EDGES = st.sampled_from(["binary", "multiplicity"])


def draw(graph, seed=0):
    generator = torch.Generator().manual_seed(seed)
    nodes = torch.randn(graph.num_nodes, D, dtype=torch.float64, generator=generator).requires_grad_()
    return nodes, doubles(GatedGraphWeights.initial(D, generator), seed)


def with_gradients(function, nodes, graph, weights, layers, edge_weights):
    out = function(nodes, graph, weights, layers, edge_weights)
    pull = torch.randn(out.shape, dtype=out.dtype, generator=torch.Generator().manual_seed(1))
    grads = torch.autograd.grad((out * pull).sum(), [nodes, *weights], allow_unused=True)
    return [out, *[g if g is not None else torch.zeros(1, dtype=out.dtype) for g in grads]]


@pytest.mark.parametrize("path", ["torch", "torch_scatter"])
@repeatable
@given(sessions=SESSIONS, layers=st.integers(0, 3), edge_weights=EDGES)
def test_values_and_gradients_are_the_references(path, sessions, layers, edge_weights):
    if path == "torch_scatter":
        pytest.importorskip("torch_scatter")
    graph = build(sessions).graph
    nodes, weights = draw(graph)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMGR_KERNELS", path)
        found = with_gradients(gated_graph_layers, nodes, graph, weights, layers, edge_weights)
    expected = with_gradients(gated_graph_layers_reference, nodes, graph, weights, layers, edge_weights)
    for a, b in zip(found, expected, strict=True):
        if a.abs().sum() > 0 or b.abs().sum() > 0:
            assert relative_error(a, b) < 1e-12


@pytest.mark.parametrize("edge_weights", ["binary", "multiplicity"])
def test_gradients_by_finite_differences(edge_weights):
    graph = build([[0, 1, 0, 1, 2], [], [3], [4, 4, 4]]).graph
    nodes, weights = draw(graph)
    assert torch.autograd.gradcheck(
        lambda x, *w: gated_graph_layers(x, graph, GatedGraphWeights(*w), 2, edge_weights), (nodes, *weights)
    )


def test_the_gate_is_a_gru_cell_on_the_two_means():
    graph = build([[0, 1, 2, 1, 3], [5, 5], [7]]).graph
    nodes, weights = draw(graph)
    cell = torch.nn.GRUCell(2 * D, D).double()
    state = (weights.gate_input, weights.gate_hidden, weights.gate_input_bias, weights.gate_hidden_bias)
    cell.load_state_dict(dict(zip(("weight_ih", "weight_hh", "bias_ih", "bias_hh"), state, strict=True)))
    adjacency = torch.zeros(graph.num_nodes, graph.num_nodes, dtype=torch.float64)
    adjacency[graph.edge_source, graph.edge_target] = 1
    messages_in = nodes @ weights.edge_in.T + weights.edge_in_bias
    messages_out = nodes @ weights.edge_out.T + weights.edge_out_bias
    mean_in = adjacency.T / adjacency.sum(0).clamp(min=1)[:, None] @ messages_in
    mean_out = adjacency / adjacency.sum(1).clamp(min=1)[:, None] @ messages_out
    expected = cell(torch.cat([mean_in, mean_out], dim=1), nodes)
    assert relative_error(gated_graph_layers(nodes, graph, weights, 1), expected) < 1e-13


def random_state(shapes):
    generator = torch.Generator().manual_seed(4)
    return {name: torch.randn(*shape, dtype=torch.float64, generator=generator) for name, shape in shapes.items()}


def dense_means(graph):
    """(mean over incoming, mean over outgoing edges) as dense matrices; rows without such edges are zero."""
    adjacency = torch.zeros(graph.num_nodes, graph.num_nodes, dtype=torch.float64)
    adjacency[graph.edge_source, graph.edge_target] = 1
    return adjacency.T / adjacency.sum(0).clamp(min=1)[:, None], adjacency / adjacency.sum(1).clamp(min=1)[:, None]


@pytest.mark.parametrize("out_bias", ["b_oah", "b_ioh"])
def test_checkpoints_of_the_original_are_taken_over(out_bias):
    # The biases of its aggregates count for all nodes, those of its edge maps as often as the row of means sums to.
    shapes = {"w_ih": (3 * D, 2 * D), "w_hh": (3 * D, D), "b_ih": (3 * D,), "b_hh": (3 * D,), "b_iah": (D,), out_bias: (D,)}
    for side in ("in", "out", "f"):
        shapes |= {f"linear_edge_{side}.weight": (D, D), f"linear_edge_{side}.bias": (D,)}
    state = random_state({f"gnn.{name}": shape for name, shape in shapes.items()})
    graph = build([[0, 1, 2, 1], [3], [4, 4]]).graph
    nodes, _ = draw(graph)
    mean_in, mean_out = dense_means(graph)
    a_in = mean_in @ (nodes @ state["gnn.linear_edge_in.weight"].T + state["gnn.linear_edge_in.bias"]) + state["gnn.b_iah"]
    a_out = mean_out @ (nodes @ state["gnn.linear_edge_out.weight"].T + state["gnn.linear_edge_out.bias"])
    cell = torch.nn.GRUCell(2 * D, D).double()
    gates = {"weight_ih": "w_ih", "weight_hh": "w_hh", "bias_ih": "b_ih", "bias_hh": "b_hh"}
    cell.load_state_dict({ours: state[f"gnn.{theirs}"] for ours, theirs in gates.items()})
    expected = cell(torch.cat([a_in, a_out + state[f"gnn.{out_bias}"]], dim=1), nodes)
    found = gated_graph_layers(nodes, graph, GatedGraphWeights.from_srgnn(state), 1)
    assert relative_error(found, expected) < 1e-13
    del state["gnn.w_hh"]
    with pytest.raises(KeyError, match=r"gnn\.w_hh"):
        GatedGraphWeights.from_srgnn(state)


def test_checkpoints_of_recbole_gnn_are_taken_over():
    parts = {
        "incomming_conv.lin.weight": (D, D),
        "incomming_conv.lin.bias": (D,),
        "outcomming_conv.lin.weight": (D, D),
        "outcomming_conv.lin.bias": (D,),
        "lin_ih.weight": (3 * D, 2 * D),
        "lin_ih.bias": (3 * D,),
        "lin_hh.weight": (3 * D, D),
        "lin_hh.bias": (3 * D,),
    }
    state = random_state({f"gnncell.{name}": shape for name, shape in parts.items()})
    graph = build([[0, 1, 2, 1], [3], [4, 4]]).graph
    nodes, _ = draw(graph)
    mean_in, mean_out = dense_means(graph)

    def linear(name, x):
        return x @ state[f"gnncell.{name}.weight"].T + state[f"gnncell.{name}.bias"]

    aggregates = torch.cat(
        [mean_in @ linear("incomming_conv.lin", nodes), mean_out @ linear("outcomming_conv.lin", nodes)], dim=1
    )
    edges, hidden = linear("lin_ih", aggregates).split(D, dim=1), linear("lin_hh", nodes).split(D, dim=1)
    candidate = torch.tanh(edges[2] + torch.sigmoid(edges[0] + hidden[0]) * hidden[2])
    # Here the gate's complement keeps the old vector.
    expected = torch.lerp(nodes, candidate, torch.sigmoid(edges[1] + hidden[1]))
    found = gated_graph_layers(nodes, graph, GatedGraphWeights.from_recbole_gnn(state), 1)
    assert relative_error(found, expected) < 1e-13
    del state["gnncell.lin_hh.bias"]
    with pytest.raises(KeyError, match=r"lin_hh\.bias"):
        GatedGraphWeights.from_recbole_gnn(state)


def test_multiplicity_counts_repeated_edges_and_binary_does_not():
    once, twice = build([[0, 1, 0, 2]]).graph, build([[0, 1, 0, 1, 0, 2]]).graph
    nodes, weights = draw(once)
    assert torch.equal(gated_graph_layers(nodes, once, weights, 1), gated_graph_layers(nodes, twice, weights, 1))
    weighted = [gated_graph_layers(nodes, graph, weights, 1, "multiplicity") for graph in (once, twice)]
    assert relative_error(weighted[0], weighted[1]) > 1e-3


@repeatable
@given(sessions=SESSIONS.filter(lambda s: len(s) > 1), layers=st.integers(1, 2))
def test_sessions_do_not_see_each_other(sessions, layers):
    graph = build(sessions).graph
    nodes, weights = draw(graph)
    whole = gated_graph_layers(nodes, graph, weights, layers)
    order = list(reversed(range(len(sessions))))
    pieces = [slice(*graph.node_offsets[s : s + 2].tolist()) for s in range(len(sessions))]
    turned = gated_graph_layers(
        torch.cat([nodes[pieces[s]] for s in order]), build([sessions[s] for s in order]).graph, weights, layers
    )
    assert torch.allclose(turned, torch.cat([whole[pieces[s]] for s in order]), rtol=0, atol=1e-13)
    for session, piece in zip(sessions, pieces, strict=True):
        alone = gated_graph_layers(nodes[piece], build([session]).graph, weights, layers)
        assert torch.allclose(alone, whole[piece], rtol=0, atol=1e-13)


def test_odd_sessions_in_float32_stay_close_and_repeat_bit_by_bit():
    graph = build(ODD_SESSIONS).graph
    nodes, weights = draw(graph)
    expected = gated_graph_layers_reference(nodes, graph, weights, 3)
    single = GatedGraphWeights(*[w.detach().float().requires_grad_() for w in weights])
    runs = [
        with_gradients(gated_graph_layers, nodes.detach().float().requires_grad_(), graph, single, 3, "binary") for _ in (1, 2)
    ]
    assert relative_error(runs[0][0], expected) < 2e-6
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


def test_batches_without_nodes():
    weights = GatedGraphWeights.initial(D)
    for sessions in ([], [[], []]):
        out = gated_graph_layers(torch.zeros(0, D), build(sessions).graph, weights, 2)
        assert out.shape == (0, D)


def test_bad_arguments_are_named(monkeypatch):
    graph = build([[0, 1]]).graph
    weights = GatedGraphWeights.initial(D)
    nodes = torch.randn(2, D)
    with pytest.raises(ValueError, match=r"\(3, 6\)"):
        gated_graph_layers(torch.randn(3, D), graph, weights)
    with pytest.raises(ValueError, match="'heavy'"):
        gated_graph_layers(nodes, graph, weights, 1, "heavy")
    with pytest.raises(ValueError, match="-1"):
        gated_graph_layers(nodes, graph, weights, -1)
    monkeypatch.setenv("LLMGR_KERNELS", "triton")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ValueError, match=r"'triton', but gated_graph_layers: its tensors are on cpu.*auto or torch"):
        gated_graph_layers(nodes, graph, weights)
    monkeypatch.setenv("LLMGR_KERNELS", "fast")
    with pytest.raises(ValueError, match="'fast'"):
        gated_graph_layers(nodes, graph, weights)


def test_projected_rows_land_where_they_are_told():
    graph = build([[0, 1, 0], [2]]).graph
    nodes, weights = draw(graph)
    projection = torch.randn(10, D, dtype=torch.float64)
    prompts = torch.randn(2, 5, 10, dtype=torch.float64)
    rows, positions = torch.tensor([1, -1, 0]), torch.tensor([4, 0, 2])
    out = gated_graph_project_into(nodes, graph, weights, 1, projection, prompts, rows, positions)
    expected = prompts.clone()
    projected = gated_graph_layers(nodes, graph, weights, 1) @ projection.T
    expected[1, 4], expected[0, 2] = projected[0], projected[2]
    assert torch.allclose(out, expected)
    assert not torch.equal(out, prompts)


def test_projection_into_prompts_has_gradients():
    graph = build([[0, 1, 0], [2]]).graph
    nodes, weights = draw(graph)
    projection = torch.randn(4, D, dtype=torch.float64, requires_grad=True)
    prompts = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    rows, positions = torch.tensor([1, -1, 0]), torch.tensor([2, 0, 1])
    assert torch.autograd.gradcheck(
        lambda x, w_p, out: gated_graph_project_into(x, graph, weights, 1, w_p, out, rows, positions),
        (nodes, projection, prompts),
    )


def test_pooled_projection_is_layers_then_readout_then_projection():
    graph = build(ODD_SESSIONS).graph
    nodes, weights = draw(graph)
    readout = doubles(ReadoutWeights.initial(D), 3)
    projection = torch.randn(9, D, dtype=torch.float64)
    out = gated_graph_project_pooled(nodes, graph, weights, 2, readout, projection)
    expected = attention_readout(gated_graph_layers(nodes, graph, weights, 2), graph, readout) @ projection.T
    assert torch.equal(out, expected)
    assert np.array_equal(out[[0, 5, 8]].detach().numpy(), np.zeros((3, 9)))


def test_weights_folded_beforehand_give_the_same():
    graph = build(ODD_SESSIONS).graph
    nodes, weights = draw(graph)
    once = folded(weights)
    assert folded(once) is once
    assert torch.equal(gated_graph_layers(nodes, graph, once, 2), gated_graph_layers(nodes, graph, weights, 2))
    readout = doubles(ReadoutWeights.initial(D), 3)
    projection = torch.randn(9, D, dtype=torch.float64)
    pooled = [gated_graph_project_pooled(nodes, graph, w, 2, readout, projection) for w in (once, weights)]
    assert torch.equal(*pooled)
