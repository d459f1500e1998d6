# Runs in a guest as root: git, now or once it is installed, works in /project and in repositories
# below for every user of the guest. What is below needs git 2.46 (git-config(1), safe.directory).
set -eu
if ! grep -qs '^[[:space:]]*directory = /project/\*$' /etc/gitconfig; then
    [ -z "$(tail -c 1 /etc/gitconfig 2>/dev/null)" ] || echo >> /etc/gitconfig # its last line had no end
    printf '[safe]\n\tdirectory = /project\n\tdirectory = /project/*\n' >> /etc/gitconfig
fi
