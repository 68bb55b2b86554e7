"""Projected rows are placed without the host asking the device anything."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from waits_found import WaitsFound

from kernels import GatedGraphWeights, build_session_graph, gated_graph_project_into
from kernels.gated_graph.placing import placed

ROWS, POSITIONS = torch.tensor([1, -1, 0, -1, 2, 0]), torch.tensor([2, 0, 3, 1, 0, 4])


@pytest.mark.parametrize("in_place", [False, True])
def test_rows_stand_in_their_places_and_the_rest_is_as_it_was(in_place: bool) -> None:
    projected, out = torch.randn(6, 4), torch.randn(2, 4, 4)
    expected = out.clone()
    # The fifth is in no prompt, the sixth behind the end of one.
    expected[1, 2], expected[0, 3] = projected[0], projected[2]
    with WaitsFound() as waits:
        found = placed(projected, out, ROWS, POSITIONS, in_place)
    assert waits.found == []
    assert torch.equal(found, expected)
    assert torch.equal(out, expected) == in_place


def test_gradients_reach_what_was_placed_and_what_stayed() -> None:
    projected, out = (torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((6, 2), (2, 4, 2)))
    assert torch.autograd.gradcheck(lambda *floats: placed(*floats, ROWS, POSITIONS, False), (projected, out))


@pytest.mark.parametrize("num_layers", [0, 1])
def test_what_no_kernel_takes_is_placed_that_way_on_a_device(num_layers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMGR_KERNELS", "torch")
    graph = build_session_graph(np.array([1, 2, 3, 4, 5, 6]), np.array([0, 2, 6])).graph
    nodes, weights = torch.randn(6, 8), GatedGraphWeights.initial(8)
    arguments = (nodes, graph, weights, num_layers, torch.randn(4, 8))
    rows, positions = torch.tensor([1, -1, 0, -1, 1, 0]), torch.tensor([2, 0, 3, 1, 0, 1])
    out = torch.randn(2, 4, 4)
    expected = gated_graph_project_into(*arguments, out, rows, positions)

    class Elsewhere(torch.Tensor):
        """Says that it is not on the CPU."""

        device = torch.device("cuda", 0)

    with WaitsFound() as waits:
        found = gated_graph_project_into(*arguments, out.as_subclass(Elsewhere), rows, positions)
    assert waits.found == []
    torch.testing.assert_close(found.as_subclass(torch.Tensor), expected)
