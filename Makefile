# What can be done with this tree. Each target says what it skips, and why.

CARGO   ?= cargo
PREFIX  ?= /usr/local
DESTDIR ?=
# How the program is built that is installed and packed: release, or dev (quick, for tests).
PROFILE ?= release
export PROFILE

# Where cargo builds; follows CARGO_TARGET_DIR.
TARGET  := $(or $(CARGO_TARGET_DIR),target)

.PHONY: help demo test check bench test-nodes test-fleet test-crashes test-storage model build man install install-boards uninstall deb test-deb test-guide test-recipes test-pages test-terminal test-alerts test-provision dist test-dist site clean

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

demo: ## The main job, for real: install, update, roll back, survive a kill (no root needed; builds first)
	@examples/demo.sh

test: ## Install what tests need (apt, when root) and run all tests that this machine can run
	@tests/needs.sh
	@tests/run.sh

check: ## Format, lints, tests, documentation, dependencies: what a change must pass
	@.ci/run

bench: ## Measure against tar, rsync, ostree, casync, nix and btrfs receive, side by side (root; an hour, 25 GB)
	@benches/run

test-nodes: ## Tests on real systemd nodes (root; skips out loud where the machine can't)
	@tests/run.sh nodes

test-fleet: ## Tests of whole fleets on real storage and with whole processes
	@tests/run.sh fleet

test-storage: ## One suite on NFS, GlusterFS, sshfs, etcd, an object store (root; minutes each; KIND=sshfs for one)
	@tests/run.sh storage $(KIND)

test-crashes: ## Updates stopped before each change, second faults, two commands at once, full disks (root; hours)
	@tests/run.sh crashes

model: ## Explore the fleet protocol's states (minutes)
	@tests/run.sh model

build: ## The program, optimised
	$(CARGO) build --profile $(PROFILE) --locked -p cutover

man: ## Man pages and completions, into $(TARGET)/generated
	@packaging/generate.sh "$(TARGET)/generated"

install: build man ## Install below $(DESTDIR)$(PREFIX)
	@packaging/install.sh "$(TARGET)" "$(DESTDIR)" "$(PREFIX)"

install-boards: ## Install the programs for boards in etcd and object stores (their dependencies are many: minutes)
	$(CARGO) build --release --locked -p cutover-board-etcd -p cutover-board-object
	install -D -m 755 "$(TARGET)/release/cutover-board-etcd" "$(DESTDIR)$(PREFIX)/bin/cutover-board-etcd"
	install -D -m 755 "$(TARGET)/release/cutover-board-object" "$(DESTDIR)$(PREFIX)/bin/cutover-board-object"

uninstall: ## Remove what install put there; applications are left alone
	@packaging/uninstall.sh "$(DESTDIR)" "$(PREFIX)"

deb: build man ## A Debian package, into $(TARGET)/debian
	@packaging/deb.sh "$(TARGET)"

test-deb: deb ## Install, upgrade and purge the package in a fresh Debian root (root, mmdebstrap)
	@packaging/test-deb.sh "$(TARGET)"/debian/cutover_*.deb

test-guide: deb ## README's ten-minute guide, word by word, on a real systemd node (root)
	@tests/nodes/guide "$$(ls "$(TARGET)"/debian/cutover_*.deb)"

test-recipes: ## The recipes of docs/recipes.md, word by word, on a real systemd node (root; nginx, PHP, Python, Node.js, podman)
	$(CARGO) build --quiet --locked -p cutover
	@tests/nodes/recipes "$(TARGET)/debug/cutover"

test-pages: ## docs/publishing.md and docs/fleet.md, word by word, on real systemd nodes (root; docker-registry, openssl)
	$(CARGO) build --quiet --locked -p cutover
	@tests/nodes/pages "$(TARGET)/debug/cutover"

test-terminal: ## What a person sees and types, in a real terminal (tmux, python3; zsh and fish where they are there)
	@tests/terminal/run

test-alerts: ## A real Prometheus, in each state of a node: rules and dashboard (Debian's prometheus, python3)
	$(CARGO) build --quiet --locked -p cutover
	promtool check rules packaging/prometheus/cutover.rules.yml
	promtool test rules packaging/prometheus/cutover.test.yml
	@python3 tests/alerts.py "$(TARGET)/debug/cutover"

test-provision: deb ## The Ansible role and the cloud-init example, as they stand, on real systemd nodes (root)
	$(CARGO) build --quiet --locked -p cutover
	@tests/nodes/provision "$$(ls "$(TARGET)"/debian/cutover_*.deb)" "$(TARGET)/debug/cutover"

dist: ## What is published, into $(TARGET)/dist: archive, packages, SHA256SUMS; the same bytes each time (DIST_TARGET: another machine's)
	@packaging/dist.sh "$(TARGET)" $(DIST_TARGET)

test-dist: ## What make dist made: each piece verified, installed in a fresh root, used, removed (root, mmdebstrap)
	@packaging/test-dist.sh "$(TARGET)/dist"

site: ## A site of the documentation, into $(TARGET)/site (needs mdbook)
	@packaging/site.sh "$(TARGET)/site"

clean: ## Remove what was built
	$(CARGO) clean
