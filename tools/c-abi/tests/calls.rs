//! The interface as a C program meets it, with mistakes that C programs make.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(unsafe_code, reason = "the functions under test are called as C calls them")]
#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "each call keeps the one contract of them all, or breaks it where that must be noticed"
)]

use std::ffi::{CStr, CString, c_int, c_void};
use std::mem;
use std::ptr::{null, null_mut};
use std::sync::Mutex;
use std::sync::atomic::{AtomicPtr, Ordering};
use tidemark::*;

const BLOCK: usize = 512;

fn store(url: &CStr) -> Store {
    Store { size: mem::size_of::<Store>(), url: url.as_ptr(), s3_key_id: null(), s3_secret: null() }
}

/// Makes a domain in memory; its URL.
fn domain(name: &str) -> CString {
    let url = CString::new(format!("memory:{name}")).unwrap();
    ok(|error| unsafe { tidemark_domain_create(&store(&url), c"test".as_ptr(), TIDEMARK_PROBE, error) });
    url
}

/// Calls something that must succeed.
fn ok(call: impl FnOnce(*mut *mut Failure) -> Code) {
    let (code, said) = fails(call);
    assert_eq!(code, TIDEMARK_OK, "{said}");
}

/// Calls something; its code and what it said.
fn fails(call: impl FnOnce(*mut *mut Failure) -> Code) -> (Code, String) {
    let mut error = null_mut();
    let code = call(&raw mut error);
    unsafe {
        assert_eq!(tidemark_error_code(error), code);
        let said = CStr::from_ptr(tidemark_error_message(error)).to_str().unwrap().to_owned();
        tidemark_error_free(error);
        (code, said)
    }
}

/// Refused for a reason that holds these words.
fn refused(words: &str, call: impl FnOnce(*mut *mut Failure) -> Code) {
    let (code, said) = fails(call);
    assert!(code == TIDEMARK_FIX_REQUEST && said.contains(words), "{code}: {said}");
}

fn open(url: &CStr, in_flight_max: u32) -> *mut Writer {
    let options = WriterOptions { size: mem::size_of::<WriterOptions>(), in_flight_max, ..unsafe { mem::zeroed() } };
    let mut writer = null_mut();
    ok(|error| unsafe { tidemark_writer_open(&store(url), &options, &raw mut writer, error) });
    writer
}

fn disk(writer: *const Writer) -> u32 {
    let mut disk = 0;
    let (vm, name) = (c"vm".as_ptr(), c"root".as_ptr());
    ok(|error| unsafe { tidemark_disk_add(writer, vm, name, 1 << 20, &raw mut disk, error) });
    disk
}

fn status(writer: *const Writer) -> Status {
    let mut status = Status { size: mem::size_of::<Status>(), ..Status::default() };
    ok(|error| unsafe { tidemark_writer_status(writer, &raw mut status, error) });
    status
}

/// What callbacks were told.
#[derive(Debug, Default)]
struct Told(Mutex<Vec<(u64, Code)>>);

unsafe extern "C" fn tell(user: *mut c_void, lsn: u64, error: *const Failure) {
    let told = unsafe { &*user.cast::<Told>() };
    told.0.lock().unwrap().push((lsn, unsafe { tidemark_error_code(error) }));
}

fn submit(writer: *const Writer, disk: u32, done: Done, user: *mut c_void) -> (Code, String) {
    let data = [7u8; BLOCK];
    fails(|e| unsafe { tidemark_submit_write(writer, disk, 0, data.as_ptr().cast(), BLOCK, done, user, null_mut(), e) })
}

