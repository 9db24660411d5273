# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# The table of contents; the work is done in tests/tools/. `make help` lists the targets.

# Any Python 3.11 or newer, to start with; tests/tools/pythons.py then looks for the one that .venv gets.
CANDIDATES := python3 python3.14 python3.13 python3.12 python3.11 $(wildcard $(HOME)/.pyenv/versions/*/bin/python3)
PYTHON := $(shell for p in $(CANDIDATES); do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
RUN = $(if $(PYTHON),$(PYTHON) -B tests/tools/run.py,@echo 'No Python 3.11 or newer was found: install one.' >&2; false)

.DEFAULT_GOAL := help
.PHONY: help demo test lint unit sanity ansible-lint docs license kernel kernel-test sanitize fuzz faults guests integration format bench clean

help:  ## this list
	@sed -n 's/^\([a-z][a-z% -]*\):.*## /\1|/p' $(MAKEFILE_LIST) | while IFS='|' read -r name what; do \
		printf '%-14s %s\n' "$$name" "$$what"; done

demo:  ## set up .venv, install the collection into it, run the demo (ARGS="-e shop_version_ok=true" for the good update)
	@$(RUN) demo $(ARGS)

test:  ## all stages below; as root also installs the Debian packages that they need
	@$(RUN) check

lint:  ## ruff, mypy
	@$(RUN) check lint mypy

unit:  ## unit tests, on every Python and ansible-core (ARGS="-k word" goes to pytest)
	@$(RUN) check unit -- $(ARGS)

sanity:  ## ansible-test sanity, on both lines of ansible-core
	@$(RUN) check sanity

ansible-lint:  ## ansible-lint, production profile
	@$(RUN) check ansible-lint

docs:  ## antsibull-docs, antsibull-changelog
	@$(RUN) check docs

license:  ## every file has a license and a copyright (reuse)
	@$(RUN) check license

kernel:  ## build the native kernel for every platform (ARGS="--only x86_64-linux-gnu"); commit what it changes
	@$(RUN) kernel $(ARGS)

kernel-test:  ## build it again elsewhere and compare, and see that it fits every host
	@$(RUN) check kernel

sanitize:  ## the kernel's own tests under AddressSanitizer, UBSan and ThreadSanitizer, and a little of fuzz
	@$(RUN) check sanitize -- $(ARGS)

fuzz:  ## feed it damaged files for a minute (ARGS="--seconds 3600 --only listing")
	@$(RUN) fuzz $(ARGS)

faults:  ## every verb killed at calls that change something, and refused some (ARGS="--points 0": at and of every call)
	@$(RUN) check faults -- $(ARGS)

guests:  ## playbooks over SSH, against Debian guests under QEMU and 20 hosts in namespaces, as root (ARGS="-k reboot")
	@$(RUN) check guests -- $(ARGS)

integration:  ## real playbooks, on both lines of ansible-core
	@$(RUN) check integration

unit-% sanity-% integration-%:  ## one stage of these, as their lines name it: make unit-python3.9 ARGS="-k word"
	@$(RUN) check $@ -- $(ARGS)

format:  ## let ruff format the code and mend what it can
	@test -x build/venv-checks/bin/ruff || $(RUN) check lint
	build/venv-checks/bin/ruff format --quiet .
	build/venv-checks/bin/ruff check --fix --quiet .

bench:  ## measured beside cp, rsync, git, restic and borg, as root (ARGS="--files 20000 --rounds 1 --peers cp,rsync")
	@$(RUN) bench $(ARGS)

clean:  ## remove all that was made here
	rm -rf .venv build
