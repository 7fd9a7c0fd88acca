//! Stores of the clouds, and servers that speak as they do: S3, Azure Blob, Google Cloud Storage. The only user of opendal.
//!
//! One call here is one attempt: no layer of opendal retries or waits. Each object goes in a single request, never multipart
//! (docs/lessons.md L22), its pieces handed to the connection without being copied.
//! A 404 proves that an object is absent only if it says so about the key: proxies, load balancers and missing buckets answer
//! 404 as well (docs/lessons.md L8).

mod classify;

use self::classify::Kind;
use crate::error::{Cause, Error};
use crate::options::{BucketOptions, S3Key};
use crate::pieces::{Pieces, join};
use crate::store::{CreatePromise, Failure, Got, Put, PutRule, Store};
use crate::url::{Place, Server};
use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt;
use opendal::options::{ListOptions, WriteOptions};
use opendal::{Buffer, ErrorKind, HttpTransporter, OperationContext, Operator, services};
use opendal_http_transport_reqwest::ReqwestTransport;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A prefix of a bucket on a server.
pub(crate) struct RemoteStore {
    operator: Operator,
    kind: Kind,
}

impl RemoteStore {
    /// The store at `place`, which has to be a remote one. Sends nothing.
    pub(crate) fn new(place: &Place, location: &Arc<str>, options: &BucketOptions) -> Result<Self, Error> {
        let setup =
            |what: &str, source: Cause| Error::Setup { location: location.clone(), what: what.to_owned(), source };
        let (operator, kind, server) = match place {
            Place::S3 { bucket, prefix, server, region, path_style } => {
                let mut builder = s3(bucket, prefix, server, region.as_deref(), *path_style);
                if server.anonymous {
                    builder = builder.skip_signature();
                }
                if let Some(S3Key { id, secret }) = &options.s3_key {
                    builder = builder.access_key_id(id).secret_access_key(secret);
                }
                (Operator::new(builder), Kind::S3, server)
            }
            Place::Azblob { container, prefix, server } => (azblob(container, prefix, server), Kind::Azblob, server),
            Place::Gcs { bucket, prefix, server } => (gcs(bucket, prefix, server), Kind::Gcs, server),
            Place::Memory { .. } | Place::File { .. } => {
                return Err(setup("a remote store", Cause::new("it is a local one")));
            }
        };
        let operator = operator.map_err(|error| setup("its client", Cause::new(error.message())))?;
        let client = client(server.ca.as_deref(), options).map_err(|source| setup("its HTTP client", source))?;
        let transport = HttpTransporter::new(ReqwestTransport::new(client));
        let context = OperationContext::new().with_http_transport(transport);
        Ok(Self { operator: operator.with_context(context), kind })
    }

    fn failure(&self, error: &opendal::Error) -> Failure {
        classify::failure(self.kind, error)
    }
}

fn s3(bucket: &str, prefix: &str, server: &Server, region: Option<&str>, path_style: Option<bool>) -> services::S3 {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let endpoint =
        server.endpoint.clone().or_else(|| variable("AWS_ENDPOINT_URL_S3")).or_else(|| variable("AWS_ENDPOINT_URL"));
    let mut builder = services::S3::default().bucket(bucket).root(prefix);
    match region {
        Some(region) => builder = builder.region(region),
        None if variable("AWS_REGION").or_else(|| variable("AWS_DEFAULT_REGION")).is_some() => {}
        None => builder = builder.region("us-east-1"),
    }
    if let Some(endpoint) = &endpoint {
        // Not Amazon's: asking the EC2 metadata service for credentials would only wait for a time-out.
        builder = builder.endpoint(endpoint).disable_ec2_metadata();
    }
    if !path_style.unwrap_or(endpoint.is_some() || bucket.contains('.')) {
        builder = builder.enable_virtual_host_style();
    }
    builder
}

fn azblob(container: &str, prefix: &str, server: &Server) -> opendal::Result<Operator> {
    let mut builder = services::Azblob::default().container(container).root(prefix);
    let account = std::env::var("AZURE_STORAGE_ACCOUNT_NAME").or_else(|_| std::env::var("AZBLOB_ACCOUNT_NAME")).ok();
    match (&server.endpoint, account) {
        (Some(endpoint), _) => builder = builder.endpoint(endpoint),
        (None, Some(account)) => builder = builder.endpoint(&format!("https://{account}.blob.core.windows.net")),
        (None, None) => {}
    }
    Operator::new(if server.anonymous { builder.skip_signature() } else { builder })
}

fn gcs(bucket: &str, prefix: &str, server: &Server) -> opendal::Result<Operator> {
    let mut builder = services::Gcs::default().bucket(bucket).root(prefix);
    if let Some(endpoint) = &server.endpoint {
        builder = builder.endpoint(endpoint).disable_vm_metadata();
    }
    Operator::new(if server.anonymous { builder.skip_signature() } else { builder })
}