#[test]
fn null_is_refused_by_name_wherever_something_is_needed() {
    let (mut n, mut lsn, mut size) = (0u32, 0u64, 0usize);
    let (n, lsn, size) = (&raw mut n, &raw mut lsn, &raw mut size);
    let text = c"x".as_ptr();
    let (mut w, mut r, mut d, mut i) = (null_mut(), null_mut(), null_mut(), null_mut());
    unsafe {
        refused("store is NULL", |e| tidemark_domain_create(null(), text, 0, e));
        refused("store.url is NULL", |e| tidemark_domain_create(&Store { url: null(), ..store(c"") }, text, 0, e));
        refused("name is NULL", |e| tidemark_domain_create(&store(c"memory:null"), null(), 0, e));
        refused("store is NULL", |e| tidemark_writer_open(null(), null(), &raw mut w, e));
        refused("writer is NULL", |e| tidemark_writer_open(&store(c"memory:null"), null(), null_mut(), e));
        refused("writer is NULL", |e| tidemark_writer_status(null(), null_mut(), e));
        refused("writer is NULL", |e| tidemark_disk_add(null(), text, text, 512, n, e));
        refused("writer is NULL", |e| tidemark_disk_add_existing(null(), text, text, 512, n, e));
        refused("writer is NULL", |e| tidemark_disk_seed(null(), 1, None, null_mut(), lsn, e));
        refused("writer is NULL", |e| tidemark_disk_find(null(), text, text, n, lsn, e));
        refused("writer is NULL", |e| tidemark_disk_resize(null(), 1, 512, lsn, e));
        refused("writer is NULL", |e| tidemark_disk_remove(null(), 1, lsn, e));
        refused("writer is NULL", |e| tidemark_write(null(), 1, 0, text.cast(), 512, lsn, e));
        refused("writer is NULL", |e| tidemark_zero(null(), 1, 0, 512, lsn, e));
        refused("writer is NULL", |e| tidemark_unmap(null(), 1, 0, 512, lsn, e));
        refused("writer is NULL", |e| tidemark_flush(null(), 1, lsn, e));
        refused("writer is NULL", |e| tidemark_bookmark(null(), text, 0, lsn, e));
        refused("writer is NULL", |e| tidemark_submit_write(null(), 1, 0, text.cast(), 512, None, null_mut(), lsn, e));
        refused("writer is NULL", |e| tidemark_submit_zero(null(), 1, 0, 512, None, null_mut(), lsn, e));
        refused("writer is NULL", |e| tidemark_submit_unmap(null(), 1, 0, 512, None, null_mut(), lsn, e));
        refused("writer is NULL", |e| tidemark_submit_flush(null(), 1, None, null_mut(), lsn, e));
        refused("writer is NULL", |e| tidemark_submit_bookmark(null(), text, 0, None, null_mut(), lsn, e));
        refused("store is NULL", |e| tidemark_reader_open(null(), null(), &raw mut r, e));
        refused("reader is NULL", |e| tidemark_reader_open(&store(c"memory:null"), null(), null_mut(), e));
        refused("reader is NULL", |e| tidemark_reader_refresh(null(), e));
        refused("reader is NULL", |e| tidemark_reader_resolve(null(), text, lsn, lsn, e));
        refused("reader is NULL", |e| tidemark_reader_disks(null(), 1, &raw mut d, e));
        refused("reader is NULL", |e| tidemark_image_open(null(), text, text, text, &raw mut i, e));
        refused("image is NULL", |e| tidemark_image_stat(null(), null_mut(), e));
        refused("image is NULL", |e| tidemark_read_at(null(), 0, null_mut(), 0, size, e));
        // Closing nothing is fine, and so is not looking at the error.
        ok(|e| tidemark_writer_close(null_mut(), e));
        ok(|e| tidemark_writer_abort(null_mut(), e));
        tidemark_reader_close(null_mut());
        tidemark_image_close(null_mut());
        tidemark_disks_free(null_mut());
        assert_eq!(tidemark_disks_count(null()), 0);
        assert!(tidemark_disks_get(null(), 0).is_null());
        assert_eq!(tidemark_reader_refresh(null(), null_mut()), TIDEMARK_FIX_REQUEST);
    }
    assert!(w.is_null() && r.is_null() && d.is_null() && i.is_null());
}

