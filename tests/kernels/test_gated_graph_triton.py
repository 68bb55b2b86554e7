"""The gated layer's Triton kernels, through the public function: values, gradients, and what does not change them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from session_cases import build, relative_error
from torch.utils.checkpoint import checkpoint

from kernels import GatedGraphWeights, gated_graph_layers
from kernels.gated_graph.reference import gated_graph_layers_reference

pytest.importorskip("triton")
few = settings(deadline=None, max_examples=8, derandomize=True)

SESSIONS = st.lists(st.lists(st.integers(0, 5), max_size=9), max_size=7)
# Repeats, self-loops, a session that fills a tile, one of two blocks, empty ones.
# The first item has no incoming edge.
TWO_BLOCKS = [100] + [i * 5 % 83 for i in range(83)] + [i * i % 83 for i in range(30)]
THREE_BLOCKS = [i * 7 % 150 for i in range(150)] + [i * i % 150 for i in range(60)]
MIXED = [[], [3], [2, 2, 2], [0, 1, 0, 1, 0, 1, 2], list(range(40)), [], list(range(64)), TWO_BLOCKS, []]
# Largest deviation over the largest value, and root mean square over root mean square.
TOLERANCES = {torch.float32: (1e-5, 1e-6), torch.float16: (4e-3, 2e-3), torch.float64: (1e-13, 1e-13)}
DTYPES = [
    pytest.param(torch.float32, id="fp32"),
    pytest.param(torch.float16, id="fp16"),
    pytest.param(torch.float64, id="fp64"),
]


@pytest.fixture(autouse=True)
def triton_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMGR_KERNELS", "triton")


def draw(graph, d, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    nodes = torch.randn(graph.num_nodes, d, dtype=torch.float64, generator=generator).to(dtype).requires_grad_()
    weights = GatedGraphWeights.initial(d, generator)
    return nodes, GatedGraphWeights(*[w.to(dtype).requires_grad_() for w in weights])


def with_gradients(function, nodes, graph, weights, layers, edge_weights):
    out = function(nodes, graph, weights, layers, edge_weights)
    pull = torch.randn(out.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    grads = torch.autograd.grad((out * pull.to(out.dtype)).sum(), [nodes, *weights], allow_unused=True)
    return [out, *[torch.zeros(1) if g is None else g for g in grads]]


def in_double(nodes, weights):
    doubled = [tensor.detach().double().requires_grad_() for tensor in (nodes, *weights)]
    return doubled[0], GatedGraphWeights(*doubled[1:])


def assert_is_the_reference(sessions, d, dtype, layers, edge_weights):
    graph = build(sessions).graph
    nodes, weights = draw(graph, d, dtype)
    found = with_gradients(gated_graph_layers, nodes, graph, weights, layers, edge_weights)
    nodes, weights = in_double(nodes, weights)
    expected = with_gradients(gated_graph_layers_reference, nodes, graph, weights, layers, edge_weights)
    largest, mean = TOLERANCES[dtype]
    for one, other in zip(found, expected, strict=True):
        if other.abs().sum() > 0 or one.abs().sum() > 0:
            assert one.dtype == dtype
            assert relative_error(one, other) < largest
            assert float((one.detach().double() - other.detach()).norm() / other.detach().norm()) < mean


@pytest.mark.parametrize("edge_weights", ["binary", "multiplicity"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_values_and_gradients_are_the_references(dtype, edge_weights):
    assert_is_the_reference(MIXED, 6, dtype, 2, edge_weights)


@pytest.mark.parametrize("dtype", DTYPES[:2])
def test_one_layer_at_the_trained_dimension(dtype):
    assert_is_the_reference([[0, 1, 0, 2], [3, 3], TWO_BLOCKS], 64, dtype, 1, "binary")


@pytest.mark.slow
@pytest.mark.parametrize("edge_weights", ["binary", "multiplicity"])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("d", [16, 20, 32, 64, 100, 128])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dimension_layer_count_and_edge_weight(dtype, d, layers, edge_weights):
    assert_is_the_reference([*MIXED, THREE_BLOCKS], d, dtype, layers, edge_weights)


@few
@given(sessions=SESSIONS, layers=st.integers(0, 3), edge_weights=st.sampled_from(["binary", "multiplicity"]))
def test_any_sessions(sessions, layers, edge_weights):
    assert_is_the_reference(sessions, 5, torch.float64, layers, edge_weights)


@pytest.mark.parametrize(
    "sessions",
    [
        pytest.param([[0, 1, 0, 1, 2], [], [3], [4, 4, 4]], id="narrow"),
        pytest.param([list(range(65))], id="wide", marks=pytest.mark.slow),
    ],
)
def test_gradients_by_finite_differences(sessions):
    graph = build(sessions).graph
    nodes, weights = draw(graph, 2)
    assert torch.autograd.gradcheck(
        lambda x, *w: gated_graph_layers(x, graph, GatedGraphWeights(*w), 2, "multiplicity"), (nodes, *weights), fast_mode=True
    )


def test_sessions_of_many_blocks():
    assert_is_the_reference([[5, 5], THREE_BLOCKS, [0, 1]], 6, torch.float32, 1, "multiplicity")


def test_sessions_do_not_see_each_other():
    sessions = [session for session in MIXED if session]
    graph = build(sessions).graph
    nodes, weights = draw(graph, 6)
    pieces = [slice(*graph.node_offsets[s : s + 2].tolist()) for s in range(len(sessions))]
    whole = gated_graph_layers(nodes, graph, weights, 2)
    order = list(reversed(range(len(sessions))))
    turned = gated_graph_layers(
        torch.cat([nodes[pieces[s]] for s in order]), build([sessions[s] for s in order]).graph, weights, 2
    )
    assert torch.allclose(turned, torch.cat([whole[pieces[s]] for s in order]), rtol=0, atol=1e-14)
    # A batch cut in two is packed in other tiles.
    cut = int(graph.node_offsets[3])
    halves = [
        gated_graph_layers(nodes[:cut], build(sessions[:3]).graph, weights, 2),
        gated_graph_layers(nodes[cut:], build(sessions[3:]).graph, weights, 2),
    ]
    assert torch.allclose(torch.cat(halves), whole, rtol=0, atol=1e-14)


def test_repeats_bit_by_bit():
    graph = build([[0, 1, 0, 1], [], list(range(70))]).graph
    nodes, weights = draw(graph, 6, torch.float32)
    runs = [with_gradients(gated_graph_layers, nodes, graph, weights, 2, "binary") for _ in (1, 2)]
    assert all(torch.equal(one, other) for one, other in zip(*runs, strict=True))


def test_a_multiplicity_beyond_sixteen_bits_of_float_still_counts():
    graph = build([[0, 1] * 40 + [2]]).graph
    nodes, weights = draw(graph, 6, torch.float32)
    expected = gated_graph_layers_reference(nodes, graph, weights, 1, "multiplicity")
    assert relative_error(gated_graph_layers(nodes, graph, weights, 1, "multiplicity"), expected) < 1e-5


def test_an_operator_of_torch():
    from kernels.gated_graph.folding import folded
    from kernels.gated_graph.triton_path import gated_layers_forward

    graph = build([[0, 1, 0], [2]]).graph
    nodes, weights = draw(graph, 16)
    maps, biases = (tensor.detach().requires_grad_() for tensor in folded(weights))
    tiles = graph.tiles
    torch.library.opcheck(
        gated_layers_forward,
        (nodes, maps, biases, tiles.tile_offsets, tiles.wide_blocks, tiles.planes, tiles.degrees, 2),
    )


def test_torch_compile_sees_through():
    graph = build([[0, 1, 0], [2]]).graph
    _ = graph.tiles
    nodes, weights = draw(graph, 3)
    compiled = torch.compile(
        lambda x, w: gated_graph_layers(x, graph, GatedGraphWeights(*w), 2), backend="aot_eager", fullgraph=True
    )
    found = torch.autograd.grad(compiled(nodes, tuple(weights)).square().sum(), [nodes, *weights])
    expected = torch.autograd.grad(gated_graph_layers(nodes, graph, weights, 2).square().sum(), [nodes, *weights])
    assert all(torch.allclose(one, other, rtol=1e-12) for one, other in zip(found, expected, strict=True))


def test_checkpointing_sees_through():
    graph = build([[0, 1, 0], [2]]).graph
    nodes, weights = draw(graph, 3)
    out = checkpoint(lambda x: gated_graph_layers(x, graph, weights, 2), nodes, use_reentrant=False)
    found = torch.autograd.grad(out.square().sum(), [nodes, *weights])
    expected = torch.autograd.grad(gated_graph_layers(nodes, graph, weights, 2).square().sum(), [nodes, *weights])
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_what_the_kernels_do_not_take_is_named():
    graph = build([[0, 1]]).graph
    nodes, weights = draw(graph, 129)
    with pytest.raises(ValueError, match="d = 129 > 128"):
        gated_graph_layers(nodes, graph, weights)
    nodes, weights = draw(graph, 4)
    with pytest.raises(ValueError, match=r"nodes are torch.float32, weights torch.float64"):
        gated_graph_layers(nodes.float(), graph, weights)


def test_inputs_that_are_not_contiguous():
    graph = build([[0, 1, 0], [2]]).graph
    nodes, weights = draw(graph, 4)
    turned = nodes.detach().T.contiguous().T.requires_grad_()
    runs = [with_gradients(gated_graph_layers, x, graph, weights, 1, "binary") for x in (nodes, turned)]
    assert all(torch.equal(one, other) for one, other in zip(*runs, strict=True))


def torch_scatter_layer(nodes, graph, weights):
    pytest.importorskip("torch_scatter")
    from kernels.gated_graph.scatter_path import gated_graph_layers_scatter

    return gated_graph_layers_scatter(nodes, graph, weights, 1)


def pyg_layer(nodes, graph, weights):
    """PyG's mean convolution along and against the edges, then torch's GRU cell."""
    convolution = pytest.importorskip("torch_geometric.nn").SimpleConv
    edges = torch.stack([graph.edge_source, graph.edge_target])
    a_in = convolution(aggr="mean")(nodes @ weights.edge_in.T + weights.edge_in_bias, edges)
    against = convolution(aggr="mean", flow="target_to_source")
    a_out = against(nodes @ weights.edge_out.T + weights.edge_out_bias, edges)
    gates = (weights.gate_input, weights.gate_hidden, weights.gate_input_bias, weights.gate_hidden_bias)
    return torch.gru_cell(torch.cat([a_in, a_out], dim=1), nodes, *gates)


@pytest.mark.parametrize("dtype", DTYPES[:2])
@pytest.mark.parametrize("witness", [torch_scatter_layer, pyg_layer], ids=["torch_scatter", "pyg"])
def test_independent_programs_agree_on_the_first_layer(witness, dtype):
    graph = build(MIXED).graph
    nodes, weights = draw(graph, 6, dtype)
    found = gated_graph_layers(nodes, graph, weights, 1)
    assert relative_error(found, witness(nodes, graph, weights)) < TOLERANCES[dtype][0]
