# Runs in a VM of a cloud image, as root, at every boot before cloud-init's modules, with $key set
# before it and user.sh behind it: what is set once is the guest's own from then on.
[ ! -e /var/lib/vagrantp-seeded ] || exit 0
(umask 077 && printf '%s\n' "$key" > /etc/ssh/ssh_host_ed25519_key)
ssh-keygen -y -f /etc/ssh/ssh_host_ed25519_key > /etc/ssh/ssh_host_ed25519_key.pub
touch /var/lib/vagrantp-seeded
