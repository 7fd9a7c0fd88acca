//! Requests that Tidemark itself never sends, for making buckets and for looking at what a server can do: tests/stores/request.py.

use std::path::Path;
use std::process::Command;

/// A server, and who may talk to it.
#[derive(Clone, Debug)]
pub struct Raw {
    /// `s3` or `azblob`.
    pub kind: String,
    /// Where buckets are below.
    pub endpoint: String,
    /// Key, or account.
    pub access_key: String,
    /// Its secret.
    pub secret_key: String,
    /// PEM file with the authority to trust, for HTTPS.
    pub ca: Option<String>,
}

impl Raw {
    /// Sends a request; what was answered, and whether that was success.
    ///
    /// # Panics
    /// If there is no Python.
    pub fn send(&self, method: &str, path: &str, headers: &[&str], body: &str) -> (bool, String) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../stores/request.py");
        let mut command = Command::new("python3");
        command.arg(script).args([&self.kind, method]).arg(format!("{}/{path}", self.endpoint));
        for header in headers {
            command.args(["-H", header]);
        }
        command.arg(body).env("ACCESS_KEY", &self.access_key).env("SECRET_KEY", &self.secret_key);
        if let Some(ca) = &self.ca {
            command.env("SSL_CERT_FILE", ca);
        }
        let sent = command.output().expect("python3 is installed");
        (sent.status.success(), String::from_utf8_lossy(&sent.stdout).into_owned())
    }

    /// Makes a bucket.
    ///
    /// # Panics
    /// If the server refuses: a test needs it.
    pub fn make_bucket(&self, name: &str, headers: &[&str]) {
        let path = if self.kind == "azblob" { format!("{name}?restype=container") } else { name.to_owned() };
        let (made, answer) = self.send("PUT", &path, headers, "");
        assert!(made, "make {name} at {}: {answer}", self.endpoint);
    }

    /// Asks for the last bytes of an object without knowing its length.
    pub(crate) fn reads_suffixes(&self) -> bool {
        let bucket = "probe-suffix";
        self.make_bucket(bucket, &[]);
        let (put, _) = self.send("PUT", &format!("{bucket}/x"), &["x-ms-blob-type:BlockBlob"], "hello world");
        let (got, answer) = self.send("GET", &format!("{bucket}/x"), &["range:bytes=-5"], "");
        put && got && answer.trim_end().ends_with(" world") && !answer.contains("hello")
    }

    /// Makes a bucket whose objects may not be deleted for a day, and tries to delete a version of one.
    pub(crate) fn locks_objects(&self) -> bool {
        if self.kind != "s3" {
            // Azure locks containers through its management interface, which is not the store's.
            let (set, _) = self.send("PUT", "probe-suffix/x?comp=immutabilityPolicies", &[], "");
            return set;
        }
        let bucket = "probe-lock";
        let (made, _) = self.send("PUT", bucket, &["x-amz-bucket-object-lock-enabled:true"], "");
        let rule = "<ObjectLockConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><ObjectLockEnabled>Enabled\
                    </ObjectLockEnabled><Rule><DefaultRetention><Mode>COMPLIANCE</Mode><Days>1</Days></DefaultRetention>\
                    </Rule></ObjectLockConfiguration>";
        let (ruled, _) = self.send("PUT", &format!("{bucket}?object-lock"), &[], rule);
        let (put, _) = self.send("PUT", &format!("{bucket}/x"), &[], "locked");
        let (_, versions) = self.send("GET", &format!("{bucket}?versions"), &[], "");
        let version = versions.split("<VersionId>").nth(1).and_then(|rest| rest.split('<').next());
        let Some(version) = version.filter(|_| made && ruled && put) else { return false };
        let (deleted, _) = self.send("DELETE", &format!("{bucket}/x?versionId={version}"), &[], "");
        !deleted && self.send("GET", &format!("{bucket}/x?versionId={version}"), &[], "").0
    }
}
