# Hands the file PITCREW_READ_FILE over as the output PITCREW_READ_TO. Ends with 78 where another try would fail as well.
LC_ALL=C
fail() {
    printf 'error: %s\n' "$1" >&2
    exit 78
}
file=$PITCREW_READ_FILE
case $file in /*) ;; *) file=./$file ;; esac
shown=${file#./}
if [ ! -e "$file" ]; then
    case $file in */*/* | /*) dir=${file%/*} ;; *) dir=. ;; esac
    [ -d "${dir:-/}" ] || fail "there is no file \`$shown\` on this host, nor a directory \`${dir#./}\`"
    names=''
    count=0
    for found in "$dir"/*; do
        [ -e "$found" ] && [ "$count" -lt 10 ] && names="$names, ${found##*/}" && count=$((count + 1))
    done
    names=${names#, }
    fail "there is no file \`$shown\` on this host; its directory holds ${names:-nothing}"
fi
[ -f "$file" ] || fail "\`$shown\` is no file"
[ -r "$file" ] || fail "cannot read \`$shown\`, which belongs to $(stat -c %U -- "$file" 2>/dev/null || echo 'another user')"
to=$PITCREW_OUTPUT.$PITCREW_READ_TO
head -c 1048577 <"$file" >"$to" || exit 1
if [ "$(wc -c <"$to")" -gt 1048576 ]; then
    rm -f "$to"
    fail "\`$shown\` is larger than 1 MiB; that is no file of values"
fi
