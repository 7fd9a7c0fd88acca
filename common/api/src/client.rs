//! Asks an appliance, over its socket: one connection for each request, each with a time limit.

use crate::event::{EventPage, EventQuery};
use crate::problem::{Problem, ProblemKind};
use crate::request::{
    AttachRequest, BookmarkMade, BookmarkRequest, DrainRequest, Drained, ModeRequest, Recorded, RemoveQuery, Removed,
    ResizeRequest, SeedRequest, TakeoverRequest, VmConfigRequest,
};
use crate::settings::{Settings, SettingsPatch};
use crate::spec::{DiskAddress, DiskSpec, DomainSpec};
use crate::status::{ApplianceStatus, DiskStatus, DomainStatus};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, ErrorKind as Io};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;

/// The result of asking an appliance.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Bytes of one answer at most.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Pause before trying to connect again where many do.
const CROWDED_PAUSE: Duration = Duration::from_millis(20);
/// Time for what needs no waiting.
const PATIENCE: Duration = Duration::from_secs(30);
/// Time for what waits for the bucket: long enough for all of its retries.
const PATIENCE_WITH_BUCKET: Duration = Duration::from_secs(180);

/// Why an appliance did not do as asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nobody listens.
    #[error("no appliance listens on {socket}")]
    NoAppliance {
        /// The socket.
        socket: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The socket belongs to somebody else.
    #[error("cannot connect to {socket}")]
    Connect {
        /// The socket.
        socket: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// No answer came in time. The request may have been carried out.
    #[error("no answer to {method} {path} within {waited_ms} ms")]
    Timeout {
        /// What was asked.
        method: Method,
        /// About what.
        path: String,
        /// For how long.
        waited_ms: u128,
    },
    /// The connection broke before the answer was complete. The request may have been carried out.
    #[error("the answer to {method} {path} broke off: {why}")]
    Broken {
        /// What was asked.
        method: Method,
        /// About what.
        path: String,
        /// How.
        why: String,
    },
    /// The answer is not one of this API.
    #[error("the answer to {method} {path} makes no sense: {why}")]
    Answer {
        /// What was asked.
        method: Method,
        /// About what.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// The appliance said no.
    #[error(transparent)]
    Problem(#[from] Problem),
}

impl Error {
    /// What a caller can do about it.
    pub fn kind(&self) -> ProblemKind {
        match self {
            Self::NoAppliance { .. } | Self::Timeout { .. } | Self::Broken { .. } => ProblemKind::Unavailable,
            Self::Connect { source, .. } if source.kind() == Io::PermissionDenied => ProblemKind::Denied,
            Self::Connect { .. } => ProblemKind::Unavailable,
            Self::Answer { .. } => ProblemKind::Internal,
            Self::Problem(problem) => problem.kind,
        }
    }

    /// What a person can do about it, if that is known.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::NoAppliance { .. } => Some(
                "start it with `systemctl start tidemark-drva`, or name its socket with --socket or TIDEMARK_DRVA_SOCKET",
            ),
            Self::Connect { source, .. } if source.kind() == Io::PermissionDenied => {
                Some("only the user that the appliance runs as may control it: try as root")
            }
            Self::Timeout { .. } | Self::Broken { .. } => {
                Some("it may have been done all the same: look with `tidemark drva status`")
            }
            Self::Answer { .. } => Some("is that the socket of a Tidemark appliance of this version?"),
            Self::Problem(problem) => problem.hint.as_deref(),
            Self::Connect { .. } => None,
        }
    }
}

/// Speaks to one appliance. Cheap to clone; holds no connection.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

/// One request, before it is sent.
struct Ask<'a> {
    method: Method,
    /// Parts of the path behind the version; any text.
    path: Vec<&'a str>,
    query: String,
    body: Option<Vec<u8>>,
    within: Duration,
}

impl<'a> Ask<'a> {
    fn new(method: Method, path: &[&'a str]) -> Self {
        Self { method, path: path.to_vec(), query: String::new(), body: None, within: PATIENCE_WITH_BUCKET }
    }

    fn body<T: Serialize>(mut self, body: &T) -> Self {
        self.body = Some(serde_json::to_vec(body).expect("wire types have text keys and finite depth"));
        self
    }

    fn query(self, query: String) -> Self {
        Self { query, ..self }
    }

    fn within(self, within: Duration) -> Self {
        Self { within, ..self }
    }

    /// With so much more time than the appliance itself may take.
    fn after_ms(self, timeout_ms: u64) -> Self {
        self.within(PATIENCE_WITH_BUCKET.saturating_add(Duration::from_millis(timeout_ms)))
    }

    fn uri(&self) -> String {
        let mut uri = String::from("/v1");
        for part in &self.path {
            uri.push('/');
            encode(part, &mut uri);
        }
        if !self.query.is_empty() {
            uri.push('?');
            uri.push_str(&self.query);
        }
        uri
    }
}

/// Percent-encodes everything that means something in a path.
fn encode(part: &str, out: &mut String) {
    for byte in part.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' => out.push(char::from(byte)),
            // A part that is "." or ".." would be taken for a step in the tree.
            b'.' if !part.trim_matches('.').is_empty() => out.push('.'),
            _ => {
                const HEX: &[u8; 16] = b"0123456789ABCDEF";
                out.push('%');
                out.push(char::from(HEX[usize::from(byte >> 4)]));
                out.push(char::from(HEX[usize::from(byte & 15)]));
            }
        }
    }
}

