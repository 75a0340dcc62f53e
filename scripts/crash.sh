#!/usr/bin/env bash
# Kills callhook with SIGKILL under load, again and again, and checks at the end that every event that
# it acknowledged has arrived, in order, and at most one per call twice for each kill: at the main
# receiver, at a copy, and at another that is down half of the time, which may have dead letters instead.
#
#     scripts/crash.sh [CYCLES [SEED]]        200 cycles, and a seed from the clock, unless told otherwise
#
# The seed that it prints repeats a run's choices, though not its timing. A run of 200 takes some two
# minutes after the build.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

cycles=${1:-200}
seed=${2:-}
[[ $# -le 2 && $cycles =~ ^[1-9][0-9]*$ && $seed =~ ^[0-9]*$ ]] || {
    echo "usage: scripts/crash.sh [CYCLES [SEED]]" >&2
    exit 64
}

export CALLHOOK_CRASH_CYCLES=$cycles
unset CALLHOOK_CRASH_SEED
if [[ -n $seed ]]; then
    export CALLHOOK_CRASH_SEED=$seed
fi
exec cargo test --release --test crash -- --nocapture
