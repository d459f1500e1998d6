# What each try can use. TRY: its name, by which `canary` leaves a trace on the host, and there only.
cd "$PROJECT" || exit
# A program at a path.
program() { printf '#!/bin/sh\ncanary %s\n' "$TRY" >"$1"; chmod +x "$1"; }
# A key of git's configuration, whose value is what is to run; or another one.
config() { git config --add "$1" "${2-canary $TRY}"; }
# A repository's configuration that runs something at `git status`, to be put somewhere.
evil() { printf '[core]\n\trepositoryformatversion = 0\n\tfsmonitor = canary %s\n\tbare = false\n' "$TRY"; }
# A folder that git takes for a repository, made by hand.
gitdir() {
  mkdir -p "$1/objects" "$1/refs/heads"
  evil >"$1/config"
  echo 'ref: refs/heads/main' >"$1/HEAD"
}
