# Gives a guest the Python that Ansible needs, where it has none. Runs as root, with a plain sh.
set -eu
! command -v python3 >/dev/null || exit 0
if command -v apt-get >/dev/null; then
    apt-get update
    DEBIAN_FRONTEND=noninteractive apt-get install --yes python3
elif command -v pacman >/dev/null; then
    pacman --sync --refresh --sysupgrade --needed --noconfirm python
elif command -v dnf >/dev/null; then
    dnf install --assumeyes python3
elif command -v apk >/dev/null; then
    apk add python3
else
    echo "error: there is no Python, and none of apt-get, pacman, dnf and apk to get it" >&2
    exit 1
fi
