# Runs in a guest as root, with $user, $keys and $is_made_later set before it (commands.user_script); in
# our own images already when they are built, so that little is left to do at the first boot. Plain sh,
# and BusyBox's programs where there are no others. A second run changes nothing.
set -eu
conf=/etc/ssh/sshd_config.d/00-vagrantp.conf
# $1: a setting of sshd; of several the first one counts
set_sshd() {
    if grep -q '^Include /etc/ssh/sshd_config.d/' /etc/ssh/sshd_config; then
        printf '%s\n' "$1" >> "$conf"
    else
        sed -i "1i $1" /etc/ssh/sshd_config
    fi
}
if [ -d /etc/sudoers.d ]; then
    # secure_path would hide from `sudo` what the user finds without it
    printf '%s\n' "$user ALL=(ALL) NOPASSWD:ALL" "Defaults:$user !secure_path" > /etc/sudoers.d/90-vagrantp
    chmod 440 /etc/sudoers.d/90-vagrantp
    # an image may have none; where there is no sudo, its package brings one
    if [ ! -e /etc/sudoers ] && command -v sudo >/dev/null; then
        printf '%s\n' 'root ALL=(ALL:ALL) ALL' '#includedir /etc/sudoers.d' > /etc/sudoers
        chmod 440 /etc/sudoers
    fi
fi
# Each `fab ssh` is a session of one kept connection. The default of MaxStartups refuses from 10 on.
if ! grep -qs '^MaxSessions' /etc/ssh/sshd_config /etc/ssh/sshd_config.d/*; then
    set_sshd "MaxSessions 1000"
    set_sshd "MaxStartups 100"
fi
# An image may have its sshd let in nobody else, or listen elsewhere: these settings add up.
sshd_says() { cat /etc/ssh/sshd_config.d/*.conf /etc/ssh/sshd_config 2>/dev/null | grep -iE "^[[:space:]]*$1"; }
has_sshd() { sshd_says "$1" > /dev/null; }
! has_sshd "Port[[:space:]=]" || has_sshd "Port[[:space:]=]+22[[:space:]]*$" || set_sshd "Port 22"
! has_sshd "AllowUsers[[:space:]=]" || has_sshd "AllowUsers $user$" || set_sshd "AllowUsers $user"
# vagrantp's own key, the first one, is where nobody's dotfiles replace it.
mkdir -p /etc/ssh/vagrantp-keys
[ -z "$keys" ] || printf '%s\n' "$keys" | head -n 1 > "/etc/ssh/vagrantp-keys/$user"
chmod -R u=rwX,go=rX /etc/ssh/vagrantp-keys # sshd reads them as the user
if ! has_sshd "AuthorizedKeysFile.*vagrantp-keys"; then
    theirs=$(sshd_says "AuthorizedKeysFile[[:space:]=]" | head -n 1 | awk '{sub(/^[^=[:space:]]*[=[:space:]]+/, ""); print}')
    [ "$theirs" != none ] || theirs=
    set_sshd "AuthorizedKeysFile ${theirs:-.ssh/authorized_keys} /etc/ssh/vagrantp-keys/%u"
fi
# A user who were there already would get neither groups nor shell from cloud-init: so all keys wait there.
if [ "$is_made_later" = yes ] && ! id "$user" >/dev/null 2>&1; then
    printf '%s\n' "$keys" > "/etc/ssh/vagrantp-keys/$user"
    home=
else
    if ! id "$user" >/dev/null 2>&1; then
        shell=$(command -v bash || echo /bin/sh)
        if command -v useradd >/dev/null; then
            useradd --create-home --shell "$shell" --password '*' "$user"
        else
            adduser -D -s "$shell" "$user"
        fi
    fi
    # sshd takes no key of a locked one, where UsePAM is no
    ! grep -qs "^$user:!!*[*]*:" /etc/shadow || sed -i "s/^$user:!!*[*]*:/$user:*:/" /etc/shadow
    group=$(id -gn "$user")
    ! has_sshd "AllowGroups[[:space:]=]" || has_sshd "AllowGroups $group$" || set_sshd "AllowGroups $group"
    home=$(awk -F: -v user="$user" '$1 == user {print $6}' /etc/passwd)
    mkdir -p "$home/.ssh"
    file=$home/.ssh/authorized_keys
    touch "$file"
    [ -z "$(tail -c 1 "$file")" ] || echo >> "$file" # its last line had no end
    printf '%s' "${keys:+$keys
}" | while IFS= read -r key; do
        grep -qxF -e "$key" "$file" || printf '%s\n' "$key" >> "$file"
    done
    chmod 700 "$home/.ssh"
    chmod 600 "$file"
    chown -R "$user:$group" "$home/.ssh"
fi

# One PATH for commands, logins and sudo: the guest's, with the user's folders before the system's.
login=/etc/profile.d/00-vagrantp.sh
[ ! -e "$login" ] || exit 0
system=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
[ ! -d /usr/games ] || system=$system:/usr/local/games:/usr/games
touch /etc/environment
path=$(sed -n 's/^PATH=//p' /etc/environment | tail -n 1 | tr -d "\"'")
path=$(printf '%s\n' "$path:$system" | awk '{
    count = split($0, folders, ":")
    for (i = 1; i <= count; i++) {
        folder = folders[i]
        if (folder == "" || folder in seen || folder ~ /["&|{\\]/) continue
        seen[folder]
        if (folder ~ "^(/usr(/local)?)?/s?bin$" && !own++) path = path ":~/.local/bin:~/bin"
        path = path ":" folder
    }
    print substr(path, 2)
}')
# PAM knows everybody's home; it reads short lines only (BUF_SIZE in its pam_env.c).
if [ ${#path} -lt 900 ] && grep -qs pam_env /etc/pam.d/* &&
    has_sshd "UsePAM[[:space:]=]+yes" && ! has_sshd "UsePAM[[:space:]=]+no"; then
    mkdir -p /etc/security
    touch /etc/security/pam_env.conf
    sed -i '/^PATH[[:space:]]/d' /etc/security/pam_env.conf
    # OVERRIDE: what is written to /etc/environment from now on counts more
    printf 'PATH DEFAULT="%s" OVERRIDE=${PATH}\n' "$path" | sed 's:~/:@{HOME}/:g' >> /etc/security/pam_env.conf
    sed -i '/^PATH=/d' /etc/environment
elif [ "$home" ]; then
    path=$(printf '%s\n' "$path" | sed "s:~/:$home/:g")
    if grep -qs '^SetEnv ' "$conf"; then # sshd takes one of them
        sed -i "s|^SetEnv .*|& \"PATH=$path\"|" "$conf"
    else
        set_sshd "SetEnv \"PATH=$path\""
    fi
fi
for file in "$home/.profile" /etc/skel/.profile; do
    if cmp -s "$file" /etc/skel/.profile; then # nobody's own; it would add them again
        sed -i '/^if \[ -d "\$HOME\/.*bin" \] ; then$/,/^fi$/d' "$file"
    fi
done
mkdir -p /etc/profile.d
cat > "$login" <<'END'
# /etc/profile has set another PATH: back to the one that this shell was started with.
vagrantp=$(tr '\0' '\n' < /proc/$$/environ | sed -n 's/^PATH=//p')
PATH=${vagrantp:-$PATH}
unset vagrantp
END
