#!/usr/bin/env python3
"""Sends one signed request to a store of the tests, for what Tidemark itself never asks for: making buckets, and looking
at what a store can do.

usage: request.py s3|azblob METHOD URL [-H NAME:VALUE]... [BODY]

Credentials are in ACCESS_KEY (or the account) and SECRET_KEY. Prints the status and the body; fails unless it is 2xx.
"""
import base64
import datetime
import email.utils
import hashlib
import hmac
import os
import sys
import urllib.error
import urllib.parse
import urllib.request


def sign_s3(method, url, headers, body, access, secret):
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    scope = f"{now[:8]}/us-east-1/s3/aws4_request"
    headers |= {"host": url.netloc, "x-amz-date": now, "x-amz-content-sha256": hashlib.sha256(body).hexdigest()}
    names = ";".join(sorted(headers))
    query = "&".join(sorted(part if "=" in part else part + "=" for part in url.query.split("&") if part))
    lines = [method, url.path, query, *(f"{name}:{headers[name]}" for name in sorted(headers)), "", names,
             headers["x-amz-content-sha256"]]
    request_hash = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    text = "\n".join(["AWS4-HMAC-SHA256", now, scope, request_hash])
    signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    headers["authorization"] = f"AWS4-HMAC-SHA256 Credential={access}/{scope},SignedHeaders={names},Signature={signature}"


def sign_azblob(method, url, headers, body, account, key):
    headers |= {"x-ms-date": email.utils.formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
    known = ["content-encoding", "content-language", "content-length", "content-md5", "content-type", "date",
             "if-modified-since", "if-match", "if-none-match", "if-unmodified-since", "range"]
    values = headers | {"content-length": str(len(body) or "")}
    lines = [method, *(values.get(name, "") for name in known)]
    lines += [f"{name}:{headers[name]}" for name in sorted(headers) if name.startswith("x-ms-")]
    query = sorted(urllib.parse.parse_qsl(url.query))
    text = "\n".join(lines + [f"/{account}{url.path}", *(f"{name}:{value}" for name, value in query)])
    mac = hmac.new(base64.b64decode(key), text.encode(), hashlib.sha256).digest()
    headers["authorization"] = f"SharedKey {account}:{base64.b64encode(mac).decode()}"


def main():
    kind, method, url, *rest = sys.argv[1:]
    headers, body = {}, b""
    while rest:
        word = rest.pop(0)
        if word == "-H":
            name, _, value = rest.pop(0).partition(":")
            headers[name.lower()] = value.strip()
        else:
            body = word.encode()
    sign = {"s3": sign_s3, "azblob": sign_azblob}[kind]
    sign(method, urllib.parse.urlsplit(url), headers, body, os.environ["ACCESS_KEY"], os.environ["SECRET_KEY"])
    # urllib would send a content type of its own, which is not signed.
    headers.setdefault("content-type", "")
    request = urllib.request.Request(url, method=method, headers=headers, data=body if method != "GET" else None)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            print(answer.status, answer.read().decode(errors="replace"))
    except urllib.error.HTTPError as error:
        print(error.code, error.read().decode(errors="replace"))
        sys.exit(1)


main()
