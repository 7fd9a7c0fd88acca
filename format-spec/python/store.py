"""Where the objects are. A store is a function from a key to bytes, or to None where it says itself that the object does not exist
(S-2). Any other failure is an exception, never absence."""

import datetime
import hashlib
import hmac
import os
import pathlib
import ssl
from urllib import error, parse, request


def open_store(url):
    """DIR, file:///DIR, or s3://BUCKET/PREFIX?endpoint=URL&region=R&ca=FILE with credentials in AWS_*, if there are any."""
    return s3(url) if url.startswith("s3://") else directory(url.removeprefix("file://"))


def directory(path):
    root = pathlib.Path(path).resolve(strict=True)

    def get(key):
        try:
            return (root / key).read_bytes()
        except FileNotFoundError:
            return None

    return get


def s3(url):
    url = parse.urlsplit(url)
    options = dict(parse.parse_qsl(url.query))
    region = options.get("region") or os.environ.get("AWS_REGION", "us-east-1")
    endpoint = options.get("endpoint", f"https://s3.{region}.amazonaws.com").rstrip("/")
    tls = ssl.create_default_context(cafile=options.get("ca")) if endpoint.startswith("https") else None

    def get(key):
        path = parse.quote("/" + "/".join(filter(None, [url.netloc, url.path.strip("/"), key])), safe="/~")
        try:
            signed = signature(parse.urlsplit(endpoint).netloc, path, region)
            with request.urlopen(request.Request(endpoint + path, headers=signed), context=tls, timeout=60) as answer:
                return answer.read()
        except error.HTTPError as refusal:
            if refusal.code == 404 and b"<Code>NoSuchKey</Code>" in refusal.read():
                return None
            raise

    return get


def signature(host, path, region):
    """AWS Signature Version 4 of a GET."""
    access, secret, token = (os.environ.get(f"AWS_{name}") for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN"))
    if not access or not secret:
        return {}
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    signed = {"host": host, "x-amz-content-sha256": "UNSIGNED-PAYLOAD", "x-amz-date": now}
    signed |= {"x-amz-security-token": token} if token else {}
    names, scope = ";".join(signed), f"{now[:8]}/{region}/s3/aws4_request"
    canonical = "\n".join(["GET", path, "", *(f"{k}:{v}" for k, v in signed.items()), "", names, "UNSIGNED-PAYLOAD"])
    key = b"AWS4" + secret.encode()
    for part in [*scope.split("/"), "\n".join(["AWS4-HMAC-SHA256", now, scope, hashlib.sha256(canonical.encode()).hexdigest()])]:
        key = hmac.digest(key, part.encode(), "sha256")
    return signed | {"Authorization": f"AWS4-HMAC-SHA256 Credential={access}/{scope}, SignedHeaders={names}, Signature={key.hex()}"}