#[test]
fn arguments_without_sense_are_refused_with_the_reason() {
    let url = domain("senseless");
    let mut writer = null_mut();
    unsafe {
        refused("attach is 2", |e| tidemark_domain_create(&store(&url), c"x".as_ptr(), 2, e));
        refused("not UTF-8", |e| tidemark_domain_create(&store(&url), c"\xff".as_ptr(), 0, e));
        refused("tidemark_store.size is 7", |e| {
            tidemark_writer_open(&Store { size: 7, ..store(&url) }, null(), &raw mut writer, e)
        });
        refused("tidemark_store.size is 4096", |e| {
            tidemark_writer_open(&Store { size: 4096, ..store(&url) }, null(), &raw mut writer, e)
        });
        let half = Store { s3_key_id: c"id".as_ptr(), ..store(&url) };
        refused("both are needed", |e| tidemark_writer_open(&half, null(), &raw mut writer, e));
        refused("bad bucket URL", |e| tidemark_writer_open(&store(c"ftp://x"), null(), &raw mut writer, e));
        let zeros = WriterOptions { size: mem::size_of::<WriterOptions>(), ..mem::zeroed() };
        for (options, why) in [
            (WriterOptions { threads_max: 1000, ..zeros }, "threads_max is 1000"),
            (WriterOptions { in_flight_max: 1 << 17, ..zeros }, "in_flight_max is 131072"),
            (WriterOptions { segment_bytes_max: 1 << 30, ..zeros }, "segment_bytes_max is 1073741824"),
            (WriterOptions { attach: 9, ..zeros }, "attach is 9"),
        ] {
            refused(why, |e| tidemark_writer_open(&store(&url), &options, &raw mut writer, e));
            assert!(writer.is_null());
        }
        let writer = open(&url, 0);
        let disk = disk(writer);
        let data = [0u8; 2 * BLOCK];
        let data = data.as_ptr().cast();
        refused("not whole blocks", |e| tidemark_write(writer, disk, 1, data, BLOCK, null_mut(), e));
        refused("not whole blocks", |e| tidemark_zero(writer, disk, 0, 511, null_mut(), e));
        refused("not within", |e| tidemark_unmap(writer, disk, 1 << 20, 512, null_mut(), e));
        refused("not within", |e| tidemark_write(writer, disk, 0, null(), 0, null_mut(), e));
        refused("data is NULL", |e| tidemark_write(writer, disk, 0, null(), BLOCK, null_mut(), e));
        refused("len is 33554944", |e| {
            tidemark_write(writer, disk, 0, data, TIDEMARK_WRITE_BYTES_MAX as usize + BLOCK, null_mut(), e)
        });
        refused("no disk 77", |e| tidemark_flush(writer, 77, null_mut(), e));
        refused("level is 3", |e| tidemark_bookmark(writer, c"x".as_ptr(), 3, null_mut(), e));
        refused("empty", |e| tidemark_bookmark(writer, c"".as_ptr(), 0, null_mut(), e));
        refused("tidemark_status.size is 0", |e| tidemark_writer_status(writer, &mut Status::default(), e));
        let mut found = 0;
        let (code, _) =
            fails(|e| tidemark_disk_find(writer, c"vm".as_ptr(), c"no".as_ptr(), &raw mut found, null_mut(), e));
        assert_eq!(code, TIDEMARK_NOT_FOUND);
        ok(|e| tidemark_disk_find(writer, c"vm".as_ptr(), c"root".as_ptr(), &raw mut found, null_mut(), e));
        assert_eq!(found, disk);
        // What was refused left no trace: an older struct is short of members, and what it has is told.
        let mut short = Status { size: mem::offset_of!(Status, buffered_bytes), rpo_ms: 42, ..Status::default() };
        ok(|e| tidemark_writer_status(writer, &raw mut short, e));
        assert_eq!((short.logged_lsn, short.committed_lsn, short.rpo_ms), (3, 3, 42));
        ok(|e| tidemark_writer_close(writer, e));
    }
}

#[test]
fn a_domain_that_is_not_there_is_not_found_and_says_what_to_do() {
    let (mut reader, mut error) = (null_mut(), null_mut());
    unsafe {
        let code = tidemark_reader_open(&store(c"memory:nothing"), null(), &raw mut reader, &raw mut error);
        assert_eq!(code, TIDEMARK_NOT_FOUND);
        assert!(CStr::from_ptr(tidemark_error_hint(error)).to_str().unwrap().contains("domain create"));
        tidemark_error_free(error);
    }
}

