#!/usr/bin/env bash
# Every step from data to bundle, and the evaluation, for one configuration:
#     bash configs/train.sh configs/beauty.toml runs/beauty
#     bash configs/train.sh configs/beauty.toml runs/beauty 2 3      # and the rankers of two more seeds, with the mean of all
# Further seeds train their own rankers (runs/beauty-seed-2, ...) and their own ID-only backbone (runs/beauty-backbone-2, ...);
# language model and text vectors are those of the first; the teacher ranks other training prefixes for each. Finished steps are skipped; an interrupted one goes on.
set -euo pipefail
CONFIG=${1:?usage: train.sh CONFIG RUN [SEED ...]}
RUN=${2:?usage: train.sh CONFIG RUN [SEED ...]}
shift 2

step() {
    printf '\n\033[1m== %s\033[0m  (%d s)\n' "$*" "$SECONDS"
    "$@"
}

rankers() { # RUN SEED: the ranker and its two controls
    for variant in id-only frozen-text fused; do
        step llmgr distil --run "$1" --config "$CONFIG" --set "seed=$2" --variant "$variant"
    done
}

step llmgr prepare --run "$RUN" --config "$CONFIG"
step llmgr pretrain --run "$RUN" --config "$CONFIG"
step llmgr tune --run "$RUN" --config "$CONFIG"
step llmgr embed --run "$RUN" --config "$CONFIG"
step llmgr embed --run "$RUN" --config "$CONFIG" --untuned
rankers "$RUN" "$(llmgr settings --config "$CONFIG" | python3 -c 'import json, sys; print(json.load(sys.stdin)["seed"])')"
step llmgr export --run "$RUN" --config "$CONFIG"
step llmgr evaluate --run "$RUN" --config "$CONFIG"

others=()
for seed in "$@"; do
    for part in dataset backbone tuned store; do
        mkdir -p "$RUN-seed-$seed" "$RUN-backbone-$seed"
        [ -e "$RUN-seed-$seed/$part" ] || ln -s "$(realpath "$RUN/$part")" "$RUN-seed-$seed/$part"
    done
    rankers "$RUN-seed-$seed" "$seed"
    step llmgr evaluate --run "$RUN-seed-$seed" --config "$CONFIG" --set "seed=$seed" --set evaluate.teacher_examples=0
    others+=(--seed-run "$RUN-seed-$seed")
    [ -e "$RUN-backbone-$seed/dataset" ] || ln -s "$(realpath "$RUN/dataset")" "$RUN-backbone-$seed/dataset"
    step llmgr pretrain --run "$RUN-backbone-$seed" --config "$CONFIG" --set "seed=$seed"
    step llmgr evaluate --run "$RUN-backbone-$seed" --config "$CONFIG" --set "seed=$seed"
done
if [ ${#others[@]} -gt 0 ]; then
    # The rankers' mean stands in RUN (its backbone row is one backbone); the backbones' own mean in the first of theirs.
    step llmgr evaluate --run "$RUN" --config "$CONFIG" "${others[@]}"
    backbones=(--seed-run "$RUN")
    for seed in "${@:2}"; do backbones+=(--seed-run "$RUN-backbone-$seed"); done
    step llmgr evaluate --run "$RUN-backbone-$1" --config "$CONFIG" "${backbones[@]}"
fi
