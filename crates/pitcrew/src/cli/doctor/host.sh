# Says what this host has, one fact per line: a word, and what belongs to it. $1 comes before the first of them.
LC_ALL=C
export LC_ALL
printf '\n%s\n' "$1"
have() {
    command -v "$1" >/dev/null 2>&1
}
for program in setsid mkfifo tail head ln grep date ls cat mkdir mv rm sleep; do
    have "$program" || printf 'lacks %s\n' "$program"
done
[ -r /proc/self/stat ] || printf 'lacks /proc\n'
for program in perl python3 awk; do
    have "$program" && { printf 'tagger %s\n' "$program"; break; }
done
have git && printf 'git %s\n' "$(git --version 2>&1 | head -n 1)"
# Where `.pitcrew` is, or will be.
base=$HOME/.pitcrew
[ -d "$base" ] || base=$HOME
[ -w "$base" ] || printf 'readonly %s\n' "$base"
df -Pk "$base" 2>/dev/null | tail -n 1 | { read -r _ _ _ free _ mount && printf 'disk %s %s\n' "$free" "$mount"; }
have nvidia-smi && nvidia-smi -L 2>/dev/null </dev/null | while IFS= read -r line; do printf 'gpu %s\n' "$line"; done
have busctl && busctl get-property org.freedesktop.login1 /org/freedesktop/login1 org.freedesktop.login1.Manager \
    KillUserProcesses 2>/dev/null </dev/null | { read -r _ kills && printf 'kills %s\n' "$kills"; }
printf 'now %s\n' "$(date +%s%N)"
