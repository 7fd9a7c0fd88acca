//! A client of QEMU's guest agent, for the one thing we want of it: file systems that hold still for the moment of a bookmark.
//!
//! [`Agent::freeze`] hands the agent to a task that thaws in any case: when [`Frozen::thaw`] is asked, when [`Frozen`] is dropped, and when
//! the freeze has lasted as long as it may. It tries until the agent confirms, connecting anew if it must. What it cannot outlive is
//! our own process: the agent knows no time limit of its own, so whoever takes over a VM asks [`Agent::is_frozen`] first.
//! Invariant: after an answer that did not come in time, nothing is believed before the agent has answered a fresh
//! `guest-sync-delimited`; answers to somebody else's questions are skipped.

use crate::address::{Address, Halves};
use crate::error::{Error, Result};
use crate::lines::{Lines, NoLine, excerpt};
use serde::Deserialize;
use serde_json::{Value, json};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tidemark_env::Entropy;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::time::Instant;

/// How long a freeze may last unless the caller knows better: guests' timeouts begin at some ten seconds.
pub const FREEZE_MAX_DEFAULT: Duration = Duration::from_secs(10);
/// Longest line that an agent may answer. Ours are of some tens of bytes.
const LINE_BYTES_MAX: usize = 1 << 20;
/// A byte that no JSON contains: it ends whatever the agent was in the middle of, and marks its answer.
const DELIMITER: u8 = 0xff;
/// Between two tries to thaw.
const THAW_AGAIN: Duration = Duration::from_millis(200);

/// How to speak.
#[derive(Clone)]
pub struct AgentOptions {
    /// How long an answer may take.
    pub answer_max: Duration,
    /// For how long a thaw is tried.
    pub thaw_max: Duration,
    /// Tells our questions from those of others.
    pub entropy: Arc<dyn Entropy>,
}

impl AgentOptions {
    /// Answers within 5 s, thawing for 30 s.
    pub fn new(entropy: Arc<dyn Entropy>) -> Self {
        Self { answer_max: Duration::from_secs(5), thaw_max: Duration::from_secs(30), entropy }
    }
}

/// A guest's agent.
pub struct Agent {
    address: Address,
    options: AgentOptions,
    connection: Option<Connection>,
}

struct Connection {
    lines: Lines<Box<dyn AsyncRead + Send + Sync + Unpin>>,
    write: Box<dyn AsyncWrite + Send + Sync + Unpin>,
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agent").field("address", &self.address).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "return")]
    result: Option<Value>,
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct Refusal {
    class: String,
    desc: String,
}

impl Agent {
    /// Connects, and waits until the agent answers.
    ///
    /// # Errors
    /// If nobody listens, or no agent runs in the guest.
    pub async fn connect(address: &Address, options: AgentOptions) -> Result<Self> {
        let mut agent = Self { address: address.clone(), options, connection: None };
        agent.call("guest-ping").await?;
        Ok(agent)
    }

    /// Whether the agent lives.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn ping(&mut self) -> Result<()> {
        self.call("guest-ping").await.map(|_| ())
    }

    /// Whether file systems of the guest are frozen, by whomever.
    ///
    /// # Errors
    /// If the agent does not answer.
    pub async fn is_frozen(&mut self) -> Result<bool> {
        const COMMAND: &str = "guest-fsfreeze-status";
        match self.call(COMMAND).await?.as_str() {
            Some("frozen") => Ok(true),
            Some("thawed") => Ok(false),
            _ => Err(Error::Incomplete { command: COMMAND.to_owned(), what: "\"frozen\" or \"thawed\"" }),
        }
    }

    /// Thaws whatever is frozen, by whomever: for one who takes over a VM.
    ///
    /// # Errors
    /// If the agent does not confirm.
    pub async fn thaw(&mut self) -> Result<()> {
        self.call("guest-fsfreeze-thaw").await?;
        if self.is_frozen().await? {
            return Err(Error::Incomplete { command: "guest-fsfreeze-thaw".to_owned(), what: "its effect" });
        }
        Ok(())
    }

    /// Flushes and freezes every file system of the guest, for `max` at most from now on.
    ///
    /// # Errors
    /// If the guest refuses or does not answer in time; it is thawed then, if it can be reached.
    pub async fn freeze(mut self, max: Duration) -> Result<Frozen> {
        const COMMAND: &str = "guest-fsfreeze-freeze";
        let (tell, told) = oneshot::channel();
        let (release, released) = oneshot::channel::<()>();
        let (finish, finished) = oneshot::channel();
        // A task of its own: whoever waits here may give up at any moment, and the guest must not stay frozen.
        let address = self.address.clone();
        tokio::spawn(async move {
            let until = Instant::now() + max;
            let count = match self.ask(COMMAND, max).await {
                Ok(count) => count.as_u64().unwrap_or(0),
                // It thaws what it had frozen before it refuses; what somebody else froze is theirs.
                Err(error @ Error::Refused { .. }) => return drop(tell.send(Err(error))),
                // It may freeze yet.
                Err(error) => {
                    let error = self.thaw_surely().await.err().unwrap_or(error);
                    return drop(tell.send(Err(error)));
                }
            };
            let early = match tell.send(Ok(count)) {
                Ok(()) => tokio::time::timeout_at(until, released).await.is_err(),
                Err(_) => false,
            };
            let thawed = self.thaw_surely().await;
            if let Err(error) = &thawed {
                tracing::error!(%error, agent = %self.address, "a guest may be frozen for good");
            }
            finish.send(if early { thawed.and(Err(Error::ThawedEarly { max })) } else { thawed }).ok();
        });
        match told.await {
            Ok(told) => told.map(|filesystems| Frozen { address, filesystems, release, finished }),
            Err(_) => Err(runtime_ended(address)),
        }
    }

