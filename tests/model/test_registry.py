from __future__ import annotations

import dataclasses
import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from sampath_wsi.errors import ModelError
from sampath_wsi.model import zoo
from sampath_wsi.model.zoo import ENCODERS, find_encoder

CONTENT = b"weights " * 1000


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "w.pth").write_bytes(CONTENT * 500)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=folder)) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}/w.pth"
        httpd.shutdown()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(zoo.CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache" / "encoders"


def publish(monkeypatch: pytest.MonkeyPatch, url: str, content: bytes = CONTENT) -> None:
    weights = dataclasses.replace(
        ENCODERS["sam_vit_b"], url=url, bytes=len(content), sha256=hashlib.sha256(content).hexdigest()
    )
    monkeypatch.setitem(zoo.ENCODERS, "sam_vit_b", weights)


def test_a_path_is_taken_as_it_is(tmp_path):
    file = tmp_path / "own.pth"
    file.write_bytes(b"x")
    assert find_encoder(file) == file
    assert find_encoder(str(file)) == file


def test_a_name_is_downloaded_once_and_checked(monkeypatch, server, cache, tmp_path):
    publish(monkeypatch, server, CONTENT * 500)
    steps = []
    path = find_encoder("sam_vit_b", lambda *step: steps.append(step))
    assert path == cache / "sam_vit_b_01ec64.pth"
    assert path.read_bytes() == CONTENT * 500
    assert steps[-1] == (4, 4, "MB")
    assert len(steps) > 3
    (tmp_path / "served" / "w.pth").unlink()
    assert find_encoder("sam_vit_b") == path


def test_a_download_that_is_not_the_published_file_is_not_kept(monkeypatch, server, cache):
    publish(monkeypatch, server, b"something else")
    with pytest.raises(ModelError, match="cannot be downloaded"):
        find_encoder("sam_vit_b")
    assert not list(cache.glob("*"))


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/w.pth", "http://no-such-host.invalid/w.pth"])
def test_offline_it_says_which_file_to_put_where(monkeypatch, cache, url):
    publish(monkeypatch, url)
    with pytest.raises(ModelError, match=f"get {url} elsewhere and put it at {cache}/sam_vit_b_01ec64.pth") as error:
        find_encoder("sam_vit_b")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [CONTENT[:-1], CONTENT.replace(b"w", b"W")])
def test_a_damaged_file_in_the_cache_is_named(monkeypatch, cache, content):
    publish(monkeypatch, "http://127.0.0.1:9/w.pth")
    cache.mkdir(parents=True)
    (cache / "sam_vit_b_01ec64.pth").write_bytes(content)
    with pytest.raises(ModelError, match=r"sam_vit_b_01ec64\.pth: damaged or not the published file"):
        find_encoder("sam_vit_b")


def test_neither_file_nor_name():
    with pytest.raises(ModelError, match="hipt_vit_small"):
        find_encoder("nothing.pth")
