# Takes out of a guest what is its own, before an image is made of it: keys, ids, logs, history, what sessions and
# package managers left. What it was made from stays. Runs as root when nobody is logged in, with $key set before
# it, the line that let vagrantp in. Plain sh, BusyBox's programs.
set -eu
started=/etc/ssh/ssh_host_ed25519_key # written as the guest started
empty() { for folder; do [ ! -d "$folder" ] || find "$folder" -xdev -mindepth 1 -delete 2>/dev/null || true; done; }
# What is newer than the guest's start, and new folders that have nothing in them then.
empty_of_new() {
    for folder; do
        [ -d "$folder" ] || continue
        find "$folder" -xdev -mindepth 1 ! -type d -newer "$started" -exec rm -f {} + 2>/dev/null || true
        find "$folder" -xdev -mindepth 1 -depth -type d -newer "$started" -exec rmdir {} + 2>/dev/null || true
    done
}

cut -d : -f 6 /etc/passwd | sort -u | while IFS= read -r home; do
    case $home in /root | /home/*) ;; *) continue ;; esac
    [ -d "$home" ] || continue
    for file in "$home/.ssh/authorized_keys" /etc/ssh/vagrantp-keys/*; do
        [ -f "$file" ] || continue
        grep -vxF -e "$key" "$file" > "$file.new" || true
        cat "$file.new" > "$file"
        rm -f "$file.new"
        [ -s "$file" ] || rm -f "$file"
    done
    rm -f "$home/.ssh/known_hosts" "$home/.ssh/known_hosts.old" "$home"/.*_history "$home/.lesshst" \
        "$home/.wget-hsts" "$home/.viminfo" "$home/.netrc" "$home/.git-credentials" "$home"/.claude.json*
    empty_of_new "$home/.ansible" "$home/.cache" "$home/.npm" "$home/.gnupg" "$home/.docker" "$home/.config" \
        "$home/.claude" "$home/.codex" "$home/.local/share/opencode" "$home/.local/state"
done
empty_of_new /tmp /var/tmp
# Nothing would make these folders again, of which programs need some.
[ ! -d /run ] || find /run -xdev ! -type d -newer "$started" -exec rm -f {} + 2>/dev/null || true

# vagrantp-entry fills an empty one.
[ ! -e /etc/machine-id ] || : > /etc/machine-id
rm -f /var/lib/dbus/machine-id /var/lib/systemd/random-seed /var/lib/systemd/credential.secret \
    /var/lib/NetworkManager/secret_key /var/lib/NetworkManager/*.lease /etc/sudoers.d/90-vagrantp
empty /var/lib/vagrantp /var/lib/cloud /var/lib/dhcp /var/lib/dhcpcd /var/lib/sudo /var/db/sudo /var/lib/systemd/timers \
    /var/lib/systemd/coredump /var/crash /var/spool/mail /var/mail /var/lib/apt/lists /var/cache/apt /var/cache/dnf \
    /var/cache/libdnf5 /var/cache/apk /var/lib/pacman/sync /var/cache/pacman/pkg
find /var/log -xdev -type f \( -name '*.gz' -o -name '*.[0-9]' -o -name '*.old' -o -name '*.journal' \) -exec rm -f {} +
find /var/log -xdev -type f -exec sh -c 'for file; do : > "$file"; done' sh {} +
rm -f /etc/ssh/ssh_host_*
