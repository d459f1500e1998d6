# Runs in a guest as root: waits until cloud-init is done, and until the reboot or halt that it asked for cuts
# this off; called again after a reboot. At its end the result is in $seen, and in $said what a person should know.
seen=/var/lib/vagrantp/cloud-init.json
said=/var/lib/vagrantp/cloud-init.said
before=/var/lib/vagrantp/cloud-init.before # the result of a boot that ended in a reboot
instance=/var/lib/cloud/instance
command -v cloud-init >/dev/null || { echo "error: the guest has no cloud-init" >&2; exit 1; }
mkdir -p /var/lib/vagrantp
cloud-init status --wait >/dev/null || true # the result says more

# power_state begins once cloud-init's last process is gone; a power key there, or a command, takes a moment
count=0
while grep -qsz '/cloud-init$' /proc/[0-9]*/cmdline && [ "$count" -lt 60 ]; do
    sleep 1
    count=$((count + 1))
done
is_ending() {
    [ "$(systemctl is-system-running 2>/dev/null)" != stopping ] || return 0
    # within 15 minutes, else nobody should wait for it
    when=$(sed -n 's/^USEC=\([0-9]*\)[0-9]\{6\}$/\1/p' /run/systemd/shutdown/scheduled 2>/dev/null)
    [ -n "$when" ] && [ $((when - $(date +%s))) -lt 900 ]
}
if grep -qsE 'power_state|reboot|shutdown|poweroff|halt|init [06]' "$instance/user-data.txt"; then
    count=0
    until is_ending || [ "$count" = 8 ]; do
        sleep 1
        count=$((count + 1))
    done
fi
if is_ending; then
    [ ! -e "$instance/boot-finished" ] || cp /run/cloud-init/result.json "$before"
    sleep 1000
    printf '{"v1": {"errors": ["the guest does not shut down"]}}' > "$seen"
    exit 0
fi

{
    # what the file asks for, and nothing here does
    python3 - 2>/dev/null <<'END'
import json, os, yaml
from cloudinit import config, util

asked = yaml.safe_load(open("/var/lib/cloud/instance/cloud-config.txt").read()) or {}
has = util.read_conf_with_confd("/etc/cloud/cloud.cfg")
stages = ("cloud_init_modules", "cloud_config_modules", "cloud_final_modules")
listed = [one for stage in stages for one in asked.get(stage, has.get(stage)) or []]
names = [one[0] if isinstance(one, list) else one for one in listed]
runs = {"cc_" + name.replace("-", "_").removeprefix("cc_") for name in names}
folder = os.path.dirname(config.__file__)
schema = json.load(open(os.path.join(folder, "schemas", "schema-cloud-config-v1.json")))
modules = {}
for name, one in schema["$defs"].items():
    for key in one.get("properties", {}) if name.startswith("cc_") else ():
        modules.setdefault(key, set()).add(name)
for key in sorted(asked):
    if key in modules and not modules[key] & runs:
        print(f"{key}: the image leaves out the module that would act on it")
END
    if grep -qs 'cloud-init schema --system' /var/log/cloud-init.log; then
        cloud-init schema --system 2>&1 | grep 'schema errors: ' | head -n 5
    fi
} > "$said"
if [ -e "$before" ] && ! grep -q '"errors": \[\]' "$before"; then
    mv "$before" "$seen"
else
    cp /run/cloud-init/result.json "$seen"
fi
