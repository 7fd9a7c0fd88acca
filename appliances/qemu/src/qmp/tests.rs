//! A monitor that lies, babbles, hangs up and says nothing: each ends in an error that says so.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use super::*;
use tidemark_format::ErrorKind;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

const GREETING: &str =
    r#"{"QMP": {"version": {"qemu": {"micro": 2, "minor": 0, "major": 10}, "package": ""}, "capabilities": []}}"#;

/// A fake VM, which answers each line with what `answer` makes of its number.
struct Vm {
    dir: tempfile::TempDir,
    listener: UnixListener,
}

impl Vm {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("qmp")).unwrap();
        Self { dir, listener }
    }

    fn address(&self) -> Address {
        Address::Unix(self.dir.path().join("qmp"))
    }

    /// Greets, negotiates, and hands over the connection.
    async fn accept(&self) -> BufReader<UnixStream> {
        let (stream, _) = self.listener.accept().await.unwrap();
        let mut stream = BufReader::new(stream);
        say(&mut stream, GREETING).await;
        assert_eq!(heard(&mut stream).await["execute"], "qmp_capabilities");
        say(&mut stream, r#"{"return": {}, "id": 0}"#).await;
        stream
    }

    async fn connected(&self, options: QmpOptions) -> (Qmp, BufReader<UnixStream>) {
        let address = self.address();
        let (qmp, stream) = tokio::join!(Qmp::connect(&address, options), self.accept());
        (qmp.unwrap(), stream)
    }
}

async fn say(stream: &mut BufReader<UnixStream>, line: &str) {
    stream.write_all(format!("{line}\r\n").as_bytes()).await.unwrap();
}

async fn heard(stream: &mut BufReader<UnixStream>) -> Value {
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    serde_json::from_str(&line).unwrap()
}

fn soon() -> QmpOptions {
    QmpOptions { answer_max: Duration::from_millis(500) }
}

