"""Changes to the item_rows kernels that a test must notice: (file, old text, new text, test)."""

FILE = "kernels/item_rows/backward.py"
TESTS = "tests/kernels/test_item_rows.py"

MUTATIONS = [
    (
        FILE,
        "number[:, None] == number[None, :]",
        "number[:, None] >= number[None, :]",
        f"{TESTS}::test_gradients_by_finite_differences",
    ),
    (
        FILE,
        "is_head = first & (number == chunk_before)",
        "is_head = first & (number != chunk_before)",
        f"{TESTS}::test_runs_that_cross_chunks_are_summed_whole",
    ),
    (
        FILE,
        "if (number == chunk_after) & (number != chunk_before):",
        "if number == chunk_after:",
        f"{TESTS}::test_runs_that_cross_chunks_are_summed_whole",
    ),
    (
        FILE,
        "total += tl.sum(",
        "total = tl.sum(",
        f"{TESTS}::test_runs_that_cross_chunks_are_summed_whole",
    ),
    (
        "kernels/item_rows/distinct.py",
        "before + added",
        "added",
        "tests/kernels/test_attention_readout_triton.py::test_gradients_by_finite_differences",
    ),
]