#[test]
fn callbacks_come_once_each_in_the_order_of_lsns_and_within_the_bound() {
    const IN_FLIGHT: u64 = 4;
    static WRITER: AtomicPtr<Writer> = AtomicPtr::new(null_mut());
    unsafe extern "C" fn bounded(user: *mut c_void, lsn: u64, error: *const Failure) {
        let ahead = status(WRITER.load(Ordering::Acquire)).logged_lsn - lsn;
        assert!(ahead <= IN_FLIGHT, "{ahead} in flight, at most {IN_FLIGHT} may be");
        unsafe { tell(user, lsn, error) };
    }
    let writer = open(&domain("order"), IN_FLIGHT as u32);
    let disk = disk(writer);
    WRITER.store(writer, Ordering::Release);
    let told = Told::default();
    let first = status(writer).logged_lsn + 1;
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let writer = WRITER.load(Ordering::Acquire);
                    assert_eq!(submit(writer, disk, Some(bounded), (&raw const told).cast_mut().cast()).0, TIDEMARK_OK);
                }
            });
        }
    });
    ok(|e| unsafe { tidemark_writer_close(writer, e) });
    let wanted: Vec<_> = (first..first + 200).map(|lsn| (lsn, TIDEMARK_OK)).collect();
    assert_eq!(told.0.into_inner().unwrap(), wanted);
}

#[test]
fn a_callback_that_would_wait_is_told_so_and_one_that_submits_is_served() {
    struct Guest {
        writer: *mut Writer,
        disk: u32,
        told: Told,
        seen: Mutex<Vec<(Code, String)>>,
    }
    unsafe extern "C" fn try_all(user: *mut c_void, _: u64, _: *const Failure) {
        let guest = unsafe { &*user.cast::<Guest>() };
        let told = (&raw const guest.told).cast_mut().cast();
        let mut seen = guest.seen.lock().unwrap();
        unsafe {
            seen.push(fails(|e| tidemark_flush(guest.writer, guest.disk, null_mut(), e)));
            seen.push(fails(|e| tidemark_writer_close(guest.writer, e)));
            seen.push(fails(|e| tidemark_reader_open(&store(c"memory:x"), null(), &mut null_mut(), e)));
        }
        // Room for one: its own.
        seen.push(submit(guest.writer, guest.disk, Some(tell), told));
        seen.push(submit(guest.writer, guest.disk, Some(tell), told));
    }
    let writer = open(&domain("callback"), 1);
    let guest = Guest { writer, disk: disk(writer), told: Told::default(), seen: Mutex::default() };
    assert_eq!(submit(writer, guest.disk, Some(try_all), (&raw const guest).cast_mut().cast()).0, TIDEMARK_OK);
    ok(|e| unsafe { tidemark_flush(writer, guest.disk, null_mut(), e) });
    // The flush tells that the write is durable, not that its callback has returned; a writer that closes takes nothing more.
    while guest.seen.lock().unwrap().is_empty() {
        std::thread::yield_now();
    }
    ok(|e| unsafe { tidemark_writer_close(writer, e) });
    let seen = guest.seen.into_inner().unwrap();
    let codes: Vec<_> = seen.iter().map(|(code, _)| *code).collect();
    let wait = TIDEMARK_FIX_REQUEST;
    assert_eq!(codes, [wait, wait, wait, TIDEMARK_OK, TIDEMARK_RETRY], "{seen:?}");
    assert!(seen[..3].iter().all(|(_, said)| said.contains("may not be called from a callback")), "{seen:?}");
    assert_eq!(guest.told.0.into_inner().unwrap().len(), 1);
}

#[test]
fn a_writer_that_lost_its_domain_says_so_to_callers_and_callbacks() {
    let url = domain("fenced");
    let (told, first) = (Told::default(), open(&url, 0));
    let disk = disk(first);
    let second = open(&url, 0);
    assert_eq!(submit(first, disk, Some(tell), (&raw const told).cast_mut().cast()).0, TIDEMARK_OK);
    let (code, said) = fails(|e| unsafe { tidemark_flush(first, disk, null_mut(), e) });
    assert_eq!(code, TIDEMARK_FENCED, "{said}");
    assert_eq!(status(first).stopped, TIDEMARK_FENCED);
    assert_eq!(submit(first, disk, None, null_mut()).0, TIDEMARK_FENCED);
    assert_eq!(fails(|e| unsafe { tidemark_writer_close(first, e) }).0, TIDEMARK_FENCED);
    assert_eq!(told.0.into_inner().unwrap().iter().map(|told| told.1).collect::<Vec<_>>(), [TIDEMARK_FENCED]);
    ok(|e| unsafe { tidemark_writer_close(second, e) });
}

