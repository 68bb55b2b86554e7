"""Changes to the self-attention block's kernels that a test must notice: (file, old text, new text, test)."""

FORWARD = "kernels/session_attention/forward.py"
BACKWARD = "kernels/session_attention/backward.py"
LAST_ROW = "kernels/session_attention/last_row.py"
TESTS = "tests/kernels/test_session_attention_triton.py"

MUTATIONS = [
    (
        FORWARD,
        "visible = visible & (key[None, :] <= place[:, None])",
        "visible = visible",
        f"{TESTS}::test_a_causal_row_does_not_see_what_follows",
    ),
    (
        FORWARD,
        "(key[None, :] < end[:, None])",
        "(key[None, :] <= end[:, None])",
        f"{TESTS}::test_a_session_alone_reads_the_same[all rows]",
    ),
    (
        FORWARD,
        "total = total * shrink + ",
        "total = total + ",
        f"{TESTS}::test_a_session_alone_reads_the_same[all rows]",
    ),
    (
        BACKWARD,
        "(grad_shares - inner[None, :])",
        "grad_shares",
        f"{TESTS}::test_gradients_by_finite_differences[all rows]",
    ),
    (
        BACKWARD,
        "visible = visible & (row[:, None] >= place[None, :])",
        "visible = visible",
        f"{TESTS}::test_gradients_by_finite_differences[causal]",
    ),
    (
        BACKWARD,
        "(grad_shares - inner[:, None]) * scale",
        "(grad_shares - inner[:, None])",
        f"{TESTS}::test_gradients_by_finite_differences[all rows]",
    ),
    (
        FORWARD,
        "for start in range(0, BLOCK_W, STEP):",
        "for start in range(0, STEP, STEP):",
        f"{TESTS}::test_errors_in_narrow_numbers_stay_within_rounding[96-1-dtype0-1e-05-1e-06-causal]",
    ),
    (
        BACKWARD,
        "in_steps(own_ptr, row < stop, key_ptr + D,",
        "in_steps(own_ptr, row < stop, key_ptr,",
        f"{TESTS}::test_errors_in_narrow_numbers_stay_within_rounding[96-1-dtype0-1e-05-1e-06-all rows]",
    ),
    (
        FORWARD,
        "in_steps(query_ptr, present, key_ptr,",
        "in_steps(query_ptr, present, query_ptr,",
        f"{TESTS}::test_errors_in_narrow_numbers_stay_within_rounding[96-1-dtype0-1e-05-1e-06-causal]",
    ),
    (
        BACKWARD,
        "in_steps(key_ptr, key < stop, query_ptr,",
        "in_steps(key_ptr, key < stop, grad_row_ptr,",
        f"{TESTS}::test_errors_in_narrow_numbers_stay_within_rounding[96-1-dtype0-1e-05-1e-06-all rows]",
    ),
    (
        BACKWARD,
        "in_steps(value_ptr, key < stop, grad_row_ptr,",
        "in_steps(value_ptr, key < stop, query_ptr,",
        f"{TESTS}::test_errors_in_narrow_numbers_stay_within_rounding[96-1-dtype0-1e-05-1e-06-causal]",
    ),
    (
        LAST_ROW,
        "grad_ptr + query * D, exists, D,",
        "queries_ptr + query * D, exists, D,",
        f"{TESTS}::test_errors_in_narrow_numbers_stay_within_rounding[96-1-dtype0-1e-05-1e-06-last row]",
    ),
    (
        LAST_ROW,
        "total = total * shrink + ",
        "total = total + ",
        f"{TESTS}::test_a_session_alone_reads_the_same[last row]",
    ),
    (
        LAST_ROW,
        "place // HEADS",
        "(place + 1) // HEADS",
        f"{TESTS}::test_a_session_alone_reads_the_same[last row]",
    ),
    (
        LAST_ROW,
        "(along - inner[None, :])",
        "along",
        f"{TESTS}::test_gradients_by_finite_differences[last row]",
    ),
    (
        LAST_ROW,
        "grad_y += tl.dot(grad_scores,",
        "grad_y -= tl.dot(grad_scores,",
        f"{TESTS}::test_gradients_by_finite_differences[last row]",
    ),
]
