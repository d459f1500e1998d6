# Makes the root file system fill its disk, through partitions, LVM and file system. Runs as root in
# the guest, with a plain sh; a second run changes nothing. What lies behind the root partition
# stays: then it fills what is free before it.
set -eu

name_of() { basename "$(readlink -f "$1")"; }

# $1: name of a partition, as vda2
grow_partition() {
    [ -e "/sys/class/block/$1/partition" ] || return 0 # the whole disk is used
    path=$(readlink -f "/sys/class/block/$1")
    disk=$(basename "${path%/*}")
    number=$(cat "$path/partition")
    # In an MBR table a logical partition ends where the extended one around it does.
    if [ "$number" -gt 4 ] && [ "$(blkid -p -s PTTYPE -o value "/dev/$disk")" = dos ]; then
        for other in "/sys/class/block/$disk"/*/partition; do
            [ "$(cat "${other%/*}/size")" != 2 ] || resize "$disk" "$(cat "$other")"
        done
    fi
    resize "$disk" "$number"
}

# $1: name of a disk, $2: number of a partition on it
resize() {
    if command -v sfdisk >/dev/null; then
        echo ',+' | sfdisk --quiet --no-reread --force -N "$2" "/dev/$1" || return 0
        partx --update --nr "$2" "/dev/$1"
    else
        growpart "/dev/$1" "$2" || [ $? = 1 ] # 1: it fills the disk already
    fi
}

set -- $(df -Pk / | awk 'NR == 2 {print $1}') $(awk '$2 == "/" {type = $3} END {print type}' /proc/mounts)
device=$1 type=$2
root=$(name_of "$device")
if [ -d "/sys/class/block/$root/dm" ]; then
    for slave in "/sys/class/block/$root/slaves"/*; do
        grow_partition "${slave##*/}"
        pvresize --quiet "/dev/${slave##*/}"
    done
    lvextend --quiet --extents +100%FREE "$device" || true # nothing is free
else
    grow_partition "$root"
fi
case $type in
    ext[234]) resize2fs "$device" ;;
    xfs) xfs_growfs / ;;
    btrfs) btrfs filesystem resize max / ;;
    *) echo "error: it is a $type, which is not known here" >&2; exit 1 ;;
esac
