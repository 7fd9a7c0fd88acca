"""Takes single rules of SPEC.md out of the reader, one at a time, and shows that a test notices.

Works on a copy of the tree below target/mutants, and builds where the tree itself does. Each mutant is a build, all of them some
ten minutes: `make mutants`. What is part of every test run is `--check`: whether each mutant still finds what it takes out.

usage: mutants.py [--check | RULE...]"""

import os
import pathlib
import re
import shutil
import subprocess
import sys

# rule: (file, what it says, what it says without the rule, crate whose tests must notice; or crate:binary of tests)
MUTANTS = {
    "H-2": ("format-spec/src/header.rs", "if bytes[HEADER_HASH_AT..MAC_AT] != computed {", "if false {", "tidemark-format"),
    "PC-1": ("format-spec/src/column.rs", "if width > 64 || shift > 63 || width + shift > 64 {", "if width > 64 || shift > 63 {",
             "tidemark-format"),
    "I-1": ("format-spec/src/index.rs", "if previous.is_some_and(|before| key(&before) >= key(&row)) {", "if false {",
            "tidemark-format"),
    "FR-4": ("format-spec/src/frame.rs", "if computed != entry.hash {", "if false {", "tidemark-format"),
    "E-1": ("format-spec/src/event.rs", "?.ok_or(FormatError::UnknownCriticalEvent { code, lsn })?;",
            "?.unwrap_or(EventBody::Barrier);", "tidemark-format"),
    "RC-1": ("format-spec/src/record.rs", "if hash != record_hash(&bytes[..16], body) {", "if false {", "tidemark-format"),
    "G-1": ("format-spec/src/genesis.rs", 'if text[at..] != format!("{CHECK_LINE}{check}\\"\\n}}\\n") {', "if false {",
            "tidemark-format"),
    "O-3": ("common/history/src/log.rs", "if next.head.header.prev_header_hash != tail.header_hash {", "if false {",
            "tidemark-reader"),
    "R-3": ("common/history/src/walk.rs", "probe.looked_to < look_to {", "probe.looked_to > look_to {", "tidemark-reader"),
    "R-6": ("reader/src/image.rs", "if history.consistent_from(at).is_none() {", "if false {", "tidemark-reader"),
    "R-7": ("reader/src/domain.rs", "if header.header_hash != base.header_hash {", "if false {", "tidemark-reader"),
    "R-8": ("common/history/src/walk.rs", "if has_cut || hi <= self.claim_lo {", "if false {", "tidemark-reader"),
    "IX-8": ("gc/src/images.rs", "sources.chain(region.image.map(|image| Rows::tables(tables, [image])))", "sources",
             "tidemark-e2e:maintenance"),
    "IX-9": ("reader/src/index.rs", "image.last_lsn <= at && image", "image", "tidemark-e2e:maintenance"),
    "CS-3": ("reader/src/load.rs", "if place.segment != Place::INDEXED ||", "if true ||", "tidemark-e2e:cleaning"),
    "LG-4": ("common/history/src/ledgers.rs", "if (link.header_hash, link.last) != (part.header_hash, part.last_lsn) {", "if false {",
             "tidemark-e2e:cleaning"),
    "D-1": ("gc/src/maintainer.rs", "if newest != Some(base) {", "if false {", "tidemark-e2e:cleaning"),
    "D-3": ("gc/src/maintainer.rs", "claim::check(&bucket, root.epoch).await?;", "", "tidemark-e2e:cleaning"),
    "D-4": ("gc/src/core/garbage.rs", "closed && !pinned && !named()", "!pinned && !named()", "tidemark-e2e:cleaning"),
    "D-5": ("gc/src/clean.rs", "reached.reach.pin(&pinned.through);", "", "tidemark-e2e:cleaning"),
    "D-6": ("gc/src/clean.rs", "let pin = Pin::decode(&bytes, root.domain).map_err(|source| Error::Format { key, source })?;",
            "let Ok(pin) = Pin::decode(&bytes, root.domain) else { continue };", "tidemark-e2e:cleaning"),
    "Q-1": ("gc/src/clean.rs", "reached.reach.need(quarantined(bucket, root.domain).await?.into_iter().map(|held| held.object));", "",
            "tidemark-e2e:scrub"),
    "Q-2": ("gc/src/quarantine.rs", "Some(object) => Err(Error::Quarantined { root: root.key(), object }),", "Some(_) => Ok(()),",
            "tidemark-e2e:scrub"),
    "Q-3": ("tools/cli/src/commands/repair.rs", "if seen.insert(key)\n", "if seen.insert(key) && false\n", "tidemark-e2e:scrub"),
    "D-8": ("reader/src/domain.rs", "Ok(roots.newest(Some(root)).await?.filter(|newest| newest.key() != root.key()))", "Ok(None)",
            "tidemark-e2e:cleaning"),
}

root = pathlib.Path(__file__).resolve().parents[2]
copy = root / "target/mutants"


def tests(crate):
    # Warnings about what a rule leaves unused are no failures.
    crate, _, binary = crate.partition(":")
    command = ["cargo", "nextest", "run", "--no-fail-fast", "-p", crate, "--cargo-quiet", "--final-status-level", "fail"]
    command += ["--test", binary] if binary else []
    environment = os.environ | {"CARGO_TARGET_DIR": str(root / "target")}
    ran = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
    text = ran.stdout + ran.stderr
    failed = sorted(set(re.findall(r"FAIL \[.*?\] (?:\(.*?\) )?(.+)", text)))
    built = "Summary [" in text
    return ran.returncode == 0, built, failed, text


def check():
    for rule, (name, said, _, _) in MUTANTS.items():
        times = (root / name).read_text().count(said)
        if times != 1:
            sys.exit(f"{rule}: {name} says {times} times, and must say once: {said}")


def main():
    check()
    wanted = sys.argv[1:] or list(MUTANTS)
    if wanted == ["--check"]:
        return
    copy.mkdir(parents=True, exist_ok=True)
    files = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, files):
        # What is the same keeps the time that cargo knows; what is not gets a new one, so that no mutant's build outlives it.
        if (root / name).is_file() and not ((copy / name).exists() and (copy / name).read_bytes() == (root / name).read_bytes()):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / name, copy / name)
            shutil.copymode(root / name, copy / name)
    # What the tests run beside cargo.
    (copy / ".tools").exists() or (copy / ".tools").symlink_to(root / ".tools")
    for crate in sorted({MUTANTS[rule][3] for rule in wanted}):
        passed, _, failed, text = tests(crate)
        if not passed:
            sys.exit(f"{crate} fails without a mutant: {failed}\n{text[-3000:]}")
    survived = []
    for rule in wanted:
        name, said, says, crate = MUTANTS[rule]
        path = copy / name
        whole = path.read_text()
        path.write_text(whole.replace(said, says))
        passed, built, failed, text = tests(crate)
        path.write_text(whole)
        if not built:
            sys.exit(f"{rule}: the mutant does not build\n{text[-3000:]}")
        print(f"{rule}: {'SURVIVES' if passed else f'{len(failed)} tests fail: ' + ', '.join(failed[:4])}", flush=True)
        survived += [rule] if passed else []
    print(f"{len(wanted) - len(survived)} of {len(wanted)} rules are missed when they are gone")
    sys.exit(1 if survived else 0)


main()
