#!/usr/bin/env bash
# What callhook costs, beside a bare HTTP hop and a bare bridge, as one Markdown table.
#
#     scripts/bench.sh [call|events|memory|start|receivers|bridge|break]... [--rounds N] [--seconds S]
#
# All parts unless some are named, which takes ten minutes after the build. How it is measured is told
# in benches/measure/main.rs. Journals are written to TMPDIR: let it be on the disk that is to be
# measured; a tmpfs has no fsync to wait for. Everything stays on the loopback interface.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT

# The path of what a cargo command has built; $1 tells its line of cargo's report from the others.
built() {
    local which=$1 path
    shift
    path=$(cargo "$@" --release --locked --message-format=json-render-diagnostics |
        grep -F "$which" | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
    [[ -n $path ]] || {
        printf 'cargo %s has built nothing to run\n' "$*" >&2
        exit 1
    }
    printf '%s\n' "$path"
}

# The program is built last: building the bench builds it too, with the features that tests need.
# Both are copied, so that another build in the tree does not change what is being measured.
bench=$(built '"kind":["bench"]' build --bench measure)
cp -- "$bench" "$work/measure"
program=$(built '"kind":["bin"]' build --bin callhook)
cp -- "$program" "$work/callhook"
"$work/measure" run --callhook "$work/callhook" "$@" &
measure=$!
# It ends what it has started, given the chance.
trap 'kill "$measure" 2>/dev/null || true; wait "$measure" || true; exit 143' INT TERM HUP
wait "$measure"
