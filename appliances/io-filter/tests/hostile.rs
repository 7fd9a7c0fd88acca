//! Clients that mean harm, or are broken: none makes the server fall, and none keeps a good client from its disk.

mod common;

use common::raw::{Raw, go_data};
use common::{Disks, Host, noise, until};
use std::io::Write;
use std::sync::Arc;
use tidemark_io_filter::nbd::negotiate::OPTION_BYTES_MAX;
use tidemark_io_filter::nbd::wire::{Framing, command, command_flag, option};
use tidemark_io_filter::nbd::{HANDSHAKE_BYTES_MAX, HANDSHAKE_OPTIONS_MAX, Limits};
use tidemark_io_filter::{
    ByteRange, Geometry, MemoryVolume, Part, Persist, RangeLock, Result, StatusContext, StatusRun, Volume, ZeroOptions,
};

const SIZE: u64 = 64 << 20;

fn host(limits: Limits) -> Host {
    Host::with_limits(Arc::new(MemoryVolume::new(SIZE).expect("small")), limits)
}

/// Completes a small and a large request: what every other client may count on.
fn serves(host: &Host) {
    let mut good = Raw::open(&host.socket(), Framing::Structured);
    for len in [4096, 1 << 20] {
        let data = noise(len, 5);
        good.put(1, 0, &data);
        assert_eq!(good.chunk().cookie, 1);
        good.request(command::READ, command_flag::DF, 2, 0, len as u64);
        assert!(good.chunk().payload[8..] == data);
    }
}

#[test]
fn garbage_at_any_stage_ends_its_connection_alone() {
    let host = host(Limits::default());
    for seed in 1..20 {
        let garbage = noise(1 << 16, seed);
        let mut at_flags = Raw::silent(&host.socket());
        let mut at_option = Raw::greeted(&host.socket());
        let mut in_option = Raw::greeted(&host.socket());
        in_option.say(option::GO, &go_data("disk")[..4]);
        let stages = [
            Raw::open(&host.socket(), Framing::Simple),
            Raw::open(&host.socket(), Framing::Structured),
            Raw::open(&host.socket(), Framing::Extended),
        ];
        let mut all = vec![&mut at_flags, &mut at_option, &mut in_option];
        let mut stages = stages;
        all.extend(stages.iter_mut());
        for raw in all {
            // The server may close before it took everything.
            let _ = raw.stream.write_all(&garbage);
            assert!(raw.is_closed());
        }
    }
    serves(&host);
}

#[test]
fn lengths_beyond_reason_are_refused_before_they_take_memory() {
    let host = host(Limits::default());
    let mut option = Raw::greeted(&host.socket());
    let header = [&tidemark_io_filter::nbd::wire::OPTION_MAGIC.to_be_bytes()[..], &7_u32.to_be_bytes(), &[0xff; 4]];
    option.write(&header.concat());
    assert!(option.is_closed());
    for (framing, flags, len) in [
        (Framing::Simple, 0, u64::from(u32::MAX)),
        (Framing::Extended, command_flag::PAYLOAD_LEN, u64::MAX),
        (Framing::Extended, command_flag::PAYLOAD_LEN, 1 << 40),
    ] {
        let mut raw = Raw::open(&host.socket(), framing);
        raw.request(command::WRITE, flags, 1, 0, len);
        assert!(raw.is_closed());
    }
    // Lengths without a payload are judged, not read.
    let mut raw = Raw::open(&host.socket(), Framing::Extended);
    for (i, command) in [command::READ, command::TRIM, command::WRITE_ZEROES, command::BLOCK_STATUS].iter().enumerate()
    {
        raw.request(*command, 0, i as u64, 4096, u64::MAX);
        assert!(raw.chunk().error() > 0);
    }
    serves(&host);
}

#[test]
fn a_negotiation_is_bounded_in_options_bytes_and_time() {
    let host = host(Limits { handshake_ms_max: 20_000, ..Limits::default() });
    let mut flood = Raw::greeted(&host.socket());
    for _ in 0..HANDSHAKE_OPTIONS_MAX {
        flood.ask(option::LIST, &[]);
    }
    assert!(flood.is_closed(), "one more is not heard");

    let mut bulk = Raw::greeted(&host.socket());
    let data = vec![0; OPTION_BYTES_MAX as usize];
    for _ in 0..HANDSHAKE_BYTES_MAX / (u64::from(OPTION_BYTES_MAX) + 16) {
        bulk.ask(99, &data);
    }
    // Its header is enough.
    let _ = bulk.stream.write_all(&[&b"IHAVEOPT"[..], &99_u32.to_be_bytes(), &OPTION_BYTES_MAX.to_be_bytes()].concat());
    assert!(bulk.is_closed());
    serves(&host);
    drop(host);

    let host = self::host(Limits { handshake_ms_max: 50, ..Limits::default() });
    let mut silent = Raw::silent(&host.socket());
    let mut half = Raw::silent(&host.socket());
    half.write(&[0, 0]);
    assert!(silent.is_closed() && half.is_closed());
}

/// Little memory, and little patience with those who hold it while others wait.
fn tight() -> Limits {
    Limits {
        connection_bytes_max: 8 << 20,
        server_bytes_max: 8 << 20,
        payload_bytes_max: 4 << 20,
        connection_reserve_bytes: 64 << 10,
        stall_ms_max: 50,
        ..Limits::default()
    }
}

