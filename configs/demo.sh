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
embedding=$(cat "$RUN/embedding.ready")
ranking=$(cat "$RUN/ranking.ready")
echo "embedding server on $embedding, ranking server on $ranking"

# A session of three children's films (Toy Story, The Lion King, Aladdin), ranked over gRPC.
session=(1 71 95)
step llmgr rank "${session[@]}" --top-k 10 --address "$ranking" --embedding-address "$embedding"

# A film nobody has seen: text alone, recommendable as soon as EmbedItem has answered.
step llmgr insert --item-id new-1 --title "Toy Story and the Lion Prince (1998)" --category "Animation" --category "Children's" \
    --category "Comedy" --address "$embedding"
step llmgr rank "${session[@]}" --top-k 20 --address "$ranking" --embedding-address "$embedding" --expect new-1

step llmgr evaluate --run "$RUN" --config "$CONFIG"
printf '\nDone in %d s. Everything lies under %s; `make serve` starts both servers again.\n' "$((SECONDS - started))" "$RUN"
