"""Changes to the kernel of target_rank that a test must notice: (file, old text, new text, test)."""

FILE = "kernels/target_rank/forward.py"
TESTS = "tests/kernels/test_target_rank.py"
EQUAL = f"{TESTS}::test_equal_scores_are_not_above[triton-dtype1]"

MUTATIONS = [
    (FILE, "(scores > limit[:, None])", "(scores >= limit[:, None])", EQUAL),
    (FILE, "& (item < num_items)[None, :]", "", EQUAL),
    (
        FILE,
        "limit = limit * tl.load(item_factor_ptr + target, mask=inside, other=0.0)",
        "limit = limit",
        f"{TESTS}::test_directions_are_compared_under_cosine[triton]",
    ),
]
