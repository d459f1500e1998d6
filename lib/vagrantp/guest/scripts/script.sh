# Runs a person's script in a guest, as root: `sh -c THIS sh NAME HOW [INTERPRETER…]`, with the
# script on stdin. HOW says how to find the line in which it fails: bash, sh or none. This waits for
# the script itself, not for a daemon that it leaves. Without a name, it only ends an earlier one.
set -eu
name=${1-} how=${2-}
store=/var/lib/vagrantp
for file in /proc/[0-9]*/cmdline; do # of an `up` that was interrupted; [.] is not found in itself
    if tr '\0' '\n' < "$file" 2>/dev/null | grep -q "^$store/run[.]"; then
        pid=${file#/proc/}
        kill -TERM "-${pid%/cmdline}" 2>/dev/null || true
    fi
done
rm -rf "$store"/run.*
[ "$name" ] || exit 0
shift 2
mkdir -p "$store"
work=$(mktemp -d "$store/run.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir "$work/bin"
cat > "$work/bin/$name"
chmod 700 "$work/bin/$name"
# Debian's dash has no LINENO. But it reports what does not expand in PS4 with its line, and goes on.
mark='${vagrantp?}'
reported=': vagrantp: '
: > "$work/out"
: > "$work/line"
case $how in
    bash)
        # The last command before the end, or under `set -e` the one that failed.
        cat > "$work/env" <<END
unset BASH_ENV
trap 'echo \$LINENO > $work/line' DEBUG
trap 'echo \$LINENO > $work/line; case \$- in *e*) trap - DEBUG ;; esac' ERR
END
        export BASH_ENV="$work/env" ;;
    sh)
        # a bash that is called sh takes no PS4 from root's environment
        "$@" --version 2>/dev/null | grep -q bash || set -- "$@" -x
        export PS4="$mark" ;;
esac
said() { sed -e '/${vagrantp?}/d' -e "/$reported/d"; }
cd /root 2>/dev/null || cd /
setsid "$@" "$work/bin/$name" < /dev/null > "$work/out" 2>&1 &
pid=$!
shown=0
show() {
    lines=$(wc -l < "$work/out")
    [ "$lines" = "$shown" ] || sed -n "$((shown + 1)),${lines}p" "$work/out" | said
    shown=$lines
}
while kill -0 "$pid" 2>/dev/null; do
    sleep 0.2
    show
done
status=0
wait "$pid" || status=$?
show
tail -n "+$((shown + 1))" "$work/out" | said # a last line without an end
[ "$how" != sh ] || sed -n "s/^.*[ :]\([0-9]*\)$reported.*/\1/p" "$work/out" | tail -n 1 > "$work/line"
[ "$status" = 0 ] || printf '\n%s%s %s\n' "$mark" "$status" "$(cat "$work/line")"
exit "$status"
