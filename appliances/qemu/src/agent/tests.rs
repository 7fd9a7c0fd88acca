//! An agent that is slow, stale, or hangs up: the guest is thawed all the same.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use super::*;
use std::sync::Mutex;
use tidemark_env::SeededEntropy;
use tidemark_format::ErrorKind;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;

/// How a fake agent behaves.
#[derive(Clone, Copy, Debug, Default)]
struct Manners {
    /// Answers this command never, the first time.
    silent_to: Option<&'static str>,
    /// Hangs up on this command, the first time, after doing it.
    hangs_up_on: Option<&'static str>,
    /// Refuses to freeze.
    refuses: bool,
}

#[derive(Debug, Default)]
struct Guest {
    frozen: bool,
    commands: Vec<String>,
}

struct Fake {
    _dir: tempfile::TempDir,
    address: Address,
    guest: Arc<Mutex<Guest>>,
    moved: Arc<Notify>,
}

impl Fake {
    fn start(manners: Manners) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent");
        let listener = UnixListener::bind(&path).unwrap();
        let (guest, moved) = (Arc::<Mutex<Guest>>::default(), Arc::<Notify>::default());
        let fake = Self { _dir: dir, address: Address::Unix(path), guest: guest.clone(), moved: moved.clone() };
        tokio::spawn(async move {
            let mut manners = manners;
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                serve(BufReader::new(stream), &mut manners, &guest, &moved).await;
            }
        });
        fake
    }

    async fn connect(&self) -> Agent {
        Agent::connect(&self.address, options()).await.unwrap()
    }

    fn commands(&self) -> Vec<String> {
        self.guest.lock().unwrap().commands.clone()
    }

    async fn until_thawed(&self) {
        loop {
            let moved = self.moved.notified();
            let thaws = self.commands().iter().any(|command| command == "guest-fsfreeze-thaw");
            if thaws && !self.guest.lock().unwrap().frozen {
                return;
            }
            moved.await;
        }
    }
}

fn options() -> AgentOptions {
    AgentOptions {
        answer_max: Duration::from_secs(1),
        thaw_max: Duration::from_secs(30),
        entropy: Arc::new(SeededEntropy::new(1)),
    }
}

async fn serve(mut stream: BufReader<UnixStream>, manners: &mut Manners, guest: &Mutex<Guest>, moved: &Notify) {
    // What an earlier client did not wait for.
    stream.write_all(b"{\"return\": 7}\n{\"return\": {}}\n\xff{\"return\": 5}\n").await.ok();
    let mut line = Vec::new();
    loop {
        line.clear();
        if stream.read_until(b'\n', &mut line).await.unwrap_or(0) == 0 {
            return;
        }
        let delimited = line.first() == Some(&DELIMITER);
        let question: Value = serde_json::from_slice(&line[usize::from(delimited)..]).unwrap();
        let command = question["execute"].as_str().unwrap().to_owned();
        let result = {
            let mut guest = guest.lock().unwrap();
            guest.commands.push(command.clone());
            match command.as_str() {
                "guest-sync-delimited" => question["arguments"]["id"].clone(),
                "guest-fsfreeze-freeze" if !manners.refuses => {
                    guest.frozen = true;
                    json!(2)
                }
                "guest-fsfreeze-thaw" => {
                    guest.frozen = false;
                    json!(2)
                }
                "guest-fsfreeze-status" => json!(if guest.frozen { "frozen" } else { "thawed" }),
                _ => json!({}),
            }
        };
        moved.notify_waiters();
        if manners.silent_to == Some(&command) {
            manners.silent_to = None;
            continue;
        }
        if manners.hangs_up_on == Some(&command) {
            manners.hangs_up_on = None;
            return;
        }
        let answer = if manners.refuses && command == "guest-fsfreeze-freeze" {
            json!({ "error": { "class": "GenericError", "desc": "the agent is in frozen state" } })
        } else {
            json!({ "return": result })
        };
        let mark: &[u8] = if delimited { b"\xff" } else { b"" };
        stream.write_all(&[mark, answer.to_string().as_bytes(), b"\n"].concat()).await.ok();
    }
}

#[tokio::test]
async fn a_guest_is_frozen_until_it_is_thawed() {
    let fake = Fake::start(Manners::default());
    let mut agent = fake.connect().await;
    agent.ping().await.unwrap();
    assert!(!agent.is_frozen().await.unwrap());
    let frozen = agent.freeze(FREEZE_MAX_DEFAULT).await.unwrap();
    assert!(fake.guest.lock().unwrap().frozen);
    assert_eq!(frozen.filesystems(), 2);
    frozen.thaw().await.unwrap();
    assert!(!fake.guest.lock().unwrap().frozen);
}

#[tokio::test]
async fn a_freeze_that_nobody_ends_is_ended() {
    let fake = Fake::start(Manners::default());
    drop(fake.connect().await.freeze(FREEZE_MAX_DEFAULT).await.unwrap());
    fake.until_thawed().await;

    let fake = Fake::start(Manners::default());
    let frozen = fake.connect().await.freeze(Duration::from_millis(100)).await.unwrap();
    fake.until_thawed().await;
    let error = frozen.thaw().await.unwrap_err();
    assert_eq!(error.to_string(), "the freeze was ended after 100 ms");
}

#[tokio::test]
async fn who_gives_up_waiting_for_a_freeze_leaves_no_frozen_guest() {
    let fake = Fake::start(Manners { silent_to: Some("guest-fsfreeze-freeze"), ..Manners::default() });
    let agent = fake.connect().await;
    let gives_up = tokio::time::timeout(Duration::from_millis(20), agent.freeze(Duration::from_secs(1))).await;
    assert!(gives_up.is_err());
    fake.until_thawed().await;
}

#[tokio::test]
async fn a_lost_answer_never_leaves_a_frozen_guest() {
    for command in ["guest-fsfreeze-freeze", "guest-fsfreeze-thaw", "guest-fsfreeze-status"] {
        for silent in [true, false] {
            let manners = if silent {
                Manners { silent_to: Some(command), ..Manners::default() }
            } else {
                Manners { hangs_up_on: Some(command), ..Manners::default() }
            };
            let fake = Fake::start(manners);
            let frozen = fake.connect().await.freeze(Duration::from_secs(1)).await;
            match (command, frozen) {
                ("guest-fsfreeze-freeze", Err(error)) => assert_eq!(error.kind(), ErrorKind::Retry),
                (_, frozen) => frozen.unwrap().thaw().await.unwrap(),
            }
            assert!(!fake.guest.lock().unwrap().frozen, "{manners:?}: {:?}", fake.commands());
        }
    }
}

#[tokio::test]
async fn what_somebody_else_froze_is_not_thawed() {
    let fake = Fake::start(Manners { refuses: true, ..Manners::default() });
    let error = fake.connect().await.freeze(FREEZE_MAX_DEFAULT).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FixRequest);
    assert!(!fake.commands().contains(&"guest-fsfreeze-thaw".to_owned()));
}

#[tokio::test]
async fn no_agent_in_the_guest_is_an_error_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent");
    // QEMU takes the connection, and nobody in the guest reads.
    let _listener = UnixListener::bind(&path).unwrap();
    let error = Agent::connect(&Address::Unix(path), options()).await.unwrap_err();
    assert_eq!(
        (error.to_string(), error.kind()),
        ("no answer to guest-sync-delimited within 1000 ms".to_owned(), ErrorKind::Retry)
    );
}
