# Brings a directory of this host to exactly one commit; `git.checkout` on another machine. In the environment, each with
# PITCREW_GIT_ before it: URL (without a secret), REVISION, INTO, DEPTH, ORIGIN (what a token is for), LOCAL (a path here is
# allowed), CLEAN (ignored files go too), SUBMODULES, LFS, SSH (what stands for `ssh`), KNOWN_HOSTS, KEY (an agent has one:
# its socket is beside PITCREW_OUTPUT, and leads to whoever started this). On fd 9, if there is a token: the user's name and the token, a line
# each. Ends with 78 where another try would fail as well.
set -u
LC_ALL=C
export LC_ALL
fail() {
    code=$1
    shift
    printf 'error: %s\n' "$*" >&2
    exit "$code"
}
url=$PITCREW_GIT_URL revision=$PITCREW_GIT_REVISION origin=$PITCREW_GIT_ORIGIN depth=$PITCREW_GIT_DEPTH
user='' token=''
if [ -n "$origin" ]; then
    # Never exported: what `git` runs finds it in no environment.
    { IFS= read -r user <&9 && IFS= read -r token <&9; } 2>/dev/null
    exec 9<&-
fi

version=$(git --version 2>/dev/null) || fail 78 'this host has no `git`; install it (Debian and Ubuntu: `apt install git`)'
version=${version#git version }
major=${version%%.*} minor=${version#*.}
minor=${minor%%.*}
case $major$minor in '' | *[!0-9]*) major=2 minor=18 ;; esac
if [ "$major" -lt 2 ] || { [ "$major" = 2 ] && [ "$minor" -lt 18 ]; }; then
    fail 78 "this host has git $version; 2.18 or later is needed"
fi
command -v flock >/dev/null || fail 78 'this host has no `flock`; install it (Debian and Ubuntu: `apt install util-linux`)'

# An outer git or a person's settings must not lead this one elsewhere, nor write what it sends.
unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE GIT_OBJECT_DIRECTORY GIT_COMMON_DIR GIT_NAMESPACE GIT_ASKPASS SSH_ASKPASS \
    GIT_ALTERNATE_OBJECT_DIRECTORIES GIT_TRACE GIT_TRACE_CURL GIT_CURL_VERBOSE GIT_TRACE_PACKET GIT_TEMPLATE_DIR \
    GIT_EXTERNAL_DIFF GIT_TRACE2 GIT_TRACE2_EVENT GIT_TRACE2_PERF
export GIT_TERMINAL_PROMPT=0 GIT_LFS_SKIP_SMUDGE=1 GIT_ALLOW_PROTOCOL=https:http:ssh:git
[ -z "$PITCREW_GIT_LOCAL" ] || GIT_ALLOW_PROTOCOL=$GIT_ALLOW_PROTOCOL:file
export GIT_SSH_COMMAND="${GIT_SSH_COMMAND:-ssh} -oBatchMode=yes"
if [ -n "$PITCREW_GIT_SSH" ]; then
    for program in ssh ssh-add; do
        command -v "$program" >/dev/null ||
            fail 78 "this host has no \`$program\`; install it (Debian and Ubuntu: \`apt install openssh-client\`)"
    done
    export PITCREW_GIT_SSH_DIR="${PITCREW_OUTPUT%/*}" GIT_SSH_VARIANT=ssh GIT_SSH_COMMAND="$PITCREW_GIT_SSH"
    known=$PITCREW_GIT_SSH_DIR/known
    if [ -n "$PITCREW_GIT_KNOWN_HOSTS" ]; then
        why=$(printf '%s\n' "$PITCREW_GIT_KNOWN_HOSTS" 2>&1 >"$known") || fail 1 "cannot write \`$known\`: $why"
    else
        # A new host is recorded there; where that cannot be, it is new each time.
        [ -d "$HOME/.ssh" ] || mkdir -m 700 -- "$HOME/.ssh" 2>/dev/null
        ln -sf -- "$HOME/.ssh/known_hosts" "$known"
    fi
fi
# What the agent calls its key: another name for each connection to it, and nothing while there is none.
look_at_agent() {
    # Where a connection went without a word, the socket is there, and nobody answers.
    agent=$(cd "$PITCREW_GIT_SSH_DIR" && SSH_AUTH_SOCK=agent.sock timeout 10 ssh-add -l 2>/dev/null) || agent=''
}
# The key is lent over a connection that can break; it comes back.
wait_for_agent() {
    tries=0
    while look_at_agent && [ -z "$agent" ]; do
        [ "$tries" -gt 0 ] || echo 'waiting for the connection to Pitcrew, which has the key for the git host'
        [ "$tries" -lt 150 ] ||
            fail 1 'the connection to Pitcrew, which has the key for the git host, is broken for 5 minutes'
        tries=$((tries + 1))
        sleep 2
    done
}

case $PITCREW_GIT_INTO in /*) dir=$PITCREW_GIT_INTO ;; *) dir=$PWD/$PITCREW_GIT_INTO ;; esac
why=$(mkdir -p -- "$dir" 2>&1) || fail 78 "cannot make the directory \`$dir\`: ${why##*: }"
[ -w "$dir" ] || fail 78 "cannot write to \`$dir\`, which belongs to $(stat -c %U -- "$dir" 2>/dev/null || echo 'another user')"
GIT_CEILING_DIRECTORIES=${dir%/*}
export GIT_CEILING_DIRECTORIES
# Released when this shell ends, however it ends.
exec 8<"$dir" || fail 1 "cannot open the directory \`$dir\`"
flock -n 8 || { echo "waiting for another checkout of \`$dir\`" && flock 8; }
# Only now: another checkout may have been making it.
if [ ! -e "$dir/.git" ] && [ -n "$(ls -A -- "$dir")" ]; then
    fail 78 "\`$dir\` holds files but is no git checkout; name an empty directory, or a new one"
fi

run_git() {
    git -C "$dir" -c core.hooksPath=/dev/null -c core.fsmonitor=false -c core.askPass= -c advice.detachedHead=false \
        -c init.defaultBranch=main -c gc.auto=0 -c maintenance.auto=false -c http.lowSpeedLimit=1000 \
        -c http.lowSpeedTime=60 "$@"
}
# With the token: git's helper reads one pair of lines for each question; `printf` and `read` start no program.
ask_git() {
    if [ -z "$token" ]; then
        run_git "$@" </dev/null
        return
    fi
    # shellcheck disable=SC2016
    helper='!f() { test "$1" = get || exit 0; IFS= read -r u <&9; IFS= read -r p <&9; printf "username=%s\npassword=%s\n" "$u" "$p"; }; f'
    { while printf '%s\n%s\n' "$user" "$token"; do :; done 2>/dev/null; } |
        run_git -c credential.helper= -c "credential.$origin.helper=$helper" "$@" 9<&0 </dev/null
}
# Sets `hint` to what to do about a failure that git told in its own words, and `code` to what this script ends with.
explain() {
    hint='' code=78
    case $1 in
    *'could not read Username'* | *'Authentication failed'* | *'terminal prompts disabled'* | *'error: 401'* | *'error: 403'* | \
        *"repository '"*"' not found"* | *'does not appear to be a git repository'*)
        if [ -n "$token" ]; then
            hint=': the repository does not exist, or the token does not open it'
        else
            hint=': the repository does not exist or wants a token; give one to the task'
        fi
        ;;
    *'Permission denied (publickey'*)
        if [ -n "$PITCREW_GIT_KEY" ]; then
            hint=': the git host does not accept the key that was given; add its public half there'
        else
            hint=': the git host accepts none of the SSH keys of this host; give the task a `key`'
        fi
        ;;
    *'REMOTE HOST IDENTIFICATION HAS CHANGED'*) hint=': the SSH host key of the git host is not the known one; somebody may be in between, or it was replaced: ask who runs it, then correct `known_hosts`' ;;
    *'Host key verification failed'*) hint=': the SSH host key of the git host is not known; add it to `known_hosts` of the task, or to `~/.ssh/known_hosts` of this host' ;;
    *'Repository not found'*) hint=': the repository does not exist, or the key may not read it' ;;
    *'dubious ownership'*) hint=': the directory belongs to another user of this host' ;;
    *'No space left on device'* | *'Disk quota exceeded'*)
        hint=": the disk of this host is full (\`$dir\`: $(df -hP -- "$dir" | awk 'NR == 2 { print $4 " of " $2 }') free); free space there, then retry the task"
        ;;
    *'Could not resolve host'* | *'Connection refused'* | *'timed out'* | *'Could not connect'* | \
        *'Failed to connect'* | *unreachable*)
        hint=': the git host cannot be reached from this host' code=1
        ;;
    *) code=1 ;;
    esac
}
is_broken() {
    case $said in
    # What could not be written is not damaged.
    *'No space left on device'* | *'Permission denied'* | *'Disk quota exceeded'* | *'Read-only file system'*) return 1 ;;
    *'not a git repository'* | *'not in a git directory'* | *'bad object'* | *'loose object'* | *'is corrupt'* | *'index file smaller'* | *'bad index file'* | \
        *'bad signature 0x'* | *'unable to read tree'* | *'missing object'* | *'bad config line'* | *'unable to read sha1 file'* | \
        *'inflate:'*) return 0 ;;
    esac
    return 1
}
# Runs one git and keeps what it says in `said`. A failure ends everything with git's last words, unless the clone is broken
# and was not made anew yet: then it is told to the caller.
renewed=''
must() {
    what=$1 again=5
    shift
    while :; do
        [ "$1$PITCREW_GIT_KEY" != ask_git1 ] || wait_for_agent
        said=$("$@" 2>&1) && return
        if [ "$1$PITCREW_GIT_KEY" != ask_git1 ] || [ "$again" = 0 ]; then break; fi
        seen=$agent again=$((again - 1))
        look_at_agent
        [ "$agent" != "$seen" ] || break
        echo 'the connection to Pitcrew, which has the key for the git host, broke meanwhile; trying again'
    done
    [ -z "$renewed" ] && is_broken && return 1
    explain "$said"
    fail "$code" "$what failed$hint
$(printf '%s\n' "$said" | grep -v '^[[:space:]]*$' | tail -n 8)"
}
newline='
' tab='	'
# Calls `$1 LEFT RIGHT` for each line `LEFT<tab>RIGHT` of a listing of references.
each() {
    set -f
    IFS=$newline
    for line in $listing; do
        unset IFS
        set +f
        case $line in *"$tab"*) "$1" "${line%%"$tab"*}" "${line#*"$tab"}" ;; esac
    done
    unset IFS
    set +f
}
look() {
    case $1 in
    'ref: '*) if [ "$2" = HEAD ]; then head=${1#ref: }; fi ;;
    *) if [ "$2" = "$want" ]; then object=$1 name=$want; fi ;;
    esac
}
commit_of() {
    run_git rev-parse --verify --quiet "$1^{commit}" 2>/dev/null
}
suggest() {
    short=${2#refs/heads/}
    case $short in
    "$start"*) near="$near, \`$short\`" ;;
    *) if [ "$count" -lt 3 ]; then others="$others, \`$short\`" count=$((count + 1)); fi ;;
    esac
}
unknown() {
    listing=$(ask_git ls-remote --heads --refs -- "$url" 2>/dev/null)
    start=$(printf %.2s "$revision") near='' others='' count=0
    each suggest
    near=${near:-$others}
    fail 78 "\`$url\` has no branch, tag or commit \`$revision\`${near:+; there is: ${near#, }}"
}
# Sets `name` and `object` to a reference and what it stands for now, or leaves both empty for a commit.
find_target() {
    name='' object='' head=''
    case ${#hex} in 40 | 64) return 0 ;; esac
    case $revision in
    '' | HEAD) set -- HEAD ;;
    refs/*) set -- "$revision" ;;
    *) set -- "refs/heads/$revision" "refs/tags/$revision" ;;
    esac
    must 'asking the repository' ask_git ls-remote --symref -- "$url" "$@" HEAD || return 1
    listing=$said
    for want; do
        each look
        [ -z "$object" ] || break
    done
    if [ "$name" = HEAD ] && [ -n "$head" ]; then name=$head; fi
    [ -n "$object$hex" ] || unknown
}
fetch() {
    deep=''
    if [ -n "$depth" ]; then
        deep=--depth=$depth
    elif [ -e "$dir/.git/shallow" ]; then
        deep=--unshallow
    fi
    if [ -z "$name" ]; then
        commit=$(commit_of "$hex") && return 0
        echo "fetching commit \`$hex\` from $url"
        # Not every server hands out a commit by its name.
        case ${#hex} in 40 | 64)
            ask_git fetch --quiet --force --no-recurse-submodules --no-tags ${deep:+"$deep"} origin "$hex" 2>/dev/null
            commit=$(commit_of "$hex") && return 0
            ;;
        esac
        [ "$deep" = --unshallow ] || deep=''
        must fetching ask_git fetch --quiet --force --no-recurse-submodules ${deep:+"$deep"} origin \
            '+refs/heads/*:refs/remotes/origin/*' '+refs/tags/*:refs/tags/*' || return 1
        commit=$(commit_of "$hex") || unknown
        return 0
    fi
    if [ "$deep" != --unshallow ]; then
        commit=$(commit_of "$object") && return 0
    fi
    echo "fetching \`$name\` from $url"
    case $name in
    refs/heads/*) into=refs/remotes/origin/${name#refs/heads/} ;;
    *) into=refs/pitcrew/fetched ;;
    esac
    must fetching ask_git fetch --quiet --force --no-recurse-submodules ${depth:+--no-tags} ${deep:+"$deep"} \
        origin "+$name:$into" || return 1
    commit=$(commit_of "$into") || unknown
}
# Hundredths of a second since this host started; KiB of the clone.
tick() {
    read -r tick _ </proc/uptime
    tick=${tick%.*}${tick#*.}
}
size() {
    size=0
    for word in $(run_git count-objects -v 2>/dev/null | grep -E '^size(-pack)?: '); do
        case $word in size*) ;; *) size=$((size + word)) ;; esac
    done
}
check_out() {
    must 'making the clone' run_git init --quiet || return 1
    # What a killed git leaves; ours is the only git here, as the directory is locked.
    for lock in index HEAD config shallow packed-refs; do rm -f -- "$dir/.git/$lock.lock"; done
    find "$dir/.git/refs" -name '*.lock' -exec rm -f -- {} + 2>/dev/null
    must 'setting the remote' run_git config --replace-all remote.origin.url "$url" || return 1
    # So that people can fetch here too.
    run_git config --get remote.origin.fetch >/dev/null 2>&1 ||
        run_git config remote.origin.fetch '+refs/heads/*:refs/remotes/origin/*'
    before=$(commit_of HEAD) || before=''
    size
    had=$size
    tick
    began=$tick
    find_target || return 1
    fetch || return 1
    tick
    took=$((tick - began))
    size
    got=$((size > had ? (size - had) * 1024 : 0))

    branch=''
    case $name in refs/heads/*) branch=${name#refs/heads/} ;; esac
    if [ -n "$branch" ]; then
        must 'checking out' run_git checkout --quiet --force -B "$branch" "$commit" -- || return 1
    else
        must 'checking out' run_git checkout --quiet --force --detach "$commit" -- || return 1
    fi
    must 'checking out' run_git reset --quiet --hard "$commit" -- || return 1
    must 'removing other files' run_git clean --quiet "-ffd$PITCREW_GIT_CLEAN" || return 1
    if [ -n "$PITCREW_GIT_SUBMODULES" ] && [ -e "$dir/.gitmodules" ]; then
        echo 'fetching submodules'
        must 'setting submodules up' run_git submodule --quiet sync --recursive || return 1
        must 'fetching submodules' ask_git submodule --quiet update --init --recursive --force \
            ${depth:+"--depth=$depth"} || return 1
        must 'removing other files' run_git submodule --quiet foreach --recursive \
            "git clean --quiet -ffd$PITCREW_GIT_CLEAN" || return 1
    fi
    if [ -n "$PITCREW_GIT_LFS" ]; then
        run_git lfs version >/dev/null 2>&1 ||
            fail 78 'this host has no `git-lfs`; install it (Debian and Ubuntu: `apt install git-lfs`)'
        must 'fetching large files' ask_git lfs pull || return 1
    fi
    is=$(commit_of HEAD) || is=nothing
    [ "$is" = "$commit" ] || fail 1 "checking out failed: the commit is $is, but $commit was asked for"
}

hex=''
case $revision in
'' | ? | ?? | ??? | *[!0-9a-fA-F]*) ;;
*) if [ "${#revision}" -le 64 ]; then hex=$(printf %s "$revision" | tr A-F a-f); fi ;;
esac
if ! check_out; then
    echo 'the clone is broken; starting over'
    renewed=1
    # Moved first, so that a kill in between leaves no half of a clone under its name.
    why=$(mv -- "$dir/.git" "$dir/.git.broken-$$" 2>&1 && rm -rf -- "$dir/.git.broken-$$" 2>&1) ||
        fail 1 "cannot remove the broken clone \`$dir/.git\`: $why"
    check_out
fi

# As a text of JSON, with its quotes; nothing is null.
json() {
    if [ -z "$1" ]; then
        printf null
    else
        printf '"%s"' "$(printf %s "$1" | tr -d '\000-\037' | sed 's/[\\"]/\\&/g')"
    fi
}
fact() {
    run_git log -1 --no-show-signature "--format=$1"
}
short=$(fact %h) author=$(fact '%an <%ae>') message=$(fact %s)
changed=true
[ "$before" != "$commit" ] || changed=false
printf '{"commit":%s,"short":%s,"branch":%s,"default_branch":%s,"author":%s,"message":%s,"committed":%s,"changed":%s,"fetch_seconds":%s,"fetch_bytes":%s,"directory":%s}\n' \
    "$(json "$commit")" "$(json "$short")" "$(json "$branch")" "$(json "${head#refs/heads/}")" "$(json "$author")" \
    "$(json "$message")" "$(json "$(fact %cI)")" "$changed" "$((took / 100)).$(printf %02d $((took % 100)))" "$got" "$(json "$dir")" \
    >>"$PITCREW_OUTPUT"
printf '%s %s (%s)\n' "$short" "$message" "$author"
