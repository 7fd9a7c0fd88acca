//! The clients that people use, unchanged: libnbd's tools and Python, QEMU's tools, fio.

mod common;

use common::{Host, arg, attempt, noise, run};
use std::process::Command;
use std::sync::Arc;
use tidemark_io_filter::{Geometry, MemoryVolume};

const SIZE: u64 = 64 << 20;

fn host() -> (Arc<MemoryVolume>, Host) {
    let volume = Arc::new(MemoryVolume::new(SIZE).expect("small"));
    (volume.clone(), Host::of(volume))
}

/// An image of noise with holes.
fn image(host: &Host, name: &str) -> String {
    let mut bytes = noise(SIZE as usize, 7);
    bytes[5 << 20..9 << 20].fill(0);
    bytes[SIZE as usize - 12_345..].fill(0);
    let path = host.file(name);
    std::fs::write(&path, bytes).expect("room for an image");
    arg(&path).to_owned()
}

/// libnbd's Python, told what to do with the handle `h`.
fn nbdsh(lines: &str) -> String {
    // Debian's Python, for which libnbd is installed, may not be the first one.
    let output = Command::new("nbdsh").env("PATH", "/usr/bin:/bin").args(["-c", lines]).output();
    let output = output.expect("nbdsh is there; run scripts/install test");
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{lines}\n{text}");
    text
}

#[test]
fn nbdinfo_sees_the_export_as_it_is() {
    let (_, host) = host();
    let uri = host.uri();
    assert_eq!(run("nbdinfo", &["--size", &uri]).trim(), SIZE.to_string());
    let list = run("nbdinfo", &["--list", "--json", &uri]);
    for wanted in [
        "\"export-name\": \"disk\"",
        "\"description\": \"the disk disk\"",
        "\"base:allocation\"",
        "\"qemu:dirty-bitmap:since-lsn-0\"",
        "\"can_multi_conn\": true",
        "\"can_fast_zero\": true",
        "\"can_fua\": true",
        "\"can_df\": true",
        "\"is_read_only\": false",
        "\"block_size_minimum\": 512",
        "\"block_size_maximum\": 33554432",
    ] {
        assert!(list.contains(wanted), "{wanted} is not in\n{list}");
    }
    let (ok, text) = attempt("nbdinfo", &[&uri.replace("/disk", "/disc")]);
    assert!(!ok && text.contains("No such file or directory for export: disc"), "{text}");
}

#[test]
fn nbdcopy_copies_both_ways_over_several_connections() {
    let (_, host) = host();
    let (from, to) = (image(&host, "from.img"), host.file("to.img"));
    run("nbdcopy", &["--connections=4", "--flush", &from, &host.uri()]);
    run("nbdcopy", &["--connections=4", &host.uri(), arg(&to)]);
    run("cmp", &[&from, arg(&to)]);
}

#[test]
fn qemu_img_converts_compares_and_maps() {
    let (volume, host) = host();
    let (uri, from) = (host.uri(), image(&host, "from.img"));
    run("qemu-img", &["convert", "-n", "-p", "-W", "-m", "8", "-f", "raw", "-O", "raw", &from, &uri]);
    run("qemu-img", &["compare", "-f", "raw", "-F", "raw", &from, &uri]);
    let back = host.file("back.qcow2");
    run("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", &uri, arg(&back)]);
    run("qemu-img", &["compare", "-f", "raw", "-F", "qcow2", &uri, arg(&back)]);
    let map = run("qemu-img", &["map", "--output=json", "-f", "raw", &uri]);
    assert!(
        map.contains("\"start\": 5242880, \"length\": 4194304, \"depth\": 0, \"present\": true, \"zero\": true"),
        "{map}"
    );

    // What changed since a position, as any QEMU tool pulls an increment: a bitmap's clean bits show as holes.
    let since = format!("qemu:dirty-bitmap:since-lsn-{}", volume.last_lsn());
    run("qemu-io", &["-f", "raw", &uri, "-c", "write -P 9 1M 64k", "-c", "discard 8M 1M", "-c", "flush"]);
    let options = format!(
        "driver=nbd,server.type=unix,server.path={},export=disk,x-dirty-bitmap={since}",
        host.socket().display()
    );
    let map = run("qemu-img", &["map", "--output=json", "--image-opts", &options]);
    let dirty: Vec<&str> = map.lines().filter(|line| line.contains("\"data\": false")).collect();
    assert!(dirty.len() == 1 && dirty[0].contains("\"start\": 1048576, \"length\": 65536"), "{map}");
    let map = run("nbdinfo", &["--map=tidemark:changed-since:0", &uri]);
    assert!(!map.contains("Input/output error") && map.lines().count() > 1, "{map}");
}

#[test]
fn qemu_io_writes_zeros_trims_and_flushes() {
    let (_, host) = host();
    let (uri, out) = (host.uri(), "-f");
    let io = |commands: &[&str]| {
        let mut args = vec![out, "raw", &uri];
        commands.iter().for_each(|command| args.extend(["-c", *command]));
        run("qemu-io", &args)
    };
    io(&["write -P 1 0 1M", "write -f -P 2 4k 4k", "write -z 16k 4k", "write -z -u 32k 8k", "write -z -n 64k 4k"]);
    io(&["discard 128k 64k", "flush", "aio_write -P 3 512k 64k", "aio_write -P 4 600k 4k", "aio_flush"]);
    let read = io(&[
        "read -P 1 0 4k",
        "read -P 2 4k 4k",
        "read -P 0 16k 4k",
        "read -P 0 32k 8k",
        "read -P 0 64k 4k",
        "read -P 0 128k 64k",
        "read -P 3 512k 64k",
        "read -P 4 600k 4k",
        "read -P 1 700k 4k",
    ]);
    assert!(!read.contains("verification failed"), "{read}");
}

