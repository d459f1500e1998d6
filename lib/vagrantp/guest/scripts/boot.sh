# Runs in a VM of our own image at every boot, as root, in the folder of its seed: before the network
# and before ssh. What is set once is the guest's own from then on.
set -eu
cd "$(dirname "$0")"
mkdir -p /run/systemd/network
for file in *.network; do
    [ ! -e "$file" ] || install -m 644 "$file" /run/systemd/network/
done
if [ ! -e /var/lib/vagrantp-seeded ]; then
    name=$(cat hostname)
    echo "$name" > /etc/hostname
    echo "$name" > /proc/sys/kernel/hostname
    printf '127.0.0.1 localhost\n127.0.1.1 %s\n::1 localhost ip6-localhost ip6-loopback\n' "$name" > /etc/hosts
    install -m 600 ssh_host_ed25519_key /etc/ssh/
    sh user.sh
    touch /var/lib/vagrantp-seeded
fi
# A service of its own goes on with it, only where the disk is larger than its last partition, the
# root file system: it takes a second or two.
cd /sys/class/block/vda
read -r start < vda2/start
read -r length < vda2/size
read -r size < size
[ $((size - start - length)) -lt 8192 ] || cp "$OLDPWD/grow_root.sh" /run/vagrantp-grow.sh # in sectors of 512 bytes
