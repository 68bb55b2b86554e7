#!/usr/bin/env bash
# The whole main job, one command after the other; each line is what you would type for your own data.
# Wants `llmgr` on the PATH; writes everything under $RUN (runs/demo). Run it again and finished steps are skipped.
set -euo pipefail
cd "$(dirname "$0")/.."
RUN="${RUN:-runs/demo}"
CONFIG=configs/demo.toml
started=$SECONDS

step() {
    printf '\n\033[1m== %s\033[0m  (%d s)\n' "$*" "$((SECONDS - started))"
    "$@"
}

step llmgr data movielens-100k
step llmgr model minilm
step llmgr prepare --run "$RUN" --config "$CONFIG"
step llmgr pretrain --run "$RUN" --config "$CONFIG"
step llmgr tune --run "$RUN" --config "$CONFIG"
step llmgr embed --run "$RUN" --config "$CONFIG"
step llmgr distil --run "$RUN" --config "$CONFIG" --variant id-only
step llmgr distil --run "$RUN" --config "$CONFIG"
step llmgr export --run "$RUN" --config "$CONFIG"

# Two servers on free loopback ports; each writes its address into the ready file once it answers.
servers=()
stop_servers() {
    for server in "${servers[@]}"; do kill -TERM "$server" 2>/dev/null || true; done
    wait
}
trap stop_servers EXIT
rm -f "$RUN"/*.ready
serve() {
    llmgr serve "$1" --run "$RUN" --config "$CONFIG" --port 0 --ready-file "$RUN/$1.ready" >"$RUN/$1.log" 2>&1 &
    servers+=($!)
    for _ in $(seq 300); do
        [ -s "$RUN/$1.ready" ] && return
        kill -0 $! 2>/dev/null || { cat "$RUN/$1.log"; exit 1; }
        sleep 0.2
    done
    echo "the $1 server did not start within a minute"; cat "$RUN/$1.log"; exit 1
}
printf '\n\033[1m== llmgr serve embedding, llmgr serve ranking\033[0m\n'
serve embedding
serve ranking
address() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["address"])' "$RUN/$1.ready"; }
embedding=$(address embedding)
ranking=$(address ranking)
echo "embedding server on $embedding, ranking server on $ranking"

# Who watched Toy Story, The Lion King and Aladdin: what next? Ranked over gRPC, no language model involved.
session=(1 71 95)
step llmgr rank "${session[@]}" --top-k 10 --address "$ranking" --titles-from "$embedding"

# A film nobody has seen: its text goes through the language model once, and it can be ranked as soon as EmbedItem has answered.
step llmgr insert new-1 --title "Toy Story 2 (1999)" --category Animation --category "Children's" --category Comedy \
    --address "$embedding"

# The next rankings hold it, no restart: among all films, and on a shelf of ten from one page of the shop.
printf '\n\033[1m== the inserted film in the ranking of the whole catalogue\033[0m\n'
llmgr rank "${session[@]}" --top-k 1000 --address "$ranking" --json >"$RUN/ranking.json"
python3 - "$RUN/ranking.json" <<'PYTHON'
import json, sys

items = json.load(open(sys.argv[1]))["items"]
found = [place for place, item in enumerate(items, start=1) if item["item_id"] == "new-1"]
print(f"new-1 is at place {found[0]} of the whole catalogue" if found else f"new-1 is not among the first {len(items)}")
PYTHON
shelf=(new-1 8 99 101 102 132 172 225 243 257)
step llmgr rank "${session[@]}" "${shelf[@]/#/--candidate=}" --address "$ranking" --titles-from "$embedding"

step llmgr evaluate --run "$RUN" --config "$CONFIG"
printf '\nDone in %d s. Everything lies under %s; `make serve` starts both servers again.\n' "$((SECONDS - started))" "$RUN"
