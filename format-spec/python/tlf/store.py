"""Where the objects are. A store answers GET with bytes, or with None where it says itself that the object does not exist (S-2);
any other failure is an exception, never absence."""

import datetime
import hashlib
import hmac
import os
import pathlib
import ssl
import urllib.error
import urllib.parse
import urllib.request


def open_store(url):
    """DIR, file:///DIR, or s3://BUCKET/PREFIX?endpoint=URL&region=R&ca=FILE with credentials in AWS_*, if there are any."""
    return S3(url) if url.startswith("s3://") else Directory(url.removeprefix("file://"))


class Directory:
    def __init__(self, path):
        self.root = pathlib.Path(path)
        if not self.root.is_dir():
            raise FileNotFoundError(f"there is no directory {path}")

    def get(self, key):
        try:
            return (self.root / key).read_bytes()
        except FileNotFoundError:
            return None


class S3:
    def __init__(self, url):
        url = urllib.parse.urlsplit(url)
        options = dict(urllib.parse.parse_qsl(url.query))
        self.region = options.get("region") or os.environ.get("AWS_REGION", "us-east-1")
        self.endpoint = options.get("endpoint") or f"https://s3.{self.region}.amazonaws.com"
        self.base = "/".join(["", url.netloc, url.path.strip("/")]).rstrip("/")
        self.tls = ssl.create_default_context(cafile=options.get("ca")) if self.endpoint.startswith("https") else None

    def get(self, key):
        path = urllib.parse.quote(f"{self.base}/{key}", safe="/~")
        request = urllib.request.Request(self.endpoint.rstrip("/") + path, headers=self.signature(path))
        try:
            with urllib.request.urlopen(request, context=self.tls, timeout=60) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            if error.code == 404 and b"<Code>NoSuchKey</Code>" in error.read():
                return None
            raise

    def signature(self, path):
        """AWS Signature Version 4 of a GET."""
        access, secret = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
        if not access or not secret:
            return {}
        now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        signed = {"host": urllib.parse.urlsplit(self.endpoint).netloc, "x-amz-content-sha256": "UNSIGNED-PAYLOAD", "x-amz-date": now}
        if token := os.environ.get("AWS_SESSION_TOKEN"):
            signed["x-amz-security-token"] = token
        names, scope = ";".join(signed), f"{now[:8]}/{self.region}/s3/aws4_request"
        canonical = "\n".join(["GET", path, "", *(f"{k}:{v}" for k, v in signed.items()), "", names, "UNSIGNED-PAYLOAD"])
        text = "\n".join(["AWS4-HMAC-SHA256", now, scope, hashlib.sha256(canonical.encode()).hexdigest()])
        key = b"AWS4" + secret.encode()
        for part in [*scope.split("/"), text]:
            key = hmac.digest(key, part.encode(), "sha256")
        return signed | {"Authorization": f"AWS4-HMAC-SHA256 Credential={access}/{scope}, SignedHeaders={names}, Signature={key.hex()}"}
