# Runs in a VM as root, with $mode set before it (commands.mount_inside): the project folder is at
# /project from now on, or is not. What is in fstab a boot does by itself.
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
