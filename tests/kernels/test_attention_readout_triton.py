"""The attention readout's kernels, in Triton's interpreter."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from session_cases import ODD_SESSIONS, SESSIONS, build, doubles, relative_error, repeatable

from kernels import ReadoutWeights, attention_readout
from kernels.attention_readout.reference import attention_readout_reference


@pytest.fixture(autouse=True)
def through_triton(monkeypatch):
    monkeypatch.setenv("LLMGR_KERNELS", "triton")


def draw(graph, d=5, dtype=torch.float64):
    """Nodes, weights and the gradient of z in ``dtype``."""
    generator = torch.Generator().manual_seed(graph.num_nodes)
    weights = [w.detach().to(dtype).requires_grad_() for w in doubles(ReadoutWeights.initial(d, generator))]
    nodes = torch.randn(graph.num_nodes, d, dtype=torch.float64, generator=generator).to(dtype).requires_grad_()
    return nodes, ReadoutWeights(*weights), torch.randn(graph.num_sessions, d, generator=generator).to(dtype)


def values_and_gradients(function, graph, nodes, weights, grad):
    out = function(nodes, graph, weights)
    return [out.detach(), *torch.autograd.grad(out, [nodes, *weights], grad)]


def in_float64(tensors):
    return [tensor.detach().double().requires_grad_() for tensor in tensors]


def reference(graph, nodes, weights, grad):
    return values_and_gradients(
        attention_readout_reference, graph, *in_float64([nodes]), ReadoutWeights(*in_float64(weights)), grad.double()
    )


def rms_ratio(found, expected):
    return float((found.double() - expected).square().mean().sqrt() / expected.square().mean().sqrt())


@settings(repeatable, max_examples=15)
@given(SESSIONS)
def test_values_and_gradients_are_the_references(sessions):
    graph = build(sessions).graph
    nodes, weights, grad = draw(graph)
    if graph.num_nodes == 0:
        assert not attention_readout(nodes, graph, weights).any()
        return
    for found, expected in zip(
        values_and_gradients(attention_readout, graph, nodes, weights, grad),
        reference(graph, nodes, weights, grad),
        strict=True,
    ):
        assert torch.allclose(found, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(("dtype", "largest", "mean"), [(torch.float32, 1e-5, 1e-6), (torch.float16, 6e-3, 2.5e-3)])
@pytest.mark.parametrize("d", [16, 47, 64, 96, 128])
def test_errors_in_narrow_numbers_stay_within_rounding(d, dtype, largest, mean):
    graph = build(ODD_SESSIONS * 3).graph
    nodes, weights, grad = draw(graph, d, dtype)
    results = values_and_gradients(attention_readout, graph, nodes, weights, grad)
    for found, expected in zip(results, reference(graph, nodes, weights, grad), strict=True):
        assert found.dtype == dtype
        assert relative_error(found, expected) < largest
        assert rms_ratio(found, expected) < mean


def test_gradients_by_finite_differences():
    graph = build([[0, 1, 0], [], [2]]).graph
    nodes, weights, _ = draw(graph, 2)
    assert torch.autograd.gradcheck(lambda x, *w: attention_readout(x, graph, ReadoutWeights(*w)), (nodes, *weights))


def test_an_item_clicked_twice_counts_twice():
    graph = build([[0, 1, 0, 0]]).graph
    nodes, weights, _ = draw(graph)
    last, clicks = nodes[0], nodes[[0, 1, 0, 0]]
    alpha = torch.sigmoid(last @ weights.last.T + clicks @ weights.node.T + weights.bias) @ weights.score
    expected = weights.output @ torch.cat([alpha @ clicks, last]) + weights.output_bias
    assert relative_error(attention_readout(nodes, graph, weights)[0], expected) < 1e-13


def test_a_session_does_not_depend_on_its_place_in_the_batch():
    # 40 sessions make three programs; in another order each has other neighbours and other tiles.
    sessions = [[(7 * s + i) % (s % 9 + 2) for i in range(s % 12)] for s in range(38)] + [list(range(70)), []]
    order = torch.randperm(40, generator=torch.Generator().manual_seed(3)).tolist()
    graph, moved = build(sessions).graph, build([sessions[s] for s in order]).graph
    nodes, weights, grad = draw(graph)
    bounds = graph.node_offsets.tolist()
    places = torch.cat([torch.arange(bounds[s], bounds[s + 1]) for s in order])
    here = values_and_gradients(attention_readout, graph, nodes, weights, grad)
    there = values_and_gradients(attention_readout, moved, nodes.detach()[places].requires_grad_(), weights, grad[order])
    here[0], here[1] = here[0][order], here[1][places]
    for found, expected in zip(there, here, strict=True):
        assert torch.allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_a_session_alone_reads_the_same_and_an_empty_one_zero():
    graph = build(ODD_SESSIONS).graph
    nodes, weights, _ = draw(graph)
    whole = attention_readout(nodes, graph, weights)
    for number, session in enumerate(ODD_SESSIONS):
        piece = slice(*graph.node_offsets[number : number + 2].tolist())
        alone = attention_readout(nodes[piece], build([session]).graph, weights)[0]
        assert torch.allclose(alone, whole[number], rtol=1e-12, atol=1e-12)
        assert session or not whole[number].any()


def test_every_run_gives_the_same_bits():
    graph = build(ODD_SESSIONS).graph
    drawn = draw(graph, 16, torch.float32)
    first, second = (values_and_gradients(attention_readout, graph, *drawn) for _ in range(2))
    assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))


def test_the_operators_are_well_formed():
    from kernels.attention_readout.triton_path import attention_readout_backward, attention_readout_forward

    graph = build([[0, 1, 0], [], [2]]).graph
    nodes, weights, grad = draw(graph, 4, torch.float32)
    of_graph = (graph.node_offsets, graph.last_node, graph.node_clicks)
    torch.library.opcheck(attention_readout_forward, (nodes, *of_graph, list(weights)))
    plain = [weight.detach() for weight in weights]
    joined = attention_readout_forward(nodes.detach(), *of_graph, plain)[1]
    arguments = (grad, nodes.detach(), *of_graph, joined, plain)
    torch.library.opcheck(attention_readout_backward, arguments, test_utils=("test_schema", "test_faketensor"))


def test_torch_compile_and_checkpointing_see_through_it():
    graph = build([[0, 1, 0], [], [2]]).graph
    nodes, weights, grad = draw(graph, 4)
    plain = values_and_gradients(attention_readout, graph, nodes, weights, grad)
    compiled = torch.compile(attention_readout, backend="aot_eager", fullgraph=True)

    def checkpointed(*arguments):
        return torch.utils.checkpoint.checkpoint(attention_readout, *arguments, use_reentrant=False)

    for function in (compiled, checkpointed):
        found = values_and_gradients(function, graph, nodes, weights, grad)
        assert all(torch.equal(*pair) for pair in zip(found, plain, strict=True))


def test_vectors_too_wide_for_a_program_are_refused():
    graph = build([[0]]).graph
    with pytest.raises(ValueError, match="more than 128"):
        attention_readout(torch.zeros(1, 129), graph, ReadoutWeights.initial(129))
