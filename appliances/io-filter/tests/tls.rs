//! TLS with the clients that people use: GnuTLS behind libnbd and QEMU.

mod common;

use common::raw::{Raw, go_data};
use common::{Disks, Host, arg, attempt, run};
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;
use tidemark_io_filter::MemoryVolume;
use tidemark_io_filter::nbd::wire::{option, option_reply};
use tidemark_io_filter::nbd::{Limits, TlsNeed, TlsOptions};

const SIZE: u64 = 16 << 20;

/// Makes a root, in the layout that libnbd and QEMU expect of a directory.
fn authority(dir: &Path) {
    std::fs::create_dir_all(dir).expect("a directory of our own");
    let (key, certificate) = (dir.join("ca-key.pem"), dir.join("ca-cert.pem"));
    let subject = ["-newkey", "rsa:2048", "-nodes", "-keyout", arg(&key), "-out", arg(&certificate), "-days", "7"];
    let usage = ["-subj", "/CN=Test root", "-addext", "keyUsage=critical,keyCertSign"];
    run("openssl", &[&["req", "-x509"], &subject[..], &usage].concat());
}

/// Makes a certificate of `root` in `dir`, for a "server" or a "client".
fn certificate(root: &Path, dir: &Path, role: &str) {
    std::fs::create_dir_all(dir).expect("a directory of our own");
    let file = |name: &str| dir.join(format!("{role}-{name}")).to_str().expect("a plain path").to_owned();
    let (key, request, cert, extensions) = (file("key.pem"), file("req.pem"), file("cert.pem"), file("ext"));
    let text = format!(
        "basicConstraints=CA:FALSE\nkeyUsage=critical,digitalSignature,keyEncipherment\nextendedKeyUsage={role}Auth\n\
         subjectAltName=IP:127.0.0.1,DNS:localhost\n"
    );
    std::fs::write(&extensions, text).expect("room");
    let subject = format!("/CN=Test {role}");
    run("openssl", &["req", "-newkey", "rsa:2048", "-nodes", "-keyout", &key, "-out", &request, "-subj", &subject]);
    let (ca, ca_key) = (root.join("ca-cert.pem"), root.join("ca-key.pem"));
    let sign = ["x509", "-req", "-in", &request, "-CA", arg(&ca), "-CAkey", arg(&ca_key), "-CAcreateserial"];
    run("openssl", &[&sign[..], &["-days", "7", "-extfile", &extensions, "-out", &cert]].concat());
    if root != dir {
        std::fs::copy(ca, dir.join("ca-cert.pem")).expect("room");
    }
}

/// Certificates of a server, of a good client, of a client without, and of one that another root signed.
struct Certificates(TempDir);

impl Certificates {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a place for keys");
        let path = |name: &str| dir.path().join(name);
        authority(&path("server"));
        certificate(&path("server"), &path("server"), "server");
        certificate(&path("server"), &path("good"), "client");
        std::fs::create_dir(path("none")).expect("a directory of our own");
        std::fs::copy(path("server/ca-cert.pem"), path("none/ca-cert.pem")).expect("room");
        authority(&path("other"));
        certificate(&path("other"), &path("wrong"), "client");
        // It trusts the server; the server does not trust it.
        std::fs::copy(path("server/ca-cert.pem"), path("wrong/ca-cert.pem")).expect("room");
        Self(dir)
    }

    fn dir(&self, name: &str) -> String {
        arg(&self.0.path().join(name)).to_owned()
    }

    fn options(&self, need: TlsNeed, clients: bool) -> TlsOptions {
        let path = |name: &str| self.0.path().join("server").join(name);
        let client_ca = clients.then(|| path("ca-cert.pem"));
        TlsOptions { certificate: path("server-cert.pem"), key: path("server-key.pem"), client_ca, need }
    }
}

fn host(tls: &TlsOptions) -> Host {
    let volume = Arc::new(MemoryVolume::new(SIZE).expect("small"));
    Host::new(Arc::new(Disks(vec![("disk", volume)])), Limits::default(), Some(tls))
}

fn qemu(host: &Host, dir: &str) -> (bool, String) {
    let object = format!("tls-creds-x509,id=tls,endpoint=client,dir={dir}");
    let disk = format!(
        "driver=nbd,server.type=inet,server.host=127.0.0.1,server.port={},export=disk,tls-creds=tls",
        host.port
    );
    attempt("qemu-io", &["--object", &object, "--image-opts", &disk, "-c", "write -P 5 1M 1M", "-c", "read -P 5 1M 1M"])
}

