//! Writers that are killed: what was promised is there, what is there was asked for, and nothing is there by halves.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;
use tidemark_bucket::{Bucket, BucketOptions, BucketUrl};
use tidemark_e2e::guest::{DISK_BYTES, DISKS, mix, op};
use tidemark_env::Env;
use tidemark_format::{DiskId, Lsn};
use tidemark_reader::{Domain, ReaderOptions, verify};
use tidemark_writer::{Content, DomainWriter, NewDisk, WriterOptions, create_domain};

/// One life of a writer.
#[derive(Clone, Copy, Debug)]
struct Life {
    run: u64,
    /// Last LSN before it.
    from: Lsn,
    /// Last LSN after it.
    through: Lsn,
}

/// What a writer said before it was killed.
#[derive(Debug, Default)]
struct Said {
    /// The LSN that it took over at.
    open: Option<u64>,
    /// Number and LSN of each operation whose durability it promised.
    acked: Vec<(u64, u64)>,
}

/// Lets a writer live until it has promised so much or so much time has passed, then kills it.
fn live(dir: &Path, run: u64, faults: &str) -> Said {
    let mut child = Command::new(env!("CARGO_BIN_EXE_acked-writer"))
        .args([dir.to_str().unwrap(), &run.to_string(), faults])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let (send, lines) = sync_channel::<String>(1 << 16);
    let reading = std::thread::spawn(move || {
        for line in stdout.lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                return;
            }
        }
    });
    let mut said = Said::default();
    let mut take = |line: String| {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |i: usize| words.get(i).and_then(|word| word.parse().ok());
        match (words[0], number(1), number(2)) {
            ("open", Some(lsn), _) => said.open = Some(lsn),
            // A line that the kill cut short promises nothing to anybody.
            ("ack", Some(number), Some(lsn)) if line.ends_with(' ') || lsn > 0 => said.acked.push((number, lsn)),
            _ => {}
        }
    };
    // Some die while they take over, some at work.
    let dice = mix(run);
    let promises_max = dice % 400;
    let patience = Duration::from_millis(if dice >> 32 & 7 == 0 { dice >> 40 & 15 } else { 30 + (dice >> 40 & 63) });
    let mut promises = 0;
    while promises < promises_max {
        match lines.recv_timeout(patience) {
            Ok(line) => {
                promises += u64::from(line.starts_with("ack"));
                take(line);
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
    }
    child.kill().ok();
    child.wait().unwrap();
    // What it had said before it died counts.
    lines.iter().for_each(&mut take);
    reading.join().unwrap();
    said
}

async fn open(dir: &Path) -> Domain {
    let bucket = Bucket::open(&BucketUrl::file(dir), &BucketOptions::default()).unwrap();
    Domain::open(bucket.read_only(), ReaderOptions::default(), Env::system()).await.unwrap()
}

/// The disks must hold exactly what the operations of all lives made of them.
async fn compare(domain: &Domain, images: &[Vec<u8>], lsn: Lsn) {
    for (i, wanted) in images.iter().enumerate() {
        let disk = domain.disk(DiskId::new(i as u32 + 1), lsn).await.unwrap();
        let shown = disk.read(0, DISK_BYTES as usize).await.unwrap();
        let differs = wanted.chunks(512).zip(shown.chunks(512)).position(|(a, b)| a != b);
        assert_eq!((shown.len(), differs), (wanted.len(), None), "disk {} at lsn {lsn}: this block differs", i + 1);
    }
}

/// Kills `lives` writers of one domain, one after the other, and looks after each.
async fn kill(lives: u64, faults: impl Fn(u64) -> String) {
    let dir = tempfile::tempdir().unwrap();
    let (dir, env) = (dir.path(), Env::system());
    let bucket = Bucket::open(&BucketUrl::file(dir), &BucketOptions::default()).unwrap();
    create_domain(&bucket.appender(), "killed", &env).await.unwrap();
    let writer = DomainWriter::open(bucket.appender(), WriterOptions::default(), env.clone()).await.unwrap();
    for i in 0..DISKS {
        let disk = NewDisk { vm: "vm".into(), name: format!("d{i}"), size_bytes: DISK_BYTES };
        writer.disk_add(&disk, Content::Blank).await.unwrap();
    }
    writer.close().await.unwrap();
    let first = writer.last_lsn();
    drop(writer);

    let mut images = vec![vec![0; DISK_BYTES as usize]; DISKS as usize];
    let (mut history, mut promised, mut last) = (Vec::new(), 0, first);
    for run in 1..=lives {
        let said = live(dir, run, &faults(run));
        let domain = open(dir).await;
        let through = domain.timeline().latest().lsn;
        let life = Life { run, from: last, through };
        assert!(through >= last, "{life:?} took lsn {last} back");
        if let Some(open) = said.open {
            assert_eq!(Lsn::new(open), last, "{life:?} took over at another lsn than its predecessor left");
        }
        for (number, lsn) in &said.acked {
            assert_eq!(last.get() + number + 1, *lsn, "{life:?}: operation {number} has another lsn");
            assert!(*lsn <= through.get(), "{life:?}: lsn {lsn} was promised and is not there");
        }
        promised += said.acked.len();
        for number in 0..through.get() - last.get() {
            op(run, number).apply(&mut images);
        }
        compare(&domain, &images, through).await;
        history.push(life);
        last = through;
    }
    assert!(promised as u64 > lives * 20, "only {promised} promises in {lives} lives: the test shows little");

    // Points in the middle of lives, replayed from the beginning.
    let domain = open(dir).await;
    let mut images = vec![vec![0; DISK_BYTES as usize]; DISKS as usize];
    for life in &history {
        let span = life.through.get() - life.from.get();
        let pick = mix(life.run) % span.max(1);
        for number in 0..span {
            op(life.run, number).apply(&mut images);
            if number == pick && life.run % 4 == 0 {
                compare(&domain, &images, Lsn::new(life.from.get() + number + 1)).await;
            }
        }
    }
    let report = verify(&bucket.read_only(), &ReaderOptions::default(), |_| ()).await.unwrap();
    assert!(report.is_clean(), "{:?}", report.damage);
    assert_eq!(report.lsns, Some((Lsn::new(1), last)), "dense from the first to the last");
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_of_200_writers_loses_nothing_promised_and_shows_nothing_by_halves() {
    kill(200, |_| String::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_kill_of_200_writers_on_a_failing_store_loses_nothing_promised() {
    // A store may fail, be slow, apply and lose the answer, or answer short. It may not show an old absence of a claim
    // (SPEC.md, store assumptions): that promise is tested at attach.
    kill(200, |run| {
        format!(
            "seed={run},put:log/:applied-lost:0.05,put:log/:error:0.05,put:claim/:applied-lost:0.2,put:claim/:error:0.1,\
             get::error:0.03,get:log/:short:0.02,put:log/:slow-3ms:0.1,get:claim/:slow-2ms:0.1"
        )
    })
    .await;
}
