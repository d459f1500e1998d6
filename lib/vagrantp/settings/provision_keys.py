"""The keys about provisioning: PROVISION_SCRIPT and PROVISION_VARS."""

from __future__ import annotations

from voluptuous import All

from vagrantp.settings import files, parsers
from vagrantp.settings.schema import AT_ONCE, key

PROVISION_SCRIPT = key(
    "path(s), base or agent, comma-separated",
    "what sets the guest up: a playbook (.yml), a script, or a built-in playbook",
    "base,setup.yml,./install",
    All(parsers.items, (parsers.provisioner,)),
    locate=files.provisioners,
    hint="paths start from the folder of this file; quote one that holds a comma",
    aliases=("PROVISIONING_PLAYBOOK", "PLAYBOOK"),
    applies=AT_ONCE,
    verified="provisioned",
)
PROVISION_VARS = key(
    "path",
    "extra variables for the playbook, in YAML or JSON",
    "vars.yml",
    parsers.path,
    locate=files.variables,
    hint="a path starts from the folder of this file",
    applies=AT_ONCE,
    verified="provisioned",
)