#[test]
fn clients_with_a_certificate_are_served_and_others_refused() {
    let certificates = Certificates::new();
    let host = host(&certificates.options(TlsNeed::Required, true));
    let uri = |dir: &str| format!("nbds://127.0.0.1:{}/disk?tls-certificates={}", host.port, certificates.dir(dir));

    assert_eq!(run("nbdinfo", &["--size", &uri("good")]).trim(), SIZE.to_string());
    let (ok, text) = qemu(&host, &certificates.dir("good"));
    assert!(ok && !text.contains("failed"), "{text}");
    let copy = host.file("copy.img");
    run("nbdcopy", &["--connections=4", &uri("good"), arg(&copy)]);
    run("nbdcopy", &["--connections=4", arg(&copy), &uri("good")]);

    for dir in ["none", "wrong"] {
        let (ok, text) = attempt("nbdinfo", &["--size", &uri(dir)]);
        assert!(!ok, "{dir}: {text}");
        let (ok, text) = qemu(&host, &certificates.dir(dir));
        assert!(!ok || !text.contains("read 1048576/1048576"), "{dir}: {text}");
    }
    let (ok, text) = attempt("nbdinfo", &["--size", &format!("nbd://127.0.0.1:{}/disk", host.port)]);
    assert!(!ok, "without TLS: {text}");
    assert_eq!(run("nbdinfo", &["--size", &uri("good")]).trim(), SIZE.to_string(), "it still serves");
}

#[test]
fn nothing_is_answered_in_the_clear_where_tls_is_required() {
    let certificates = Certificates::new();
    let host = host(&certificates.options(TlsNeed::Required, false));
    let mut raw = Raw::greeted(&host.socket());
    for option in [option::LIST, option::INFO, option::GO, option::STRUCTURED_REPLY, 77] {
        assert_eq!(raw.ask(option, &go_data("disk"))[0].kind, option_reply::ERR_TLS_REQD);
    }
    assert_eq!(raw.ask(option::STARTTLS, b"x")[0].kind, option_reply::ERR_INVALID);
    raw.say(option::EXPORT_NAME, b"disk");
    assert!(raw.is_closed());
    // Without a CA for clients they need no certificate.
    let uri = format!("nbds://127.0.0.1:{}/disk?tls-certificates={}", host.port, certificates.dir("none"));
    assert_eq!(run("nbdinfo", &["--size", &uri]).trim(), SIZE.to_string());
}

#[test]
fn optional_tls_serves_both_and_what_was_said_before_it_is_void() {
    let certificates = Certificates::new();
    let host = host(&certificates.options(TlsNeed::Optional, true));
    let address = format!("127.0.0.1:{}/disk", host.port);
    assert_eq!(run("nbdinfo", &["--size", &format!("nbd://{address}")]).trim(), SIZE.to_string());
    let uri = format!("nbds://{address}?tls-certificates={}", certificates.dir("good"));
    assert_eq!(run("nbdinfo", &["--size", &uri]).trim(), SIZE.to_string());
    // An option that follows STARTTLS in the clear is taken for TLS, which it is not.
    let mut raw = Raw::greeted(&host.socket());
    assert_eq!(raw.ask(option::STARTTLS, &[])[0].kind, option_reply::ACK);
    raw.say(option::GO, &go_data("disk"));
    assert!(raw.is_closed());
    let mut raw = Raw::greeted(&host.socket());
    assert_eq!(raw.ask(option::STARTTLS, &[])[0].kind, option_reply::ACK);
    raw.write(&common::noise(4096, 3));
    assert!(raw.is_closed());
    assert_eq!(run("nbdinfo", &["--size", &uri]).trim(), SIZE.to_string(), "it still serves");
}

#[test]
fn files_that_hold_no_certificate_are_named() {
    let certificates = Certificates::new();
    let good = certificates.options(TlsNeed::Required, true);
    let key = good.key.clone();
    let exports = || Arc::new(Disks(Vec::new()));
    for bad in [
        TlsOptions { certificate: key.clone(), ..good.clone() },
        TlsOptions { key: "/nonexistent".into(), ..good.clone() },
        TlsOptions { client_ca: Some(key), ..good },
    ] {
        let error = tidemark_io_filter::nbd::Server::new(exports(), Limits::default(), Some(&bad)).err();
        let text = error.expect("it holds none").to_string();
        assert!(
            text.starts_with("cannot use the ") && (text.contains("server-key.pem") || text.contains("/nonexistent")),
            "{text}"
        );
    }
}
