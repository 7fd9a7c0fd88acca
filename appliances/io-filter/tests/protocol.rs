//! What a connection promises, said and heard byte by byte.

mod common;

use common::raw::{Raw, context_data, go_data};
use common::{Disks, Gate, HELD_BELOW, Host, noise, until};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tidemark_io_filter::nbd::Limits;
use tidemark_io_filter::nbd::negotiate::{CONTEXTS_MAX, OPTION_BYTES_MAX};
use tidemark_io_filter::nbd::wire::{Errno, Framing, chunk, command, command_flag, info, option, option_reply};
use tidemark_io_filter::{
    Claimed, Client, Contention, ExportInfo, Exports, Geometry, MemoryVolume, Volume, WriteClaim,
};

const SIZE: u64 = 64 << 20;
const FRAMINGS: [Framing; 3] = [Framing::Simple, Framing::Structured, Framing::Extended];

fn memory() -> Arc<MemoryVolume> {
    Arc::new(MemoryVolume::new(SIZE).expect("small"))
}

/// The outcome of one request, whatever the framing: its data, or its error.
fn one(raw: &mut Raw, cookie: u64, read_bytes: usize) -> Result<Vec<u8>, u32> {
    if raw.framing == Framing::Simple {
        let (answered, error) = raw.simple();
        assert_eq!(answered, cookie);
        return if error == 0 { Ok(raw.read(read_bytes)) } else { Err(error) };
    }
    let mut data = Vec::new();
    loop {
        let next = raw.chunk();
        assert_eq!(next.cookie, cookie);
        match next.kind {
            chunk::ERROR => return Err(next.error()),
            chunk::OFFSET_DATA => data.extend_from_slice(&next.payload[8..]),
            chunk::OFFSET_HOLE => {
                let zeros = u32::from_be_bytes(next.payload[8..].try_into().expect("a length"));
                data.resize(data.len() + zeros as usize, 0);
            }
            _ => {}
        }
        if next.done {
            assert_eq!(data.len(), read_bytes);
            return Ok(data);
        }
    }
}

#[test]
fn every_framing_writes_and_reads_at_any_alignment() {
    let host = Host::of(memory());
    let mut model = vec![0; 1 << 20];
    for (round, framing) in FRAMINGS.into_iter().enumerate() {
        let mut raw = Raw::open(&host.socket(), framing);
        // Small ones share a chunk, large ones have memory of their own; some straddle both.
        for (i, len) in [1, 511, 512, 4096, 5000, 8192, 8193, 70_000, 300_000, 0].into_iter().enumerate() {
            let data = noise(len, (round * 100 + i) as u64);
            let offset = (round * 1000 + i * 37_123) % (model.len() - len);
            model[offset..offset + len].copy_from_slice(&data);
            raw.put(i as u64, offset as u64, &data);
            one(&mut raw, i as u64, 0).expect("within the volume");
            raw.request(command::READ, 0, 99, offset as u64, len as u64);
            assert_eq!(one(&mut raw, 99, len), Ok(data));
        }
        raw.request(command::READ, 0, 7, 0, model.len() as u64);
        assert!(one(&mut raw, 7, model.len()).expect("it reads") == model, "{framing:?}");
    }
}

#[test]
fn replies_overtake_requests_that_take_long() {
    for framing in FRAMINGS {
        let gate = Gate::new(SIZE);
        let host = Host::of(gate.clone());
        let mut raw = Raw::open(&host.socket(), framing);
        raw.put(1, 0, &[1; 4096]);
        raw.put(2, HELD_BELOW, &[2; 4096]);
        raw.request(command::READ, 0, 3, HELD_BELOW, 4096);
        assert_eq!(one(&mut raw, 2, 0), Ok(vec![]));
        assert_eq!(one(&mut raw, 3, 4096), Ok(vec![2; 4096]));
        gate.open();
        assert_eq!(one(&mut raw, 1, 0), Ok(vec![]));
    }
}

