"""Changes to the kernels of the catalogue cross-entropy that a test must notice: (file, old text, new text, test)."""

FOLDER = "kernels/catalogue_cross_entropy"
TESTS = "tests/kernels/test_catalogue_cross_entropy_triton.py"
DOT = f"{TESTS}::test_many_tiles_and_splits_add_up_to_the_whole[False-dtype1]"
COSINE = f"{TESTS}::test_many_tiles_and_splits_add_up_to_the_whole[True-dtype1]"

MUTATIONS = [
    (f"{FOLDER}/forward.py", "total = total * tl.exp2(maximum - raised) + tl.sum(", "total = total + tl.sum(", DOT),
    (f"{FOLDER}/forward.py", 'logits = tl.where((item < num_items)[None, :], logits, float("-inf"))', "logits = logits", DOT),
    (f"{FOLDER}/forward.py", "other_total * tl.exp2(other - raised)", "other_total", DOT),
    (f"{FOLDER}/forward.py", "tl.sum(z * rows, axis=1) * scale", "tl.sum(z * rows, axis=1)", DOT),
    (f"{FOLDER}/session_gradient.py", "item[None, :] == target[:, None]", "item[None, :] == target[:, None] + 1", DOT),
    (f"{FOLDER}/session_gradient.py", "gradient += tl.load(", "gradient = tl.load(", DOT),
    (f"{FOLDER}/session_gradient.py", "share = share * inverse_norm[None, :]", "share = share", COSINE),
    (f"{FOLDER}/session_gradient.py", "gradient - along[:, None] * z", "gradient", COSINE),
    (f"{FOLDER}/table_gradient.py", "share - 2.0**LIFT, share) * weight[None, :]", "share, share) * weight[None, :]", DOT),
    (f"{FOLDER}/table_gradient.py", "logits - lse[None, :]", "logits", DOT),
    (f"{FOLDER}/table_gradient.py", "(gradient - along * direction) * inverse_norm", "gradient * inverse_norm", COSINE),
    (
        f"{FOLDER}/forward.py",
        "return 15 if",
        "return 0 if",
        f"{TESTS}::test_probabilities_far_below_the_range_of_half_precision_still_count[False-1.0]",
    ),
]
