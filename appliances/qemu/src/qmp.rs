//! A client of QEMU's monitor: commands in, answers and events out.
//!
//! Commands may be asked by many tasks at once; each answer finds its own by its number. Two tasks of the client read and write,
//! so that dropping a command half way harms nobody.
//! Invariants: a line is bounded ([`LINE_BYTES_MAX`]), and so are the events kept for a listener ([`EVENTS_MAX`]): one that is
//! too slow is told how many it missed. After the first thing that is not QMP the connection is over for good, and every command,
//! waiting or new, says why.
//! Not here: what commands mean.

use crate::address::{Address, Halves};
use crate::error::{Error, Result};
use crate::lines::{Lines, NoLine, excerpt};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::JoinHandle;

/// Longest line that is read. A VM with a thousand block nodes answers `query-named-block-nodes` with some 2 MB.
pub const LINE_BYTES_MAX: usize = 16 << 20;
/// Events kept for each listener.
pub const EVENTS_MAX: usize = 256;
/// Commands that wait to be written.
const COMMANDS_MAX: usize = 64;

/// Version of a QEMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Version {
    /// 10 of 10.0.2.
    pub major: u32,
    /// 0 of 10.0.2.
    pub minor: u32,
    /// 2 of 10.0.2.
    pub micro: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.micro)
    }
}

/// How to speak.
#[derive(Clone, Copy, Debug)]
pub struct QmpOptions {
    /// How long an answer may take.
    pub answer_max: Duration,
}

impl Default for QmpOptions {
    fn default() -> Self {
        Self { answer_max: Duration::from_secs(30) }
    }
}

/// Something happened in the VM.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Such as `BLOCK_JOB_READY`.
    pub name: String,
    /// What belongs to it.
    pub data: Value,
}

/// What a listener hears.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    /// The next event.
    Event(Event),
    /// So many events were missed: ask for the state of things instead.
    Missed(u64),
}

/// The events of a VM from some moment on.
#[derive(Debug)]
pub struct Events {
    receiver: broadcast::Receiver<Event>,
    shared: Arc<Shared>,
}

impl Events {
    /// The next one. Cancel-safe.
    ///
    /// # Errors
    /// If the connection is over.
    pub async fn next(&mut self) -> Result<Heard> {
        match self.receiver.recv().await {
            Ok(event) => Ok(Heard::Event(event)),
            Err(broadcast::error::RecvError::Lagged(missed)) => Ok(Heard::Missed(missed)),
            Err(broadcast::error::RecvError::Closed) => Err(self.shared.over()),
        }
    }
}

/// A connection to the monitor of a VM. Clones share it; it ends with the last one.
#[derive(Clone, Debug)]
pub struct Qmp {
    client: Arc<Client>,
}

