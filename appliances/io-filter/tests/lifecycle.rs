//! How a server begins and ends.

mod common;

use common::raw::{Raw, go_data};
use common::{Gate, Host, arg, until};
use futures::future::BoxFuture;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use tidemark_io_filter::nbd::wire::{Framing, command, option, option_reply};
use tidemark_io_filter::nbd::{Limits, Listener};
use tidemark_io_filter::{ByteRange, Client, Error, ExportInfo, Exports, MemoryVolume, Part, Result, Volume};
use tokio::sync::watch;

const SIZE: u64 = 64 << 20;

#[test]
fn a_stop_lets_requests_under_way_end_and_answers_them() {
    let gate = Gate::new(SIZE);
    let mut host = Host::of(gate.clone());
    let mut idle = Raw::open(&host.socket(), Framing::Simple);
    let mut negotiating = Raw::greeted(&host.socket());
    let mut busy = Raw::open(&host.socket(), Framing::Simple);
    busy.put(1, 0, &[1; 4096]);
    until("the write is under way", || gate.waiting() == 1);
    host.begin_stop();
    assert!(idle.is_closed() && negotiating.is_closed());
    assert!(!host.socket().exists(), "nobody comes in any more");
    assert!(UnixStream::connect(host.socket()).is_err());
    gate.open();
    assert_eq!(busy.simple(), (1, 0));
    assert!(busy.is_closed());
    assert_eq!(host.stop().cut_off, 0);
}

#[test]
fn a_stop_does_not_wait_beyond_its_bound() {
    let gate = Gate::new(SIZE);
    let limits = Limits { drain_ms_max: 50, ..Limits::default() };
    let mut host = Host::with_limits(gate.clone(), limits);
    let mut busy = Raw::open(&host.socket(), Framing::Simple);
    busy.put(1, 0, &[1; 4096]);
    until("the write is under way", || gate.waiting() == 1);
    assert_eq!(host.stop().cut_off, 1);
    assert!(busy.is_closed(), "without a reply: the client knows that it may or may not have happened");
}

#[test]
fn requests_end_also_when_their_client_is_gone() {
    let gate = Gate::new(SIZE);
    let host = Host::of(gate.clone());
    let mut gone = Raw::open(&host.socket(), Framing::Simple);
    gone.put(1, 4096, &[1; 4096]);
    until("the write is under way", || gate.waiting() == 1);
    drop(gone);
    gate.open();
    until("the write ended", || {
        let read = futures::FutureExt::now_or_never(gate.read(ByteRange::new(4096, 4096)));
        matches!(read, Some(Ok(parts)) if parts == [Part::Data(vec![1; 4096].into())])
    });
}

#[test]
fn a_goodbye_is_answered_after_what_was_asked_before() {
    let gate = Gate::new(SIZE);
    let host = Host::of(gate.clone());
    let mut raw = Raw::open(&host.socket(), Framing::Simple);
    raw.put(1, 0, &[1; 4096]);
    raw.request(command::DISC, 0, 2, 0, 0);
    raw.request(command::FLUSH, 0, 3, 0, 0);
    until("the write is under way", || gate.waiting() == 1);
    gate.open();
    assert_eq!(raw.simple(), (1, 0));
    assert!(raw.is_closed(), "what follows a goodbye is not heard");
}

#[test]
fn a_socket_file_is_replaced_if_nobody_serves_it() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let _entered = runtime.enter();
    let dir = tempfile::tempdir().expect("a place for sockets");
    let path = dir.path().join("nbd.sock");
    // As a killed server leaves it: the file stays when its listener is gone.
    drop(UnixListener::bind(&path).expect("free"));
    assert!(path.exists());
    let listener = Listener::unix(&path, 0o640).expect("nobody serves it");
    assert_eq!(std::fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o640);

    let refused = |path: &std::path::Path| {
        let error = Listener::unix(path, 0o600).err().expect("it is refused");
        let cause = std::error::Error::source(&error).expect("it has a reason").to_string();
        (error.to_string(), cause)
    };
    let (error, cause) = refused(&path);
    assert_eq!((error, cause.as_str()), (format!("cannot listen on {}", arg(&path)), "another server listens there"));
    let plain = dir.path().join("plain");
    std::fs::write(&plain, "precious").expect("room");
    assert_eq!(refused(&plain).1, "it is there already, and no socket");
    assert_eq!(std::fs::read(&plain).expect("it is there"), b"precious");
    refused(&dir.path().join("x".repeat(200)));

    drop(listener);
    assert!(!path.exists(), "it goes with its listener");
    // Unless it is another's by then.
    let first = Listener::unix(&path, 0o600).expect("free");
    std::fs::remove_file(&path).expect("it is ours");
    let _second = Listener::unix(&path, 0o600).expect("the name is free");
    drop(first);
    assert!(path.exists());
}

