"""Changes to the score_topk kernels that a test must notice: (file, old text, new text, test)."""

FOLDER = "kernels/score_topk"
TRITON = "tests/kernels/test_score_topk_triton.py"
SELECTION = "tests/kernels/test_score_topk_selection.py"
OPERATOR = "tests/kernels/test_score_topk_operator.py"
RANKING = "tests/ranker/test_graphed_ranking.py"

MUTATIONS = [
    (
        f"{FOLDER}/block_maxima.py",
        "scores = tl.where(changes <= EXCLUDED_FROM,",
        "scores = tl.where(changes <= 2 * EXCLUDED,",
        f"{TRITON}::test_everything_excluded_is_an_empty_ranking",
    ),
    (
        f"{FOLDER}/block_maxima.py",
        "total = total * tl.exp2(maximum * LOG2_E - shift)",
        "total = total * tl.exp2(0.0 * maximum)",
        f"{TRITON}::test_scores_and_log_sum_exp_are_near_float64",
    ),
    (
        f"{FOLDER}/block_maxima.py",
        "scores = tl.where(known[None, :], scores,",
        "scores = tl.where(known[None, :] | True, scores,",
        f"{TRITON}::test_an_excluded_item_far_above_the_rest_does_not_blur_the_log_sum_exp",
    ),
    (
        f"{FOLDER}/block_maxima.py",
        "(value - leading)[None, :]",
        "(leading - value)[None, :]",
        f"{TRITON}::test_evidence_that_tf32_cannot_hold_is_in_the_log_sum_exp",
    ),
    (
        f"{FOLDER}/block_maxima.py",
        "mine = (session - first_session)[None, :] == row[:, None]",
        "mine = session[None, :] == row[:, None]",
        f"{TRITON}::test_many_sessions_meet_only_their_own_edits",
    ),
    (
        f"{FOLDER}/select_blocks.py",
        "(items_of(best) % WIDTH)[:, None]",
        "tl.arange(0, SLOTS)[:, None]",
        f"{SELECTION}::test_the_best_blocks_are_selected_ties_by_index",
    ),
    (
        f"{FOLDER}/bitonic.py",
        "tl.where(second != swapped,",
        "tl.where(second == swapped,",
        f"{SELECTION}::test_the_largest_keys_stand_in_order",
    ),
    (
        f"{FOLDER}/keys.py",
        "scores = tl.where(scores == 0.0, 0.0, scores)",
        "scores = tl.where(scores == 1.0, 1.0, scores)",
        f"{TRITON}::test_positive_and_negative_zero_are_one_score",
    ),
    (
        f"{FOLDER}/exact_keys.py",
        "score += tl.sum(tl.where(",
        "score -= tl.sum(tl.where(",
        f"{TRITON}::test_evidence_lifts_an_item_of_a_poor_block_and_sinks_the_best_of_a_good_one",
    ),
    (
        f"{FOLDER}/exact_keys.py",
        "& (item != before)",
        "",
        f"{TRITON}::test_repeated_candidates_count_once",
    ),
    (
        f"{FOLDER}/exact_keys.py",
        "(item >= 0) & (item < num_items),\n",
        "(item >= 0),\n",
        f"{TRITON}::test_longer_rankings",
    ),
    (
        f"{FOLDER}/ranking.py",
        "tl.where(ranked, items_of(best), -1)",
        "items_of(best)",
        f"{TRITON}::test_everything_excluded_is_an_empty_ranking",
    ),
    (
        f"{FOLDER}/ranking.py",
        "total = total * tl.exp(maximum - shift) + tl.sum(weights * tl.exp(values - shift), axis=0)",
        "total = total * tl.exp(maximum - shift) + tl.sum(tl.exp(values - shift), axis=0)",
        f"{TRITON}::test_scores_and_log_sum_exp_are_near_float64",
    ),
    (
        f"{FOLDER}/edits.py",
        "bounds = torch.searchsorted(group, torch.arange(num_groups + 1, device=items.device))",
        "bounds = torch.searchsorted(group, torch.arange(num_groups + 1, device=items.device), right=True)",
        f"{TRITON}::test_edits_sorted_by_tile_say_the_same_as_edits_looked_through",
    ),
    (
        f"{FOLDER}/triton_path.py",
        "z.new_empty(z.shape[0], k, dtype=torch.int64)",
        "z.new_empty(z.shape[0], k, dtype=torch.int32)",
        f"{OPERATOR}::test_the_operator_is_one_torch_can_reason_about",
    ),
    (
        "llmgr_core/ranker/session_buffers.py",
        'into["node_offsets"][:] = 0, real, nodes',
        'into["node_offsets"][:] = 0, nodes, nodes',
        f"{RANKING}::test_sessions_leave_nothing_behind_for_the_next",
    ),
    (
        "llmgr_core/ranker/device_rows.py",
        "rankable[snapshot.unrankable] = False",
        "rankable[snapshot.unrankable] = True",
        f"{RANKING}::test_inserts_edits_and_deletions_are_followed_in_place",
    ),
]
