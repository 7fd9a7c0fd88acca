#!/bin/sh
# Fuzzes every decoder: run.sh [SECONDS for each target, default 30] [TARGET ...]
#
# Seeds are the golden vectors. A finding stays in artifacts/TARGET; run the printed binary on it to see it again.
# cargo-fuzz wants a nightly compiler; RUSTC_BOOTSTRAP lets the project's own stable one take its flags.
set -eu
cd "$(dirname "$0")"
seconds=${1:-30}
[ $# -eq 0 ] || shift
targets=${*:-names header segment index events cut frame records genesis logwrites logstore nbd}

command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz
export RUSTC_BOOTSTRAP=1
# Overridable: `TIDEMARK_FUZZ_SANITIZER=none` where the compiler ships no runtime for address.
sanitizer=${TIDEMARK_FUZZ_SANITIZER:-address}
cargo fuzz build --fuzz-dir . --sanitizer "$sanitizer"
target_dir=${CARGO_TARGET_DIR:-target}/$(rustc -vV | sed -n 's/^host: //p')/release
"$target_dir/seeds" ../../format-spec/vectors seeds

failed=
for target in $targets; do
    mkdir -p "corpus/$target" "seeds/$target" "artifacts/$target"
    echo "fuzz $target: $seconds s"
    # RSS counts the sanitizer's own shadow; what the decoders themselves hold is bounded inside the targets.
    "$target_dir/$target" "corpus/$target" "seeds/$target" -max_total_time="$seconds" -max_len=16384 -timeout=20 \
        -rss_limit_mb=2048 -print_final_stats=1 -verbosity=0 -artifact_prefix="artifacts/$target/" \
        || failed="$failed $target"
done
if [ -n "$failed" ]; then
    echo "fuzz: findings in$failed" >&2
    exit 1
fi
echo "fuzz: no finding in: $targets"