fn client(ca: Option<&Path>, options: &BucketOptions) -> Result<reqwest::Client, Cause> {
    // No read time-out: the client's would also run while a segment is still being sent. Attempts have their own.
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("tidemark/", env!("CARGO_PKG_VERSION")))
        .http1_only()
        .connect_timeout(Duration::from_secs(5))
        .tcp_keepalive(Duration::from_secs(30))
        .pool_max_idle_per_host(options.requests_in_flight_max as usize);
    if let Some(path) = ca {
        let pem = std::fs::read(path).map_err(|error| Cause::new(format!("{}: {error}", path.display())))?;
        let certificates = reqwest::Certificate::from_pem_bundle(&pem);
        let certificates = certificates.map_err(|error| Cause::new(format!("{}: {error}", path.display())))?;
        if certificates.is_empty() {
            return Err(Cause::new(format!("{}: it holds no certificate", path.display())));
        }
        builder = builder.tls_certs_merge(certificates);
    }
    builder.build().map_err(|error| Cause::new(error.to_string()))
}

#[async_trait]
impl Store for RemoteStore {
    async fn get(&self, key: &str, offset: u64, len_max: u64) -> Result<Got, Failure> {
        if len_max == 0 {
            return self.head(key).await.map(|len| Got { bytes: Bytes::new(), object_len: Some(len) });
        }
        let reader = self.operator.reader(key).await.map_err(|error| self.failure(&error))?;
        let range = offset..offset.saturating_add(len_max);
        let mut stream = reader.clone().into_stream(range).await.map_err(|error| self.failure(&error))?;
        let mut parts = Vec::new();
        let ended = loop {
            match stream.try_next().await {
                Ok(Some(buffer)) => parts.extend(buffer),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        let bytes = join(parts);
        let end = offset.saturating_add(bytes.len() as u64);
        let object_len = reader.metadata().map(opendal::Metadata::content_length).filter(|len| *len >= end);
        match ended {
            Ok(()) => Ok(Got { bytes, object_len }),
            // There is nothing at `offset`, if the object's length agrees.
            Err(error) if classify::may_be_beyond_end(&error) => match self.operator.stat(key).await {
                Ok(metadata) if metadata.content_length() <= offset => {
                    Ok(Got { bytes: Bytes::new(), object_len: Some(metadata.content_length()) })
                }
                _ => Err(self.failure(&error)),
            },
            // It ends within what was asked for, as the length of the whole object shows.
            Err(error) if classify::is_fewer(&error) && object_len == Some(end) => Ok(Got { bytes, object_len }),
            Err(error) => Err(self.failure(&error)),
        }
    }

    async fn put(&self, key: &str, body: Pieces, rule: PutRule) -> Result<Put, Failure> {
        let options = WriteOptions { if_not_exists: rule == PutRule::IfAbsent, ..WriteOptions::default() };
        match self.operator.write_options(key, Buffer::from(body.into_parts()), options).await {
            Ok(_) => Ok(Put::Stored),
            Err(error) if rule == PutRule::IfAbsent && error.kind() == ErrorKind::ConditionNotMatch => Ok(Put::Exists),
            Err(error) => Err(self.failure(&error)),
        }
    }

    async fn head(&self, key: &str) -> Result<u64, Failure> {
        match self.operator.stat(key).await {
            Ok(metadata) => Ok(metadata.content_length()),
            // The answer to a HEAD has no body that could say what was not found: ask in a way that has one.
            Err(error) if error.kind() == ErrorKind::NotFound => match self.get(key, 0, 1).await {
                Ok(_) => Err(Failure::Transient(Cause::new("a HEAD says that the object is absent, a GET returns it"))),
                Err(failure) => Err(failure),
            },
            Err(error) => Err(self.failure(&error)),
        }
    }

    async fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>, Failure> {
        let options = ListOptions { recursive: true, ..ListOptions::default() };
        let found = async {
            let entries = self.operator.lister_options(prefix, options).await?;
            entries
                .try_filter(|entry| {
                    std::future::ready(!entry.path().ends_with('/') && entry.path().starts_with(prefix))
                })
                .map_ok(|entry| (entry.path().to_owned(), entry.metadata().content_length()))
                .try_collect::<Vec<_>>()
                .await
        };
        let mut found = found.await.map_err(|error| self.failure(&error))?;
        found.sort_unstable();
        Ok(found)
    }

    async fn delete(&self, key: &str) -> Result<(), Failure> {
        self.operator.delete(key).await.map_err(|error| self.failure(&error))
    }

    fn create(&self) -> CreatePromise {
        CreatePromise::Theirs
    }
}
