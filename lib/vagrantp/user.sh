# Runs in a guest as root, with $user, $keys and $is_made_later set before it (commands.user_script).
# Plain sh, and BusyBox's programs where there are no others.
set -eu
if [ -d /etc/sudoers.d ]; then
    echo "$user ALL=(ALL) NOPASSWD:ALL" > /etc/sudoers.d/90-vagrantp
    chmod 440 /etc/sudoers.d/90-vagrantp
fi
# A user who were there already would get neither groups nor shell from cloud-init: so the keys wait.
if [ "$is_made_later" = yes ] && ! id "$user" >/dev/null 2>&1; then
    mkdir -p /etc/ssh/vagrantp-keys
    echo "$keys" > "/etc/ssh/vagrantp-keys/$user"
    both="AuthorizedKeysFile .ssh/authorized_keys /etc/ssh/vagrantp-keys/%u" # the first one counts
    if grep -q '^Include /etc/ssh/sshd_config.d/' /etc/ssh/sshd_config; then
        echo "$both" > /etc/ssh/sshd_config.d/00-vagrantp.conf
    else
        sed -i "1i $both" /etc/ssh/sshd_config
    fi
    exit 0
fi
if ! id "$user" >/dev/null 2>&1; then
    shell=$(command -v bash || echo /bin/sh)
    if command -v useradd >/dev/null; then
        useradd --create-home --shell "$shell" --password '*' "$user"
    else
        adduser -D -s "$shell" "$user"
        sed -i "s/^$user:!/$user:*/" /etc/shadow # locked: no key would open it
    fi
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
