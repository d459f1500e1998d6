# Installs npm packages for the user who logs in, and a node of the major version that they need, or a
# newer one: `sh agents.sh MAJOR PACKAGE…`. Again: their newest versions.
set -eu
major=$1
shift
install() { npm install --global --prefix "$HOME/.local" --no-audit --no-fund --loglevel=error "$@"; }
has=$(node --version 2>/dev/null | sed 's/^v\([0-9]*\).*/\1/')
[ "${has:-0}" -ge "$major" ] || install "node@$major"
install "$@"