#[derive(Debug)]
struct Client {
    shared: Arc<Shared>,
    to_write: mpsc::Sender<Vec<u8>>,
    options: QmpOptions,
    version: Version,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Client {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

#[derive(Debug)]
struct Shared {
    address: Address,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Open {
        /// Who waits for which answer.
        waiting: HashMap<u64, oneshot::Sender<Answer>>,
        /// Number of the next command. Answers to smaller ones that nobody waits for came too late.
        next_id: u64,
        events: broadcast::Sender<Event>,
    },
    Over(Over),
}

/// How a connection ended.
#[derive(Clone, Debug)]
enum Over {
    Closed(String),
    Garbage(String),
}

type Answer = std::result::Result<Value, Refusal>;

/// What QEMU says when it refuses.
#[derive(Debug, Deserialize)]
struct Refusal {
    class: String,
    desc: String,
}

/// Anything that QEMU says.
#[derive(Debug, Deserialize)]
struct Message {
    #[serde(rename = "QMP")]
    greeting: Option<Greeting>,
    event: Option<String>,
    #[serde(default)]
    data: Value,
    #[serde(rename = "return")]
    result: Option<Value>,
    error: Option<Refusal>,
    id: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Greeting {
    version: GreetingVersion,
}

#[derive(Debug, Deserialize)]
struct GreetingVersion {
    qemu: Version,
}

impl Qmp {
    /// Connects, and leaves the negotiation behind.
    ///
    /// # Errors
    /// If nobody listens, or somebody who is no QEMU.
    pub async fn connect(address: &Address, options: QmpOptions) -> Result<Self> {
        let greeted = async {
            let (read, write): Halves = address.connect().await?;
            let mut lines = Lines::new(read, LINE_BYTES_MAX);
            let line = lines.next().await.map_err(|end| over_of(&end).error(address))?;
            match parse(&line) {
                Ok(Message { greeting: Some(greeting), .. }) => Ok((lines, write, greeting.version.qemu)),
                _ => Err(Over::Garbage(format!("it greets with {}", excerpt(&line))).error(address)),
            }
        };
        let (mut lines, mut write, version) = match tokio::time::timeout(options.answer_max, greeted).await {
            Ok(greeted) => greeted?,
            Err(_) => return Err(Error::Timeout { command: "the greeting".to_owned(), within: options.answer_max }),
        };
        let (to_write, mut commands) = mpsc::channel::<Vec<u8>>(COMMANDS_MAX);
        let (events, _) = broadcast::channel(EVENTS_MAX);
        let state = State::Open { waiting: HashMap::new(), next_id: 0, events };
        let shared = Arc::new(Shared { address: address.clone(), state: Mutex::new(state) });
        let reading = tokio::spawn({
            let shared = shared.clone();
            async move {
                loop {
                    match lines.next().await {
                        Ok(line) => {
                            if let Err(what) = shared.take(&line) {
                                return shared.end(Over::Garbage(what));
                            }
                        }
                        Err(end) => return shared.end(over_of(&end)),
                    }
                }
            }
        });
        let writing = tokio::spawn({
            let shared = shared.clone();
            async move {
                while let Some(line) = commands.recv().await {
                    if let Err(error) = write.write_all(&line).await {
                        return shared.end(Over::Closed(error.to_string()));
                    }
                }
            }
        });
        let client = Client { shared, to_write, options, version, tasks: [reading, writing] };
        let qmp = Self { client: Arc::new(client) };
        qmp.execute("qmp_capabilities", json!({})).await?;
        Ok(qmp)
    }

    /// The VM's QEMU.
    pub fn version(&self) -> Version {
        self.client.version
    }

    /// Where it is connected to.
    pub fn address(&self) -> &Address {
        &self.client.shared.address
    }

    /// Events from now on.
    pub fn events(&self) -> Events {
        let receiver = match &*self.client.shared.lock() {
            State::Open { events, .. } => events.subscribe(),
            // A channel that is closed: the first look says why.
            State::Over(_) => broadcast::channel(1).1,
        };
        Events { receiver, shared: self.client.shared.clone() }
    }

    /// Asks for one thing and waits for the answer. `arguments` is an object.
    ///
    /// # Errors
    /// If it is refused, the answer does not come in time, or the connection is over.
    pub async fn execute(&self, command: &str, arguments: Value) -> Result<Value> {
        let Client { shared, to_write, options, .. } = &*self.client;
        let asked = async {
            let room = to_write.reserve().await.map_err(|_| shared.over())?;
            let (answered, answer) = oneshot::channel();
            let id = shared.number(answered)?;
            let _forget = Forget { shared, id };
            let mut line = json!({ "execute": command, "arguments": arguments, "id": id }).to_string().into_bytes();
            line.push(b'\n');
            room.send(line);
            match answer.await {
                Ok(Ok(value)) => Ok(value),
                Ok(Err(Refusal { class, desc })) => {
                    Err(Error::Refused { command: command.to_owned(), class, description: desc })
                }
                Err(_) => Err(shared.over()),
            }
        };
        match tokio::time::timeout(options.answer_max, asked).await {
            Ok(result) => result,
            Err(_) => Err(Error::Timeout { command: command.to_owned(), within: options.answer_max }),
        }
    }
}

/// Nobody waits for an answer any more.
struct Forget<'a> {
    shared: &'a Shared,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        if let State::Open { waiting, .. } = &mut *self.shared.lock() {
            waiting.remove(&self.id);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number for a command whose answer goes to `answered`.
    fn number(&self, answered: oneshot::Sender<Answer>) -> Result<u64> {
        match &mut *self.lock() {
            State::Open { waiting, next_id, .. } => {
                let id = *next_id;
                *next_id += 1;
                waiting.insert(id, answered);
                Ok(id)
            }
            State::Over(over) => Err(over.error(&self.address)),
        }
    }

    /// Handles a line; what is wrong with it, if anything is.
    fn take(&self, line: &[u8]) -> Result<(), String> {
        let message = parse(line).map_err(|error| format!("{error}: {}", excerpt(line)))?;
        let State::Open { waiting, next_id, events } = &mut *self.lock() else {
            return Ok(());
        };
        let answer = match message {
            Message { event: Some(name), data, .. } => {
                // Nobody need listen.
                events.send(Event { name, data }).ok();
                return Ok(());
            }
            Message { result: Some(value), id: Some(id), .. } => (id, Ok(value)),
            Message { error: Some(refusal), id: Some(id), .. } => (id, Err(refusal)),
            _ => return Err(format!("neither an event nor an answer: {}", excerpt(line))),
        };
        match answer {
            (id, _) if id >= *next_id => Err(format!("an answer to a question never asked: {}", excerpt(line))),
            (id, answer) => {
                if let Some(waiting) = waiting.remove(&id) {
                    waiting.send(answer).ok();
                }
                Ok(())
            }
        }
    }

    /// Ends it; the first reason stays. Those who wait are told by their channels closing.
    fn end(&self, over: Over) {
        let mut state = self.lock();
        if matches!(*state, State::Open { .. }) {
            *state = State::Over(over);
        }
    }

    fn over(&self) -> Error {
        match &*self.lock() {
            State::Over(over) => over.error(&self.address),
            State::Open { .. } => Over::Closed("the client was dropped".to_owned()).error(&self.address),
        }
    }
}

fn parse(line: &[u8]) -> serde_json::Result<Message> {
    serde_json::from_slice(line)
}

fn over_of(end: &NoLine) -> Over {
    let what = end.says(LINE_BYTES_MAX);
    match end {
        NoLine::TooLong => Over::Garbage(what),
        NoLine::Ended { .. } | NoLine::Io(_) => Over::Closed(what),
    }
}

impl Over {
    fn error(&self, address: &Address) -> Error {
        match self.clone() {
            Self::Closed(why) => Error::Closed { address: address.clone(), why },
            Self::Garbage(what) => Error::Garbage { address: address.clone(), protocol: "QMP", what },
        }
    }
}

#[cfg(test)]
mod tests;