#[test]
fn requests_of_one_connection_are_bounded_in_number_and_bytes() {
    let by_number = Limits { connection_requests_max: 4, ..Limits::default() };
    let by_bytes =
        Limits { connection_bytes_max: (64 << 10) + 1024 + 8192, payload_bytes_max: 64 << 10, ..Limits::default() };
    for (limits, wanted) in [(by_number, 4), (by_bytes, 4)] {
        let gate = Gate::new(SIZE);
        let host = Host::with_limits(gate.clone(), limits);
        let mut raw = Raw::open(&host.socket(), Framing::Simple);
        let mut other = Raw::open(&host.socket(), Framing::Simple);
        for cookie in 0..8 {
            raw.put(cookie, cookie * 16384, &[1; 16384]);
        }
        until("the bound is reached", || gate.waiting() == wanted);
        // The server had its turn after all of them were sent: a reply to someone else took at least as long.
        other.put(1, HELD_BELOW, &[1; 512]);
        assert_eq!(other.simple(), (1, 0));
        assert_eq!(gate.waiting(), wanted);
        gate.open();
        let mut answered: Vec<u64> = (0..8).map(|_| raw.simple().0).collect();
        answered.sort_unstable();
        assert_eq!(answered, (0..8).collect::<Vec<u64>>());
        assert!(gate.waiting_max.load(Ordering::SeqCst) <= wanted);
    }
}

#[test]
fn errors_keep_the_connection_and_have_their_numbers() {
    let host = Host::of(memory());
    for framing in FRAMINGS {
        let mut raw = Raw::open(&host.socket(), framing);
        let refusals = [
            (command::READ, 0, SIZE, 512, Errno::Inval),
            (command::READ, 0, u64::MAX, 512, Errno::Inval),
            (command::READ, 0, 0, (32 << 20) + 1, Errno::Inval),
            (command::TRIM, 0, SIZE - 512, 1024, Errno::NoSpace),
            (command::WRITE_ZEROES, command_flag::FUA, SIZE, 1, Errno::NoSpace),
            (command::BLOCK_STATUS, 0, 0, 512, Errno::Inval),
            (command::FLUSH, command_flag::NO_HOLE, 0, 0, Errno::Inval),
            (77, 0, 0, 512, Errno::Inval),
        ];
        for (i, (command, flags, offset, len, error)) in refusals.into_iter().enumerate() {
            raw.request(command, flags, i as u64, offset, len);
            assert_eq!(one(&mut raw, i as u64, 0), Err(error as u32), "{framing:?}: {command}");
        }
        raw.put(1, SIZE - 512, &[1; 1024]);
        assert_eq!(one(&mut raw, 1, 0), Err(Errno::NoSpace as u32));
        raw.put(2, 0, &vec![1; (32 << 20) + 1]);
        assert_eq!(one(&mut raw, 2, 0), Err(Errno::Inval as u32), "its payload was read past");
        raw.request(command::FLUSH, command_flag::FUA, 3, 0, 0);
        assert_eq!(one(&mut raw, 3, 0), Ok(vec![]), "the connection goes on");
    }
}

#[test]
fn a_read_comes_in_one_chunk_where_the_client_insists() {
    let host = Host::of(memory());
    let mut raw = Raw::open(&host.socket(), Framing::Structured);
    raw.put(1, 8192, &[5; 4096]);
    raw.chunk();
    raw.request(command::READ, 0, 2, 0, 16384);
    let kinds: Vec<u16> = (0..3).map(|_| raw.chunk().kind).collect();
    assert_eq!(kinds, [chunk::OFFSET_HOLE, chunk::OFFSET_DATA, chunk::OFFSET_HOLE]);
    raw.request(command::READ, command_flag::DF, 3, 0, 16384);
    let whole = raw.chunk();
    assert_eq!((whole.kind, whole.done, whole.payload.len()), (chunk::OFFSET_DATA, true, 8 + 16384));
    assert_eq!(whole.payload[8 + 8192..][..4096], [5; 4096]);
    raw.request(command::READ, command_flag::DF, 4, 0, (32 << 20) + 1);
    assert_eq!(raw.chunk().error(), Errno::Overflow as u32);
    // Alternating blocks would take more chunks than are worth it.
    for block in 0..600 {
        raw.put(block, block * 8192, &[6; 4096]);
        raw.chunk();
    }
    raw.request(command::READ, 0, 5, 0, 600 * 8192);
    assert_eq!(raw.chunk().payload.len(), 8 + 600 * 8192);
}

