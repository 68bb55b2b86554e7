"""Changes to the attention readout's kernels that a test must notice: (file, old text, new text, test)."""

FORWARD = "kernels/attention_readout/forward.py"
BACKWARD = "kernels/attention_readout/backward.py"
TESTS = "tests/kernels/test_attention_readout_triton.py"

MUTATIONS = [
    (
        FORWARD,
        "alpha = tl.sum(hidden * score[None, :], axis=1) * clicks",
        "alpha = tl.sum(hidden * score[None, :], axis=1)",
        f"{TESTS}::test_an_item_clicked_twice_counts_twice",
    ),
    (
        FORWARD,
        "(node[:, None] < end[None, :])",
        "(node[:, None] <= end[None, :])",
        f"{TESTS}::test_a_session_alone_reads_the_same_and_an_empty_one_zero",
    ),
    (
        FORWARD,
        "tl.where(kept, z, 0.0)",
        "z",
        f"{TESTS}::test_a_session_alone_reads_the_same_and_an_empty_one_zero",
    ),
    (BACKWARD, "hidden * (1.0 - hidden)", "(1.0 - hidden)", f"{TESTS}::test_gradients_by_finite_differences"),
    (
        BACKWARD,
        "grad_x = alpha[:, None] * grad_attended",
        "grad_x = grad_attended",
        f"{TESTS}::test_gradients_by_finite_differences",
    ),
    (
        FORWARD,
        "for start in range(0, BLOCK_D, STEP):",
        "for start in range(0, STEP, STEP):",
        f"{TESTS}::test_errors_in_narrow_numbers_stay_within_rounding[96-dtype0-1e-05-1e-06]",
    ),
    (
        BACKWARD,
        "row_ptr, node < stop, of_node_ptr, D, 1, D",
        "row_ptr, node < stop, of_node_ptr, 1, D, D",
        f"{TESTS}::test_errors_in_narrow_numbers_stay_within_rounding[96-dtype0-1e-05-1e-06]",
    ),
    (
        BACKWARD,
        "sums = tl.trans(member.to(dtype))",
        "sums = tl.trans((member & (start == 0)).to(dtype))",
        f"{TESTS}::test_a_session_does_not_depend_on_its_place_in_the_batch",
    ),
]
