# Answers questions about the attempts of this user on this host. Each is one line; each answer is `MARK LENGTH` and
# that many bytes. Ends with its stdin and leaves nothing. $1: a random word, the mark.
LC_ALL=C
umask 077
mark=$1
base=$HOME/.pitcrew
why=$(mkdir -p "$base/a" 2>&1) && cd "$base/a" || {
    printf '\n%s failed %s\n' "$mark" "$why"
    exit 0
}
read -r boot </proc/sys/kernel/random/boot_id
printf '\n%s hello %s\n' "$mark" "$(date +%s)"

answer() {
    printf '%s %s\n%s' "$mark" "${#1}" "$1"
}
# Ends everything of an attempt: its steps and its keeper.
sweep() {
    tries=0
    while [ "$tries" -lt 100 ]; do
        found=$(grep -lszxF -e "PITCREW_OUTPUT=$base/a/$1/output" -e "PITCREW_KEEPER=$base/a/$1" /proc/[0-9]*/environ)
        [ -n "$found" ] || return 0
        for process in $found; do
            process=${process#/proc/}
            kill -KILL "${process%/environ}"
        done
        tries=$((tries + 1))
        sleep 0.05 || sleep 1
    done
} 2>/dev/null
over() {
    [ -e "$1/exit" ] && return
    for found in "$1"/exit.[a-z]*.*.*; do [ -e "$found" ] && return; done
    return 1
}
# Does the process $1 live, and did it start at $2?
lives() {
    { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return
    set -f
    # shellcheck disable=SC2086
    set -- "$2" ${stat##*) }
    set +f
    [ "$2" != Z ] && [ "${21}" = "$1" ]
}
state() {
    over "$1" && printf '%s ended\n' "$1" && return
    { read -r keeper start at <"$1/claim"; } 2>/dev/null || {
        printf '%s never\n' "$1"
        return
    }
    case $keeper in [a-z]*)
        printf '%s %s\n' "$1" "$keeper"
        return
        ;;
    esac
    if [ "$at" != "$boot" ]; then
        printf '%s rebooted\n' "$1"
    elif lives "$keeper" "$start"; then
        { read -r begun <"$1/started"; } 2>/dev/null || begun=0
        printf '%s running %s\n' "$1" "$begun"
    elif over "$1"; then
        # It ended between the two looks.
        printf '%s ended\n' "$1"
    else
        sweep "$1"
        printf '%s gone %s\n' "$1" "$keeper"
    fi
}
states() {
    for id; do state "$id"; done
    # After the states: what is over has written all of its log.
    for id; do
        shift
        set -- "$@" "$id/log"
    done
    ls -ln "$@" 2>/dev/null
}
cancel() {
    # Not there: not yet, or not any more.
    cd "$1" 2>/dev/null || return 0
    over . && return
    read -r asked _ </proc/uptime
    asked=$((${asked%.*} * 100 + $2))
    { read -r before <stop; } 2>/dev/null && [ "$before" -le "$asked" ] && asked=$before
    printf '%s\n' "$asked" >"stop.$$" && mv "stop.$$" stop
    printf 'cancelled\n' >"claim.$$" && ln "claim.$$" claim 2>/dev/null
    rm -f "claim.$$"
    read -r keeper start at <claim || return
    case $keeper in [a-z]*) return ;; esac
    [ "$at" = "$boot" ] && lives "$keeper" "$start" && kill -TERM "$keeper"
    return 0
}
# First out of the way, then away: see the keeper.
remove() {
    mkdir -p "$base/x" && rm -rf "$base/x/$1"
    [ ! -e "$1" ] || mv "$1" "$base/x/$1"
    rm -rf "$base/x/$1"
}
while IFS= read -r line; do
    set -f
    # shellcheck disable=SC2086
    set -- $line
    set +f
    verb=$1
    shift
    case $verb in
    states) answer "$(states "$@")" ;;
    read)
        if [ -r "$1/$2" ]; then
            printf '%s %s\n' "$mark" "$4"
            tail -c "+$(($3 + 1))" "$1/$2" | head -c "$4"
        else
            answer ''
        fi
        ;;
    list) answer "$(cd "$1" && ls -lnL output output.* stdout-* file-* 2>/dev/null)" ;;
    end)
        answer "$(
            cd "$1" || exit
            for name in exit.[a-z]*.*.*; do
                [ -e "$name" ] && printf '%s\n' "$name" | tr . ' '
            done
            cat exit steps 2>/dev/null
        )"
        ;;
    make) answer "$(mkdir -p "$1" 2>&1)" ;;
    socket) answer "$(rm -f "$1/agent.sock" 2>&1 && printf %s "$base/a/$1/agent.sock")" ;;
    cancel) answer "$(cancel "$@" 2>&1)" ;;
    remove) answer "$(remove "$1" 2>&1)" ;;
    leave) answer "$(rm -rf "$base/w/$1" 2>&1)" ;;
    *) answer '' ;;
    esac
done