#[test]
fn block_status_tells_allocation_and_changes_in_their_order() {
    let volume = memory();
    let host = Host::of(volume.clone());
    for framing in [Framing::Structured, Framing::Extended] {
        let extended = framing == Framing::Extended;
        let mut raw = Raw::greeted(&host.socket());
        let early = raw.ask(option::SET_META_CONTEXT, &context_data("disk", &["base:allocation"]));
        assert_eq!(early[0].kind, option_reply::ERR_INVALID, "structured replies come first");
        raw.frame(framing);
        let since = format!("qemu:dirty-bitmap:since-lsn-{}", volume.last_lsn());
        let future = "tidemark:changed-since:1000000";
        let set = context_data("disk", &["base:allocation", "x-unknown:a", future, &since, &since]);
        let answers = raw.ask(option::SET_META_CONTEXT, &set);
        let names: Vec<_> =
            answers.iter().map(|a| String::from_utf8_lossy(a.data.get(4..).unwrap_or(&[])).into_owned()).collect();
        assert_eq!(names, ["base:allocation", &since, ""]);
        raw.go("disk");
        raw.put(1, 4096, &[5; 4096]);
        raw.chunk();
        raw.request(command::BLOCK_STATUS, 0, 2, 0, 16384);
        let runs = |payload: &[u8]| -> Vec<(u64, u64)> {
            let number = |raw: &[u8]| raw.iter().fold(0, |n, byte| n << 8 | u64::from(*byte));
            let (skip, width) = if extended { (8, 8) } else { (4, 4) };
            payload[skip..].chunks(2 * width).map(|run| (number(&run[..width]), number(&run[width..]))).collect()
        };
        let kind = if extended { chunk::BLOCK_STATUS_EXT } else { chunk::BLOCK_STATUS };
        let [allocation, changed] = [raw.chunk(), raw.chunk()];
        assert_eq!([(allocation.kind, allocation.done), (changed.kind, changed.done)], [(kind, false), (kind, true)]);
        assert_eq!(runs(&allocation.payload), [(4096, 3), (4096, 0), (8192, 3)]);
        assert_eq!(runs(&changed.payload), [(4096, 0), (4096, 1), (8192, 0)]);
        raw.request(command::BLOCK_STATUS, command_flag::REQ_ONE, 3, 4096, 16384);
        assert_eq!(runs(&raw.chunk().payload), [(4096, 0)]);
        assert_eq!(runs(&raw.chunk().payload), [(4096, 1)]);
        raw.request(command::TRIM, 0, 4, 4096, 4096);
        raw.chunk();
    }
}

#[test]
fn one_reply_tells_a_bounded_number_of_runs() {
    let host = Host::of(memory());
    let mut raw = Raw::greeted(&host.socket());
    raw.frame(Framing::Structured);
    raw.ask(option::SET_META_CONTEXT, &context_data("disk", &["base:allocation"]));
    raw.go("disk");
    for block in 0..600 {
        raw.put(block, block * 8192, &[6; 4096]);
        raw.chunk();
    }
    raw.request(command::BLOCK_STATUS, 0, 1, 0, 1200 * 4096);
    assert_eq!(raw.chunk().payload.len(), 4 + 512 * 8, "the client asks again for the rest");
}

