# What a document's blocks find around them; src/docs.rs says what it promises to writers.
set -e
# Failures inside the functions below are told as well, at the document's own line.
set -o errtrace
trap '__failed "$?"' ERR
trap '__end_all' EXIT

__servers=()
__followers=()
__count=0

# In a subshell it is silent: what started the subshell fails in turn.
__failed() {
    if __alone; then echo; echo "@@error $1 ${BASH_LINENO[-2]}"; fi
    exit "$1"
}

# Only what stands alone in a block is started beside the session; in a pipe or a subshell it runs where it stands.
__alone() { [[ $BASHPID == "$$" ]]; }

postrider() {
    if ! __alone; then command postrider "$@"; return; fi
    case "${1-}" in
    demo | serve) __launch "$1" "$@" ;;
    listen) __follow postrider "$@" ;;
    *) command postrider "$@" ;;
    esac
}

curl() {
    if __alone; then
        local argument
        for argument in "$@"; do
            case "$argument" in
            --no-buffer | -N | -[a-zA-Z]*N | -N[a-zA-Z]*) __follow curl "$@"; return ;;
            esac
        done
    fi
    command curl "$@"
}

cargo() {
    local all=("$@")
    case "${1-}" in
    build | install) echo "(built already)"; return ;;
    run) shift ;;
    *) __cargo "${all[@]}"; return ;;
    esac
    while (($#)); do
        case "$1" in
        --release | -r | --quiet | -q | --locked) shift ;;
        --package | -p | --bin)
            if [[ ${2-} != postrider && ${2-} != postrider-cli ]]; then __cargo "${all[@]}"; return; fi
            shift 2
            ;;
        --) shift; break ;;
        *) __cargo "${all[@]}"; return ;;
        esac
    done
    postrider "$@"
}

__cargo() { (cd "$DOCS_ROOT" && command cargo "$@"); }

# __launch ready|demo ARGS…: starts a node, waits until it says that it is up, sets what a reader would copy.
__launch() {
    local event=$1 out="$DOCS_FOLDER/server-$((++__count)).out" pid try
    shift
    [[ $event == serve ]] && event=ready
    [[ " $* " == *" --log-format"* ]] || set -- "$@" --log-format json
    (
        if ! __says_where "$@"; then
            export POSTRIDER_HTTP__LISTEN=${POSTRIDER_HTTP__LISTEN-$DOCS_HTTP} POSTRIDER_OPS__LISTEN=${POSTRIDER_OPS__LISTEN-$DOCS_OPS}
        fi
        exec postrider "$@" >"$out" 2>"$out.log" </dev/null
    ) &
    pid=$!
    __servers+=("$pid")
    for ((try = 0; try < 300; try++)); do
        if grep -q "\"event\":\"$event\"" "$out" 2>/dev/null; then
            __take "$out"
            return 0
        fi
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.1
    done
    echo "\`postrider $*\` did not say that it is up; it said:"
    tail -n 20 "$out" "$out.log"
    return 1
}

# Whether the command or its configuration file names the addresses itself.
__says_where() {
    local argument previous=
    for argument in "$@"; do
        [[ $argument == *listen* ]] && return 0
        if [[ $previous == --config ]]; then grep -q listen "$argument" && return 0; fi
        previous=$argument
    done
    return 1
}

__take() {
    URL=http://$(jq -r 'select(.event == "ready") | .http' "$1")
    if grep -q '"event":"demo"' "$1"; then
        PAGE=$(jq -r 'select(.event == "demo") | .page' "$1")
        KEY=$(jq -r 'select(.event == "demo") | .api_key' "$1")
        ADA=$(jq -r 'select(.event == "demo") | .users.ada' "$1")
        BOB=$(jq -r 'select(.event == "demo") | .users.bob' "$1")
        URL=${PAGE%/demo}
        export PAGE KEY ADA BOB
    fi
    export URL
}

# __follow COMMAND…: what a reader would leave running in another terminal.
__follow() {
    local out="$DOCS_FOLDER/follower-$((++__count)).out"
    command "$@" >"$out" 2>&1 </dev/null &
    __followers+=("$! $out $*")
}

# The end of a document: followers must not have failed, servers must drain and end with 0.
__finish() {
    local each pid out failed=0
    for each in "${__followers[@]}"; do
        read -r pid out each <<<"$each"
        if kill -TERM "$pid" 2>/dev/null; then
            wait "$pid" || true
        elif ! wait "$pid"; then
            echo "\`$each\` failed; it said:"
            tail -n 20 "$out"
            failed=1
        fi
    done
    for pid in "${__servers[@]}"; do
        if ! kill -TERM "$pid" 2>/dev/null; then
            wait "$pid" || { echo "a server ended with $? before the document did"; failed=1; }
        elif ! wait "$pid"; then
            echo "a server ended with $? instead of 0 when it was told to drain"
            failed=1
        fi
    done
    __servers=() __followers=()
    return "$failed"
}

__end_all() {
    local each
    for each in "${__servers[@]}" "${__followers[@]}"; do kill -KILL "${each%% *}" 2>/dev/null || true; done
}