#[tokio::test]
async fn answers_find_their_questions_in_any_order() {
    let vm = Vm::new();
    let (qmp, mut stream) = vm.connected(QmpOptions::default()).await;
    assert_eq!(qmp.version().to_string(), "10.0.2");
    let mut events = qmp.events();
    let answering = async {
        let (first, second) = (heard(&mut stream).await, heard(&mut stream).await);
        for question in [second, first] {
            say(&mut stream, r#"{"event": "RESUME", "timestamp": {"seconds": 1, "microseconds": 2}}"#).await;
            let answer = json!({ "return": question["arguments"], "id": question["id"] });
            say(&mut stream, &answer.to_string()).await;
        }
    };
    let (one, two, ()) =
        tokio::join!(qmp.execute("echo", json!({ "n": 1 })), qmp.execute("echo", json!({ "n": 2 })), answering);
    assert_eq!((one.unwrap(), two.unwrap()), (json!({ "n": 1 }), json!({ "n": 2 })));
    for _ in 0..2 {
        let resumed = Event { name: "RESUME".to_owned(), data: Value::Null };
        assert_eq!(events.next().await.unwrap(), Heard::Event(resumed));
    }
}

#[tokio::test]
async fn a_refusal_says_what_was_refused_and_why() {
    let vm = Vm::new();
    let (qmp, mut stream) = vm.connected(QmpOptions::default()).await;
    let answering = async {
        heard(&mut stream).await;
        say(&mut stream, r#"{"id": 1, "error": {"class": "GenericError", "desc": "Node not found"}}"#).await;
    };
    let (refused, ()) = tokio::join!(qmp.execute("blockdev-del", json!({})), answering);
    let error = refused.unwrap_err();
    assert_eq!(error.to_string(), "blockdev-del was refused (GenericError): Node not found");
    assert_eq!(error.kind(), ErrorKind::FixRequest);
}

#[tokio::test]
async fn an_answer_too_late_fails_one_command_and_no_other() {
    let vm = Vm::new();
    let (qmp, mut stream) = vm.connected(soon()).await;
    let error = qmp.execute("quit", json!({})).await.unwrap_err();
    assert_eq!((error.to_string(), error.kind()), ("no answer to quit within 500 ms".to_owned(), ErrorKind::Retry));
    heard(&mut stream).await;
    say(&mut stream, r#"{"return": "late", "id": 1}"#).await;
    let answering = async {
        let question = heard(&mut stream).await;
        say(&mut stream, &json!({ "return": "in time", "id": question["id"] }).to_string()).await;
    };
    let (answer, ()) = tokio::join!(qmp.execute("cont", json!({})), answering);
    assert_eq!(answer.unwrap(), "in time");
}

#[tokio::test]
async fn what_is_no_qmp_ends_the_connection_for_everybody() {
    let endless = "[".repeat(1000);
    for (line, what) in [
        ("HTTP/1.1 400 Bad Request", "expected value"),
        ("", "EOF while parsing"),
        ("{}", "neither an event nor an answer"),
        (r#"{"return": {}}"#, "neither an event nor an answer"),
        (r#"{"return": {}, "id": 7}"#, "a question never asked"),
        (r#"{"return": {}, "id": "one"}"#, "invalid type"),
        (r#"{"error": "no", "id": 1}"#, "invalid type"),
        ("\u{0}\u{1}\u{fffd}", "expected value"),
        (endless.as_str(), "invalid type"),
    ] {
        let vm = Vm::new();
        let (qmp, mut stream) = vm.connected(QmpOptions::default()).await;
        let mut events = qmp.events();
        let answering = async {
            heard(&mut stream).await;
            say(&mut stream, line).await;
        };
        let (waiting, ()) = tokio::join!(qmp.execute("stop", json!({})), answering);
        for error in
            [waiting.unwrap_err(), events.next().await.unwrap_err(), qmp.execute("stop", json!({})).await.unwrap_err()]
        {
            let text = error.to_string();
            assert!(text.contains("does not speak QMP") && text.contains(what), "{line:?}: {text}");
            assert_eq!(error.kind(), ErrorKind::FixRequest);
        }
        assert!(qmp.events().next().await.is_err());
    }
}

#[tokio::test]
async fn a_line_without_end_is_not_kept() {
    let vm = Vm::new();
    let (qmp, mut stream) = vm.connected(QmpOptions::default()).await;
    let babbling = async {
        heard(&mut stream).await;
        let piece = vec![b' '; 1 << 20];
        // Until the client hangs up on it.
        while stream.write_all(&piece).await.is_ok() {}
    };
    let waiting = async {
        let error = qmp.execute("stop", json!({})).await.unwrap_err();
        drop(qmp);
        error
    };
    let (error, ()) = tokio::join!(waiting, babbling);
    assert!(error.to_string().ends_with("a line of more than 16777216 bytes"), "{error}");
}

#[tokio::test]
async fn hanging_up_ends_what_waits() {
    let vm = Vm::new();
    let (qmp, mut stream) = vm.connected(QmpOptions::default()).await;
    let mut events = qmp.events();
    let leaving = async {
        heard(&mut stream).await;
        stream.write_all(br#"{"return""#).await.unwrap();
        drop(stream);
    };
    let (waiting, ()) = tokio::join!(qmp.execute("stop", json!({})), leaving);
    let error = waiting.unwrap_err();
    assert!(error.to_string().ends_with("is closed: the other side left in the middle of a line"), "{error}");
    assert_eq!((error.kind(), events.next().await.unwrap_err().kind()), (ErrorKind::Retry, ErrorKind::Retry));
}

#[tokio::test]
async fn who_does_not_greet_as_qemu_does_is_none() {
    let vm = Vm::new();
    let address = vm.address();
    let greeting = async {
        let (stream, _) = vm.listener.accept().await.unwrap();
        let mut stream = BufReader::new(stream);
        say(&mut stream, "220 mail.example ESMTP").await;
    };
    let (error, ()) = tokio::join!(Qmp::connect(&address, QmpOptions::default()), greeting);
    let error = error.unwrap_err().to_string();
    assert!(error.ends_with("does not speak QMP: it greets with \"220 mail.example ESMTP\""), "{error}");

    // A monitor serves one client: to others it says nothing.
    let error = Qmp::connect(&address, soon()).await.unwrap_err();
    assert_eq!(error.to_string(), "no answer to the greeting within 500 ms");
    let nobody = Address::Unix(vm.dir.path().join("nobody"));
    assert_eq!(Qmp::connect(&nobody, soon()).await.unwrap_err().kind(), ErrorKind::Retry);
}

#[tokio::test]
async fn a_slow_listener_is_told_what_it_missed() {
    let vm = Vm::new();
    let (qmp, mut stream) = vm.connected(QmpOptions::default()).await;
    let mut events = qmp.events();
    let answering = async {
        let question = heard(&mut stream).await;
        for _ in 0..EVENTS_MAX + 10 {
            say(&mut stream, r#"{"event": "BLOCK_JOB_ERROR", "data": {"device": "tm-a"}}"#).await;
        }
        say(&mut stream, &json!({ "return": {}, "id": question["id"] }).to_string()).await;
    };
    let (answer, ()) = tokio::join!(qmp.execute("cont", json!({})), answering);
    answer.unwrap();
    assert_eq!(events.next().await.unwrap(), Heard::Missed(10));
    assert!(matches!(events.next().await.unwrap(), Heard::Event(_)));
}
