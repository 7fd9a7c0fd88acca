//! A directory shared by processes, some of which are killed: what the store promises must hold between them as well.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use tidemark_bucket::{Bucket, BucketOptions, BucketUrl};
use tidemark_conformance::segment_of;
use tidemark_env::{Entropy, SeededEntropy};
use tidemark_format::{Epoch, ErrorKind, KeyFamily, ObjectKey, Seq};

struct Process {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Process {
    fn start(mode: &str, root: &Path, name: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemark-store-child"));
        command.args([mode, &BucketUrl::file(root).to_string(), name]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, output }
    }

    fn tell(&mut self, what: impl std::fmt::Display) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{what}").unwrap();
    }

    fn hear(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn open(root: &Path) -> Bucket {
    Bucket::open(&BucketUrl::file(root), &BucketOptions::default()).unwrap()
}

#[tokio::test]
async fn eight_processes_race_for_claims_and_one_wins_each() {
    const PROCESSES: usize = 8;
    let root = tempfile::tempdir().unwrap();
    let mut racers: Vec<_> = (0..PROCESSES).map(|n| Process::start("race", root.path(), &n.to_string())).collect();
    racers.iter_mut().for_each(|racer| assert_eq!(racer.hear(), "ready"));
    for epoch in 1..=100 {
        racers.iter_mut().for_each(|racer| racer.tell(epoch));
        let won: Vec<_> = racers.iter_mut().map(|racer| racer.hear() == "new").collect();
        assert_eq!(won.iter().filter(|won| **won).count(), 1, "epoch {epoch}: {won:?}");
        let winner = won.iter().position(|won| *won).unwrap();
        let stored = open(root.path()).read_only().get(&ObjectKey::writer_claim(Epoch::new(epoch))).await.unwrap();
        assert_eq!(stored, format!("claim of {winner}"));
    }
}

#[tokio::test]
async fn fault_a_killed_process_tears_no_object_and_loses_none_that_was_stored() {
    let root = tempfile::tempdir().unwrap();
    let dice = SeededEntropy::new(7);
    for epoch in 1..=25 {
        let mut process = Process::start("churn", root.path(), &epoch.to_string());
        let mut stored = 0;
        // Killed after a number of segments, at any moment of the next one.
        for _ in 0..=dice.number() % 12 {
            stored = process.hear().parse::<u64>().unwrap();
        }
        for _ in 0..dice.number() % 200_000 {
            std::hint::spin_loop();
        }
        drop(process);

        let read = open(root.path()).read_only();
        let mut seq = 1;
        loop {
            match read.get(&ObjectKey::Log { epoch: Epoch::new(epoch), seq: Seq::new(seq) }).await {
                Ok(segment) => assert_eq!(segment, segment_of(epoch, seq), "epoch {epoch}, segment {seq} is torn"),
                Err(error) if error.kind() == ErrorKind::NotFound => break,
                Err(error) => panic!("{error}"),
            }
            seq += 1;
        }
        assert!(seq > stored, "epoch {epoch}: {stored} segments were stored, {} are there", seq - 1);
        let hint = read.get(&ObjectKey::Hint).await.unwrap();
        assert!(
            [seq - 1, seq, seq + 1].iter().any(|n| hint == segment_of(epoch, *n)),
            "epoch {epoch}: the hint is torn"
        );
        let listed = read.list(KeyFamily::Log).await.unwrap();
        assert!(listed.iter().all(|(key, _)| key.parse::<ObjectKey>().is_ok()), "{listed:?}");
    }
}

#[tokio::test]
async fn fault_a_crash_leaves_nothing_that_stops_the_next_process() {
    let root = tempfile::tempdir().unwrap();
    // The same epoch again and again: each process meets what the one before left.
    for _ in 0..10 {
        let mut process = Process::start("churn", root.path(), "1");
        for n in 1..=5 {
            assert_eq!(process.hear(), n.to_string());
        }
    }
}