    /// Tries until it is thawed.
    async fn thaw_surely(&mut self) -> Result<()> {
        let start = Instant::now();
        loop {
            let Err(error) = self.thaw().await else {
                return Ok(());
            };
            if start.elapsed() >= self.options.thaw_max {
                return Err(Error::StillFrozen { within: self.options.thaw_max, source: Box::new(error) });
            }
            tokio::time::sleep(THAW_AGAIN).await;
        }
    }

    async fn call(&mut self, command: &str) -> Result<Value> {
        self.ask(command, self.options.answer_max).await
    }

    /// Asks for one thing. Whatever does not end well ends the connection, so that no late answer is taken for another's.
    async fn ask(&mut self, command: &str, within: Duration) -> Result<Value> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.synced().await?,
        };
        let asked = async {
            connection.say(&json!({ "execute": command }), false, &self.address).await?;
            let line = connection.hear(&self.address).await?;
            let garbage = || self.garbage(format!("it answers {}", excerpt(&line)));
            serde_json::from_slice(&line).map_err(|_| garbage())
        };
        let answer = tokio::time::timeout(within, asked).await;
        match answer.map_err(|_| Error::Timeout { command: command.to_owned(), within })?? {
            Answer { result: Some(value), .. } => {
                self.connection = Some(connection);
                Ok(value)
            }
            Answer { error: Some(Refusal { class, desc }), .. } => {
                self.connection = Some(connection);
                Err(Error::Refused { command: command.to_owned(), class, description: desc })
            }
            _ => Err(self.garbage("an answer that is neither a result nor an error".to_owned())),
        }
    }

    /// Connects, and skips whatever comes before the answer to our own greeting.
    async fn synced(&self) -> Result<Connection> {
        let within = self.options.answer_max;
        let synced = async {
            let (read, write): Halves = self.address.connect().await?;
            let mut connection = Connection { lines: Lines::new(read, LINE_BYTES_MAX), write };
            let nonce = self.options.entropy.nonce();
            let id = u32::from_le_bytes([nonce[0], nonce[1], nonce[2], nonce[3]]);
            let greeting = json!({ "execute": "guest-sync-delimited", "arguments": { "id": id } });
            connection.say(&greeting, true, &self.address).await?;
            loop {
                let line = connection.hear(&self.address).await?;
                let Some(at) = line.iter().rposition(|byte| *byte == DELIMITER) else { continue };
                let answer = serde_json::from_slice(&line[at + 1..]);
                if answer.is_ok_and(|answer: Answer| answer.result == Some(id.into())) {
                    return Ok(connection);
                }
            }
        };
        match tokio::time::timeout(within, synced).await {
            Ok(synced) => synced,
            Err(_) => Err(Error::Timeout { command: "guest-sync-delimited".to_owned(), within }),
        }
    }

    fn garbage(&self, what: String) -> Error {
        Error::Garbage { address: self.address.clone(), protocol: "the guest agent's protocol", what }
    }
}

impl Connection {
    async fn say(&mut self, question: &Value, delimited: bool, address: &Address) -> Result<()> {
        let mut line = if delimited { vec![DELIMITER] } else { Vec::new() };
        line.extend_from_slice(question.to_string().as_bytes());
        line.push(b'\n');
        let closed = |error: std::io::Error| Error::Closed { address: address.clone(), why: error.to_string() };
        self.write.write_all(&line).await.map_err(closed)
    }

    async fn hear(&mut self, address: &Address) -> Result<Vec<u8>> {
        self.lines.next().await.map_err(|end| {
            let (address, what) = (address.clone(), end.says(LINE_BYTES_MAX));
            match end {
                NoLine::TooLong => Error::Garbage { address, protocol: "the guest agent's protocol", what },
                NoLine::Ended { .. } | NoLine::Io(_) => Error::Closed { address, why: what },
            }
        })
    }
}

/// A guest whose file systems hold still. Dropping it thaws them, as [`thaw`](Self::thaw) does, but says nothing.
#[derive(Debug)]
#[must_use = "the guest is frozen until it is thawed or this is dropped"]
pub struct Frozen {
    address: Address,
    filesystems: u64,
    /// Sent on or dropped: both thaw.
    release: oneshot::Sender<()>,
    finished: oneshot::Receiver<Result<()>>,
}

impl Frozen {
    /// How many file systems are frozen.
    pub fn filesystems(&self) -> u64 {
        self.filesystems
    }

    /// Thaws, and waits until the agent has confirmed it.
    ///
    /// # Errors
    /// If the freeze was ended before, so that what was done meanwhile is not consistent; or if the guest cannot be thawed.
    pub async fn thaw(self) -> Result<()> {
        self.release.send(()).ok();
        match self.finished.await {
            Ok(thawed) => thawed,
            Err(_) => Err(runtime_ended(self.address)),
        }
    }
}

/// The task that thaws was dropped with its runtime.
fn runtime_ended(address: Address) -> Error {
    Error::Closed { address, why: "the runtime has ended".to_owned() }
}

#[cfg(test)]
mod tests;
