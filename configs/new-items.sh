#!/usr/bin/env bash
# How brand-new items are found: a part of the items is kept away from training altogether, and ranked from text.
#     LLMGR_DATA=/path/to/data bash configs/new-items.sh configs/beauty-new-items.toml runs/beauty-new-items
# Any configuration with data.heldout_share above zero will do. Finished steps are skipped; an interrupted one goes on.
set -euo pipefail
CONFIG=${1:?usage: new-items.sh CONFIG RUN}
RUN=${2:?usage: new-items.sh CONFIG RUN}

step() {
    printf '\n\033[1m== %s\033[0m  (%d s)\n' "$*" "$SECONDS"
    "$@"
}

step llmgr prepare --run "$RUN" --config "$CONFIG"
step llmgr pretrain --run "$RUN" --config "$CONFIG"
step llmgr embed --run "$RUN" --config "$CONFIG" --untuned
for variant in frozen-text id-only; do
    step llmgr distil --run "$RUN" --config "$CONFIG" --variant "$variant"
done
step llmgr evaluate --run "$RUN" --config "$CONFIG"
