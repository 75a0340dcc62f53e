#!/usr/bin/env bash
# What callhook's bridge costs, beside the barest bridge, in one run on one machine.
#
#     scripts/load-calls.sh [COUNT [SECONDS [ROUNDS]]]    300 calls at once, measured for 15 seconds, in
#                                                         2 rounds, unless told otherwise
#     scripts/load-calls.sh break [SECONDS]               100 calls more each time, for 8 seconds each,
#                                                         until frames are lost or come in gaps
#
# Each call sends 50 frames a second through a bridge to an STS server that sends them back, and looks
# for each of them. callhook runs as it would for a customer, with its journal on the disk and a
# receiver for its events. The bare bridge has no clock, no queue, no events and no detection; it, the
# callers, the STS server and the receiver are in benches/.
#
# What is compared runs in turn, in each round the other way round, and in a process of its own each
# time, so that memory is counted from idle; the medians of the rounds are printed. All of it shares the
# processors, and somebody else's load on the machine is in every figure: a run waits a while for quiet,
# is done again, up to three times, where the rest of the machine took more than a tenth of a processor
# after all, and the quietest counts. On a machine that is never quiet, root may let all of it go first:
# nice -n -10 scripts/load-calls.sh. Everything stays on the loopback interface.
set -euo pipefail
export LC_ALL=C # a decimal point
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

