//! Where a bucket is, as text: `DIR`, `file:///DIR`, `s3://`, `azblob://`, `gs://`, `memory:NAME`. Never with credentials.

use crate::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The place of one domain's objects. Holds no secret, so it may be shown anywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketUrl {
    place: Place,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Memory { name: String },
    File { root: PathBuf },
    S3 { bucket: String, prefix: String, server: Server, region: Option<String>, path_style: Option<bool> },
    Azblob { container: String, prefix: String, server: Server },
    Gcs { bucket: String, prefix: String, server: Server },
}

/// How to reach a server other than the cloud's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Server {
    /// `http://` or `https://`, host, port.
    pub(crate) endpoint: Option<String>,
    /// PEM file with certificates to trust beside the system's.
    pub(crate) ca: Option<PathBuf>,
}

impl BucketUrl {
    /// A bucket in a directory.
    pub fn file(root: impl AsRef<Path>) -> Self {
        let root = root.as_ref();
        Self { place: Place::File { root: std::path::absolute(root).unwrap_or_else(|_| root.to_owned()) } }
    }

    /// A bucket in this process' memory, the same one for everybody who asks for `name`.
    pub fn memory(name: &str) -> Self {
        Self { place: Place::Memory { name: name.to_owned() } }
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }
}

impl FromStr for BucketUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        parse(text).map(|place| Self { place }).map_err(|why| Error::BadUrl { url: redact(text), why })
    }
}

/// Parameters that hold secrets in some client's URLs. Refused by name, so that the mistake is explained.
const SECRETS: [&str; 12] = [
    "access_key",
    "access_key_id",
    "secret_key",
    "secret_access_key",
    "session_token",
    "token",
    "password",
    "account_key",
    "sas",
    "sas_token",
    "sig",
    "credential",
];

fn parse(text: &str) -> Result<Place, String> {
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    if let Some(name) = text.strip_prefix("memory:") {
        return Ok(Place::Memory { name: name.trim_start_matches('/').to_owned() });
    }
    if !text.contains("://") {
        return Ok(BucketUrl::file(text).place);
    }
    let url = url::Url::parse(text).map_err(|error| error.to_string())?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("credentials do not belong into a URL, which ends up in logs".to_owned());
    }
    if url.fragment().is_some() {
        return Err("it has a '#' part".to_owned());
    }
    if url.scheme() == "file" {
        if url.query().is_some() {
            return Err("file:// takes no parameters".to_owned());
        }
        let root = url.to_file_path().map_err(|()| "file:// takes an absolute path: file:///DIR".to_owned())?;
        return Ok(Place::File { root });
    }
    let params = Params::of(&url)?;
    let name = url.host_str().filter(|host| !host.is_empty()).ok_or("it names no bucket")?.to_owned();
    if url.port().is_some() {
        return Err("a port belongs into ?endpoint=http://HOST:PORT".to_owned());
    }
    let prefix = decode(url.path())?.split('/').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
    if prefix.split('/').any(|part| part == "." || part == "..") {
        return Err("its prefix has a '.' or '..' part".to_owned());
    }
    let Params { server, region, path_style } = params;
    match url.scheme() {
        "s3" => Ok(Place::S3 { bucket: name, prefix, server, region, path_style }),
        _ if region.is_some() || path_style.is_some() => Err("region and path_style are for s3:// only".to_owned()),
        "azblob" => Ok(Place::Azblob { container: name, prefix, server }),
        "gs" | "gcs" => Ok(Place::Gcs { bucket: name, prefix, server }),
        other => Err(format!("{other}:// is not a kind of store that is known")),
    }
}

#[derive(Default)]
struct Params {
    server: Server,
    region: Option<String>,
    path_style: Option<bool>,
}

impl Params {
    fn of(url: &url::Url) -> Result<Self, String> {
        let mut params = Self::default();
        for (name, value) in url.query_pairs() {
            match &*name {
                "endpoint" => params.server.endpoint = Some(endpoint(&value)?),
                "ca" => params.server.ca = Some(PathBuf::from(&*value)),
                "region" => params.region = Some(value.into_owned()),
                "path_style" => {
                    params.path_style = Some(value.parse().map_err(|_| "path_style is true or false".to_owned())?);
                }
                secret if SECRETS.contains(&secret.to_ascii_lowercase().as_str()) => {
                    return Err(format!("{secret} does not belong into a URL, which ends up in logs"));
                }
                other => return Err(format!("parameter {other:?} is not known")),
            }
        }
        Ok(params)
    }
}

fn endpoint(text: &str) -> Result<String, String> {
    let url = url::Url::parse(text).map_err(|error| format!("endpoint: {error}"))?;
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
        return Err("endpoint: credentials do not belong into a URL, which ends up in logs".to_owned());
    }
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err("endpoint: it has to be http://HOST:PORT or https://HOST:PORT".to_owned());
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// Undoes percent-encoding of a path.
fn decode(path: &str) -> Result<String, String> {
    let query = format!("p={}", path.replace('+', "%2B"));
    let decoded = url::form_urlencoded::parse(query.as_bytes()).next().map(|(_, value)| value.into_owned());
    decoded.filter(|text| !text.contains(['\0', '\u{fffd}'])).ok_or_else(|| "its path is not text".to_owned())
}

/// `text` for an error message: what may be a secret is cut out, well-formed URL or not.
fn redact(text: &str) -> String {
    let (head, query) = text.split_once('?').map_or((text, None), |(head, query)| (head, Some(query)));
    let head = match (head.find("://"), head.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => format!("{}://***@{}", &head[..scheme], &head[at + 1..]),
        _ => head.to_owned(),
    };
    let Some(query) = query else { return head };
    let shown = query.split('&').map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let known =
            matches!(name, "region" | "path_style" | "ca") || (name == "endpoint" && !value.contains(['@', '?']));
        if known { pair.to_owned() } else { format!("{name}=***") }
    });
    format!("{head}?{}", shown.collect::<Vec<_>>().join("&"))
}

impl fmt::Display for BucketUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, bucket, prefix, server) = match &self.place {
            Place::Memory { name } => return write!(f, "memory:{name}"),
            Place::File { root } => {
                return match url::Url::from_file_path(root) {
                    Ok(url) => write!(f, "{url}"),
                    Err(()) => write!(f, "{}", root.display()),
                };
            }
            Place::S3 { bucket, prefix, server, .. } => ("s3", bucket, prefix, server),
            Place::Azblob { container, prefix, server } => ("azblob", container, prefix, server),
            Place::Gcs { bucket, prefix, server } => ("gs", bucket, prefix, server),
        };
        let mut params = url::form_urlencoded::Serializer::new(String::new());
        if let Some(endpoint) = &server.endpoint {
            params.append_pair("endpoint", endpoint);
        }
        if let Place::S3 { region, path_style, .. } = &self.place {
            if let Some(region) = region {
                params.append_pair("region", region);
            }
            if let Some(path_style) = path_style {
                params.append_pair("path_style", &path_style.to_string());
            }
        }
        if let Some(ca) = &server.ca {
            params.append_pair("ca", &ca.to_string_lossy());
        }
        let (params, slash) = (params.finish(), if prefix.is_empty() { "" } else { "/" });
        let question = if params.is_empty() { "" } else { "?" };
        write!(f, "{scheme}://{bucket}{slash}{prefix}{question}{params}")
    }
}
