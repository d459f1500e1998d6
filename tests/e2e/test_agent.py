"""`fab agent`, with a shell script in place of an agent; and one agent for real."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import termios
from contextlib import suppress
from pathlib import Path
from urllib.request import urlopen

import pytest
from vagrantp.settings.agents import AGENTS

from tests.conftest import CONTAINER, VM, MakeProject, Project
from tests.e2e.conftest import guest, status, until
from tests.e2e.test_faults import state_of

STAND_IN = """\
#!/bin/sh
[ "$1" != --print ] || { cat; echo "in $PWD with $TOKEN" >&2; exit 42; }
echo "it's $(stty size) $TERM with $TOKEN"
while read -r line; do
    echo "got $line"
    [ "$line" != fail ] || exit 3
done
"""


# An agent that has its login called back.
CALLED_BACK = """\
#!/bin/sh
cat ~/.codex/auth.json
python3 -m http.server 1455 --bind 127.0.0.1 > /dev/null 2>&1 &
read -r _
kill $!
"""
PORT = 1455
# What an agent shows first; what it says of its version, and of a prompt without a login.
SAYS = {
    "claude": ("Claude Code", r"\(Claude Code\)", "Please run /login"),
    "codex": ("Welcome to Codex", r"^codex-cli \d", "OpenAI Codex v"),
    "opencode": ("Ask anything", r"^\d+\.\d+\.\d+$", "> build"),
}


class Terminal:
    """A terminal of this host on which a verb runs."""

    def __init__(self, app: Project, rows: int, columns: int, *arguments: str) -> None:
        self.screen, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.run = subprocess.Popen(
            app.argv(arguments),
            cwd=app.folder,
            env={**app.environment, "TERM": "xterm-256color"},
            stdin=inner,
            stdout=inner,
            stderr=inner,
            start_new_session=True,
        )
        os.close(inner)

    def type(self, text: str) -> None:
        os.write(self.screen, text.encode())

    def close(self) -> None:
        """End the verb as a terminal that is closed does."""
        with suppress(ProcessLookupError):
            os.killpg(self.run.pid, signal.SIGHUP)
        self.run.wait(30)
        os.close(self.screen)


def shown(app: Project, session: str, text: str) -> str:
    """Return what a session shows, once that has `text` in it."""
    seen = ""

    def has_it() -> bool:
        nonlocal seen
        seen = app.fab("ssh", "--command", f"tmux capture-pane -p -t ={session}:").stdout
        return text in seen

    until(has_it, 60)
    return seen


def test_a_stand_in(guests: MakeProject) -> None:
    app = guests("agents").write(
        {**CONTAINER, "AGENT": "claude,codex", "MOUNT": "rw", "AGENT_ENV": "TOKEN"}
    )
    secrets = Path(app.environment["XDG_CONFIG_HOME"]) / "vagrantp/secrets.env"
    secrets.parent.mkdir(parents=True, exist_ok=True)
    secrets.write_text("TOKEN='hunter2 $x'\n")
    assert app.fab("validate").returncode == 2  # others may read it
    secrets.chmod(0o600)
    assert app.fab("agent").returncode == 8
    done = app.fab("up", "--no-provision")
    assert done.returncode == 0, done.stderr
    done = app.fab("agent", "--prompt", "hello")
    assert (done.returncode, done.stdout) == (127, "")
    assert done.stderr == "error: the guest has no claude: fab provision installs it\n"
    script = "sudo tee /usr/local/bin/claude > /dev/null && sudo chmod 755 /usr/local/bin/claude"
    assert app.fab("ssh", "--command", script, stdin=STAND_IN.encode()).returncode == 0
    guest(app, "sudo apt-get update -q && sudo apt-get install -qy --no-install-recommends tmux")

    prompt = "-n it's\n$(id) größer \x01"
    done = app.fab("agent", "--prompt", prompt)
    assert (done.returncode, done.stdout) == (42, prompt)
    assert done.stderr == "in /project with hunter2 $x\n"
    done = app.fab("agent")
    assert (done.returncode, done.stdout) == (8, "")
    assert "fab agent needs a terminal" in done.stderr
    for wrong in (["--agent=opencode"], ["--session=a:b"], ["--timeout=5"]):
        assert app.fab("agent", *wrong).returncode == 2

    one = Terminal(app, 24, 80, "agent")
    assert "it's 23 80 tmux-256color with hunter2 $x" in shown(app, "claude", "it's")
    guest(app, "! tmux show-environment -g TOKEN; ! ls /dev/shm | grep vagrantp")
    assert not subprocess.run(["grep", "-r", "hunter2", state_of(app)], check=False).stdout
    one.type("a word\n")
    assert "got a word" in shown(app, "claude", "got a word")
    one.close()
    two = Terminal(app, 50, 200, "agent")
    two.type("again\n")
    assert "got a word" in shown(app, "claude", "got again")
    guest(app, "tmux display-message -p -t =claude: '#{window_width}' | grep -x 200")
    other = Terminal(app, 24, 80, "agent", "--session", "other")
    assert "with hunter2 $x" in shown(app, "other", "it's")
    guest(app, "! ls /dev/shm | grep vagrantp")
    assert status(app)["sessions"] == ["claude", "other"]
    assert re.search(r" 2 +/", app.fab("ls").stdout)
    two.type("fail\n")
    assert "got fail\n\nclaude ended with exit status 3." in shown(app, "claude", "ended with")
    two.type("\n")
    assert two.run.wait(30) == 0
    for terminal in (two, other):
        terminal.close()

    a_login_from_another(app, guests("source"))

    # who asked is gone: so is the agent
    long = "sudo tee /usr/local/bin/claude > /dev/null"
    body = b"#!/bin/sh\necho begun > ~/begun; exec sleep 4242\n"
    assert app.fab("ssh", "--command", long, stdin=body).returncode == 0
    run = app.start("agent", "--prompt", "go on")
    until(lambda: app.fab("ssh", "--command", "cat ~/begun").returncode == 0, 60)
    run.send_signal(signal.SIGINT)
    assert run.wait(30) != 0
    until(lambda: app.fab("ssh", "--command", "pgrep -xf 'sleep 4242'").returncode == 1, 60)

    guest(app, "tmux new-session -d -s left; tmux new-session -d -s right; mkdir -p tool/.git")
    done = app.fab("rm")
    lost = ["  its sessions: left, other, right", "  /home/vagrant/tool: git cannot read it"]
    assert (done.returncode, done.stderr.splitlines()[1:-1]) == (8, lost)
    done = app.fab("stop")
    assert done.returncode == 0, done.stderr
    assert "  its sessions ended: left, other, right\n" in done.stderr
    assert status(app)["sessions"] == []


def a_login_from_another(app: Project, source: Project) -> None:
    """See that a login is copied after a yes, and that its port leads to the guest meanwhile."""
    done = source.write({**CONTAINER, "AGENT": "codex"}).fab("up", "--no-provision")
    assert done.returncode == 0, done.stderr
    name = status(source)["instance"]
    script = "sudo tee /usr/local/bin/codex > /dev/null && sudo chmod 755 /usr/local/bin/codex"
    assert app.fab("ssh", "--command", script, stdin=CALLED_BACK.encode()).returncode == 0
    asked = ("agent", "--agent", "codex", "--login-from")
    for wrong in ("nobody-12345678", status(app)["instance"], "x"):
        assert app.fab(*asked, wrong).returncode == 8
    assert "has no login of codex" in app.fab(*asked, name).stderr
    write = "mkdir ~/.codex && cat > ~/.codex/auth.json"
    assert source.fab("ssh", "--command", write, stdin=b'{"tokens": "abc"}').returncode == 0
    done = app.fab(*asked, name)
    assert (done.returncode, "no login was copied" in done.stderr) == (8, True)
    guest(app, "! ls ~/.codex")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", PORT))
        taken.listen()
        terminal = Terminal(app, 24, 80, *asked, name)
        terminal.type("y\n")
        shown(app, "codex", '{"tokens": "abc"}')
        terminal.close()
    assert guest(app, "stat -c %a ~/.codex/auth.json") == "600\n"
    (app.folder / "nonce").write_text("it is the guest")
    terminal = Terminal(app, 24, 80, "agent", "--agent", "codex")

    def answers() -> bool:
        with suppress(OSError), urlopen(f"http://127.0.0.1:{PORT}/nonce", timeout=5) as found:
            return bool(found.read() == b"it is the guest")
        return False

    until(answers, 60)
    terminal.type("\n")
    assert terminal.run.wait(30) == 0
    terminal.close()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", PORT), 5).close()


@pytest.mark.soak
@pytest.mark.parametrize("values", [CONTAINER, {**VM, "DISK": 5}], ids=["container", "vm"])
@pytest.mark.parametrize("name", AGENTS)
def test_a_real_agent(guests: MakeProject, name: str, values: dict[str, object]) -> None:
    app = guests("real")
    bundle = Path("/etc/ssl/certs/ca-certificates.crt").read_text()  # this host's own come last
    authorities = re.findall(r"-----BEGIN.+?-----END CERTIFICATE-----\n", bundle, re.DOTALL)
    (app.folder / "ca.pem").write_text("".join(authorities[-20:]))
    own = {"AGENT": name, "MEMORY": 2048, "CA_CERTS": "ca.pem"}
    done = app.write({**values, **own}).fab("up")
    assert done.returncode == 0, done.stderr
    text, version, answer = SAYS[name]
    assert re.search(version, guest(app, f"{AGENTS[name].command} --version"))
    assert guest(app, "node --version") >= "v22"
    assert guest(app, "uv --version").startswith("uv ")
    for rows, columns in ((24, 80), (50, 200)):
        session = f"{name}{columns}"
        terminal = Terminal(app, rows, columns, "agent", "--agent", name, "--session", session)
        assert text in shown(app, session, text)
        terminal.close()
    done = app.fab("agent", "--prompt", "hello", "--timeout", "1")
    assert done.returncode != 0
    assert answer in done.stdout + done.stderr
    assert app.fab("verify").returncode == 0
    assert app.fab("provision").returncode == 0
