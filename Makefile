# Python 3.11 or newer, with venv: the first of these that is both makes .venv.
SUDO := $(if $(filter-out 0,$(shell id -u)),sudo)
make_venv = for python in python3 python3.14 python3.13 python3.12 python3.11; do \
  $$python -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && \
  exec $$python -m venv .venv; done; echo 'vagrantp needs Python 3.11 or newer, with venv' >&2; exit 1
install_python = if command -v apt-get >/dev/null; then $(SUDO) apt-get update; $(SUDO) apt-get install --yes python3-venv; \
  elif command -v pacman >/dev/null; then $(SUDO) pacman --sync --needed --noconfirm python; \
  else $(SUDO) dnf install --assumeyes python3; fi
install_strace = if command -v apt-get >/dev/null; then $(SUDO) apt-get install --yes strace; \
  elif command -v pacman >/dev/null; then $(SUDO) pacman --sync --needed --noconfirm strace; \
  else $(SUDO) dnf install --assumeyes strace; fi
# A newer Python of the host, as after an upgrade of Debian, finds nothing in a .venv of the older one.
is_older = [ -e .venv/bin/pip ] && found=$$(.venv/bin/python -c \
  'import sys; print("python%d.%d" % sys.version_info[:2])') && [ ! -d ".venv/lib/$$found" ]
$(if $(DRY),,$(shell $(is_older) && rm -rf .venv))
# DRY=1 shows what it would do.
chore = .venv/bin/python -m vagrantp.make $(if $(DRY),--dry)

# A worker more than there are processors, as some tests wait.
parallel = --numprocesses=$$(($$(nproc) + 1)) --maxprocesses=6 --dist=worksteal
# Plain at first: each worker would rewrite each assertion of a fresh checkout. What failed runs once more, to
# show the values.
fast = -m 'not slow' tests/lint.py tests/unit tests/contract
# Of tests/e2e/test_bed.py: built while the tests run that make no guest.
boxes = .pytest_cache/d/boxes

# Each of a hundred processes would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE

.NOTPARALLEL:
.PHONY: setup demo test check e2e soak hosts attacks-old mutations bench clean lint docs link link-global images uninstall

setup: .venv/installed # the virtual environment, and the host: packages, services
	$(SUDO) env LC_ALL=C.UTF-8 .venv/bin/ansible-playbook --inventory localhost, playbooks/host.yml \
	  $(if $(CONTAINER_STORE),--extra-vars 'container_store=$(CONTAINER_STORE)')

demo: setup # a VM and a container, from nothing to nothing
	tests/demo

test: .venv/installed-dev lint setup # everything, with 10,000 generated examples
	@command -v strace >/dev/null || { $(install_strace); }
	@mkdir -p $(boxes); .venv/bin/python -m tests.boxes.bed bookworm $(boxes) & \
	export VAGRANTP_EXAMPLES=10000; \
	.venv/bin/pytest $(parallel) tests/unit tests/contract; status=$$?; \
	wait; .venv/bin/pytest tests/e2e tests/attacks && exit $$status

check: .venv/installed-dev # half a minute, without root, libvirt or Podman
	.venv/bin/ruff check && .venv/bin/ruff format --check
	.venv/bin/python -m compileall -q lib
	.venv/bin/pytest $(parallel) --assert=plain $(fast) || \
	  { .venv/bin/pytest --last-failed $(fast); exit 1; }

e2e: .venv/installed-dev # real VMs and containers
	.venv/bin/pytest tests/e2e

soak: .venv/installed-dev # the long tests
	.venv/bin/pytest -m soak

hosts: # other hosts, in namespaces: Debian 12, 13 and sid; an upgrade of vagrantp, and one of Debian
	tests/hosts/features bookworm
	tests/hosts/features trixie
	-tests/hosts/features sid # it moves, so it fails nothing
	tests/hosts/upgrade
	tests/hosts/release

attacks-old: # tests/attacks against the version before them, in a host of its own: what fails there
	tests/attacks/old

mutations: .venv/installed-dev # each line of the packet filter removed in turn, in namespaces; a minute
	.venv/bin/python -m tests.attacks.mutations

bench: .venv/installed-dev # how long it takes, beside what one would type without it; writes docs/benchmarks.md
	.venv/bin/python -m tests.bench.bench

lint: .venv/installed-dev
	.venv/bin/ruff check && .venv/bin/ruff format --check && .venv/bin/mypy

docs: .venv/installed # .env.example and the tables of keys in docs/, from settings/keys.py
	@$(chore) docs

# As it was typed: a $ in it is no variable of make.
link: override export ROOT := $(value ROOT)
link: .venv/installed # plain `fab` in every folder below ROOT, by links that replace nothing
	@$(chore) link --root="$$ROOT"

link-global: .venv/installed # plain `fab` in every folder, by ~/.fabric.yaml
	@$(chore) link-global

images: .venv/installed # base images with the packages of today; running guests keep theirs
	@$(chore) images

uninstall: .venv/installed # removes images, networks, links, our folders; asks first, or YES=1
	@$(chore) uninstall $(if $(YES),--yes)

clean: # back to a fresh checkout; the host stays set up
	find lib tests -name __pycache__ -prune -exec rm -rf {} +
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis lib/*.egg-info

.venv/bin/pip:
	@($(make_venv)) 2>/dev/null || { $(install_python); $(make_venv); }

.venv/installed: pyproject.toml | .venv/bin/pip
	.venv/bin/pip install -qq --editable . && touch $@

.venv/installed-dev: pyproject.toml | .venv/bin/pip
	.venv/bin/pip install -qq --editable '.[dev]' && touch .venv/installed $@
