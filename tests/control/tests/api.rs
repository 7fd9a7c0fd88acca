//! The control API over a real socket, before an appliance that only pretends.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use serde_json::{Value, json};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use tidemark_api::{
    AttachRequest, Attachment, BandwidthWindow, BookmarkLevel, BookmarkRequest, Day, DiskAddress, DiskState,
    DomainSpec, DomainState, DrainRequest, Error, EventQuery, GuestAgent, Hook, Limit, ModeRequest, ProblemKind,
    ProtectionMode, RemoveQuery, ResizeRequest, SeedRequest, SeedSource, SettingsPatch, Severity, TakeoverRequest,
    TimeOfDay, VM_CONFIG_BYTES_MAX, VmConfigRequest,
};
use tidemark_control::Served;
use tidemark_control::fake::{PANICS, SLOW, spec};
use tidemark_e2e::system::until;

fn root() -> DiskAddress {
    DiskAddress { domain: "accounting".into(), vm: "web1".into(), disk: "root".into() }
}

/// An answer as it is on the wire.
#[derive(Debug)]
struct Raw {
    status: u16,
    media: String,
    body: Value,
}

/// Sends bytes, hangs up, and reads what comes.
fn exchange(socket: &Path, request: &[u8]) -> Vec<u8> {
    let mut stream = UnixStream::connect(socket).unwrap();
    // The other side may have had enough before the end.
    let _ = stream.write_all(request);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

fn ask(socket: &Path, method: &str, path: &str, body: &[u8]) -> Raw {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: tidemark\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = UnixStream::connect(socket).unwrap();
    let _ = stream.write_all(&[head.as_bytes(), body].concat());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{method} {path}: {answer:?}"));
    let header = |name: &str| {
        let line = head.lines().find_map(|line| line.to_lowercase().strip_prefix(name).map(str::to_owned));
        line.unwrap_or_default().trim_start_matches(": ").to_owned()
    };
    let status = head[9..12].parse().unwrap();
    Raw {
        status,
        media: header("content-type"),
        body: serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {body}")),
    }
}

/// Must end in a problem of this kind that says this, with a hint that has these words.
#[track_caller]
fn refused(raw: &Raw, kind: ProblemKind, says: &str, hints: &str) {
    assert_eq!((raw.status, &*raw.media), (kind.status(), "application/problem+json"), "{raw:?}");
    let text = |name: &str| raw.body[name].as_str().unwrap_or_default();
    assert_eq!(text("kind"), kind.name(), "{raw:?}");
    assert_eq!(text("type"), format!("urn:tidemark:problem:{}", kind.name()));
    assert_eq!((text("title"), &raw.body["status"]), (kind.title(), &json!(kind.status())));
    assert!(text("detail").contains(says), "{raw:?}");
    assert!(text("hint").contains(hints), "{raw:?}");
}

#[test]
fn every_operation_goes_through_client_socket_and_server() {
    let served = Served::new();
    let client = served.client();
    served.run(async {
        let status = client.status().await.unwrap();
        assert_eq!((status.name.as_str(), status.domains.len()), ("drva1", 2));

        let window = BandwidthWindow {
            days: vec![Day::Mon, Day::Sun],
            from: "22:00".parse().unwrap(),
            to: TimeOfDay::END,
            upload_bytes_per_s: Limit::at_most(1 << 20).unwrap(),
        };
        let settings = SettingsPatch { rpo_ms: Some(1_000), bandwidth: Some(vec![window]), ..Default::default() };
        let name = "a domain/with?odd%chars".replace('/', " ");
        let disks = vec![spec("vm", "..", None)];
        let domain =
            DomainSpec { name: name.clone(), url: "/srv/odd".into(), create: true, settings: settings.clone(), disks };
        assert_eq!(client.domain_add(&domain).await.unwrap().state, DomainState::Opening);
        assert_eq!(client.domain(&name).await.unwrap().rpo.target_ms, 1_000);
        assert_eq!(client.settings(&name).await.unwrap().bandwidth, settings.bandwidth.unwrap());
        let odd = DiskAddress { domain: name.clone(), vm: "vm".into(), disk: "..".into() };
        assert_eq!(client.disk(&odd).await.unwrap().disk, "..");

        let patch = SettingsPatch { upload_bytes_per_s: Some(Limit::Unlimited), ..Default::default() };
        let changed = client.change_settings(&name, &patch).await.unwrap();
        assert_eq!((changed.rpo_ms, changed.upload_bytes_per_s), (1_000, Limit::Unlimited));
        let removed = client.domain_remove(&name, RemoveQuery::default()).await.unwrap();
        assert_eq!(removed.discarded_bytes, 0);
        assert_eq!(client.domain(&name).await.unwrap_err().kind(), ProblemKind::NoDomain);

        assert_eq!(client.pause("accounting").await.unwrap().state, DomainState::Paused);
        assert_eq!(client.resume("accounting").await.unwrap().state, DomainState::Replicating);
        assert!(client.drain("accounting", DrainRequest { timeout_ms: 1 }).await.unwrap().complete);
        let epoch = client.takeover("accounting", TakeoverRequest { discard_local: true }).await.unwrap().epoch;
        assert_eq!(epoch, Some(8));
        let hook = |word: &str| Some(Hook { command: vec![word.into()], timeout_ms: 1 });
        let bookmark = BookmarkRequest {
            name: "before upgrade".into(),
            level: BookmarkLevel::App,
            agents: vec![GuestAgent { vm: "web1".into(), socket: "/run/qga.sock".into() }],
            freeze_timeout_ms: 5_000,
            pre: hook("quiesce"),
            post: hook("go-on"),
        };
        let made = client.bookmark("accounting", &bookmark).await.unwrap();
        assert_eq!((made.lsn, made.level, made.frozen_ms), (471, BookmarkLevel::App, Some(42)));
        // The largest configuration, of characters that JSON makes two of.
        let config = VmConfigRequest { format: "libvirt-xml".into(), body: "\"".repeat(VM_CONFIG_BYTES_MAX) };
        assert_eq!(client.vm_config("accounting", "web1", &config).await.unwrap().lsn, 472);

        let added = client.disk_add("accounting", &spec("web2", "root", Some("/dev/x"))).await.unwrap();
        assert_eq!(added.export.name, "accounting/web2/root");
        let resize = ResizeRequest { size_bytes: 1 << 30, allow_shrink: false };
        assert_eq!(client.disk_resize(&root(), resize).await.unwrap().size_bytes, 1 << 30);
        let mode = ModeRequest { mode: ProtectionMode::WriteBack };
        assert_eq!(client.disk_mode(&root(), mode).await.unwrap().mode, ProtectionMode::WriteBack);
        for source in [
            SeedSource::Primary,
            SeedSource::Image { path: "/img".into() },
            SeedSource::Domain { url: "/b".into(), vm: "v".into(), disk: "d".into(), point: "latest".into() },
        ] {
            let seeding = client.seed(&root(), &SeedRequest { source }).await.unwrap();
            assert!(matches!(seeding.state, DiskState::Seeding { done_bytes: 0, .. }));
        }
        let attach = AttachRequest { qmp_socket: "/run/qmp.sock".into(), node: None };
        assert!(matches!(client.attach(&root(), &attach).await.unwrap().attachment, Attachment::Tap { .. }));
        assert_eq!(client.detach(&root()).await.unwrap().attachment, Attachment::Nothing);
        let refused = client.disk_remove(&root(), RemoveQuery::default()).await.unwrap_err();
        assert_eq!(refused.kind(), ProblemKind::Conflict);
        assert!(refused.hint().unwrap().contains("--discard-pending"));
        let how = RemoveQuery { discard_pending: true, drain_timeout_ms: 5 };
        assert_eq!(client.disk_remove(&root(), how).await.unwrap().discarded_bytes, 3 << 20);

        served.fake.happens(Severity::Warning, "disk-gap", "gap");
        let page = client.events(EventQuery { wait_s: 1, limit: 5, after: 0 }).await.unwrap();
        assert_eq!((page.events[0].kind.as_str(), page.last_seq), ("disk-gap", 1));
        assert_eq!(page.events[0].data["lsn"], 7);
    });
}

#[test]
fn what_is_wrong_with_a_request_is_said_with_kind_and_hint() {
    let served = Served::new();
    let at = |method: &str, path: &str, body: &str| ask(served.socket(), method, path, body.as_bytes());
    let (invalid, see) = (ProblemKind::InvalidRequest, "openapi.json");
    refused(&at("GET", "/", ""), ProblemKind::NotFound, "nothing is at /", see);
    refused(&at("GET", "/v2/status", ""), ProblemKind::NotFound, "nothing is at /v2/status", see);
    refused(&at("DELETE", "/v1/status", ""), ProblemKind::MethodNotAllowed, "/v1/status does not take DELETE", see);
    refused(&at("GET", "/v1/domains/none", ""), ProblemKind::NoDomain, "no domain \"none\"", "tidemark drva status");
    refused(
        &at("GET", "/v1/domains/a/disks/b/c", ""),
        ProblemKind::NoDomain,
        "no domain \"a\"",
        "tidemark drva status",
    );
    refused(&at("GET", "/v1/domains/%ff", ""), invalid, "bad path", see);
    refused(&at("GET", "/v1/events?after=x", ""), invalid, "bad query", see);
    refused(&at("GET", "/v1/events?afetr=1", ""), invalid, "unknown field `afetr`", see);
    refused(&at("GET", "/v1/events?wait_s=61", ""), invalid, "wait_s: 61 is more than 60", "");
    let domains = |body: &str| at("POST", "/v1/domains", body);
    refused(&domains(""), invalid, "bad request body: EOF", see);
    refused(&domains("{"), invalid, "line 1 column 1", see);
    refused(&domains(r#"{"name": "a"}"#), invalid, "missing field `url`", see);
    refused(&domains(r#"{"name": "a", "url": "b", "craete": true}"#), invalid, "unknown field `craete`", see);
    refused(&domains(r#"{"name": "a/b", "url": "b"}"#), invalid, "name: \"a/b\" has a slash", "VM/DISK");
    let disk = r#"{"name": "a", "url": "b", "disks": [{"vm": "v", "disk": "d", "size_bytes": 7}]}"#;
    refused(&domains(disk), invalid, "disks[0].size_bytes: 7 bytes is not a multiple of 512", "whole blocks");
    let settings = |body: &str| at("PATCH", "/v1/domains/accounting/settings", body);
    let bounds = "log_bytes_max: the maximum of 1 bytes is below the minimum";
    refused(&settings(r#"{"log_bytes_max": 1}"#), invalid, bounds, "raise the one");
    refused(&settings(r#"{"seed_bytes_per_s": 0}"#), invalid, "0 is not a limit", see);
    let source = r#"{"source": {"from": "image", "path": "/x", "force": true}}"#;
    refused(&at("POST", "/v1/domains/accounting/disks/web1/root/seed", source), invalid, "unknown field `force`", see);
    let large = vec![b' '; 3 << 20];
    refused(&ask(served.socket(), "POST", "/v1/domains", &large), ProblemKind::TooLarge, "more than the", "");
    let app = r#"{"name": "b", "level": "app"}"#;
    refused(
        &at("POST", "/v1/domains/accounting/bookmarks", app),
        invalid,
        "pre: level app needs a command",
        "pre hook",
    );
}

#[test]
fn a_panic_costs_one_request() {
    let served = Served::new();
    for (method, path) in [("GET", ""), ("POST", "/pause")] {
        let raw = ask(served.socket(), method, &format!("/v1/domains/{PANICS}{path}"), b"");
        refused(&raw, ProblemKind::Internal, "a bug", "please report");
    }
    served.run(served.client().status()).unwrap();
}

#[test]
fn a_change_is_carried_through_when_whoever_asked_hangs_up() {
    let served = Served::new();
    let mut stream = UnixStream::connect(served.socket()).unwrap();
    let request = format!("POST /v1/domains/{SLOW}/pause HTTP/1.1\r\nhost: t\r\ncontent-length: 0\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    until("beginning", || served.fake.done().contains(&"begin to pause".to_owned()));
    drop(stream);
    served.run(served.client().status()).unwrap();
    served.fake.let_go();
    until("pause", || served.fake.done().contains(&format!("pause {SLOW}")));
}

#[test]
fn stopping_answers_what_is_under_way_and_takes_the_socket_away() {
    let mut served = Served::new();
    let client = served.client();
    let waiting = std::thread::spawn({
        let socket = served.socket().to_owned();
        move || ask(&socket, "GET", "/v1/events?wait_s=60", b"")
    });
    let pausing = std::thread::spawn({
        let socket = served.socket().to_owned();
        move || ask(&socket, "POST", &format!("/v1/domains/{SLOW}/pause"), b"")
    });
    let began = |what: &str| served.fake.done().contains(&what.to_owned());
    until("requests", || began("begin to wait") && began("begin to pause"));
    served.fake.let_go();
    assert_eq!(pausing.join().unwrap().status, 200);
    served.stop();
    let raw = waiting.join().unwrap();
    refused(&raw, ProblemKind::Unavailable, "the appliance is stopping", "");
    assert!(!served.socket().exists());
    assert!(matches!(served.run(client.status()), Err(Error::NoAppliance { .. })));
    served.start();
    served.run(client.status()).unwrap();
}

#[test]
fn the_document_is_valid_and_answers_are_as_it_says() {
    let served = Served::new();
    let document = served.run(served.client().openapi()).unwrap();
    served.fake.happens(Severity::Error, "disk-gap", "gap");
    let disk = "/v1/domains/accounting/disks/web1/root";
    let bodies = [
        ("/v1/domains", json!({"name": "new", "url": "/b", "disks": [{"vm": "v", "disk": "d"}]})),
        ("/v1/domains/{domain}/settings", json!({"upload_bytes_per_s": 7, "log_bytes_max": "unlimited"})),
        ("/v1/domains/{domain}/drain", json!({"timeout_ms": 1})),
        ("/v1/domains/{domain}/takeover", json!({})),
        ("/v1/domains/{domain}/bookmarks", json!({"name": "b", "level": "crash"})),
        ("/v1/domains/{domain}/vms/{vm}/config", json!({"format": "x", "body": "y"})),
        ("/v1/domains/{domain}/disks", json!({"vm": "v", "disk": "d2", "primary": "/p"})),
        (&format!("{}/resize", DISK), json!({"size_bytes": 512})),
        (&format!("{}/mode", DISK), json!({"mode": "write-back"})),
        (&format!("{}/seed", DISK), json!({"source": {"from": "primary"}})),
        (&format!("{}/attach", DISK), json!({"qmp_socket": "/q"})),
    ]
    .map(|(path, body)| (path.to_owned(), body));
    let mut answers = Vec::new();
    let mut operations = 0;
    let paths = document["paths"].as_object().unwrap();
    // What removes things goes last, the outermost at the very end.
    for method in ["get", "post", "put", "patch", "delete"] {
        for (path, item) in paths.iter().rev().filter(|(_, item)| !item[method].is_null()) {
            operations += 1;
            assert!(item[method]["summary"].is_string(), "{method} {path} says what it does");
            let here = path.replace(DISK, disk).replace("{domain}", "accounting").replace("{vm}", "web1");
            let body = bodies.iter().find(|(of, _)| of == path).map_or(String::new(), |(_, body)| body.to_string());
            let query = if method == "delete" { "?discard_pending=true" } else { "" };
            let ran = ask(served.socket(), &method.to_uppercase(), &format!("{here}{query}"), body.as_bytes());
            assert_eq!(ran.status, 200, "{method} {path}: {ran:?}");
            answers.push(json!([method, path, ran.status, ran.media, ran.body]));
            let failed =
                ask(served.socket(), &method.to_uppercase(), &here.replace("accounting", "none"), body.as_bytes());
            if failed.status != 200 {
                answers.push(json!([method, path, failed.status, failed.media, failed.body]));
            }
        }
    }
    assert_eq!(operations, 21, "every operation of the client");
    assert!(answers.len() > 30, "problems among them");

    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi/check.py");
    let python = concat!(env!("CARGO_MANIFEST_DIR"), "/../../.tools/openapi/bin/python");
    let mut check = Command::new(python);
    let check = check.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut check = check.spawn().unwrap_or_else(|e| panic!("{python}: {e} (scripts/install puts it here)"));
    let given = json!({"document": document, "answers": answers}).to_string();
    check.stdin.take().unwrap().write_all(given.as_bytes()).unwrap();
    let said = check.wait_with_output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stdout));
}

const DISK: &str = "/v1/domains/{domain}/disks/{vm}/{disk}";

#[test]
fn every_member_in_the_document_says_what_it_is() {
    let document = serde_json::to_value(tidemark_drva::api::openapi()).unwrap();
    let described = |schema: &Value| {
        let inner = schema["oneOf"].as_array().into_iter().flatten();
        !schema["description"].is_null()
            || schema["enum"].is_array()
            || inner.into_iter().any(|s| !s["description"].is_null())
    };
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        assert!(described(schema) || schema["$ref"].is_string(), "{name}");
        let forms = schema["oneOf"].as_array().map_or(vec![schema], |forms| forms.iter().collect());
        for member in forms.iter().filter_map(|form| form["properties"].as_object()).flatten() {
            let tag = member.1["enum"].as_array().is_some_and(|words| words.len() == 1);
            let says = described(member.1) || member.1["$ref"].is_string() || tag;
            assert!(says, "{name}.{}: {}", member.0, member.1);
        }
    }
}

mod garbage {
    use super::*;
    use proptest::prelude::*;
    use std::sync::LazyLock;

    static SERVED: LazyLock<Served> = LazyLock::new(Served::new);

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

        #[test]
        fn prop_garbage_on_the_socket_harms_nobody(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
            exchange(SERVED.socket(), &bytes);
            prop_assert!(SERVED.run(SERVED.client().status()).is_ok());
        }

        #[test]
        fn prop_requests_cut_short_or_damaged_harm_nobody(
            at in any::<prop::sample::Index>(),
            with in any::<u8>(),
            cut in any::<bool>(),
        ) {
            let body = r#"{"name": "garbage", "url": "b", "settings": {"rpo_ms": 100}, "disks": [{"vm": "v", "disk": "d"}]}"#;
            let mut request = format!(
                "POST /v1/domains?x=%20 HTTP/1.1\r\nhost: t\r\ntransfer-encoding: identity\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            ).into_bytes();
            let at = at.index(request.len());
            if cut { request.truncate(at) } else { request[at] = with }
            exchange(SERVED.socket(), &request);
            prop_assert!(SERVED.run(SERVED.client().status()).is_ok());
        }

        #[test]
        fn prop_any_json_is_answered(value in any_json()) {
            for (method, path) in [("POST", "/v1/domains"), ("PATCH", "/v1/domains/accounting/settings")] {
                let answer = ask(SERVED.socket(), method, path, value.to_string().as_bytes());
                prop_assert!(matches!(answer.status, 200 | 400 | 409), "{answer:?}");
            }
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let member =
            prop::sample::select(vec!["name", "url", "settings", "rpo_ms", "disks", "vm", "disk", "bandwidth", "x"]);
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,20}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 6, move |inner| {
            let object = proptest::collection::btree_map(member.clone(), inner.clone(), 0..6);
            prop_oneof![
                proptest::collection::vec(inner, 0..4).prop_map(Value::from),
                object.prop_map(|map| map.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()),
            ]
        })
    }

    #[test]
    fn heads_that_never_end_are_cut_off() {
        let answer =
            exchange(SERVED.socket(), &[b"GET / HTTP/1.1\r\n".as_slice(), &b"a: b\r\n".repeat(100_000)].concat());
        assert!(answer.starts_with(b"HTTP/1.1 431"), "{}", String::from_utf8_lossy(&answer));
    }
}
