"""Fetching a data set, against a real server on this machine."""

import errno
import hashlib
import http.server
import io
import socket
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest

from models.data import fetch as fetching
from models.data.__main__ import main
from models.data.fetch import Archive, data_root, fetch
from models.errors import SpeedproofError

IMAGE = np.random.default_rng(0).bytes(300_000)  # does not compress: the archive is longer than one chunk


def archive_of(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()


GOOD = archive_of({"toy/train/cat/1.png": IMAGE, "toy/val/cat/2.png": b"two"})


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = GOOD
        self.ranges = True  # whether it knows Range
        self.cut_after: int | None = None  # bytes after which it closes the connection, once
        self.announce = True  # whether it sends Content-Length
        self.asked: list[str | None] = []  # the Range header of each request
        self.sent: list[int] = []  # bytes of each response

    def handle_error(self, request, client_address):
        pass  # a client that hangs up is one of the cases


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        server = self.server
        asked = self.headers["Range"]
        server.asked.append(asked)
        if self.path != "/toy.tgz":
            self.send_error(404)
            return
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and server.ranges else 0
        if start >= len(server.content):
            self.send_error(416)
            return
        body = server.content[start:]
        self.send_response(206 if start else 200)
        if server.announce:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        cut, server.cut_after = server.cut_after, None
        server.sent.append(len(body[:cut]))
        self.wfile.write(body[:cut])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        register(monkeypatch, f"http://127.0.0.1:{running.server_port}/toy.tgz")
        yield running
        running.shutdown()
        thread.join(timeout=10)


def register(monkeypatch: pytest.MonkeyPatch, url: str, content: bytes = GOOD, algorithm: str = "md5") -> None:
    row = Archive(url, f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}", "toy")
    monkeypatch.setattr(fetching, "ARCHIVES", {"toy": row})


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_whole_archive_is_fetched_and_unpacked_and_nothing_else_stays(server, tmp_path, capsys):
    target = fetch("toy", tmp_path / "new" / "data")
    assert (target / "train/cat/1.png").read_bytes() == IMAGE
    assert (target / "val/cat/2.png").read_bytes() == b"two"
    assert left_in(tmp_path / "new" / "data") == ["toy"]
    assert server.sent == [len(GOOD)]
    assert capsys.readouterr().err == ""  # no progress bar where there is no terminal


def test_what_is_there_already_is_left_alone(server, tmp_path, capsys):
    fetch("toy", tmp_path)
    assert main(["fetch", "toy", "--to", str(tmp_path)]) == 0
    assert len(server.asked) == 1
    assert "already" in capsys.readouterr().out


def test_an_archive_without_a_top_folder_gets_one(server, tmp_path, monkeypatch):
    server.content = archive_of({"./cat/1.wav": b"meow", "./dog/1.wav": b"woof"})
    register(monkeypatch, f"http://127.0.0.1:{server.server_port}/toy.tgz", server.content)
    assert left_in(fetch("toy", tmp_path)) == ["cat", "dog"]
    assert left_in(tmp_path) == ["toy"]


def test_the_archive_of_speech_commands_is_checked_by_sha256_and_unpacked_from_its_top(server, tmp_path, monkeypatch):
    members = {"./README.md": b"words", "./_background_noise_/pink.wav": b"hiss", "./cat/1_nohash_0.wav": b"cat"}
    server.content = archive_of(members)
    register(monkeypatch, f"http://127.0.0.1:{server.server_port}/toy.tgz", server.content, "sha256")
    assert left_in(fetch("toy", tmp_path)) == ["README.md", "_background_noise_", "cat"]
    server.content = archive_of({**members, "./cat/1_nohash_0.wav": b"dog"})
    with pytest.raises(SpeedproofError, match="does not have the checksum sha256:"):
        fetch("toy", tmp_path / "other")


def test_every_archive_has_a_checksum_of_the_right_length():
    for archive in fetching.ARCHIVES.values():
        algorithm, digest = archive.checksum.split(":")
        assert len(bytes.fromhex(digest)) == hashlib.new(algorithm).digest_size


def test_a_cut_download_is_resumed_with_the_rest_only(server, tmp_path):
    server.cut_after = 100_000
    with pytest.raises(SpeedproofError, match=r"the connection ended after 100,000 of [\d,]+ bytes.*--to"):
        fetch("toy", tmp_path)
    assert left_in(tmp_path) == ["toy.tgz.part"]
    target = fetch("toy", tmp_path)
    assert server.asked == [None, "bytes=100000-"]
    assert server.sent == [100_000, len(GOOD) - 100_000]
    assert (target / "train/cat/1.png").read_bytes() == IMAGE


def test_a_server_that_ignores_range_sends_all_again(server, tmp_path):
    server.ranges = False
    (tmp_path / "toy.tgz.part").write_bytes(GOOD[:1000])
    target = fetch("toy", tmp_path)
    assert server.asked == ["bytes=1000-"]
    assert server.sent == [len(GOOD)]
    assert (target / "train/cat/1.png").read_bytes() == IMAGE


@pytest.mark.parametrize("old", [b"x" * 1000, b"x" * (len(GOOD) + 7)], ids=["shorter", "longer"])
def test_a_part_of_another_version_is_noticed_and_fetched_anew(server, tmp_path, old):
    (tmp_path / "toy.tgz.part").write_bytes(old)
    fetch("toy", tmp_path)
    assert server.asked == [f"bytes={len(old)}-", None]
    assert left_in(tmp_path) == ["toy"]


def test_a_whole_part_needs_no_network(server, tmp_path):
    (tmp_path / "toy.tgz.part").write_bytes(GOOD)
    fetch("toy", tmp_path)
    assert server.asked == []


def test_a_server_that_does_not_announce_the_length_is_served_too(server, tmp_path):
    server.announce = False
    fetch("toy", tmp_path)
    assert left_in(tmp_path) == ["toy"]


def test_a_wrong_checksum_is_an_error_and_removes_the_file(server, tmp_path, capsys):
    server.content = b"something else"
    assert main(["fetch", "toy", "--to", str(tmp_path)]) == 2
    assert one_sentence(capsys).startswith(f"error: http://127.0.0.1:{server.server_port}/toy.tgz does not have")
    assert left_in(tmp_path) == []
    assert len(server.asked) == 1


@pytest.mark.usefixtures("server")
def test_an_interruption_while_unpacking_leaves_only_the_download(tmp_path, monkeypatch, capsys):
    extract = tarfile.TarFile.makefile
    written: list[str] = []

    def interrupted(self, member, path):
        if written:
            raise KeyboardInterrupt
        written.append(path)
        extract(self, member, path)

    monkeypatch.setattr(tarfile.TarFile, "makefile", interrupted)
    assert main(["fetch", "toy", "--to", str(tmp_path)]) == 130
    assert written
    assert left_in(tmp_path) == ["toy.tgz.part"]
    assert "interrupted" in one_sentence(capsys)
    monkeypatch.undo()
    register(monkeypatch, "http://127.0.0.1:9/toy.tgz")
    fetch("toy", tmp_path)
    assert left_in(tmp_path) == ["toy"]


@pytest.mark.parametrize("name", ["../evil", "toy/../../evil", "/evil-of-speedproof"])
def test_a_member_never_lands_outside_of_the_folder(server, tmp_path, monkeypatch, name):
    server.content = archive_of({"toy/good": b"1", name: b"evil"})
    register(monkeypatch, f"http://127.0.0.1:{server.server_port}/toy.tgz", server.content)
    inside = tmp_path / "inside"
    if name.startswith("/"):  # made relative, as tar itself does
        fetch("toy", inside)
        assert not Path(name).exists()
    else:
        with pytest.raises(SpeedproofError, match=r"truncated, corrupt or unsafe \(.*outside the destination"):
            fetch("toy", inside)
        assert left_in(inside) == []
    assert left_in(tmp_path) == ["inside"]


@pytest.mark.parametrize(
    "content",
    [GOOD[:200_000], b"<html>no archive</html>", b"", GOOD[:10] + b"\xff" * 99],
    ids=["truncated", "not an archive", "empty", "corrupt"],
)
def test_a_broken_archive_of_the_right_checksum_leaves_nothing(server, tmp_path, monkeypatch, content):
    (tmp_path / "toy.tgz.part").write_bytes(content)
    register(monkeypatch, f"http://127.0.0.1:{server.server_port}/toy.tgz", content)
    with pytest.raises(SpeedproofError, match="truncated, corrupt or unsafe"):
        fetch("toy", tmp_path)
    assert left_in(tmp_path) == []


def test_no_network_is_one_sentence_that_tells_what_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as taken:  # bound but not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        register(monkeypatch, f"http://127.0.0.1:{taken.getsockname()[1]}/toy.tgz")
        assert main(["fetch", "toy", "--to", str(tmp_path)]) == 2
    said = one_sentence(capsys)
    assert left_in(tmp_path) == []
    for part in ("refused", f"`python -m models.data fetch toy --to {tmp_path}`", "SPEEDPROOF_DATA", "copy of toy"):
        assert part in said


def test_a_missing_archive_is_one_sentence(server, tmp_path, monkeypatch, capsys):
    register(monkeypatch, f"http://127.0.0.1:{server.server_port}/gone.tgz")
    assert main(["fetch", "toy", "--to", str(tmp_path)]) == 2
    assert "Not Found" in one_sentence(capsys)


@pytest.mark.usefixtures("server")
def test_ctrl_c_while_downloading_keeps_the_part(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fetching, "CHUNK_BYTES", 1000)
    read = http.client.HTTPResponse.read
    chunks: list[bytes] = []

    def interrupted(self, amount):
        if len(chunks) == 3:
            raise KeyboardInterrupt
        chunks.append(read(self, amount))
        return chunks[-1]

    monkeypatch.setattr(http.client.HTTPResponse, "read", interrupted)
    assert main(["fetch", "toy", "--to", str(tmp_path)]) == 130
    assert "the same command goes on" in one_sentence(capsys)
    assert (tmp_path / "toy.tgz.part").read_bytes() == GOOD[:3000]


def test_a_folder_that_cannot_be_made_is_one_sentence(server, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert main(["fetch", "toy", "--to", str(tmp_path / "file")]) == 2
    assert f"cannot write to {tmp_path / 'file'}" in one_sentence(capsys)
    assert server.asked == []


@pytest.mark.usefixtures("server")
def test_a_full_disk_is_one_sentence_and_keeps_the_part(tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tarfile.TarFile, "makefile", full)
    assert main(["fetch", "toy", "--to", str(tmp_path)]) == 2
    assert "No space left on device" in one_sentence(capsys)
    assert left_in(tmp_path) == ["toy.tgz.part"]


def test_an_unknown_data_set_lists_the_known_ones(tmp_path, capsys):
    assert main(["fetch", "mnist", "--to", str(tmp_path)]) == 2
    assert one_sentence(capsys) == "error: unknown data set 'mnist': expected one of imagenette, speech, speech_v0.02"


def test_the_data_root_comes_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("SPEEDPROOF_DATA", str(tmp_path))
    assert data_root() == tmp_path
    monkeypatch.delenv("SPEEDPROOF_DATA")
    assert data_root() == Path("data")


def one_sentence(capsys: pytest.CaptureFixture[str]) -> str:
    (line,) = capsys.readouterr().err.splitlines()
    return str(line)
