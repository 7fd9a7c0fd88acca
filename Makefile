# make demo   a deleted file, alive again, on a disk of this machine
# make test   the whole test suite
# Both install what is missing on a fresh Debian 12 machine with Rust (as root).

export PATH := $(or $(CARGO_HOME),$(HOME)/.cargo)/bin:$(PATH):/usr/sbin:/sbin
PROFILE ?= default
TARGET := $(or $(CARGO_TARGET_DIR),target)
FUZZ_SECONDS ?= 30

.PHONY: help demo test lint docs bench fuzz install clean
help:
	@sed -n 's/^# //p;/^$$/q' Makefile
	@echo 'also: make lint docs bench fuzz install clean'

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
	cargo build --release -p tidemark -p tidemark-io-filter
	cargo run --release -p tidemark-bench

fuzz:
	@scripts/install ci
	tests/fuzz/run.sh $(FUZZ_SECONDS)

# The binary, its man pages and completions, below PREFIX.
PREFIX ?= /usr/local
install:
	cargo build --release -p tidemark
	install -D -m 755 $(TARGET)/release/tidemark $(DESTDIR)$(PREFIX)/bin/tidemark
	$(TARGET)/release/tidemark man $(DESTDIR)$(PREFIX)/share/man/man1
	install -d $(DESTDIR)$(PREFIX)/share/bash-completion/completions
	$(TARGET)/release/tidemark completions bash > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/tidemark

clean:
	cargo clean
	rm -rf .tools
