# Keeps one attempt on this host: runs its steps one after the other, writes what they say to `log`, when each ended
# to `steps`, and how it all ended to `exit`. $1: the directory with the scripts; $2: the umask of the steps.
# fd 3: the plan, shell text that sets `count`, `grace`, `limit` and `root` and defines functions for each step N:
#   sN  sets `name`, `timeout`, `goes_on`, `keep`, `where`, `secret`
#   cN  says why the step cannot start     xN  becomes the step     wN  writes its secret, if it has one
# with the directory of the attempt, the path of `setsid` and the root as arguments. `fetch` calls `take` for each file
# that is wanted from the root.
# Environments exist in these functions only, and are exported in the subshell that becomes the step.
cancelled='' late='' hit=''
# A signal that comes just before a `wait` does not end it, so there is a second one a moment later.
nudge() {
    { sleep 0.3 || sleep 1; kill -USR2 $$; } >/dev/null 2>&1 &
}
# Before the claim: as soon as that is there, somebody may ask.
trap 'cancelled=1 hit=1; nudge' TERM
trap 'hit=1' USR2
trap 'late=1 hit=1' USR1
trap '' HUP INT
plan=$(cat <&3 && printf x) || exit 1
exec 3<&-
eval "${plan%x}"
plan=''

read -r boot </proc/sys/kernel/random/boot_id
read -r stat <"/proc/$$/stat"
set -f
# shellcheck disable=SC2086
set -- "$1" "$2" ${stat##*) }
set +f
mine="$$ ${22} $boot"
printf '%s\n' "$mine" >"claim.$$" && ln "claim.$$" claim
rm -f "claim.$$"
# By its full path: a directory that is being removed was moved away first.
read -r line <"$PITCREW_KEEPER/claim" || exit 1
if [ "$line" != "$mine" ]; then
    rm -rf "$1"
    exit 0
fi
mask=$2
mv "$1" s
dir=$PITCREW_KEEPER
session=$(command -v setsid)
: >log

now() {
    now=$(date +%s%N)
    case $now in *[!0-9]*) now=$(date +%s)000000000 ;; esac
}
say() {
    now
    printf '%s s%s %s\n' "${now%???}" "$number" "$1" >>log
} 2>/dev/null
# Hundredths of a second since the machine started.
tick() {
    read -r tick _ </proc/uptime
    tick=${tick%.*}${tick#*.}
}
# The processes that carry the mark of this attempt in their environment, wherever they went.
marked() {
    marked=''
    for found in $(grep -lszxF "PITCREW_OUTPUT=$dir/output" /proc/[0-9]*/environ); do
        found=${found#/proc/}
        marked="$marked ${found%/environ}"
    done
}
# Those, and the group of the step, if anything of both lives; a zombie does not.
left() {
    marked
    left=$marked
    kill -0 "-$group" 2>/dev/null || return 0
    [ -n "$left" ] || for found in /proc/[0-9]*/stat; do
        read -r stat <"$found" || continue
        set -f
        # shellcheck disable=SC2086
        set -- ${stat##*) }
        set +f
        [ "$3" = "$group" ] && [ "$1" != Z ] && left=" " && break
    done 2>/dev/null
    [ -z "$left" ] || left="$left -$group"
}
# Asks all of the step to end, and ends what does not within its grace. Returns when nothing is left.
halt() {
    # It may not have its own session yet.
    kill -TERM "-$group" 2>/dev/null || kill -TERM "$group" 2>/dev/null
    marked
    for found in $marked; do
        read -r stat <"/proc/$found/stat" || continue
        set -f
        # shellcheck disable=SC2086
        set -- ${stat##*) }
        set +f
        [ "$3" = "$group" ] || kill -TERM "$found"
    done 2>/dev/null
    tick
    until=$((tick + grace)) pauses=0
    while left && [ -n "$left" ]; do
        # Somebody may have shortened it.
        { [ -n "$cancelled" ] && read -r asked <stop && [ "$asked" -lt "$until" ] && until=$asked; } 2>/dev/null
        tick
        # shellcheck disable=SC2086
        [ "$tick" -lt "$until" ] || kill -KILL $left 2>/dev/null
        pauses=$((pauses + 1))
        if [ "$pauses" -lt 20 ]; then sleep 0.05; else sleep 0.3; fi 2>/dev/null || sleep 1
    done
}
# Reads both streams of the step until nobody writes any more, into `log`. After SIGTERM what is there is enough; perl
# and python hear it as soon as they listen, the others may lose what they have not read.
for tagger in perl python3 awk sh; do
    command -v "$tagger" >/dev/null && break
done
listen() {
    case $tagger in
    perl) trap '' TERM && exec perl s/tag.pl "$number" "$limit" "$keep" 3<o 4<e >>log 2>/dev/null ;;
    python3) trap '' TERM && exec python3 -S s/tag.py "$number" "$limit" "$keep" 3<o 4<e >>log 2>/dev/null ;;
    esac
    trap 'kill $one $two 2>/dev/null' TERM
    tag o <o >>log &
    one=$!
    keep=''
    tag e <e >>log &
    two=$!
    wait "$one" "$two"
} 2>/dev/null
tag() {
    case $tagger in
    awk)
        # mawk holds its input back unless it is told not to. Then it writes each piece by itself, so a line is one piece.
        case $(awk -W version 2>&1 </dev/null) in mawk*) interactive='-W interactive' ;; *) interactive='' ;; esac
        # shellcheck disable=SC2086
        exec awk $interactive -v tag="0 $1$number" -v room="$limit" -v keep="$keep" '
            { if (keep != "" && kept <= 1048576) { print > keep; fflush(keep); kept += length($0) + 1 }
              room -= length($0) + 8; if (room < 0) next
              while (length($0) > 4000) { printf "%s", tag "+" substr($0, 1, 4000) "\n"; $0 = substr($0, 4001) }
              printf "%s", tag " " $0 "\n"; fflush() }'
        ;;
    esac
    while IFS= read -r line || [ -n "$line" ]; do
        [ -z "$keep" ] || printf '%s\n' "$line" >>"$keep"
        limit=$((limit - ${#line} - 8))
        [ "$limit" -lt 0 ] || printf '0 %s%s %s\n' "$1" "$number" "$line"
    done
}
oom_kills() {
    oom_kills=$(grep -s '^oom_kill ' /proc/vmstat)
}
# For `cN`: why the program $1 cannot be executed, if it cannot.
check() {
    case $1 in
    '') printf 'the command is empty' ;;
    */*)
        if [ ! -e "$1" ]; then
            printf 'there is no program `%s`' "$1"
        elif [ ! -x "$1" ] || [ -d "$1" ]; then
            printf '`%s` is not executable; try `chmod +x %s`' "$1" "$1"
        else
            { IFS= read -r line <"$1"; } 2>/dev/null || line=''
            case $line in
            '#!'*)
                line=${line#'#!'}
                line=${line#"${line%%[! ]*}"}
                [ -x "${line%% *}" ] || printf 'the interpreter that the first line of `%s` names does not exist' "$1"
                ;;
            esac
        fi
        ;;
    *) command -v "$1" >/dev/null 2>&1 || printf 'there is no program `%s` in PATH (`%s`)' "$1" "$PATH" ;;
    esac
}
# Goes to where the step starts, or says why not.
enter() {
    cd "$root" && cd "$where" && return
    if [ ! -e "$where" ]; then
        printf 'the working directory `%s` does not exist' "$where"
    elif [ ! -d "$where" ]; then
        printf 'the working directory `%s` is no directory' "$where"
    else
        printf 'cannot use the working directory `%s`' "$where"
    fi
    return 1
} 2>/dev/null

# A copy of the file $2 for the server, as `file-$1`.
take() {
    (cd "$root" && [ -f "$2" ] && head -c 1048577 "$2") >"file-$1" || rm -f "file-$1"
} 2>/dev/null

# How it ended: a word, its argument, the step that it is about.
end='code 0' about=-
number=0
[ -e stop ] && cancelled=1
umask "$mask"
why=$(mkdir -p "$root" 2>&1) || why="cannot make the working directory \`$root\`: $why" end='start_failed 0' count=0
umask 077
while [ "$number" -lt "$count" ]; do
    "s$number"
    if [ -n "$cancelled" ]; then
        end='cancelled 0' about=$number
        break
    fi
    why=$(enter && "c$number" "$dir" "$session" "$root") || :
    if [ -z "$why" ]; then
        why=$({ rm -f o e k && mkfifo o e k; } 2>&1)
    fi
    if [ -n "$why" ]; then
        end='start_failed 0' about=$number
        break
    fi
    oom_kills
    before=$oom_kills late=''
    listen &
    ears=$!
    now
    begun=$now
    [ "$number" -gt 0 ] || printf '%s\n' "$begun" >started
    writer=''
    if [ -n "$secret" ]; then
        "w$number" >k &
        writer=$!
    fi
    (
        trap - TERM USR1 USR2 HUP INT
        [ -z "$secret" ] || exec 9<k
        umask "$mask"
        unset PITCREW_KEEPER
        enter && "x$number" "$dir" "$session" "$root"
    ) >o 2>e </dev/null &
    group=$!
    timer=''
    if [ "$timeout" != 0 ]; then
        (
            trap 'kill $nap; exit' TERM
            sleep "$timeout" &
            nap=$!
            wait "$nap"
            while kill -USR1 $$; do
                sleep 1 &
                nap=$!
                wait "$nap"
            done
        ) 2>/dev/null &
        timer=$!
    fi
    # `wait` returns for a signal too; what it says then is not the end of the step.
    while [ -z "$cancelled$late" ]; do
        hit=''
        wait "$group"
        code=$?
        [ -n "$hit" ] || break
    done
    if [ -n "$timer" ]; then
        kill "$timer" 2>/dev/null
        wait "$timer" 2>/dev/null
    fi
    if [ -n "$cancelled$late" ]; then
        [ -z "$late" ] || [ -n "$cancelled" ] || say "step \`$name\` ran longer than $timeout s; ending it"
        halt
    fi
    # Last words may be on their way through a helper; then whatever the step left in its group ends with it.
    (
        case $tagger in p*) sleep 0.25 || sleep 1 ;; *) sleep 1 ;; esac
        kill -KILL "-$group"
        # A step that was killed before it opened its end of them would leave their reader waiting for a writer.
        while kill -TERM "$ears"; do
            : <>o <>e
            sleep 0.1 || sleep 1
        done
    ) 2>/dev/null &
    guard=$!
    while kill -0 "$ears" 2>/dev/null; do wait "$ears"; done
    # shellcheck disable=SC2086
    kill "$guard" $writer 2>/dev/null
    kill -KILL "-$group" 2>/dev/null
    oom_kills
    if [ -n "$cancelled" ]; then
        result='cancelled 0'
    elif [ -n "$late" ]; then
        result='timed_out 0'
    elif [ "$code" = 137 ] && [ "$oom_kills" != "$before" ]; then
        result='out_of_memory 0'
    elif [ "$code" -gt 128 ] && [ "$code" -le 192 ]; then
        result="signal $((code - 128))"
    else
        result="code $code"
    fi
    now
    printf 'step %s %s %s %s\n' "$number" "$begun" "$now" "$result" >>steps
    if [ "$result" != 'code 0' ]; then
        if [ -n "$cancelled" ] || [ "$goes_on" = 0 ]; then
            end=$result about=$number
            break
        fi
        case $result in
        code*) say "step \`$name\` failed (exit $result); going on" ;;
        signal*) say "step \`$name\` failed (killed by $result); going on" ;;
        *) say "step \`$name\` failed ($(printf %s "${result% *}" | tr _ ' ')); going on" ;;
        esac
    fi
    number=$((number + 1))
done 2>/dev/null
[ "$number" -lt "$count" ] || number=$((count - 1))
rm -f o e k

# Daemons that the steps left.
marked
# shellcheck disable=SC2086
[ -z "$marked" ] || say "ended $(set -- $marked; printf %s $#) processes that were left running"
tries=0
while [ -n "$marked" ] && [ "$tries" -lt 100 ]; do
    # shellcheck disable=SC2086
    kill -KILL $marked
    sleep 0.05 || sleep 1
    tries=$((tries + 1))
    marked
done 2>/dev/null
[ "$end" != 'code 0' ] || fetch

now
tell() {
    # shellcheck disable=SC2086 # two words
    printf 'exit %s %s %s\nat %s\nwhy %s\n' $end "$about" "$now" "$why" && times
}
# On a full disk the name alone says how it ended: a link needs no room. Until one of both is there, it is not over.
until { tell >exit.new && mv exit.new exit; } || ln claim "exit.$(printf %s "$end $about" | tr ' ' .)"; do
    sleep 5
done 2>/dev/null