#[test]
fn half_requests_and_replies_never_taken_starve_nobody() {
    let host = host(tight());
    let mut hostile = Vec::new();
    for i in 0..20 {
        let mut raw = Raw::open(&host.socket(), Framing::Simple);
        if i % 2 == 0 {
            // The header of a large write, a part of its payload, and silence.
            let header = raw.header(command::WRITE, 0, 1, 0, 4 << 20);
            raw.write(&[&header[..], &[7; 100_000]].concat());
        } else {
            // Many large reads whose replies it never takes.
            raw.stream.set_nonblocking(true).expect("it is a socket");
            for cookie in 0..100 {
                let header = raw.header(command::READ, 0, cookie, 0, 1 << 20);
                if raw.stream.write_all(&header).is_err() {
                    break;
                }
            }
        }
        hostile.push(raw);
    }
    // Small requests fit a connection's reserve, large ones come by once those who hold memory were cut off.
    for _ in 0..3 {
        serves(&host);
    }
    drop(hostile);
}

#[test]
#[allow(clippy::disallowed_methods, reason = "it is about the passing of time")]
fn a_slow_client_is_left_alone_while_nobody_waits() {
    let host = host(tight());
    let mut slow = Raw::open(&host.socket(), Framing::Simple);
    let data = noise(4 << 20, 9);
    let header = slow.header(command::WRITE, 0, 1, 0, 4 << 20);
    slow.write(&[&header[..], &data[..100_000]].concat());
    // Several times its patience: small requests of others pass, none waits for memory.
    let start = std::time::Instant::now();
    let mut good = Raw::open(&host.socket(), Framing::Simple);
    until("patience is over", || {
        good.request(command::FLUSH, 0, 1, 0, 0);
        assert_eq!(good.simple(), (1, 0));
        start.elapsed().as_millis() > 200
    });
    slow.write(&data[100_000..]);
    assert_eq!(slow.simple(), (1, 0));
}

#[test]
fn a_thousand_connections_leave_room_for_one_more() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("up to the maximum is free");
    let host = host(Limits { connections_max: 1200, ..tight() });
    let mut crowd = Vec::new();
    for i in 0..1000 {
        crowd.push(match i % 4 {
            0 => Raw::silent(&host.socket()),
            1 => Raw::greeted(&host.socket()),
            2 => Raw::open(&host.socket(), Framing::Simple),
            _ => {
                let mut half = Raw::open(&host.socket(), Framing::Simple);
                let header = half.header(command::WRITE, 0, 1, 0, 1 << 20);
                half.write(&[&header[..], &[1; 1000]].concat());
                half
            }
        });
    }
    serves(&host);
    for raw in crowd.iter_mut().skip(2).step_by(4) {
        raw.request(command::FLUSH, 0, 1, 0, 0);
        assert_eq!(raw.simple(), (1, 0), "all of those that behave are served");
    }
}

#[test]
fn a_client_that_never_pauses_leaves_others_their_turn() {
    let host = host(Limits::default());
    let socket = host.socket();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    // More of them than the server has threads; each writes tiny requests without end, another thread takes replies.
    let floods: Vec<_> = (0..4)
        .map(|_| {
            let mut raw = Raw::open(&socket, Framing::Simple);
            let mut replies = raw.stream.try_clone().expect("a socket can be shared");
            let stop = stop.clone();
            let block = raw.header(command::CACHE, 0, 1, 0, 0).repeat(4096);
            std::thread::spawn(move || {
                let drain = std::thread::spawn(move || std::io::copy(&mut replies, &mut std::io::sink()));
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    raw.write(&block);
                }
                raw.stream.shutdown(std::net::Shutdown::Write).expect("it is connected");
                drop(drain.join());
            })
        })
        .collect();
    for _ in 0..20 {
        serves(&host);
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    floods.into_iter().for_each(|flood| flood.join().expect("the server takes and answers all"));
}

/// A volume that panics, or answers nonsense.
struct Broken(MemoryVolume);

type Future<'a, T> = futures::future::BoxFuture<'a, Result<T>>;

impl Volume for Broken {
    fn geometry(&self) -> Geometry {
        self.0.geometry()
    }
    fn ranges(&self) -> &RangeLock {
        self.0.ranges()
    }
    fn read(&self, _: ByteRange) -> Future<'_, Vec<Part>> {
        Box::pin(std::future::ready(Ok(vec![Part::Zero(u64::MAX), Part::Zero(3)])))
    }
    fn write(&self, _: u64, _: bytes::Bytes, _: Persist) -> Future<'_, ()> {
        panic!("a bug behind the volume")
    }
    fn zero(&self, range: ByteRange, options: ZeroOptions, persist: Persist) -> Future<'_, ()> {
        self.0.zero(range, options, persist)
    }
    fn trim(&self, range: ByteRange, persist: Persist) -> Future<'_, ()> {
        self.0.trim(range, persist)
    }
    fn flush(&self) -> Future<'_, ()> {
        self.0.flush()
    }
    fn status<'a>(&'a self, _: ByteRange, _: &'a StatusContext, _: usize) -> Future<'a, Vec<StatusRun>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }
}

#[test]
fn a_broken_volume_breaks_its_own_connections_alone() {
    let broken = Arc::new(Broken(MemoryVolume::new(SIZE).expect("small")));
    let sound = Arc::new(MemoryVolume::new(SIZE).expect("small"));
    let host = Host::new(Arc::new(Disks(vec![("broken", broken), ("disk", sound)])), Limits::default(), None);
    let mut raw = Raw::greeted(&host.socket());
    raw.frame(Framing::Structured);
    let set = common::raw::context_data("broken", &["base:allocation"]);
    raw.ask(option::SET_META_CONTEXT, &set);
    raw.go("broken");
    for command in [command::READ, command::BLOCK_STATUS] {
        raw.request(command, 0, 1, 0, 4096);
        assert_eq!(raw.chunk().error(), 5, "nonsense is an error, never data");
    }
    raw.put(2, 0, &[1; 512]);
    assert!(raw.is_closed());
    serves(&host);
}
