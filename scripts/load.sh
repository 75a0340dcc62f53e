#!/usr/bin/env bash
# What callhook costs, in one run on one machine.
#
#     scripts/load.sh [calls|events|all] [ROUNDS [SECONDS]]    all, 3 rounds of 5 seconds each,
#                                                              unless told otherwise
#
# calls: POST /call through callhook, beside the same through a bare hyper hop and beside the receiver
# asked directly; its memory, idle and with a crowd of calls in hand; its start-up time. The journal
# is off.
# events: POST /events, one event each, through callhook with its queue in the journal, beside the same
# with its queue in memory and through the bare hop; then, with the receiver away, the memory that
# waiting events take, how soon a start finds them again, and how soon an array is acknowledged.
# The journal is written beside everything else in a temporary directory; LOAD_JOURNAL_DIR names
# another one, on the disk that is to be measured. A tmpfs has no fsync to wait for.
#
# What is compared is asked in turn in every round and the medians of the rounds are printed, so that
# somebody else's load on the machine falls on all of them alike. wrk, the receiver and what is measured
# share the processors: compare the rows with one another, not with another machine's. Everything
# stays on the loopback interface.
set -euo pipefail
export LC_ALL=C # a decimal point, in EPOCHREALTIME too
LOAD_JOURNAL_DIR=${LOAD_JOURNAL_DIR:+$(realpath -- "$LOAD_JOURNAL_DIR")}
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

part=all
if [[ ${1:-} =~ ^(calls|events|all)$ ]]; then
    part=$1
    shift
