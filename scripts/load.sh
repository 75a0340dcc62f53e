#!/usr/bin/env bash
# What callhook costs, in one run on one machine: POST /call through callhook, beside the same through
# a bare hyper hop and beside the receiver asked directly; its memory, idle and with a crowd of calls
# in hand; its start-up time.
#
#     scripts/load.sh [ROUNDS [SECONDS]]        3 rounds of 5 seconds each, unless told otherwise
#
# The three are asked in turn in every round and the medians of the rounds are printed, so that
# somebody else's load on the machine falls on all of them alike. wrk, the receiver and what is measured
# share the processors: compare the rows with one another, not with another machine's. Everything
# stays on the loopback interface. The journal is off: a disk's fsync is the disk's to measure.
set -euo pipefail
export LC_ALL=C # a decimal point, in EPOCHREALTIME too
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

rounds=${1:-3}
seconds=${2:-5}
crowd=10000
cold_starts=10
[[ $rounds =~ ^[1-9][0-9]*$ && $seconds =~ ^[1-9][0-9]*$ ]] || {
    echo "usage: scripts/load.sh [ROUNDS [SECONDS]]" >&2
    exit 64
}

work=$(mktemp -d)
started=() # what runs because of this script, by process id

# Nothing here has anything to save, so it is ended at once. Only what this script started is.
stop() {
    local pid=$1 each rest=()
    kill -KILL "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
    for each in "${started[@]}"; do
        [[ $each == "$pid" ]] || rest+=("$each")
    done
    started=("${rest[@]}")
}

