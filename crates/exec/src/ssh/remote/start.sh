# Begins one attempt on this host and leaves a keeper behind that runs it. $1: the name of the attempt's directory.
# stdin: `MARK NAME:LENGTH …`; then, up to a line MARK, shell text for the keeper, which holds secrets and stays in
# memory; then the files that the first line names, one after the other. Answers `MARK began|exists|failed …`.
mask=$(umask)
umask 077
LC_ALL=C
nl='
'
IFS= read -r line || exit 65
set -f
# shellcheck disable=SC2086 # words of ours
set -- "$1" $line
set +f
id=$1 mark=$2
shift 2
plan='' whole=''
while IFS= read -r line; do
    [ "$line" = "$mark" ] && whole=1 && break
    plan=$plan$line$nl
done
[ -n "$whole" ] || exit 65
say() {
    printf '\n%s %s\n' "$mark" "$*"
    exit 0
}
for program in setsid mkfifo tail head ln grep date ls; do
    command -v "$program" >/dev/null || { cat >/dev/null; say lacks "$program"; }
done
# Made by whoever sends this, and removed with the attempt: one that comes late finds none, and runs nothing.
dir=$HOME/.pitcrew/a/$id
cd "$dir" || { cat >/dev/null; say exists; }
if [ -e claim ]; then
    cat >/dev/null
    say exists
fi
in=in.$$
clean() {
    rm -rf "$in"
}
why=$({ mkdir "$in" && cat >"$in/all"; } 2>&1) || { clean; cat >/dev/null; say failed "$why"; }
size=0
for file; do size=$((size + ${file##*:})); done
# shellcheck disable=SC2012 # `wc -c` reads the whole file in busybox
[ "$(set -- $(ls -ln "$in/all"); printf %s "$5")" = "$size" ] || { clean; exit 65; }
at=1
for file; do
    why=$({ tail -c "+$at" "$in/all" | head -c "${file##*:}" >"$in/${file%:*}"; } 2>&1) || { clean; say failed "$why"; }
    at=$((at + ${file##*:}))
done
rm "$in/all"
unset SSH_CLIENT SSH_CONNECTION SSH_TTY SSH_ORIGINAL_COMMAND LC_ALL
# Nothing that stays may hold this channel open. The plan goes by a pipe: not by a command line, not by a file.
printf '%s' "$plan" |
    PITCREW_KEEPER=$dir setsid sh "$in/keeper" "$in" "$mask" 3<&0 </dev/null >/dev/null 2>"$in/said" &
tries=0
while [ ! -e claim ] && [ "$tries" -lt 500 ] && kill -0 "$!" 2>/dev/null; do
    tries=$((tries + 1))
    sleep 0.02 2>/dev/null || sleep 1
done
# The keeper gave up, or is very slow: whoever makes the claim decides, and this one says that it never begins.
if [ ! -e claim ]; then
    printf 'failed\n' >"claim.$$" && ln "claim.$$" claim
    rm -f "claim.$$"
fi 2>/dev/null
read -r word _ <claim 2>/dev/null || word=failed
[ "$word" = failed ] || say began
why=$(head -c 1000 "$in/said" 2>/dev/null | tr '\n' ' ')
clean
say failed "${why:-its keeper did not begin within 10 s}"
