//! The line between an appliance and its bucket: as fast as it is told to be, answering for an overloaded store, or cut.

use crate::system::pause;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tidemark_env::Env;

/// What becomes of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// They go through, at so many bytes a second.
    Open(u64),
    /// Each is answered with 503: the store has too much to do.
    Storm,
    /// Nobody answers.
    Cut,
}

/// A line to one server, for any number of connections.
#[derive(Debug)]
pub struct Link {
    port: u16,
    wire: Arc<Wire>,
}

#[derive(Debug)]
struct Wire {
    server: SocketAddr,
    env: Env,
    state: Mutex<State>,
    refused: AtomicU64,
}

#[derive(Debug)]
struct State {
    line: Line,
    /// When all that was sent until now is through.
    free_at: Duration,
    /// Both ends of what is open.
    open: Vec<TcpStream>,
}

impl Link {
    /// A line to a server, open.
    pub fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("it listens").port();
        let state = State { line: Line::Open(u64::MAX), free_at: Duration::ZERO, open: Vec::new() };
        let wire = Arc::new(Wire { server, env: Env::system(), state: Mutex::new(state), refused: AtomicU64::new(0) });
        let accepting = wire.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let wire = accepting.clone();
                std::thread::spawn(move || wire.carry(client));
            }
        });
        Self { port, wire }
    }

    /// Where clients connect instead.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Changes it. What is under way is torn, unless it only becomes faster or slower.
    pub fn set(&self, line: Line) {
        let mut state = self.wire.state();
        let stays = matches!((state.line, line), (Line::Open(_), Line::Open(_)));
        state.line = line;
        if !stays {
            for stream in state.open.drain(..) {
                stream.shutdown(Shutdown::Both).ok();
            }
        }
    }

    /// Requests that were answered with 503.
    pub fn refused(&self) -> u64 {
        self.wire.refused.load(Ordering::Relaxed)
    }
}

impl Wire {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn carry(self: Arc<Self>, client: TcpStream) -> Option<()> {
        let line = self.state().line;
        match line {
            Line::Cut => None,
            Line::Storm => self.refuse(client),
            Line::Open(_) => {
                let server = TcpStream::connect(self.server).ok()?;
                let ends = [client.try_clone().ok()?, server.try_clone().ok()?];
                {
                    let mut state = self.state();
                    if !matches!(state.line, Line::Open(_)) {
                        return None;
                    }
                    state.open.extend(ends);
                }
                let (down_from, down_to) = (server.try_clone().ok()?, client.try_clone().ok()?);
                std::thread::spawn(move || copy(down_from, down_to, |_| {}));
                let wire = self.clone();
                copy(client, server, move |bytes| wire.pass(bytes));
                None
            }
        }
    }

    /// Waits until so much more has gone through.
    fn pass(&self, bytes: usize) {
        let until = {
            let mut state = self.state();
            let Line::Open(bytes_per_s) = state.line else { return };
            let takes = Duration::from_secs_f64(bytes as f64 / bytes_per_s as f64);
            state.free_at = state.free_at.max(self.env.clock.monotonic()) + takes;
            state.free_at
        };
        let wait = until.saturating_sub(self.env.clock.monotonic());
        if !wait.is_zero() {
            pause(wait);
        }
    }

    /// Takes one request and answers that it is too much.
    fn refuse(&self, client: TcpStream) -> Option<()> {
        let mut reader = BufReader::new(client.try_clone().ok()?);
        let mut body = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
            if let Some(len) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                body = len.trim().parse().ok()?;
            }
            if line.trim().is_empty() {
                break;
            }
        }
        std::io::copy(&mut reader.take(body), &mut std::io::sink()).ok()?;
        self.refused.fetch_add(1, Ordering::Relaxed);
        let answer = "HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        (&client).write_all(answer.as_bytes()).ok()
    }
}

/// One direction, to its end.
fn copy(mut from: TcpStream, mut to: TcpStream, mut pass: impl FnMut(usize)) {
    let mut buffer = [0; 16 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        pass(read);
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    from.shutdown(Shutdown::Both).ok();
    to.shutdown(Shutdown::Both).ok();
}
