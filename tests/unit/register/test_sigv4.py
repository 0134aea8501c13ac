"""Our signatures are those that botocore makes."""

from __future__ import annotations

from datetime import UTC, datetime
from unittest import mock

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from futago.register import sigv4

WHEN = datetime(2026, 3, 1, 23, 59, 59, tzinfo=UTC)


@pytest.mark.parametrize(
    ("method", "name", "headers", "body"),
    [
        ("GET", "futago/p1/view.json", {}, b""),
        ("PUT", "futago/p1/view.json", {"If-None-Match": "*", "Content-Type": "application/json"}, b'{"epoch": 5}'),
        ("PUT", "a b/ü+%~.json", {"If-Match": '"0123456789abcdef0123456789abcdef"'}, b"\x00\xff"),
    ],
)
def test_requests_are_signed_as_botocore_signs_them(
    method: str, name: str, headers: dict[str, str], body: bytes
) -> None:
    key = sigv4.Key("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "eu-central-1")
    path = sigv4.path_of("votes", name)
    ours = sigv4.signed(
        key, method, authority="s3.example.com:9000", path=path, headers=headers, body=body, now_utc=WHEN
    )
    request = AWSRequest(method=method, url=f"https://s3.example.com:9000{path}", data=body, headers=dict(headers))
    with mock.patch("botocore.auth.get_current_datetime", return_value=WHEN.replace(tzinfo=None), create=True):
        auth = S3SigV4Auth(Credentials(key.access, key.secret), "s3", key.region)
        request.context["payload_signing_enabled"] = True
        auth.add_auth(request)
    theirs = dict(request.headers)
    assert ours["x-amz-date"] == theirs["X-Amz-Date"]
    assert ours["Authorization"] == theirs["Authorization"]
