M=$PITCREW_MARK C= T= S= G= D=
unset PITCREW_MARK
stop() { [ -z "$C" ] || kill -s TERM -- "$G$C" 2>/dev/null || kill -s TERM "$C" 2>/dev/null; }
trap 'T=1; [ -z "$D" ] || : >"$D/stop"; stop' TERM INT
say() { printf '%s %s\n' "$M" "$*"; }
D=$(mktemp -d 2>/dev/null) || { D=/tmp/pitcrew.$$; mkdir -p "$D"; } || { say fail 0 "there is no room in /tmp"; exit 125; }
export PITCREW_OUTPUT="$D/output"
command -v setsid >/dev/null 2>&1 && S=setsid G=-
step() { N=$1 W=$2 K=$3 I=$4; shift 4
  [ -z "$T" ] || return 0
  [ -z "$W" ] || [ -d "$W" ] || { say fail "$N" "there is no directory $W"; bye 126; }
  command -v "$I" >/dev/null 2>&1 || { say fail "$N" "there is no program $I"; bye 126; }
  say begin "$N"
  # A stop that comes just now may find neither $C nor a child that can hear it: so it is looked for on both sides.
  (trap - TERM INT; [ ! -e "$D/stop" ] || exit 143; cd "${W:-.}" && exec $S "$@") & C=$!
  [ -z "$T" ] || stop
  while :; do wait "$C" 2>/dev/null; R=$?; kill -0 "$C" 2>/dev/null || break; done
  C=; say end "$N" "$R"
  [ "$R" = 0 ] || [ "$K" = 1 ] || bye "$R"; }
bye() { for f in "$PITCREW_OUTPUT" "$PITCREW_OUTPUT".*; do [ -f "$f" ] || continue
    base64 <"$f" | while IFS= read -r l; do say data "${f#"$D/"}" "$l"; done; done
  rm -rf "$D"; say done "$1"; exit "$1"; }
