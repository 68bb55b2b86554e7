"""SR-GNN's readout over ragged sessions."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from session_cases import ODD_SESSIONS, SESSIONS, build, doubles, relative_error, repeatable

from kernels import ReadoutWeights, attention_readout
from kernels.attention_readout.reference import attention_readout_reference

D = 5


def draw(graph):
    nodes = torch.randn(graph.num_nodes, D, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return nodes.requires_grad_(), doubles(ReadoutWeights.initial(D, torch.Generator().manual_seed(1)))


@repeatable
@given(SESSIONS)
def test_values_and_gradients_are_the_references(sessions):
    graph = build(sessions).graph
    nodes, weights = draw(graph)
    results = []
    for function in (attention_readout, attention_readout_reference):
        out = function(nodes, graph, weights)
        grads = []
        if graph.num_nodes:
            grads = torch.autograd.grad(out.sin().sum(), [nodes, *weights])
        results.append([out, *grads])
    for found, expected in zip(*results, strict=True):
        assert torch.allclose(found, expected, rtol=1e-11, atol=1e-12)


def test_gradients_by_finite_differences():
    graph = build([[0, 1, 0], [], [2]]).graph
    nodes, weights = draw(graph)
    assert torch.autograd.gradcheck(lambda x, *w: attention_readout(x, graph, ReadoutWeights(*w)), (nodes, *weights))


def test_an_item_clicked_twice_counts_twice():
    # As if each click stood in the sum of its own.
    graph = build([[0, 1, 0, 0]]).graph
    nodes, weights = draw(graph)
    last = nodes[0]
    clicks = nodes[[0, 1, 0, 0]]
    alpha = torch.sigmoid(last @ weights.last.T + clicks @ weights.node.T + weights.bias) @ weights.score
    expected = weights.output @ torch.cat([alpha @ clicks, last]) + weights.output_bias
    assert relative_error(attention_readout(nodes, graph, weights)[0], expected) < 1e-13


def test_an_empty_session_reads_zero_and_batches_split():
    graph = build(ODD_SESSIONS).graph
    nodes, weights = draw(graph)
    whole = attention_readout(nodes, graph, weights)
    for number, session in enumerate(ODD_SESSIONS):
        piece = slice(*graph.node_offsets[number : number + 2].tolist())
        alone = attention_readout(nodes[piece], build([session]).graph, weights)[0]
        assert torch.allclose(alone, whole[number], rtol=1e-12, atol=1e-12)
        assert session or not whole[number].any()


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"\(4, 5\)"):
        attention_readout(torch.randn(4, D), build([[0]]).graph, ReadoutWeights.initial(D))