#[test]
fn contexts_are_listed_by_query_and_selected_within_a_bound() {
    let host = Host::of(memory());
    let mut raw = Raw::greeted(&host.socket());
    raw.frame(Framing::Structured);
    let mut list = |queries: &[&str]| -> Vec<String> {
        let answers = raw.ask(option::LIST_META_CONTEXT, &context_data("disk", queries));
        let named = answers.iter().filter(|answer| answer.kind == option_reply::META_CONTEXT);
        named.map(|answer| String::from_utf8_lossy(&answer.data[4..]).into_owned()).collect()
    };
    let all = ["base:allocation", "qemu:dirty-bitmap:since-lsn-0", "tidemark:changed-since:0"];
    assert_eq!(list(&[]), all);
    assert_eq!(list(&["base:"]), all[..1]);
    assert_eq!(list(&["qemu:dirty-bitmap:", "tidemark:"]), all[1..]);
    assert_eq!(list(&["qemu:dirty-bitmap:since-lsn-+0", "base:nothing"]), Vec::<String>::new());

    let names: Vec<String> = (0..=CONTEXTS_MAX).map(|i| format!("tidemark:changed-since:{}0", "0".repeat(i))).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let answers = raw.ask(option::SET_META_CONTEXT, &context_data("disk", &names));
    assert_eq!(answers[0].kind, option_reply::ERR_TOO_BIG);
    assert_eq!(raw.ask(option::SET_META_CONTEXT, &context_data("disk", &names[1..])).len(), CONTEXTS_MAX + 1);
    let unknown = raw.ask(option::SET_META_CONTEXT, &context_data("disc", &[]));
    assert_eq!(unknown[0].kind, option_reply::ERR_UNKNOWN);
}

#[test]
fn options_are_answered_or_refused_one_by_one() {
    let host = Host::of(memory());
    let mut raw = Raw::greeted(&host.socket());
    let mut last = |option: u32, data: &[u8]| raw.ask(option, data).pop().map(|answer| answer.kind);
    assert_eq!(last(4, &[]), Some(option_reply::ERR_UNSUP));
    assert_eq!(last(option::LIST, b"x"), Some(option_reply::ERR_INVALID));
    assert_eq!(last(option::LIST, &[]), Some(option_reply::ACK));
    assert_eq!(last(option::INFO, &go_data("disk")), Some(option_reply::ACK));
    assert_eq!(last(option::INFO, &go_data("disc")), Some(option_reply::ERR_UNKNOWN));
    assert_eq!(last(option::INFO, &go_data("disk")[..9]), Some(option_reply::ERR_INVALID));
    assert_eq!(last(option::GO, &[0xff; 30]), Some(option_reply::ERR_INVALID));
    assert_eq!(last(option::STARTTLS, &[]), Some(option_reply::ERR_POLICY));
    assert_eq!(last(option::STRUCTURED_REPLY, b"x"), Some(option_reply::ERR_INVALID));
    assert_eq!(last(option::STRUCTURED_REPLY, &[]), Some(option_reply::ACK));
    assert_eq!(last(option::STRUCTURED_REPLY, &[]), Some(option_reply::ERR_INVALID));
    assert_eq!(last(option::EXTENDED_HEADERS, &[]), Some(option_reply::ACK));
    assert_eq!(last(option::STRUCTURED_REPLY, &[]), Some(option_reply::ERR_EXT_HEADER_REQD));
    assert_eq!(last(77, &vec![0; OPTION_BYTES_MAX as usize + 1]), Some(option_reply::ERR_TOO_BIG));
    assert_eq!(last(option::ABORT, &[]), Some(option_reply::ACK));
    assert!(raw.is_closed());
}

#[test]
fn an_export_is_described_as_it_is() {
    let geometry = Geometry { rotational: true, read_only: true, ..Geometry::of_size(SIZE + 100) };
    let volume = Arc::new(MemoryVolume::with_geometry(geometry).expect("small"));
    let host = Host::of(volume);
    let mut raw = Raw::greeted(&host.socket());
    let mut data = go_data("disk");
    data.truncate(8);
    for number in [3, info::NAME, info::DESCRIPTION, info::BLOCK_SIZE] {
        data.extend_from_slice(&number.to_be_bytes());
    }
    let answers = raw.ask(option::GO, &data);
    let text = |i: usize| String::from_utf8_lossy(&answers[i].data[2..]).into_owned();
    assert_eq!([text(0), text(1)], ["disk", "the disk disk"]);
    assert_eq!(answers[2].data[2..], [512_u32, 4096, 32 << 20].map(u32::to_be_bytes).concat());
    assert_eq!(answers[3].data[2..10], SIZE.to_be_bytes(), "what is beyond the last block is out of reach");
    // Read-only, rotational: no way to change it is announced. FLUSH, FUA, MULTI_CONN and CACHE are.
    assert_eq!(answers[3].data[10..], 0b0101_0001_1111_u16.to_be_bytes());
    raw.put(1, 0, &[1; 512]);
    assert_eq!(raw.simple(), (1, Errno::Perm as u32));
    raw.request(command::READ, 0, 2, 0, 512);
    assert_eq!(one(&mut raw, 2, 512), Ok(vec![0; 512]));
}