impl Client {
    /// A client of the appliance that listens on `socket`. Does not connect yet.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// The socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// How the appliance is doing.
    pub async fn status(&self) -> Result<ApplianceStatus> {
        self.ask(Ask::new(Method::GET, &["status"]).within(PATIENCE)).await
    }

    /// How a domain is doing.
    pub async fn domain(&self, domain: &str) -> Result<DomainStatus> {
        self.ask(Ask::new(Method::GET, &["domains", domain]).within(PATIENCE)).await
    }

    /// How a disk is doing.
    pub async fn disk(&self, disk: &DiskAddress) -> Result<DiskStatus> {
        self.ask(Ask::new(Method::GET, &disk_path(disk)).within(PATIENCE)).await
    }

    /// What happened; waits for it if that is asked for.
    pub async fn events(&self, query: EventQuery) -> Result<EventPage> {
        let EventQuery { after, wait_s, limit } = query;
        let within = PATIENCE.saturating_add(Duration::from_secs(wait_s.into()));
        let query = format!("after={after}&wait_s={wait_s}&limit={limit}");
        self.ask(Ask::new(Method::GET, &["events"]).query(query).within(within)).await
    }

    /// The OpenAPI document of the API.
    pub async fn openapi(&self) -> Result<serde_json::Value> {
        self.ask(Ask::new(Method::GET, &["openapi.json"]).within(PATIENCE)).await
    }

    /// Protects a domain from now on.
    pub async fn domain_add(&self, spec: &DomainSpec) -> Result<DomainStatus> {
        self.ask(Ask::new(Method::POST, &["domains"]).body(spec)).await
    }

    /// Stops protecting a domain here.
    pub async fn domain_remove(&self, domain: &str, how: RemoveQuery) -> Result<Removed> {
        self.ask(remove(&["domains", domain], how)).await
    }

    /// The settings of a domain.
    pub async fn settings(&self, domain: &str) -> Result<Settings> {
        self.ask(Ask::new(Method::GET, &["domains", domain, "settings"]).within(PATIENCE)).await
    }

    /// Changes settings of a domain.
    pub async fn change_settings(&self, domain: &str, patch: &SettingsPatch) -> Result<Settings> {
        self.ask(Ask::new(Method::PATCH, &["domains", domain, "settings"]).body(patch)).await
    }

    /// Stops shipping a domain's writes; they stay in the log.
    pub async fn pause(&self, domain: &str) -> Result<DomainStatus> {
        self.ask(Ask::new(Method::POST, &["domains", domain, "pause"])).await
    }

    /// Ships a domain's writes again.
    pub async fn resume(&self, domain: &str) -> Result<DomainStatus> {
        self.ask(Ask::new(Method::POST, &["domains", domain, "resume"])).await
    }

    /// Waits until everything acknowledged so far is in the bucket.
    pub async fn drain(&self, domain: &str, request: DrainRequest) -> Result<Drained> {
        let ask = Ask::new(Method::POST, &["domains", domain, "drain"]).body(&request);
        self.ask(ask.after_ms(request.timeout_ms)).await
    }

    /// Takes a domain over again from whoever owns it now.
    pub async fn takeover(&self, domain: &str, request: TakeoverRequest) -> Result<DomainStatus> {
        self.ask(Ask::new(Method::POST, &["domains", domain, "takeover"]).body(&request)).await
    }

    /// Names this moment of a domain.
    pub async fn bookmark(&self, domain: &str, request: &BookmarkRequest) -> Result<BookmarkMade> {
        let hooks = [&request.pre, &request.post].into_iter().flatten().map(|hook| hook.timeout_ms);
        let ask = Ask::new(Method::POST, &["domains", domain, "bookmarks"]).body(request);
        self.ask(ask.after_ms(hooks.fold(request.freeze_timeout_ms, u64::saturating_add))).await
    }

    /// Records a VM's configuration.
    pub async fn vm_config(&self, domain: &str, vm: &str, request: &VmConfigRequest) -> Result<Recorded> {
        self.ask(Ask::new(Method::PUT, &["domains", domain, "vms", vm, "config"]).body(request)).await
    }

    /// Protects a disk from now on.
    pub async fn disk_add(&self, domain: &str, spec: &DiskSpec) -> Result<DiskStatus> {
        self.ask(Ask::new(Method::POST, &["domains", domain, "disks"]).body(spec)).await
    }

    /// Stops protecting a disk.
    pub async fn disk_remove(&self, disk: &DiskAddress, how: RemoveQuery) -> Result<Removed> {
        self.ask(remove(&disk_path(disk), how)).await
    }