#[test]
fn connections_beyond_the_bound_push_out_those_that_only_negotiate() {
    let limits = Limits { connections_max: 3, ..Limits::default() };
    let volume = Arc::new(MemoryVolume::new(SIZE).expect("small"));
    let host = Host::with_limits(volume, limits);
    let mut working = Raw::open(&host.socket(), Framing::Simple);
    let mut oldest = Raw::greeted(&host.socket());
    let mut newer = Raw::greeted(&host.socket());
    let mut newest = Raw::open(&host.socket(), Framing::Simple);
    assert!(oldest.is_closed(), "it made room");
    newer.go("disk");
    let mut refused = Raw::silent(&host.socket());
    assert!(refused.is_closed(), "nobody negotiates, so nobody makes room");
    for raw in [&mut working, &mut newer, &mut newest] {
        raw.request(command::FLUSH, 0, 1, 0, 0);
        assert_eq!(raw.simple(), (1, 0));
    }
    drop(working);
    until("a place is free", || {
        let mut next = Raw::silent(&host.socket());
        let mut one = [0];
        std::io::Read::read(&mut next.stream, &mut one).is_ok_and(|read| read == 1)
    });
}

/// Knows its disk only once it was told to.
struct Starting {
    disk: Arc<MemoryVolume>,
    asked: watch::Sender<usize>,
    open: watch::Sender<bool>,
}

impl Exports for Starting {
    fn list(&self, _: &Client) -> Vec<ExportInfo> {
        Vec::new()
    }
    fn open(&self, name: &str, _: &Client) -> Result<Arc<dyn Volume>> {
        if name == "disk" && *self.open.borrow() {
            return Ok(self.disk.clone());
        }
        Err(Error::NoExport { name: name.into() })
    }
    fn known<'a>(&'a self, name: &'a str) -> BoxFuture<'a, ()> {
        if name != "disk" {
            return Box::pin(std::future::ready(()));
        }
        self.asked.send_modify(|asked| *asked += 1);
        let mut open = self.open.subscribe();
        Box::pin(async move { drop(open.wait_for(|open| *open).await) })
    }
}

#[test]
fn a_client_that_comes_before_its_disk_is_known_waits_and_others_do_not() {
    let disk = Arc::new(MemoryVolume::new(SIZE).expect("small"));
    let exports = Arc::new(Starting { disk, asked: watch::Sender::new(0), open: watch::Sender::new(false) });
    let host = Host::new(exports.clone(), Limits::default(), None);
    let socket = host.socket();
    let early = std::thread::spawn(move || Raw::greeted(&socket).go("disk"));
    until("it has asked", || *exports.asked.borrow() == 1);
    let refused = Raw::greeted(&host.socket()).ask(option::GO, &go_data("disc"));
    assert_eq!(refused.last().map(|answer| answer.kind), Some(option_reply::ERR_UNKNOWN));
    assert!(!early.is_finished());
    exports.open.send_replace(true);
    assert_eq!(early.join().expect("it is served"), SIZE);
}

#[test]
fn a_client_waits_for_its_disk_no_longer_than_a_negotiation_may_take() {
    let disk = Arc::new(MemoryVolume::new(SIZE).expect("small"));
    let exports = Arc::new(Starting { disk, asked: watch::Sender::new(0), open: watch::Sender::new(false) });
    let limits = Limits { handshake_ms_max: 50, ..Limits::default() };
    let host = Host::new(exports, limits, None);
    let mut early = Raw::greeted(&host.socket());
    early.say(option::GO, &go_data("disk"));
    assert!(early.is_closed());
}
