# Runs in a new guest as root, with $zone, this host's time zone or "", set before it. What somebody sets in the
# guest later stays; a cloud-config's own comes later.
if [ "$zone" ] && [ ! -e /var/lib/vagrantp/zone ]; then
    mkdir -p /var/lib/vagrantp
    echo "$zone" > /var/lib/vagrantp/zone
    if [ -e "/usr/share/zoneinfo/$zone" ]; then
        ln -sf "/usr/share/zoneinfo/$zone" /etc/localtime
        [ ! -e /etc/timezone ] || echo "$zone" > /etc/timezone # Debian's
    fi
fi
