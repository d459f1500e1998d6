# Runs a coding agent once: `sh agent_prompt.sh VARIABLES PROMPT SECONDS FOLDER INSTALL COMMAND…`, with so many
# bytes of variables, as lines of shell, and of prompt on stdin, which ends when whoever asked has gone: then the
# agent ends, too. Exit status 124 after SECONDS, 0 for no limit. INSTALL: what installs the agent, for a message.
set -eu
variables=$1 size=$2 seconds=$3
cd "${4:-$HOME}"
command -v "$6" >/dev/null || {
    echo "error: the guest has no $6: $5 installs it" >&2
    exit 127
}
shift 5
given=$(dd bs=1 count="$variables" 2>/dev/null) # busybox's head takes more than it prints
prompt=$(head -c "$size" && echo .)
exec 3<&0
start=$(date +%s)
# The variables may be called like those here: from eval on, none of these counts.
printf %s "${prompt%.}" | {
    set -- setsid timeout -k 10 "$seconds" "$@"
    eval "$given"
    exec "$@" 3<&-
} &
agent=$!
{
    cat <&3
    kill -TERM "-$agent"
    sleep 10
    kill -KILL "-$agent"
} > /dev/null 2>&1 &
watcher=$!
status=0
wait "$agent" || status=$?
kill "$watcher" 2>/dev/null || true
# killed, as it went on after SIGTERM
if [ "$status" = 137 ] && [ "$seconds" != 0 ] && [ $(($(date +%s) - start)) -ge "$seconds" ]; then
    status=124
fi
exit "$status"
