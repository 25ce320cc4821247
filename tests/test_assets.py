"""Assets against a real local package index: resumed, verified, atomic, with errors that help."""

import hashlib
import io
import os
import random
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from xinglin import assets
from xinglin.errors import UserError

CONTENT = random.Random(0).randbytes(230_000)


def make_archive() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as bundle:
        info = tarfile.TarInfo("thing-1.0/data.bin")
        info.size = len(CONTENT)
        bundle.addfile(info, io.BytesIO(CONTENT))
    return buffer.getvalue()


ARCHIVE = make_archive()


class Index(BaseHTTPRequestHandler):
    """A simple repository: HTML page, the archive with ranges, and a way to break off."""

    requests: ClassVar[list] = []
    break_after: ClassVar[int | None] = None

    def do_GET(self):
        wanted = self.headers.get("Range")
        Index.requests.append((self.path, wanted))
        if self.path == "/simple/thing/":
            page = b'<a href="../../files/thing-0.9.tar.gz#sha256=0">x</a><a href="../../files/thing-1.0.tar.gz">x</a>'
            self._send(200, page, "text/html")
        elif self.path == "/files/thing-1.0.tar.gz":
            start = int(wanted[6:-1]) if wanted else 0
            body = ARCHIVE[start:]
            self._send(206 if wanted else 200, body, "application/gzip", cut=Index.break_after)
        else:
            self._send(404, b"", "text/plain")

    def _send(self, code, body, kind, cut=None):
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:cut])
        if cut is not None:
            self.close_connection = True

    def log_message(self, *args):
        pass


@pytest.fixture
def index(monkeypatch, tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Index)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Index.requests, Index.break_after = [], None
    monkeypatch.setenv("XINGLIN_CACHE", str(tmp_path / "cache"))
    asset = assets.Asset(
        name="thing",
        project="Thing",
        version="1.0",
        archive="thing-1.0.tar.gz",
        archive_sha256=hashlib.sha256(ARCHIVE).hexdigest(),
        archive_size=len(ARCHIVE),
        member="thing-1.0/data.bin",
        member_sha256=hashlib.sha256(CONTENT).hexdigest(),
        licence="none",
    )
    monkeypatch.setattr(assets, "ASSETS", {"thing": asset})
    url = f"http://127.0.0.1:{server.server_port}/simple"
    monkeypatch.setattr(assets, "pip_settings", lambda: assets.PipSettings((url,)))
    yield tmp_path / "cache" / "thing"
    server.shutdown()


def test_fetched_once_and_then_from_the_cache(index):
    path = assets.fetch("thing")
    assert path == index / "data.bin"
    assert path.read_bytes() == CONTENT
    assert [entry.name for entry in index.iterdir()] == ["data.bin"]
    Index.requests.clear()
    assert assets.fetch("thing") == path
    assert Index.requests == []


def test_a_broken_download_is_never_used_and_is_resumed(index):
    Index.break_after = 150_000
    with pytest.raises(UserError, match="cannot fetch thing-1.0.tar.gz"):
        assets.fetch("thing")
    (part,) = index.iterdir()
    have = part.stat().st_size
    assert part.name == "thing-1.0.tar.gz.part"
    assert 0 < have <= 150_000
    Index.break_after = None
    assert assets.fetch("thing").read_bytes() == CONTENT
    assert Index.requests[-1] == ("/files/thing-1.0.tar.gz", f"bytes={have}-")


def test_a_wrong_hash_refuses_and_deletes(index, monkeypatch):
    wrong = assets.Asset(**{**assets.ASSETS["thing"].__dict__, "archive_sha256": "0" * 64})
    monkeypatch.setattr(assets, "ASSETS", {"thing": wrong})
    with pytest.raises(UserError, match="wrong sha256"):
        assets.fetch("thing")
    assert list(index.iterdir()) == []


def test_a_wrong_member_is_not_kept(index, monkeypatch):
    wrong = assets.Asset(**{**assets.ASSETS["thing"].__dict__, "member_sha256": "0" * 64})
    monkeypatch.setattr(assets, "ASSETS", {"thing": wrong})
    with pytest.raises(UserError, match="member .* wrong sha256"):
        assets.fetch("thing")
    assert not (index / "data.bin").exists()


def test_an_unreachable_index_says_what_to_put_where(index, monkeypatch):
    settings = assets.PipSettings(("http://127.0.0.1:9/simple",))
    monkeypatch.setattr(assets, "pip_settings", lambda: settings)
    with pytest.raises(UserError) as error:
        assets.fetch("thing")
    assert "Thing==1.0" in str(error.value)
    assert str(index / "thing-1.0.tar.gz") in str(error.value)
    assert "\n" not in str(error.value)
    (index / "thing-1.0.tar.gz").write_bytes(ARCHIVE)  # by hand, as the message says
    assert assets.fetch("thing").read_bytes() == CONTENT


def test_find_links_folders_and_file_indexes_are_looked_in(index, monkeypatch, tmp_path):
    for place in (tmp_path / "links", tmp_path / "index" / "thing"):
        place.mkdir(parents=True)
        (place / "thing-1.0.tar.gz").write_bytes(ARCHIVE)
    for source in (str(tmp_path / "links"), (tmp_path / "index").as_uri()):
        monkeypatch.setattr(assets, "pip_settings", lambda source=source: assets.PipSettings((source,)))
        assert assets.fetch("thing").read_bytes() == CONTENT
        (index / "data.bin").unlink()


def test_unknown_asset_names_the_nearest():
    with pytest.raises(UserError, match="unknown asset 'cmek'.*did you mean 'cmekg'"):
        assets.lookup("cmek")


def test_pip_settings_come_from_pip_and_the_environment_wins(monkeypatch, tmp_path):
    file = tmp_path / "pip.conf"
    file.write_text("[global]\nindex-url = https://file.example/simple\nproxy = http://proxy.example:3128\n")
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(file))
    assert "https://file.example/simple" in assets.pip_settings().indexes
    monkeypatch.setenv("PIP_INDEX_URL", "https://env.example/simple")
    monkeypatch.setenv("PIP_FIND_LINKS", "/wheels")
    monkeypatch.setenv("PIP_TRUSTED_HOST", "env.example")
    found = assets.pip_settings()
    assert found.indexes[:2] == ("/wheels", "https://env.example/simple")
    assert "https://file.example/simple" not in found.indexes
    assert (found.proxy, found.verify) == ("http://proxy.example:3128", False)


def test_assets_path_prints_the_path_alone(index, monkeypatch, capfd):
    from xinglin.cli import main

    assert main(["assets", "path", "thing"]) == 0
    assert capfd.readouterr().out == f"{index / 'data.bin'}\n"
