//! Clients that say nothing, or not enough: with the clock stopped, so that hours pass in no time.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::Path;
use std::sync::Arc;
use tidemark_api::{Client, Error};
use tidemark_control::fake::Fake;
use tidemark_drva::api::{ApiSocket, CONNECTIONS_MAX, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

/// Serves for as long as `test` takes.
async fn served(test: impl AsyncFnOnce(&Path)) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("drva.sock");
    let socket = ApiSocket::bind(&path).unwrap();
    let serving = tokio::spawn(serve(socket, Arc::new(Fake::with_accounting()), std::future::pending()));
    test(&path).await;
    assert!(!serving.is_finished());
    serving.abort();
}

async fn rest(mut stream: UnixStream) -> String {
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    String::from_utf8(rest).unwrap()
}

#[tokio::test(start_paused = true)]
async fn half_a_head_is_given_up() {
    served(async |path| {
        let mut stream = UnixStream::connect(path).await.unwrap();
        stream.write_all(b"GET /v1/sta").await.unwrap();
        rest(stream).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn half_a_body_is_given_up_with_words() {
    served(async |path| {
        let mut stream = UnixStream::connect(path).await.unwrap();
        stream
            .write_all(b"POST /v1/domains HTTP/1.1\r\nhost: t\r\ncontent-length: 100\r\n\r\n{\"name\"")
            .await
            .unwrap();
        let answer = rest(stream).await;
        assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("did not arrive within 10 s"), "{answer}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_thousand_idle_connections_keep_nobody_out_for_long() {
    served(async |path| {
        let mut idle = Vec::new();
        for _ in 0..1_000 {
            // Beyond those that are served and those that may wait the system refuses.
            idle.extend(UnixStream::connect(path).await);
        }
        assert!(idle.len() > CONNECTIONS_MAX, "{}", idle.len());
        Client::new(path).status().await.unwrap();
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_client_does_not_wait_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mute.sock");
    let _mute = UnixListener::bind(&path).unwrap();
    let error = Client::new(&path).status().await.unwrap_err();
    assert!(matches!(error, Error::Timeout { waited_ms: 30_000, .. }), "{error:?}");
    assert!(error.hint().unwrap().contains("may have been done all the same"));
}

#[tokio::test]
async fn an_answer_that_is_none_is_told_apart() {
    for (answer, says) in [
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi",
            "the answer to GET /v1/status makes no sense: expected value",
        ),
        ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhi", "the answer to GET /v1/status broke off"),
        ("HTTP/1.1 500 Oops\r\ncontent-length: 2\r\n\r\nhi", "status 500 Internal Server Error without a problem"),
        ("SSH-2.0-OpenSSH\r\n", "the answer to GET /v1/status broke off"),
        ("", "the answer to GET /v1/status broke off"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("strange.sock");
        let strange = UnixListener::bind(&path).unwrap();
        let answering = async {
            let (mut stream, _) = strange.accept().await.unwrap();
            let mut head = [0; 1_000];
            assert!(stream.read(&mut head).await.unwrap() > 0);
            stream.write_all(answer.as_bytes()).await.unwrap();
        };
        let client = Client::new(&path);
        let (error, ()) = tokio::join!(client.status(), answering);
        let error = error.unwrap_err();
        assert!(error.to_string().contains(says), "{answer:?}: {error}");
        assert!(error.hint().is_some());
    }
}