#[test]
fn an_aborted_writer_tells_every_callback() {
    let writer = open(&domain("abort"), 0);
    let (told, disk) = (Told::default(), disk(writer));
    for _ in 0..10 {
        assert_eq!(submit(writer, disk, Some(tell), (&raw const told).cast_mut().cast()).0, TIDEMARK_OK);
    }
    ok(|e| unsafe { tidemark_writer_abort(writer, e) });
    let told = told.0.into_inner().unwrap();
    assert_eq!(told.len(), 10);
    assert!(told.iter().all(|(_, code)| *code == TIDEMARK_RETRY), "{told:?}");
}

#[test]
fn what_was_written_is_read_at_every_point_and_after_a_refresh() {
    let url = domain("read");
    let writer = open(&url, 0);
    let disk = disk(writer);
    let (mut lsn, mut lsns) = (0, Vec::new());
    let write = |byte: u8, lsn: &mut u64| {
        let data = [byte; 3 * BLOCK];
        ok(|e| unsafe {
            tidemark_submit_write(
                writer,
                disk,
                BLOCK as u64,
                data.as_ptr().cast(),
                data.len(),
                None,
                null_mut(),
                lsn,
                e,
            )
        });
        ok(|e| unsafe { tidemark_flush(writer, disk, null_mut(), e) });
    };
    for byte in 1..=2 {
        write(byte, &mut lsn);
        lsns.push(lsn);
    }
    let (mut reader, mut image, mut disks) = (null_mut(), null_mut(), null_mut());
    let read = |reader: *const Reader, point: &str, offset: u64, len: usize| {
        let (point, mut image, mut got) = (CString::new(point).unwrap(), null_mut(), 0);
        let mut bytes = vec![0xee_u8; len];
        let (vm, name) = (c"vm".as_ptr(), c"root".as_ptr());
        ok(|e| unsafe { tidemark_image_open(reader, vm, name, point.as_ptr(), &raw mut image, e) });
        let buffer = bytes.as_mut_ptr().cast();
        ok(|e| unsafe { tidemark_read_at(image, offset, buffer, len, &raw mut got, e) });
        unsafe { tidemark_image_close(image) };
        bytes.truncate(got);
        bytes
    };
    unsafe {
        ok(|e| tidemark_reader_open(&store(&url), null(), &raw mut reader, e));
        assert_eq!(read(reader, &format!("lsn:{}", lsns[0]), 510, 4), [0, 0, 1, 1]);
        assert_eq!(read(reader, "latest", 4 * BLOCK as u64 - 1, 2), [2, 0]);
        assert_eq!(read(reader, "latest", (1 << 20) - 10, 100), [0; 10]);
        assert!(read(reader, "latest", u64::MAX, 100).is_empty());
        assert!(read(reader, "latest", 0, 0).is_empty());

        write(3, &mut lsn);
        assert_eq!(read(reader, "latest", 512, 1), [2]);
        ok(|e| tidemark_reader_refresh(reader, e));
        assert_eq!(read(reader, "latest", 512, 1), [3]);

        for (point, code) in [
            ("lsn:999", TIDEMARK_NOT_FOUND),
            ("bookmark:no", TIDEMARK_NOT_FOUND),
            ("yesterday", TIDEMARK_FIX_REQUEST),
            ("1999-01-01T00:00:00Z", TIDEMARK_FIX_REQUEST),
        ] {
            let text = CString::new(point).unwrap();
            let found = fails(|e| tidemark_reader_resolve(reader, text.as_ptr(), &raw mut lsn, null_mut(), e));
            assert_eq!(found.0, code, "{point}: {}", found.1);
        }
        let (no, latest) = (c"no".as_ptr(), c"latest".as_ptr());
        assert_eq!(fails(|e| tidemark_image_open(reader, no, no, latest, &raw mut image, e)).0, TIDEMARK_NOT_FOUND);

        ok(|e| tidemark_reader_disks(reader, lsns[0], &raw mut disks, e));
        assert_eq!(tidemark_disks_count(disks), 1);
        assert!(tidemark_disks_get(disks, 1).is_null());
        let found = &*tidemark_disks_get(disks, 0);
        assert_eq!((found.disk, found.size_bytes), (disk, 1 << 20));
        assert_eq!((CStr::from_ptr(found.vm), CStr::from_ptr(found.name)), (c"vm", c"root"));
        assert!(found.consistent_from > 0);
        tidemark_disks_free(disks);
        tidemark_reader_close(reader);
    }
    ok(|e| unsafe { tidemark_writer_close(writer, e) });
}

