# Opens a coding agent in a session of tmux, or comes back to it: `sh agent_session.sh NAME FOLDER COMMAND FILE
# INSTALL`. Without FOLDER it works in the home folder. A FILE has variables for the agent alone, as lines of shell:
# not for tmux, which would give them to every session. INSTALL: what installs the agent, for a message.
set -eu
file=$4
trap 'rm -f "$file"' EXIT # of this script: one that ends as tmux would not come to it
for tool in tmux "$3"; do
    command -v "$tool" >/dev/null && continue
    echo "error: the guest has no $tool: $5 installs it" >&2
    exit 127
done
cd "${2:-$HOME}"
# Before the first session: colours, Escape without a delay, keys as agents expect them. What the person's
# own file says counts more.
tmux has-session 2>/dev/null || set -- "$@" start-server \; \
    set-option -g default-terminal tmux-256color \; set-option -g history-limit 50000 \; \
    set-option -sg escape-time 10 \; set-option -sg focus-events on \; set-option -sg extended-keys on \; \
    source-file -q "$HOME/.tmux.conf" \;
session=$1 command=$3
shift 5
if tmux has-session -t "=$session" 2>/dev/null; then rm -f "$file"; fi
# What it said before it failed stays on the screen.
run='[ ! -e "$2" ] || { . "$2"; rm "$2"; }
"$1" || { printf "\n%s ended with exit status %s. Enter closes this session.\n" "$1" "$?"; read -r _; }'
tmux "$@" new-session -A -s "$session" -c "$PWD" sh -c "$run" sh "$command" "$file"
