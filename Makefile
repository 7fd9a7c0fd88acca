# make demo   a deleted file, alive again, on a disk of this machine
# make test   the whole test suite
# Both install what is missing on a fresh Debian 12 machine with Rust (as root).

export PATH := $(or $(CARGO_HOME),$(HOME)/.cargo)/bin:$(PATH):/usr/sbin:/sbin
PROFILE ?= default
TARGET := $(or $(CARGO_TARGET_DIR),target)
FUZZ_SECONDS ?= 30

.PHONY: help demo test lint docs bench fuzz mutants conformance providers install install-built install-c header clean
help:
	@sed -n 's/^# //p;/^$$/q' Makefile
	@echo 'also: make lint docs bench fuzz mutants conformance install header providers clean'

demo:
	@scripts/install demo
	@cargo build --quiet -p tidemark
	@scripts/demo $(TARGET)/debug/tidemark

test:
	@scripts/install test
	cargo nextest run --workspace --profile $(PROFILE)
	cargo test --workspace --doc --quiet

lint:
	@scripts/install ci
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo deny --log-level error check licenses bans sources

docs:
	RUSTDOCFLAGS='-D warnings -A rustdoc::private-intra-doc-links' cargo doc --workspace --no-deps --document-private-items

bench:
	@scripts/install test
	cargo build --release -p tidemark -p tidemark-io-filter -p tidemark-bench
	$(TARGET)/release/tidemark-bench

fuzz:
	@scripts/install ci
	tests/fuzz/run.sh $(FUZZ_SECONDS)

# Takes twenty rules of the specification out of reader and maintainer, one at a time, and shows that tests notice: a build each,
# some 12 min.
mutants:
	@scripts/install test
	python3 tests/spec/mutants.py $(RULES)

# Every promise that a store has to keep, tried on one: memory, file, seaweedfs, seaweedfs-tls, azurite, ceph, ceph-versioned,
# rclone (which breaks them), or the URL of a store of yours.
STORE ?= seaweedfs
conformance:
	@tests/stores/install.sh $(filter ceph,$(subst -, ,$(STORE)))
	cargo run --quiet -p tidemark-conformance --bin check-store -- '$(STORE)'

# The table of docs/providers.md, by asking the stores.
providers:
	cargo build --quiet -p tidemark-conformance --bin check-store
	tests/stores/providers.sh $(TARGET)/debug/check-store

# The binary, its man pages and completions, and what C programs need, below PREFIX.
PREFIX ?= /usr/local
install:
	cargo build --release -p tidemark -p tidemark-c
	$(MAKE) --no-print-directory install-built BUILT=$(TARGET)/release

# All of that, as it was built in BUILT.
PROGRAM ?= $(BUILT)/tidemark
install-built: install-c
	install -D -m 755 $(PROGRAM) $(DESTDIR)$(PREFIX)/bin/tidemark
	$(PROGRAM) man $(DESTDIR)$(PREFIX)/share/man/man1
	install -d $(DESTDIR)$(PREFIX)/share/bash-completion/completions
	$(PROGRAM) completions bash > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/tidemark

# The library for C, as it was built in BUILT.
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
LIB := $(DESTDIR)$(PREFIX)/lib
install-c:
	install -D -m 755 $(BUILT)/libtidemark.so $(LIB)/libtidemark.so.$(VERSION)
	ln -sf libtidemark.so.$(VERSION) $(LIB)/libtidemark.so.0
	ln -sf libtidemark.so.0 $(LIB)/libtidemark.so
	install -D -m 644 $(BUILT)/libtidemark.a $(LIB)/libtidemark.a
	install -D -m 644 tools/c-abi/include/tidemark.h $(DESTDIR)$(PREFIX)/include/tidemark.h
	install -D -m 644 tools/c-abi/tidemark.3 $(DESTDIR)$(PREFIX)/share/man/man3/tidemark.3
	install -d $(LIB)/pkgconfig
	sed 's,@PREFIX@,$(PREFIX),;s,@VERSION@,$(VERSION),' tools/c-abi/tidemark.pc.in > $(LIB)/pkgconfig/tidemark.pc

# The header for C, after a change of tools/c-abi/src. A test holds it to that.
header:
	cbindgen --quiet tools/c-abi --output tools/c-abi/include/tidemark.h

clean:
	cargo clean
	rm -rf .tools