mode=rounds
if [[ ${1:-} == break ]]; then
    mode='break'
    shift
    count=300 # to begin with
    seconds=${1:-8}
    rounds=1
    (($# <= 1)) || seconds=
else
    count=${1:-300}
    seconds=${2:-15}
    rounds=${3:-2}
fi
step=100
attempts=4    # runs of which the quietest counts
quiet=0.10    # processors that the rest of the machine may take
patience=60   # seconds to wait for such quiet
gap_limit=25  # ms, as are the following
echo_limit=45
cpu_limit=1.3 # times the bare bridge's
memory_limit=32 # KB per call
[[ $# -le 3 && $count =~ ^[1-9][0-9]*$ && $seconds =~ ^[1-9][0-9]*$ && $rounds =~ ^[1-9][0-9]*$ ]] || {
    echo "usage: scripts/load-calls.sh [COUNT [SECONDS [ROUNDS]]] | scripts/load-calls.sh break [SECONDS]" >&2
    exit 64
}

work=$(mktemp -d)
started=() # what runs because of this script, by process id

# Nothing that runs here has anything to save. Only what this script started is ended.
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

# The path of what a cargo command has built; $1 tells its line of cargo's report from the others.
built() {
    local which=$1 path
    shift
    path=$(cargo "$@" --release --locked --message-format=json-render-diagnostics |
        grep -F "$which" | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
    [[ -n $path ]] || die "cargo $* has built nothing to run"
    printf '%s\n' "$path"
}

# The program is built last: building a bench builds it too, with the features that tests need.
# All are copied, so that another build in the tree does not change what is being measured.
build() {
    cp -- "$(built '"kind":["bench"]' build --bench hop)" "$work/hop"
    cp -- "$(built '"kind":["bench"]' build --bench calls)" "$work/calls"
    cp -- "$(built '"kind":["bin"]' build --bin callhook)" "$work/callhook"
}

# Starts a command in the background, its output in $work/NAME.log; its process id is then in $pid.
start() {
    local name=$1
    shift
    : >"$work/$name.log" # at once, so that nobody reads what was said before
    "$@" >>"$work/$name.log" 2>&1 &
    pid=$!
    started+=("$pid")
}

# Waits until a line of NAME's log, which process $2 writes, has the text, and prints what follows it.
await() {
    local name=$1 of=$2 text=$3 tries
    for ((tries = 0; tries < 200; tries++)); do
        if grep -qF -- "$text" "$work/$name.log"; then
            sed -n "s/.*$text *\([0-9]*\).*/\1/p" "$work/$name.log" | head -n 1
            return
        fi
        kill -0 "$of" 2>/dev/null || break
        sleep 0.05
    done
    cat -- "$work/$name.log" >&2
    die "$name never said \"$text\""
}

start_ends() {
    start receiver "$work/hop" receiver 0
    receiver_pid=$pid
    receiver_port=$(await receiver "$receiver_pid" "listening on port")
    start sts "$work/calls" sts 0
    sts_pid=$pid
    sts_url=ws://127.0.0.1:$(await sts "$sts_pid" "listening on port")
}

# Starts a bridge, fresh; its process id and port are then in $pid and $port. callhook has settings of
# its own and none of the caller's.
start_bridge() {
    case $1 in
    bare)
        start bare "$work/calls" bare 0 "$sts_url"
        port=$(await bare "$pid" "listening on port")
        ;;
    callhook)
        rm -f -- "$work/journal.redb"
        start callhook env -i PATH="$PATH" WEBHOOK_URL="http://127.0.0.1:$receiver_port/events" \
            STS_URL="$sts_url" HTTP_HOST=127.0.0.1 HTTP_PORT=0 AUDIOSOCKET_HOST=127.0.0.1 PORT=0 \
            ADMIN_PORT=0 JOURNAL_PATH="$work/journal.redb" "$work/callhook" serve
        port=$(await callhook "$pid" "AVR AudioSocket Server listening on port")
        ;;
    esac
    sleep 1
}

# A figure of a line of the callers.
figure() {
    sed -n "s/.*\"$1\":\([0-9.]*\).*/\1/p" <<<"$2"
}

# Whether a relation between numbers holds.
holds() {
    awk "BEGIN { exit !($1) }"
}

# Calls through a fresh bridge; $line is then what the callers found. False if they could not call.
call_once() {
    local bridge=$1 calls=$2 bridge_pid
    start_bridge "$bridge"
    bridge_pid=$pid
    start callers "$work/calls" callers "127.0.0.1:$port" "$calls" "$seconds" \
        "$bridge_pid" "$sts_pid" "$receiver_pid"
    local callers_pid=$pid status=0
    wait "$callers_pid" || status=$?
    stop "$callers_pid"
    stop "$bridge_pid"
    line=$(<"$work/callers.log")
    ((status == 0))
}

# Ticks that the machine was busy, and all its ticks, so far.
ticks() {
    awk '/^cpu / { busy = $2 + $3 + $4 + $7 + $8 + $9; print busy, busy + $5 + $6 }' /proc/stat
}

# Waits, though not for ever, for some seconds in which nobody else needs the machine.
wait_for_quiet() {
    local tries busy all busy_then all_then
    for ((tries = 0; tries < patience / 3; tries++)); do
        read -r busy_then all_then < <(ticks)
        sleep 3
        read -r busy all < <(ticks)
        ! holds "($busy - $busy_then) * $(nproc) <= $quiet * ($all - $all_then)" || return 0
    done
}

# The quietest of some attempts, in $line; empty if nobody could call.
call() {
    local bridge=$1 calls=$2 attempt foreign best='' least=''
    for ((attempt = 1; attempt <= attempts; attempt++)); do
        wait_for_quiet
        if ! call_once "$bridge" "$calls"; then
            printf '%s, %d calls: %s\n' "$bridge" "$calls" "$line" >&2
            continue
        fi
        foreign=$(figure foreign_cores "$line")
        if [[ -z $least ]] || holds "$foreign < $least"; then
            best=$line least=$foreign
        fi
        holds "$least > $quiet" || break
        printf '%s, %d calls: the rest of the machine took %s of its processors\n' "$bridge" "$calls" "$foreign" >&2
    done
    line=$best
}

# What came of a run is whole, whatever its figures.
whole() {
    [[ -n $1 ]] && holds "$(figure lost "$1") == 0 && $(figure damaged "$1") == 0 && \
        $(figure cut_off "$1") == 0 && $(figure sent "$1") == $(figure wanted "$1")"
}

one_line() {
    [[ -n $2 ]] || {
        printf '%-9s nobody could call\n' "$1"
        return
    }
    local name
    printf '%-9s' "$1"
    for name in calls lost gap_p99_ms gap_max_ms echo_p50_ms echo_p99_ms cores late_p99_ms foreign_cores; do
        printf ' %9s' "$(figure "$name" "$2")"
    done
    printf '\n'
}

heading() {
    printf '%-9s %9s %9s %9s %9s %9s %9s %9s %9s %9s\n' bridge calls lost "gap p99" "gap max" "echo p50" \
        "echo p99" cores "late p99" others
}

measure_rounds() {
    local round bridge order
    heading
    for ((round = 1; round <= rounds; round++)); do
        order=(bare callhook)
        ((round % 2)) || order=(callhook bare)
        for bridge in "${order[@]}"; do
            call "$bridge" "$count"
            one_line "$bridge" "$line"
            [[ -n $line ]] || die "no figures of $bridge"
            printf '%s %s\n' "$bridge" "$line" >>"$work/results"
        done
    done
}

# The figures of a bridge, a line each round.
figures() {
    sed -n "s/^$1 .*\"$2\":\([0-9.]*\).*/\1/p" "$work/results"
}

median() {
    sort -n | awk '{ v[NR] = $1 } END { if (NR) print (NR % 2) ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'
}

total() {
    awk '{ sum += $1 } END { print sum + 0 }'
}

# The median over the rounds.
of() {
    figures "$1" "$2" | median
}

# Kilobytes, median over the rounds.
per_call() {
    paste -d ' ' <(figures "$1" busy_kib) <(figures "$1" idle_kib) |
        awk -v calls="$count" '{ print ($1 - $2) * 1.024 / calls }' | median
}

# Round by round, since what else the machine did in one round falls on both.
cpu_ratio() {
    paste -d ' ' <(figures callhook cores) <(figures bare cores) | awk '$2 > 0 { print $1 / $2 }' | median
}

# A row: its name, how many decimals it has, bare, callhook, and what is wanted of callhook.
row() {
    local name=$1 decimals=$2 bare=$3 callhook=$4 relation=${5:-} limit=${6:-} verdict=''
    if [[ -n $limit ]]; then
        verdict=missed
        ! holds "$callhook $relation $limit" || verdict=reached
    fi
    [[ $bare == - ]] || printf -v bare '%.*f' "$decimals" "$bare"
    printf '%-32s %10s %10.*f   %-8s %s\n' "$name" "$bare" "$decimals" "$callhook" "${relation/==/} $limit" "$verdict"
}

report_rounds() {
    local name
    printf '\n%-32s %10s %10s   %s\n' "$count calls" "bare" callhook wanted
    row "frames sent" 0 "$(figures bare sent | total)" "$(figures callhook sent | total)"
    for name in lost damaged duplicated; do
        row "frames $name" 0 "$(figures bare $name | total)" "$(figures callhook $name | total)" == 0
    done
    row "calls cut off" 0 "$(figures bare cut_off | total)" "$(figures callhook cut_off | total)" == 0
    row "gap between frames, p50" 1 "$(of bare gap_p50_ms)" "$(of callhook gap_p50_ms)"
    row "gap between frames, p99" 1 "$(of bare gap_p99_ms)" "$(of callhook gap_p99_ms)" "<" $gap_limit
    row "gap between frames, longest" 1 "$(of bare gap_max_ms)" "$(of callhook gap_max_ms)"
    row "echo delay, p50" 1 "$(of bare echo_p50_ms)" "$(of callhook echo_p50_ms)"
    row "echo delay, p99" 1 "$(of bare echo_p99_ms)" "$(of callhook echo_p99_ms)" "<" $echo_limit
    row "echo delay, longest" 1 "$(of bare echo_max_ms)" "$(of callhook echo_max_ms)"
    row "processors" 3 "$(of bare cores)" "$(of callhook cores)"
    row "processors, callhook:bare" 2 - "$(cpu_ratio)" "<=" $cpu_limit
    row "KB resident, idle" 0 "$(of bare idle_kib)" "$(of callhook idle_kib)"
    row "KB per call" 1 "$(per_call bare)" "$(per_call callhook)" "<" $memory_limit
    row "others' load, processors" 2 "$(of bare foreign_cores)" "$(of callhook foreign_cores)"
    row "sender late, p99" 1 "$(of bare late_p99_ms)" "$(of callhook late_p99_ms)"
}

# Whether the calls of a run were as they should be.
carried() {
    whole "$1" && holds "$(figure gap_p99_ms "$1") <= $gap_limit"
}

# The most calls that a bridge carries, in $carries. A step counts as too many at the second failure:
# one may be the machine's.
find_break() {
    local bridge=$1 calls failed
    carries=0
    for ((calls = count; ; calls += step)); do
        for ((failed = 0; failed < 2; failed++)); do
            call "$bridge" "$calls"
            one_line "$bridge" "$line"
            ! carried "$line" || break
        done
        ((failed < 2)) || return 0
        carries=$calls
    done
}

measure_break() {
    local bare
    heading
    find_break bare
    bare=$carries
    find_break callhook
    printf '\n%-32s %10s %10s\n' "calls" bare callhook
    printf '%-32s %10d %10d\n' "carried" "$bare" "$carries"
    printf '%-32s %10d %10d\n' "broken" $(((bare ? bare : count - step) + step)) \
        $(((carries ? carries : count - step) + step))
    printf '(broken: frames lost, calls cut off, or a gap p99 above %d ms, twice)\n' "$gap_limit"
}

# Each call takes two files of the bridge, and one of its callers.
ulimit -n "$(ulimit -Hn)" 2>/dev/null || true
load_before=$(cut -d ' ' -f 1-3 /proc/loadavg)
build
printf '%s, %s processors, Linux %s; load before: %s\n' "$("$work/callhook" --version)" "$(nproc)" "$(uname -r)" \
    "$load_before"
printf '%d s each; times in milliseconds, processor time in processors\n\n' "$seconds"
start_ends
if [[ $mode == break ]]; then
    measure_break
else
    measure_rounds
    report_rounds
    while read -r bridge line; do
        whole "$line" || die "not a clean run: $bridge $line"
    done <"$work/results"
fi
