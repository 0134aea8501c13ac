"""`futago vote`: what people type, and what the controller is then asked, over its real local socket."""

from __future__ import annotations

import contextlib
import io
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from futago.cli.main import main
from futago.setup import paths
from futago.setup.settings import Settings


@contextlib.contextmanager
def window(answer: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
    """Stand at the controller's place: note each request, answer all alike."""
    asked: list[dict[str, Any]] = []
    paths.CONTROLLER_SOCKET.parent.mkdir(parents=True, exist_ok=True)

    def serve(listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                conn, _ = listening.accept()
                with conn, conn.makefile("rb") as lines:
                    asked.append(json.loads(lines.readline()))
                    conn.sendall(b'{"progress": "at it"}\n' + json.dumps(answer).encode() + b"\n")

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(paths.CONTROLLER_SOCKET))
        listening.listen()
        thread = threading.Thread(target=serve, args=(listening,), daemon=True)
        thread.start()
        yield asked
        listening.shutdown(socket.SHUT_RDWR)


ETCD = ["vote", "set", "etcd", "--endpoint", "https://192.0.2.41:2379", "--endpoint", "https://e2:2379"]


def test_etcd_is_asked_for_with_the_content_of_its_files(
    first_member: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "p").write_text("secret\n")
    (tmp_path / "ca").write_text("PEM")
    with window({"ok": True}) as asked:
        files = ["--user", "futago", "--password-file", str(tmp_path / "p"), "--ca-file", str(tmp_path / "ca")]
        assert main([*ETCD, *files, "--prefix", "a/b"]) == 0
    [request] = asked
    assert (request["op"], request["kind"], request["jurors"]) == ("vote", "etcd", [])
    assert request["held"] == {"password": "secret\n", "ca": "PEM"}
    vote = request["vote"]
    assert vote["endpoints"] == ["https://192.0.2.41:2379", "https://e2:2379"]
    assert (vote["prefix"], vote["user"], vote["password_file"]) == ("a/b", "futago", "")
    said = capsys.readouterr()
    assert "holds the third vote" in said.out and "at it" in said.err and "secret" not in said.out + said.err


def test_object_store_is_asked_for(first_member: Settings, tmp_path: Path) -> None:
    (tmp_path / "s").write_text("key")
    words = ["--endpoint", "https://s3.example.com", "--bucket", "votes", "--region", "eu-central-1"]
    with window({"ok": True}) as asked:
        secret = ["--access-key", "AKID", "--secret-key-file", str(tmp_path / "s")]
        assert main(["vote", "set", "objectstore", *words, *secret]) == 0
    assert asked[0]["held"] == {"password": "key"} and asked[0]["vote"]["bucket"] == "votes"


def test_doing_without_is_confirmed(first_member: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    with window({"ok": True}) as asked:
        monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
        assert main(["vote", "set", "none"]) != 0
        assert not asked
        assert main(["vote", "set", "none", "--yes"]) == 0
    assert [a["kind"] for a in asked] == ["none"]


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["vote", "set", "etcd", "--endpoint", "192.0.2.41:2379"], "https://host:port"),
        ([*ETCD, "--user", "futago"], "user and password_file go together"),
        ([*ETCD, "--cert-file", "/dev/null"], "cert_file and key_file go together"),
        ([*ETCD, "--ca-file", "/nowhere"], "/nowhere cannot be read"),
        (["vote", "set", "witness", "m1"], "m1 is a member"),
        (["vote", "set", "jury", "h1", "h2"], "3 or 5 jurors"),
    ],
)
def test_what_cannot_be_is_refused_before_the_controller_is_asked(
    first_member: Settings, args: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with window({"ok": True}) as asked:
        assert main(args) == 2
    assert expected in capsys.readouterr().err and not asked


def test_refusal_of_the_controller_reaches_the_person(
    first_member: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    with window({"ok": False, "error": "It cannot hold the third vote.", "hint": "See that it runs."}):
        assert main(ETCD) == 2
    said = capsys.readouterr().err
    assert "It cannot hold the third vote." in said and "See that it runs." in said


def test_third_vote_is_shown_with_each_of_its_parts(first_member: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    parts = [{"name": "a:2379", "ok": True, "error": ""}, {"name": "b:2379", "ok": False, "error": "late"}]
    vote = {"kind": "etcd", "version": 4, "ok": True, "epoch": 9, "knows_view": True, "jurors": parts}
    with window({"ok": True, "status": {"third_vote": vote}}):
        assert main(["vote", "show"]) == 0
        said = capsys.readouterr().out
        assert "third vote: etcd (version 4), in order, epoch 9" in said
        assert "a:2379: answers" in said and "b:2379: late" in said
        assert main(["vote", "show", "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == vote
