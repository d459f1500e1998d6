"""ansible-playbook as vagrantp runs it: `play.py FOLDER SOCKET EVENTS GALAXY ARGUMENT…`.

FOLDER and SOCKET: where the kept ssh connection of the guest is; EVENTS: the file that
callbacks/vagrantp.py writes; GALAXY: a folder of `roles` and `ansible_collections`, "" for none.
What a person's ansible.cfg says stays as it is, since nothing here is set in the environment that
it would have a say in.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    """Become ansible-playbook."""
    folder, socket, events, galaxy, *arguments = sys.argv[1:]
    os.environ["VAGRANTP_EVENTS"] = events
    # A path that is never too long for a socket (unix(7)), as the folder's own may be.
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    os.environ["ANSIBLE_SSH_CONTROL_PATH"] = f"/proc/{os.getpid()}/fd/{descriptor}/{socket}"
    # Ansible's workers are in sessions of their own; so they end with it, however it ends.
    prctl = ctypes.CDLL(None).prctl
    os.register_at_fork(after_in_child=lambda: prctl(PR_SET_PDEATHSIG, signal.SIGKILL))
    if galaxy:
        sys.path.append(galaxy)  # ansible looks for collections there as well
    from ansible.cli.playbook import PlaybookCLI  # first of ansible's: it sets the others up

    # isort: split
    from ansible import constants
    from ansible.plugins.loader import callback_loader

    callback_loader.add_directory(str(Path(__file__).with_name("callbacks")))
    if galaxy:
        constants.DEFAULT_ROLES_PATH.append(f"{galaxy}/roles")
    PlaybookCLI.cli_executor(["ansible-playbook", *arguments])


if __name__ == "__main__":
    main()
