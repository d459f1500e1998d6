# Has a guest trust certificate authorities besides its own: runs as root, with $authorities set before it (PEM,
# instance/certificates.py), "" for none. What an earlier run made goes first. Plain sh, BusyBox's programs.
set -eu
own=/etc/ssl/vagrantp.pem
conf=/etc/ssh/sshd_config.d/00-vagrantp.conf
names="NODE_EXTRA_CA_CERTS SSL_CERT_FILE CURL_CA_BUNDLE REQUESTS_CA_BUNDLE PIP_CERT GIT_SSL_CAINFO"
# The file with all certificates that the system trusts.
bundle() {
    for file in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt \
        /etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem /etc/ssl/cert.pem; do
        [ ! -s "$file" ] || { readlink -f "$file"; return; }
    done
    echo /etc/ssl/certs/ca-certificates.crt
}
# $1: a file, $2: lines at its end, in place of those of an earlier run
put() {
    touch "$1"
    sed -i '/^# vagrantp begins$/,/^# vagrantp ends$/d' "$1"
    [ "$2" ] || return 0
    [ -z "$(tail -c 1 "$1")" ] || echo >> "$1" # its last line had no end
    printf '%s\n' "# vagrantp begins" "$2" "# vagrantp ends" >> "$1"
}

mkdir -p /etc/ssl/certs
rm -f "$own"
[ -z "$authorities" ] || (umask 022 && printf '%s\n' "$authorities" > "$own")

# The system's store, which most programs read.
store=/usr/local/share/ca-certificates # Debian's and Alpine's, where the package may come later
if command -v update-ca-trust >/dev/null; then
    store=/etc/pki/ca-trust/source/anchors # Fedora's
    [ -d "$store" ] || store=/etc/ca-certificates/trust-source/anchors # Arch's
fi
mkdir -p "$store"
again= # to forget the earlier ones takes longer
for file in "$store"/vagrantp-*.crt; do
    [ ! -e "$file" ] || again=--fresh
    rm -f "$file"
done
printf '%s\n' "$authorities" | (umask 022 && awk -v store="$store" '
    /^-----BEGIN/ {file = sprintf("%s/vagrantp-%02d.crt", store, ++count)}
    file {print > file}
    /^-----END/ {close(file); file = ""}')
if command -v update-ca-trust >/dev/null; then
    update-ca-trust
elif command -v update-ca-certificates >/dev/null; then
    update-ca-certificates $again
else
    put "$(bundle)" "$authorities"
fi

# A Java with a store of its own, as images have it. That of a distribution has the system's.
for keytool in /opt/*/bin/keytool /opt/*/*/bin/keytool /usr/local/*/bin/keytool /usr/lib/jvm/*/bin/keytool; do
    cacerts=${keytool%/bin/keytool}/lib/security/cacerts
    [ -x "$keytool" ] && [ -f "$cacerts" ] && [ ! -L "$cacerts" ] || continue
    in_java() { "$keytool" "$@" -keystore "$cacerts" -storepass changeit; }
    number=1
    while in_java -delete -alias "vagrantp-$number" >/dev/null 2>&1; do number=$((number + 1)); done
    number=1
    for file in "$store"/vagrantp-*.crt; do
        [ ! -e "$file" ] || in_java -importcert -noprompt -alias "vagrantp-$number" -file "$file"
        number=$((number + 1))
    done
done

# What has a store of its own, or none, finds them by its variable: in commands, logins, under sudo.
exports= settings= pairs=
for name in ${authorities:+$names}; do
    value=$(bundle)
    [ "$name" != NODE_EXTRA_CA_CERTS ] || value=$own # node adds it to those that it brings
    pairs="$pairs$name=$value
"
    exports="${exports}export $name=$value
"
    settings="$settings \"$name=$value\""
done
[ ! -e "$conf" ] || sed -i "/^SetEnv /s| \"NODE_EXTRA_CA_CERTS=$own\".*\"GIT_SSL_CAINFO=[^\"]*\"||" "$conf"
if grep -qs '^SetEnv ' "$conf"; then # sshd takes one of them
    sed -i "s|^SetEnv .*|&$settings|" "$conf"
    pairs=
fi
put /etc/environment "${pairs%?}" # which sshd reads by PAM: else user.sh has made a SetEnv
rm -f /etc/profile.d/vagrantp-trust.sh /etc/sudoers.d/81-vagrantp-trust
[ "$authorities" ] || exit 0
mkdir -p /etc/profile.d /etc/sudoers.d
printf '%s' "$exports" > /etc/profile.d/vagrantp-trust.sh
printf '%s\n' "Defaults env_keep += \"$names\"" > /etc/sudoers.d/81-vagrantp-trust
chmod 440 /etc/sudoers.d/81-vagrantp-trust
