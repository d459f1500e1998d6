# Runs in a VM as root, with $mode set before it (shell.mount_inside): from now on the project folder
# is at /project, or is not. Boots do the same, by fstab.
set -eu
sed -i '\#^project /project virtiofs #d' /etc/fstab
if grep -q ' /project virtiofs ' /proc/mounts; then
    umount /project
fi
if [ "$mode" != none ]; then
    mkdir -p /project
    echo "project /project virtiofs $mode,nosuid,nodev,nofail 0 0" >> /etc/fstab
    mount /project
fi