#[test]
fn a_disk_that_held_something_is_seeded_from_what_the_program_reads_and_again_if_that_fails() {
    const BYTES: u64 = (5 << 19) + BLOCK as u64;
    /// What the disk holds, and how many pieces can be read before it answers EIO.
    struct Source {
        contents: Vec<u8>,
        pieces_left: u32,
        thread: std::thread::ThreadId,
    }
    unsafe extern "C" fn read(user: *mut c_void, offset: u64, data: *mut c_void, len: usize) -> c_int {
        let source = unsafe { &mut *user.cast::<Source>() };
        assert_eq!(std::thread::current().id(), source.thread);
        let Some(left) = source.pieces_left.checked_sub(1) else { return 5 };
        source.pieces_left = left;
        let piece = &source.contents[offset as usize..][..len];
        unsafe { std::ptr::copy_nonoverlapping(piece.as_ptr(), data.cast(), len) };
        0
    }
    let contents = (0..BYTES).map(|i| if i / 4096 % 3 == 0 { 0 } else { (i / 512 % 251) as u8 + 1 }).collect();
    let mut source = Source { contents, pieces_left: 1, thread: std::thread::current().id() };
    let url = domain("seed");
    let writer = open(&url, 0);
    let (mut disk, mut lsn, vm, name) = (0, 0, c"vm".as_ptr(), c"old".as_ptr());
    ok(|e| unsafe { tidemark_disk_add_existing(writer, vm, name, BYTES, &raw mut disk, e) });
    let user = (&raw mut source).cast();
    let seed = |read, lsn, e| unsafe { tidemark_disk_seed(writer, disk, read, user, lsn, e) };
    refused("read is NULL", |e| seed(None, null_mut(), e));
    refused("no disk 77", |e| unsafe { tidemark_disk_seed(writer, 77, Some(read), user, null_mut(), e) });
    let (_, said) = fails(|e| seed(Some(read), null_mut(), e));
    assert!(said.contains("Input/output error"), "{said}");
    unsafe { (*user.cast::<Source>()).pieces_left = 3 };
    let mut reader = null_mut();
    ok(|e| unsafe { tidemark_reader_open(&store(&url), null(), &raw mut reader, e) });
    let image_at = |reader, e, image: *mut *mut Image| unsafe {
        tidemark_image_open(reader, vm, name, c"latest".as_ptr(), image, e)
    };
    let mut image = null_mut();
    let (code, said) = fails(|e| image_at(reader, e, &raw mut image));
    assert_ne!(code, TIDEMARK_OK, "what is not seeded is not offered: {said}");
    ok(|e| seed(Some(read), &raw mut lsn, e));
    assert_eq!(status(writer).committed_lsn, lsn);
    ok(|e| unsafe { tidemark_writer_close(writer, e) });
    ok(|e| unsafe { tidemark_reader_refresh(reader, e) });
    ok(|e| image_at(reader, e, &raw mut image));
    let (mut found, mut got) = (vec![9u8; BYTES as usize], 0);
    ok(|e| unsafe { tidemark_read_at(image, 0, found.as_mut_ptr().cast(), found.len(), &raw mut got, e) });
    assert!(got == found.len() && found == source.contents);
    unsafe {
        tidemark_image_close(image);
        tidemark_reader_close(reader);
    }
}
