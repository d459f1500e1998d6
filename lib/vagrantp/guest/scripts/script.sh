# Runs a person's script in a guest, as root: `sh -c THIS sh NAME HOW PLACE [INTERPRETER…]`, with the
# script on stdin. HOW says how to find the line in which it fails: bash, sh or none; PLACE is where the
# guest has it, among the files that it may look for, or "". This waits for the script itself, not for
# a daemon that it leaves. Without a name, it only ends an earlier one.
set -eu
name=${1-} how=${2-} place=${3-}
store=/var/lib/vagrantp
for work in "$store"/run.*; do # of an `up` that was interrupted
    pid=$(cat "$work/pid" 2>/dev/null) || continue
    if tr '\0' '\n' < "/proc/$pid/environ" 2>/dev/null | grep -qxF "VAGRANTP_RUN=$work"; then
        kill -TERM "-$pid" 2>/dev/null || true
    fi
done
rm -rf "$store"/run.*
[ "$name" ] || exit 0
shift 3
mkdir -p "$store"
work=$(mktemp -d "$store/run.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir "$work/bin"
cat > "$work/bin/$name"
chmod 700 "$work/bin/$name"
file=$work/bin/$name
if [ -x "$place" ] && cmp -s "$file" "$place"; then file=$place; fi
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
VAGRANTP_RUN=$work setsid "$@" "$file" < /dev/null > "$work/out" 2>&1 &
pid=$!
echo "$pid" > "$work/pid"
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
