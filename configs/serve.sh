#!/usr/bin/env bash
# Both servers on one run directory, until interrupted. RUN=runs/demo by default.
set -euo pipefail
cd "$(dirname "$0")/.."
RUN="${RUN:-runs/demo}"
llmgr serve embedding --run "$RUN" &
llmgr serve ranking --run "$RUN" &
trap 'kill -TERM $(jobs -p) 2>/dev/null; wait' EXIT INT TERM
wait -n