#[test]
fn the_oldest_way_in_still_works() {
    let host = Host::new(Arc::new(Disks(vec![("", memory())])), Limits::default(), None);
    for (flags, padding) in [(1_u32, 124), (3, 0)] {
        let mut raw = Raw::silent(&host.socket());
        raw.read(18);
        raw.write(&flags.to_be_bytes());
        raw.say(option::EXPORT_NAME, &[]);
        assert_eq!(raw.read(8), SIZE.to_be_bytes());
        raw.read(2 + padding);
        raw.put(1, 0, &[1; 512]);
        assert_eq!(raw.simple(), (1, 0));
    }
    let mut raw = Raw::greeted(&host.socket());
    raw.say(option::EXPORT_NAME, b"nothing");
    assert!(raw.is_closed(), "there are no words for a refusal");
}

#[test]
fn a_volume_may_grow_and_shrink_under_its_clients() {
    let volume = memory();
    let host = Host::of(volume.clone());
    let mut raw = Raw::open(&host.socket(), Framing::Simple);
    raw.put(1, SIZE, &[1; 512]);
    assert_eq!(raw.simple(), (1, Errno::NoSpace as u32));
    volume.resize(2 * SIZE).expect("small");
    raw.put(2, SIZE, &[1; 512]);
    assert_eq!(raw.simple(), (2, 0));
    let mut new = Raw::greeted(&host.socket());
    assert_eq!(new.go("disk"), 2 * SIZE);
    volume.resize(SIZE).expect("small");
    raw.request(command::READ, 0, 3, SIZE, 512);
    assert_eq!(raw.simple(), (3, Errno::Inval as u32));
}

/// One disk that clients contend for. The two ends of these tests are one process, so the connection makes the party.
struct Contended(Arc<MemoryVolume>, Arc<WriteClaim>);

impl Exports for Contended {
    fn list(&self, _: &Client) -> Vec<ExportInfo> {
        Vec::new()
    }
    fn open(&self, _: &str, client: &Client) -> tidemark_io_filter::Result<Arc<dyn Volume>> {
        let peer = tidemark_io_filter::Peer::Unix { pid: None, uid: 0 };
        Ok(Arc::new(Claimed::new(self.0.clone(), self.1.clone(), &Client { peer, ..client.clone() })))
    }
}

#[test]
fn both_ends_of_a_migration_connect_and_the_newer_writer_fences_the_older() {
    let claim = Arc::new(WriteClaim::new(Contention::LastPartyWins));
    let host = Host::new(Arc::new(Contended(memory(), claim)), Limits::default(), None);
    let [mut source, mut target] = [(); 2].map(|()| Raw::open(&host.socket(), Framing::Structured));
    source.put(1, 0, &[1; 512]);
    assert_eq!(one(&mut source, 1, 0), Ok(vec![]));
    target.request(command::READ, 0, 1, 0, 512);
    assert_eq!(one(&mut target, 1, 512), Ok(vec![1; 512]));
    source.put(2, 0, &[2; 512]);
    assert_eq!(one(&mut source, 2, 0), Ok(vec![]), "reading took nothing from it");
    target.put(2, 0, &[3; 512]);
    assert_eq!(one(&mut target, 2, 0), Ok(vec![]));
    source.put(3, 0, &[4; 512]);
    assert_eq!(one(&mut source, 3, 0), Err(Errno::Shutdown as u32));
    source.put(4, 10, &[4; 10]);
    assert_eq!(one(&mut source, 4, 0), Err(Errno::Shutdown as u32));
    target.request(command::READ, 0, 3, 0, 512);
    assert_eq!(one(&mut target, 3, 512), Ok(vec![3; 512]));
}
