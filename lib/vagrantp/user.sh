# Runs in a guest as root, with $user and $keys set before it (commands.user_script). Plain sh, and
# BusyBox's programs where there are no others.
set -eu
if ! id "$user" >/dev/null 2>&1; then
    shell=$(command -v bash || echo /bin/sh)
    if command -v useradd >/dev/null; then
        useradd --create-home --shell "$shell" --password '*' "$user"
    else
        adduser -D -s "$shell" "$user"
        sed -i "s/^$user:!/$user:*/" /etc/shadow # locked: no key would open it
    fi
fi
if [ -d /etc/sudoers.d ]; then
    echo "$user ALL=(ALL) NOPASSWD:ALL" > /etc/sudoers.d/90-vagrantp
    chmod 440 /etc/sudoers.d/90-vagrantp
fi
home=$(awk -F: -v user="$user" '$1 == user {print $6}' /etc/passwd)
mkdir -p "$home/.ssh"
touch "$home/.ssh/authorized_keys"
echo "$keys" | while read -r key; do
    grep -qxF -e "$key" "$home/.ssh/authorized_keys" || echo "$key" >> "$home/.ssh/authorized_keys"
done
chmod 700 "$home/.ssh"
chmod 600 "$home/.ssh/authorized_keys"
chown -R "$user:$(id -gn "$user")" "$home/.ssh"