#[test]
fn fio_verifies_what_several_jobs_wrote_and_trimmed() {
    let (_, host) = host();
    let uri = format!("--uri={}", host.uri());
    let common = ["--name=job", "--ioengine=nbd", &uri, "--verify=crc32c", "--verify_fatal=1", "--minimal"];
    let jobs = ["--numjobs=4", "--offset_increment=16M", "--size=16M", "--iodepth=32"];
    let mixed = ["--rw=randrw", "--bsrange=512-64k", "--fsync=64"];
    run("fio", &[&common[..], &jobs, &mixed].concat());
    let trimmed = ["--rw=randtrimwrite", "--bs=4k"];
    run("fio", &[&common[..], &jobs, &trimmed].concat());
}

#[test]
fn libnbd_asks_odd_things_and_hears_what_it_should() {
    let (_, host) = host();
    let lines = format!(
        r#"
import errno
h.set_strict_mode(0)
h.add_meta_context("base:allocation")
h.connect_uri("{uri}")
def refused(number, call):
    try:
        call()
    except nbd.Error as error:
        assert error.errnum == number, (error, number)
    else:
        raise AssertionError("it was not refused")
size = h.get_size()
h.pwrite(b"odd", 511)
assert h.pread(5, 510) == b"\0odd\0"
h.pwrite(b"fua", 4095, nbd.CMD_FLAG_FUA)
h.zero(3, 4096, nbd.CMD_FLAG_NO_HOLE)
assert h.pread(6, 4093) == b"\0\0f\0\0\0"
h.trim(1000, 100)
h.cache(size, 0)
assert h.pread_structured(8192, 0, lambda *a: 0, nbd.CMD_FLAG_DF)[510:514] == b"\0o\0\0"
h.zero(size, 0, nbd.CMD_FLAG_FAST_ZERO)
assert h.pread(3, 4094) == b"\0\0\0"
refused(errno.EINVAL, lambda: h.pread(1, size))
refused(errno.ENOSPC, lambda: h.pwrite(b"x", size))
refused(errno.ENOSPC, lambda: h.trim(2, size - 1))
refused(errno.EINVAL, lambda: h.block_status(1, size, lambda *a: 0))
refused(errno.EINVAL, lambda: h.cache(size, 1))
refused(errno.EINVAL, lambda: h.flush(nbd.CMD_FLAG_NO_HOLE))
runs = []
h.block_status(1000, 100, lambda name, at, entries, error: runs.append((name, at, entries)) or 0)
assert runs == [("base:allocation", 100, [1000, 3])], runs
# Many at once, on several connections, and one that reads what the others wrote.
cookies = [h.aio_pwrite(bytes([i]) * 4096, 1048576 + i * 4096) for i in range(200)]
while h.aio_in_flight() > 0:
    h.poll(-1)
assert all(h.aio_command_completed(cookie) for cookie in cookies)
other = nbd.NBD()
other.connect_uri("{uri}")
assert other.can_multi_conn()
assert all(other.pread(4096, 1048576 + i * 4096) == bytes([i]) * 4096 for i in range(200))
h.shutdown()
other.shutdown()
"#,
        uri = host.uri()
    );
    nbdsh(&lines);
}

#[test]
fn a_read_only_export_is_read_and_never_written() {
    let geometry = Geometry { read_only: true, ..Geometry::of_size(SIZE) };
    let host = Host::of(Arc::new(MemoryVolume::with_geometry(geometry).expect("small")));
    let (ok, text) = attempt("qemu-io", &["-f", "raw", &host.uri(), "-c", "write 0 4k"]);
    assert!(!ok || text.contains("ead-only") || text.contains("not permitted"), "{text}");
    let read = run("qemu-io", &["-r", "-f", "raw", &host.uri(), "-c", "read -P 0 0 4k"]);
    assert!(!read.contains("verification failed"), "{read}");
    assert!(run("nbdinfo", &[&host.uri()]).contains("is_read_only: true"));
}

#[test]
fn tcp_serves_as_a_unix_socket_does() {
    let (_, host) = host();
    let uri = format!("nbd://127.0.0.1:{}/disk", host.port);
    let from = image(&host, "from.img");
    run("nbdcopy", &["--connections=4", &from, &uri]);
    run("qemu-img", &["compare", "-f", "raw", "-F", "raw", &from, &uri]);
}

#[test]
fn a_socket_that_a_client_opened_is_served() {
    let program = env!("CARGO_BIN_EXE_tidemark-memory-disk");
    let lines = format!(
        r#"
h.connect_systemd_socket_activation(["{program}", "--size-bytes", "1048576"])
assert h.get_size() == 1048576
h.pwrite(b"a" * 512, 0)
assert h.pread(512, 0) == b"a" * 512
h.shutdown()
"#
    );
    nbdsh(&lines);
}

#[test]
fn sigterm_ends_the_process_with_success_and_takes_the_socket_along() {
    let dir = tempfile::tempdir().expect("a place for a socket");
    let socket = dir.path().join("nbd.sock");
    let program = env!("CARGO_BIN_EXE_tidemark-memory-disk");
    let mut child = Command::new(program).args(["--unix", arg(&socket)]).spawn().expect("it was built with the tests");
    common::until("it listens", || std::os::unix::net::UnixStream::connect(&socket).is_ok());
    let uri = format!("nbd+unix:///memory?socket={}", socket.display());
    assert_eq!(run("nbdinfo", &["--size", &uri]).trim(), SIZE.to_string());
    run("kill", &["-TERM", &child.id().to_string()]);
    assert_eq!(child.wait().expect("it is our child").code(), Some(0));
    assert!(!socket.exists());
}