finish() {
    local status=$?
    while ((${#started[@]})); do stop "${started[0]}"; done
    rm -rf -- "$work"
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

die() {
    printf '%s\n' "$1" >&2
    exit 1
}

need_wrk() {
    command -v wrk >/dev/null && return
    if ((EUID == 0)) && command -v apt-get >/dev/null; then
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends wrk >/dev/null
    else
        die "missing: wrk; as root: apt-get install wrk"
    fi
}

# The path of what a cargo command has built; $1 tells its line of cargo's report from the others.
built() {
    local which=$1 path
    shift
    path=$(cargo "$@" --release --locked --message-format=json-render-diagnostics |
        grep -F "$which" | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
    [[ -n $path ]] || die "cargo $* has built nothing to run"
    printf '%s\n' "$path"
}

# The program is built last: building the bench builds it too, with the features that tests need.
# Both are copied, so that another build in the tree does not change what is being measured.
build() {
    cp -- "$(built '"kind":["bench"]' build --bench hop)" "$work/hop"
    cp -- "$(built '"kind":["bin"]' build --bin callhook)" "$work/callhook"
}

# Starts a command in the background, its output in $work/NAME.log; its process id is then in $pid.
start() {
    local name=$1
    shift
    "$@" >"$work/$name.log" 2>&1 &
    pid=$!
    started+=("$pid")
}

# Waits until a line of NAME's log has the text, and prints what follows it.
await() {
    local name=$1 of=$2 text=$3 tries
    : >>"$work/$name.log" # the command may not have come to make it yet
    for ((tries = 0; tries < 1200; tries++)); do
        if grep -qF -- "$text" "$work/$name.log"; then
            sed -n "s/.*$text *//p" "$work/$name.log" | head -n 1
            return
        fi
        kill -0 "$of" 2>/dev/null || break
        sleep 0.05
    done
    cat -- "$work/$name.log" >&2
    die "$name never said \"$text\""
}

# callhook with settings of its own and none of the caller's; further ones are arguments. Its port is
# chosen beforehand and is then in $port.
start_callhook() {
    port=$("$work/hop" port)
    start callhook env -i PATH="$PATH" HTTP_HOST=127.0.0.1 HTTP_PORT="$port" AUDIOSOCKET_HOST=127.0.0.1 \
        PORT=0 ADMIN_PORT=0 JOURNAL_PATH=none LOG_LEVEL=warn "$@" "$work/callhook" serve
}

# Waits for callhook's first 200 and prints how many milliseconds after $1 it came.
first_answer() {
    "$work/hop" cold "127.0.0.1:$port" "$1" || {
        cat -- "$work/callhook.log" >&2
        die "callhook does not answer"
    }
}

resident_kib() {
    awk '/^VmRSS:/ { print $2 }' "/proc/$1/status"
}

median() {
    sort -n | awk '{ v[NR] = $1 } END { print (NR % 2) ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'
}

# The median over the rounds of one column of the results.
of() {
    local target=$1 connections=$2 column=$3
    awk -v t="$target" -v c="$connections" -v k="$column" '$2 == t && $3 == c { print $k }' "$work/results" | median
}

run=$((RANDOM * 32768 + RANDOM))

# Asks once, and prints: requests/s, p50 and p99 in microseconds, errors.
ask() {
    local port=$1 connections=$2 length=$3
    wrk -t1 -c"$connections" -d"${length}s" --timeout 5s -s scripts/load.lua "http://127.0.0.1:$port/call" -- "$4" |
        awk '$1 == "result" { print $2, $3, $4, $5 }'
}

measure_speed() {
    local round connections target receiver_port hop_port receiver_pid hop_pid callhook_pid
    local -A ports
    start receiver "$work/hop" receiver 0
    receiver_pid=$pid
    receiver_port=$(await receiver "$receiver_pid" "listening on port")
    start hop "$work/hop" hop 0 "http://127.0.0.1:$receiver_port/events"
    hop_pid=$pid
    hop_port=$(await hop "$hop_pid" "listening on port")
    start_callhook WEBHOOK_URL="http://127.0.0.1:$receiver_port/events"
    callhook_pid=$pid
    first_answer "$EPOCHREALTIME" >/dev/null
    sleep 2
    idle_kib=$(resident_kib "$callhook_pid")
    ports=([receiver]=$receiver_port [hop]=$hop_port [callhook]=$port)

    for ((round = 0; round <= rounds; round++)); do
        for connections in 1 32; do
            for target in receiver hop callhook; do
                run=$((run + 1))
                if ((round == 0)); then # nobody's first requests count
                    ask "${ports[$target]}" "$connections" 1 "$run" >/dev/null
                else
                    printf '%s %s %s ' "$round" "$target" "$connections" >>"$work/results"
                    ask "${ports[$target]}" "$connections" "$seconds" "$run" >>"$work/results"
                fi
            done
        done
        ((round == 0)) || printf 'round %d of %d done\n' "$round" "$rounds" >&2
    done
    busy_kib=$(resident_kib "$callhook_pid")
    stop "$callhook_pid"
    stop "$hop_pid"
    stop "$receiver_pid"
}

# The receiver answers nobody, so every call's first event is under way or waits: every lane is open.
measure_crowd() {
    local receiver_pid crowd_pid callhook_pid receiver_port
    start receiver "$work/hop" receiver 0 --hold
    receiver_pid=$pid
    receiver_port=$(await receiver "$receiver_pid" "listening on port")
    start_callhook WEBHOOK_URL="http://127.0.0.1:$receiver_port/events" WEBHOOK_TIMEOUT=600000
    callhook_pid=$pid
    first_answer "$EPOCHREALTIME" >/dev/null

    mkfifo "$work/hold"
    exec {hold}<>"$work/hold"
    "$work/hop" crowd "127.0.0.1:$port" "$crowd" <"$work/hold" >"$work/crowd.log" 2>&1 {hold}>&- &
    crowd_pid=$!
    started+=("$crowd_pid")
    await crowd "$crowd_pid" ready >/dev/null
    sleep 1
    crowd_kib=$(resident_kib "$callhook_pid")
    exec {hold}>&-
    still_open=$(await crowd "$crowd_pid" "still open:")
    stop "$crowd_pid"
    stop "$callhook_pid"
    stop "$receiver_pid"
}

measure_cold_start() {
    local i begun
    for ((i = 0; i < cold_starts; i++)); do
        begun=$EPOCHREALTIME
        start_callhook WEBHOOK_URL=none
        first_answer "$begun" >>"$work/cold"
        stop "$pid"
    done
    cold_ms=$(median <"$work/cold")
}

row() {
    local name=$1 target=$2 connections=$3
    awk -v name="$name" -v rps="$(of "$target" "$connections" 4)" -v p50="$(of "$target" "$connections" 5)" \
        -v p99="$(of "$target" "$connections" 6)" -v base_rps="$(of receiver "$connections" 4)" \
        -v hop_rps="$(of hop "$connections" 4)" -v hop_p50="$(of hop "$connections" 5)" 'BEGIN {
            printf "%-16s %10.0f %9.0f %9.0f %12.2f %12.2f %12.2f\n",
                name, rps, p50, p99, rps / base_rps, rps / hop_rps, p50 / hop_p50
        }'
}

# The difference of the medians of one round, median over the rounds.
added_us() {
    awk -v t="$1" '$3 == 1 && $2 == "receiver" { base[$1] = $5 } $3 == 1 && $2 == t { p50[$1] = $5 }
        END { for (r in p50) print p50[r] - base[r] }' "$work/results" | median
}

report() {
    local connections
    printf '\n%s, %s processors, Linux %s; load before: %s\n' "$("$work/callhook" --version)" "$(nproc)" \
        "$(uname -r)" "$load_before"
    printf '%d rounds of %d s each, medians; times in microseconds\n' "$rounds" "$seconds"
    for connections in 1 32; do
        printf '\n%-16s %10s %9s %9s %12s %12s %12s\n' "$connections connection(s)" requests/s p50 p99 \
            "r/s:receiver" "r/s:bare hop" "p50:bare hop"
        row "receiver alone" receiver "$connections"
        row "bare hop" hop "$connections"
        row "callhook" callhook "$connections"
    done
    printf '\nadded to one POST /call, 1 connection, median: %s us by callhook, %s us by the bare hop\n' \
        "$(added_us callhook)" "$(added_us hop)"
    printf 'resident memory: %s idle, %s after the load above (announced calls are remembered a while),\n' "$(mib "$idle_kib")" "$(mib "$busy_kib")"
    printf '    %s with %d open lanes and %d connections (%s still open when measured)\n' "$(mib "$crowd_kib")" \
        "$crowd" "$crowd" "$still_open"
    printf 'start to the first 200 from /health: %s ms, median of %d\n' "$cold_ms" "$cold_starts"
}

mib() {
    awk -v kib="$1" 'BEGIN { printf "%.1f MiB", kib / 1024 }'
}

# A figure that errors went into is none.
check_errors() {
    awk 'NF != 7 || $7 != 0 { print "not a clean run: round", $1, $2, "at", $3, "connection(s):", $7, "errors"; bad = 1 }
        END { exit bad }' "$work/results" >&2
}

# Each of the crowd takes a file of callhook and one of its own.
room_for_crowd() {
    ulimit -n "$(ulimit -Hn)" 2>/dev/null || true
    local limit
    limit=$(ulimit -n)
    if [[ $limit != unlimited ]] && ((limit < crowd + 200)); then
        crowd=$((limit - 200))
        printf 'only %s open files are allowed here (ulimit -Hn): a crowd of %d\n' "$limit" "$crowd" >&2
    fi
}

need_wrk
room_for_crowd
load_before=$(cut -d ' ' -f 1-3 /proc/loadavg)
build
measure_speed
measure_crowd
measure_cold_start
report
check_errors
