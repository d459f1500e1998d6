# Adds to an image what `ssh` and Ansible need and it has not got: runs as root in a container of it. What
# the image sets for its programs is set before this (images/oci.py): $exports, lines for a shell;
# $settings, values of sshd's SetEnv; $names, of sudo's env_keep; $path; $lang, "" where it has its own;
# $trust, trust.sh for CA_CERTS, or "".
set -eu
packages=
# $1: a command; the others: its packages in Debian, Alpine, Fedora and Arch
need() { command -v "$1" >/dev/null || packages="$packages $(eval echo "\${$manager}")"; }
if command -v apt-get >/dev/null; then
    manager=2
elif command -v apk >/dev/null; then
    manager=3
elif command -v dnf >/dev/null || command -v microdnf >/dev/null; then
    manager=4
elif command -v pacman >/dev/null; then
    manager=5
else
    manager=1
fi
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
need sshd openssh-server "openssh-server openssh-sftp-server" openssh-server openssh
need sudo sudo sudo sudo sudo
need python3 python3 python3 python3 python
need ip iproute2 iproute2 iproute iproute2
need awk mawk gawk gawk gawk
[ -z "$trust" ] || command -v update-ca-trust >/dev/null ||
    need update-ca-certificates ca-certificates ca-certificates ca-certificates ca-certificates
required=$packages
need setfacl acl acl acl acl # for `become_user`
need ping iputils-ping iputils iputils iputils
install() {
    case ${packages:+$manager} in
        "") ;;
        2)
            apt-get update || true # a source of somebody else's may have expired
            DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends $packages
            apt-get clean ;;
        3) apk add $packages ;;
        4) "$(command -v dnf || command -v microdnf)" install --assumeyes $packages ;;
        5) pacman --sync --refresh --sysupgrade --needed --noconfirm $packages ;;
        *)
            echo "error: none of apt-get, apk, dnf, microdnf and pacman is there to get$packages" >&2
            return 1 ;;
    esac
}
[ -z "$trust" ] || sh -c "$trust" # the way to the mirrors may need it
if [ "$required" ]; then install; else (install) || true; fi
rm -f /etc/ssh/ssh_host_*
# What the image sets for its own program is there for whoever logs in as well, and as root by sudo.
if [ "$lang" ] && command -v locale >/dev/null && ! locale -a | grep -Eqix 'C[.]utf-?8'; then
    lang= # an old glibc
fi
if [ "$lang" ]; then
    settings="$settings \"LANG=$lang\""
    exports="${exports}export LANG=$lang
"
fi
mkdir -p /etc/ssh/sshd_config.d /etc/profile.d /etc/sudoers.d /usr/local/sbin
printf '%s\n' "HostKey /etc/ssh/ssh_host_ed25519_key" "PasswordAuthentication no" \
    "MaxSessions 1000" "MaxStartups 100" ${settings:+"SetEnv $settings"} \
    > /etc/ssh/sshd_config.d/00-vagrantp.conf
grep -q '^Include /etc/ssh/sshd_config.d/' /etc/ssh/sshd_config ||
    sed -i '1i Include /etc/ssh/sshd_config.d/*.conf' /etc/ssh/sshd_config
printf '%s' "$exports" > /etc/profile.d/vagrantp.sh
printf '%s\n' "${names:+Defaults env_keep += \"$names\"}" > /etc/sudoers.d/80-vagrantp
chmod 440 /etc/sudoers.d/80-vagrantp
# user.sh goes on with it, when it knows who logs in
touch /etc/environment
sed -i '/^PATH=/d' /etc/environment
printf '%s\n' "PATH=$path" >> /etc/environment
rm -f /etc/profile.d/00-vagrantp.sh
printf '%s' "$entry" > /usr/local/sbin/vagrantp-entry
chmod 755 /usr/local/sbin/vagrantp-entry
[ -z "$trust" ] || sh -c "$trust"