    /// Changes a disk's size.
    pub async fn disk_resize(&self, disk: &DiskAddress, request: ResizeRequest) -> Result<DiskStatus> {
        self.of_disk(disk, "resize", &request).await
    }

    /// Changes when a disk's writes are acknowledged.
    pub async fn disk_mode(&self, disk: &DiskAddress, request: ModeRequest) -> Result<DiskStatus> {
        self.of_disk(disk, "mode", &request).await
    }

    /// Begins to ship what a disk holds.
    pub async fn seed(&self, disk: &DiskAddress, request: &SeedRequest) -> Result<DiskStatus> {
        self.of_disk(disk, "seed", request).await
    }

    /// Taps a running VM.
    pub async fn attach(&self, disk: &DiskAddress, request: &AttachRequest) -> Result<DiskStatus> {
        self.of_disk(disk, "attach", request).await
    }

    /// Ends a tap.
    pub async fn detach(&self, disk: &DiskAddress) -> Result<DiskStatus> {
        let mut path = disk_path(disk).to_vec();
        path.push("detach");
        self.ask(Ask::new(Method::POST, &path)).await
    }

    async fn of_disk<T: Serialize>(&self, disk: &DiskAddress, verb: &str, request: &T) -> Result<DiskStatus> {
        let mut path = disk_path(disk).to_vec();
        path.push(verb);
        self.ask(Ask::new(Method::POST, &path).body(request)).await
    }

    async fn ask<T: DeserializeOwned>(&self, ask: Ask<'_>) -> Result<T> {
        let (method, path, within) = (ask.method.clone(), ask.uri(), ask.within);
        let answer = match tokio::time::timeout(within, self.exchange(ask)).await {
            Ok(answer) => answer?,
            Err(_) => return Err(Error::Timeout { method, path, waited_ms: within.as_millis() }),
        };
        let (status, body) = answer;
        let nonsense = |why: String| Error::Answer { method: method.clone(), path: path.clone(), why };
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|e| nonsense(e.to_string()));
        }
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => Err(problem.into()),
            Err(_) => Err(nonsense(format!("status {status} without a problem"))),
        }
    }

    async fn exchange(&self, ask: Ask<'_>) -> Result<(StatusCode, Bytes)> {
        let stream = self.connect().await?;
        let (method, path) = (ask.method.clone(), ask.uri());
        let broken = |why: String| Error::Broken { method: method.clone(), path: path.clone(), why };
        let words = |e: hyper::Error| broken(e.to_string());
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(words)?;
        // Ends with the exchange: dropping the sender lets it finish.
        let connection = tokio::spawn(connection);
        let request = Request::builder()
            .method(ask.method)
            .uri(&path)
            .header(header::HOST, "tidemark")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(ask.body.unwrap_or_default())))
            .expect("the parts of the path are encoded");
        let answered = async {
            let answer = sender.send_request(request).await.map_err(words)?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
            Ok((status, body.map_err(|e| broken(e.to_string()))?.to_bytes()))
        };
        let answered = answered.await;
        connection.abort();
        answered
    }

    async fn connect(&self) -> Result<UnixStream> {
        loop {
            match UnixStream::connect(&self.socket).await {
                // More clients wait than the system lets wait.
                Err(e) if e.kind() == Io::WouldBlock => tokio::time::sleep(CROWDED_PAUSE).await,
                connected => return connected.map_err(|e| self.unconnected(e)),
            }
        }
    }

    fn unconnected(&self, source: io::Error) -> Error {
        let socket = self.socket.display().to_string();
        match source.kind() {
            Io::NotFound | Io::ConnectionRefused => Error::NoAppliance { socket, source },
            _ => Error::Connect { socket, source },
        }
    }
}

fn disk_path(disk: &DiskAddress) -> [&str; 5] {
    ["domains", &disk.domain, "disks", &disk.vm, &disk.disk]
}

fn remove<'a>(path: &[&'a str], how: RemoveQuery) -> Ask<'a> {
    let RemoveQuery { drain_timeout_ms, discard_pending } = how;
    let query = format!("drain_timeout_ms={drain_timeout_ms}&discard_pending={discard_pending}");
    Ask::new(Method::DELETE, path).query(query).after_ms(drain_timeout_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_is_one_part_of_a_path() {
        let ask = Ask::new(Method::GET, &["domains", "a/b?c d%é", "disks", "..", "sda.1"]);
        assert_eq!(ask.uri(), "/v1/domains/a%2Fb%3Fc%20d%25%C3%A9/disks/%2E%2E/sda.1");
    }

    #[tokio::test]
    async fn a_socket_that_nobody_listens_on_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let absent = Client::new(dir.path().join("none.sock"));
        let stale = dir.path().join("stale.sock");
        drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
        for client in [absent, Client::new(stale)] {
            let error = client.status().await.unwrap_err();
            assert!(matches!(error, Error::NoAppliance { .. }), "{error:?}");
            assert!(error.hint().unwrap().contains("systemctl start tidemark-drva"));
        }
    }
}