fi
rounds=${1:-3}
seconds=${2:-5}
crowd=10000
cold_starts=10
senders=64       # connections that hand over single events
waiting=100000   # events that wait for a receiver that is away
waiting_of=10000 # and of how many calls they are
restarts=2       # of either kind; each may cost the oldest events one of their six attempts
batches=20
nobody=9 # a port where nobody listens: "discard"; a free one could become a sender's own
[[ $# -le 2 && $rounds =~ ^[1-9][0-9]*$ && $seconds =~ ^[1-9][0-9]*$ ]] || {
    echo "usage: scripts/load.sh [calls|events|all] [ROUNDS [SECONDS]]" >&2
    exit 64
}

work=$(mktemp -d)
journals=$work # where the journals are written
started=() # what runs because of this script, by process id

# Ended at once, unless another signal is given, after which it must end well: what runs here has
# nothing to save. Only what this script started is ended.
stop() {
    local pid=$1 signal=${2:-KILL} status=0 each rest=()
    kill "-$signal" "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || status=$?
    for each in "${started[@]}"; do
        [[ $each == "$pid" ]] || rest+=("$each")
    done
    started=("${rest[@]}")
    [[ $signal == KILL || $status == 0 ]] || die "exit status $status after SIG$signal"
}

finish() {
    local status=$?
    while ((${#started[@]})); do stop "${started[0]}"; done
    rm -rf -- "$work" "$journals"
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
journals=$(mktemp -d "${LOAD_JOURNAL_DIR:-$work}/callhook-load.XXXXXX")

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

worst() {
    sort -n | tail -n 1
}

# Whole milliseconds gone by since $1.
since() {
    awk -v then="$1" -v now="$EPOCHREALTIME" 'BEGIN { printf "%.0f\n", (now - then) * 1000 }'
}

# The median over the rounds of one column of the results.
of() {
    local target=$1 connections=$2 column=$3
    awk -v t="$target" -v c="$connections" -v k="$column" '$2 == t && $3 == c { print $k }' "$work/results" | median
}

run=$((RANDOM * 32768 + RANDOM))

# Asks once, and prints: requests/s, p50 and p99 in microseconds, errors.
ask() {
    local port=$1 path=$2 connections=$3 length=$4
    wrk -t1 -c"$connections" -d"${length}s" --timeout 5s -s scripts/load.lua "http://127.0.0.1:$port$path" -- "$run" |
        awk '$1 == "result" { print $2, $3, $4, $5 }'
}

# The receiver and the bare hop to it; their process ids and ports are then in the variables so named.
start_hop() {
    start receiver "$work/hop" receiver 0
    receiver_pid=$pid
    receiver_port=$(await receiver "$receiver_pid" "listening on port")
    start hop "$work/hop" hop 0 "http://127.0.0.1:$receiver_port/events"
    hop_pid=$pid
    hop_port=$(await hop "$hop_pid" "listening on port")
}

measure_speed() {
    local round connections target receiver_port hop_port receiver_pid hop_pid callhook_pid
    local -A ports
    start_hop
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
                    ask "${ports[$target]}" /call "$connections" 1 >/dev/null
                else
                    printf '%s %s %s ' "$round" "$target" "$connections" >>"$work/results"
                    ask "${ports[$target]}" /call "$connections" "$seconds" >>"$work/results"
                fi
            done
        done
        ((round == 0)) || printf 'calls: round %d of %d done\n' "$round" "$rounds" >&2
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

# What the journals are written on: its kind, and the milliseconds that one fsync takes.
measure_disk() {
    disk=$(df --output=fstype "$journals" | tail -n 1)
    fsync_ms=$(dd if=/dev/zero of="$journals/fsync" bs=4k count=200 oflag=dsync 2>&1 |
        awk -F ', ' '/copied/ { printf "%.2f", $(NF - 1) / 200 * 1000 }')
}

# Waits until a process has nothing left to do: events that it has taken may still be on their way.
settle() {
    local before=none now tries
    for ((tries = 0; tries < 300; tries++)); do
        now=$(awk '{ print $14 + $15 }' "/proc/$1/stat")
        [[ $now != "$before" ]] || return 0
        before=$now
        sleep 0.2
    done
    die "callhook does not come to rest"
}

# How many requests the receiver has answered.
answered() {
    "$work/hop" count "127.0.0.1:$receiver_port"
}

measure_events() {
    local round target before receiver_port hop_port receiver_pid hop_pid
    local -A ports pids
    start_hop
    ports[hop]=$hop_port
    pids[hop]=$hop_pid
    for target in memory journal; do
        # What is kept in memory is taken faster than it is delivered: there is room for all of it.
        start_callhook WEBHOOK_URL="http://127.0.0.1:$receiver_port/events" QUEUE_LIMIT=10000000 \
            JOURNAL_PATH="$([[ $target == journal ]] && echo "$journals/speed.redb" || echo none)"
        ports[$target]=$port
        pids[$target]=$pid
        first_answer "$EPOCHREALTIME" >/dev/null
    done

    for ((round = 0; round <= rounds; round++)); do
        for target in hop memory journal; do
            run=$((run + 1))
            if ((round == 0)); then
                ask "${ports[$target]}" /events "$senders" 1 >/dev/null
            else
                before=$(answered)
                printf '%s %s %s ' "$round" "$target" "$senders" >>"$work/results"
                ask "${ports[$target]}" /events "$senders" "$seconds" >>"$work/results"
                printf '%s %d\n' "$target" $((($(answered) - before) / seconds)) >>"$work/delivered"
            fi
            settle "${pids[$target]}"
        done
        ((round == 0)) || printf 'events: round %d of %d done\n' "$round" "$rounds" >&2
    done
    for target in memory journal hop; do stop "${pids[$target]}"; done
    stop "$receiver_pid"
}

# callhook whose receiver is away, on the journal $1.
start_away() {
    start_callhook WEBHOOK_URL="http://127.0.0.1:$nobody/events" WEBHOOK_BREAKER=1 WEBHOOK_RETRY=5 \
        QUEUE_LIMIT=$((2 * waiting)) LOG_LEVEL=info JOURNAL_PATH="$1"
}

# Ends callhook and starts it again on the same journal. Notes how long the end took, how long the
# start took and how many events it found.
restart() {
    local signal=$1 begun
    begun=$EPOCHREALTIME
    stop "$pid" "$signal"
    since "$begun" >>"$work/stop-$signal"
    begun=$EPOCHREALTIME
    start_away "$journals/waiting.redb"
    first_answer "$begun" >>"$work/start-$signal"
    await callhook "$pid" "waiting=" >>"$work/found"
}

measure_waiting() {
    local i
    start_away "$journals/waiting.redb"
    first_answer "$EPOCHREALTIME" >/dev/null
    fill_ms=$("$work/hop" fill "127.0.0.1:$port" "$waiting" "$waiting_of")
    sleep 1
    waiting_kib=$(resident_kib "$pid")
    journal_kib=$(du -k "$journals/waiting.redb" | cut -f 1)
    for ((i = 0; i < restarts; i++)); do
        restart TERM
        restart KILL
    done
    sleep 1
    found_kib=$(resident_kib "$pid")
    stop "$pid"
}

measure_batches() {
    local target
    for target in memory journal; do
        start_away "$([[ $target == journal ]] && echo "$journals/batches.redb" || echo none)"
        first_answer "$EPOCHREALTIME" >/dev/null
        "$work/hop" batch "127.0.0.1:$port" "$batches" >"$work/batches-$target"
        stop "$pid"
    done
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

delivered() {
    awk -v t="$1" '$1 == t { print $2 }' "$work/delivered" | median
}

event_row() {
    local name=$1 target=$2
    awk -v name="$name" -v rps="$(of "$target" "$senders" 4)" -v p50="$(of "$target" "$senders" 5)" \
        -v p99="$(of "$target" "$senders" 6)" -v hop_rps="$(of hop "$senders" 4)" \
        -v memory_rps="$(of memory "$senders" 4)" -v delivered="$(delivered "$target")" 'BEGIN {
            printf "%-18s %10.0f %9.0f %9.0f %12.2f %12.2f %12.0f\n",
                name, rps, p50, p99, rps / hop_rps, rps / memory_rps, delivered
        }'
}

report() {
    printf '\n%s, %s processors, Linux %s; load before: %s\n' "$("$work/callhook" --version)" "$(nproc)" \
        "$(uname -r)" "$load_before"
    printf '%d rounds of %d s each, medians; times in microseconds\n' "$rounds" "$seconds"
    [[ $part == events ]] || report_calls
    [[ $part == calls ]] || report_events
}

report_calls() {
    local connections
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

report_events() {
    local signal target
    printf '\nPOST /events; journal on %s, where one write with fsync takes %s ms\n' "$disk" "$fsync_ms"
    printf '\n%-18s %10s %9s %9s %12s %12s %12s\n' "$senders connections" requests/s p50 p99 \
        "r/s:bare hop" "r/s:memory" delivered/s
    event_row "bare hop" hop
    event_row "callhook, memory" memory
    event_row "callhook, journal" journal
    printf '    (wanted of the journal: at least 0.50 of the bare hop, 0.80 of the memory;\n'
    printf '    from memory, an event is acknowledged at once and delivered later)\n'
    printf '\nreceiver away, %d events of %d calls waiting: handed over in %s ms, %s on disk\n' "$waiting" \
        "$waiting_of" "$fill_ms" "$(mib "$journal_kib")"
    printf 'resident memory: %s, %s after the last start (wanted: below 120 MB, which is 114.4 MiB)\n' \
        "$(mib "$waiting_kib")" "$(mib "$found_kib")"
    printf 'start to the first 200 from /health, worst of %d (wanted: below 2000 ms):\n' "$restarts"
    for signal in TERM KILL; do
        printf '    after SIG%s: %s ms (the end took %s ms)\n' "$signal" "$(worst <"$work/start-$signal")" \
            "$(worst <"$work/stop-$signal")"
    done
    printf '    events found: %s\n' "$(paste -s -d ' ' "$work/found")"
    printf 'an array of 1000 events is acknowledged, %d times one after the other (wanted: median below 20 ms):\n' "$batches"
    for target in memory journal; do
        printf '    %s: median %s ms, worst %s ms\n' "$target" "$(median <"$work/batches-$target")" \
            "$(worst <"$work/batches-$target")"
    done
}

mib() {
    awk -v kib="$1" 'BEGIN { printf "%.1f MiB", kib / 1024 }'
}

# A figure that errors went into is none.
check_errors() {
    local bad=0 found
    awk 'NF != 7 || $7 != 0 { print "not a clean run: round", $1, $2, "at", $3, "connection(s):", $7, "errors"; bad = 1 }
        END { exit bad }' "$work/results" >&2 || bad=1
    [[ $part == calls ]] || while read -r found; do
        ((found == waiting)) || {
            printf 'not a clean run: %d events waited, and a start found %d\n' "$waiting" "$found" >&2
            bad=1
        }
    done <"$work/found"
    return "$bad"
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
load_before=$(cut -d ' ' -f 1-3 /proc/loadavg)
build
if [[ $part != events ]]; then
    room_for_crowd
    measure_speed
    measure_crowd
    measure_cold_start
fi
if [[ $part != calls ]]; then
    measure_disk
    measure_events
    measure_waiting
    measure_batches
fi
report
check_errors
