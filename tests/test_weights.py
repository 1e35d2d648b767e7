"""Downloads of published weights, from a server of the test's own: whole, interrupted, wrong, missing."""

import gzip
import hashlib
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from torch import nn

from stages import weights
from stages.command import VigilError
from stages.io.weights import WEIGHTS, Weights, load_state, load_weights, weights_file

CONTENT = bytes(range(256)) * 5000


@dataclass
class Server:
    """What the server offers, how it behaves, and what it was asked for."""

    address: str = ""
    content: bytes = CONTENT
    status: int = 200
    ranges: bool = True
    stop_after: int | None = None
    zipped: bool = False
    asked: list[str | None] = field(default_factory=list)


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server on this machine, and one entry in the table of weights that points to it."""
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            wanted = self.headers["Range"]
            state.asked.append(wanted)
            if state.status != 200:
                self.send_error(state.status)
                return
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and state.ranges else 0
            if start and start >= len(state.content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(state.content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            body = state.content[start:]
            zipped = state.zipped and "gzip" in (self.headers["Accept-Encoding"] or "")
            body = gzip.compress(body) if zipped else body
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body)))
            if zipped:
                self.send_header("Content-Encoding", "gzip")
            self.end_headers()
            self.wfile.write(body[: state.stop_after])

        def log_message(self, *_):
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    monkeypatch.chdir(tmp_path)
    state.address = f"http://127.0.0.1:{listening.server_port}/net.pth"
    offer(monkeypatch, state.address, CONTENT)
    yield state
    listening.shutdown()
    thread.join()
    listening.server_close()


def offer(monkeypatch, address: str, content: bytes, sha256: str | None = None) -> None:
    digest = hashlib.sha256(content).hexdigest()[:8] if sha256 is None else sha256
    monkeypatch.setitem(WEIGHTS, "net", Weights("A net", "net.pth", address, len(content) / 1e6, digest, "none"))


FILE, PART = Path("models/pretrained/net.pth"), Path("models/pretrained/net.pth.part")


def test_a_whole_download_and_nothing_the_second_time(server, capsys):
    weights.main(["net"])
    assert FILE.read_bytes() == CONTENT
    assert not PART.exists()
    weights.main(["net"])
    assert server.asked == [None]
    assert weights_file("net") == FILE
    assert "models/pretrained" in capsys.readouterr().err


def test_an_interrupted_download_goes_on(server):
    server.stop_after = 300_000
    with pytest.raises(SystemExit, match="run the same command again"):
        weights.main(["net"])
    kept = PART.stat().st_size
    assert 0 < kept <= 300_000
    assert not FILE.exists()
    server.stop_after = None
    weights.main(["net"])
    assert FILE.read_bytes() == CONTENT
    assert server.asked[-1] == f"bytes={kept}-"


def test_a_server_that_cannot_go_on_starts_again(server):
    PART.parent.mkdir(parents=True)
    PART.write_bytes(b"of an earlier try")
    server.ranges = False
    weights.main(["net"])
    assert FILE.read_bytes() == CONTENT


def test_all_had_arrived_but_the_name(server):
    PART.parent.mkdir(parents=True)
    PART.write_bytes(CONTENT)
    weights.main(["net"])
    assert FILE.read_bytes() == CONTENT


def test_a_part_that_is_longer_than_the_file_is_given_up(server):
    PART.parent.mkdir(parents=True)
    PART.write_bytes(CONTENT + b"more")
    with pytest.raises(SystemExit, match="run the same command again"):
        weights.main(["net"])
    weights.main(["net"])
    assert FILE.read_bytes() == CONTENT


def test_the_file_is_asked_for_as_it_is(server):
    server.zipped = True
    weights.main(["net"])
    assert FILE.read_bytes() == CONTENT


def test_a_file_that_is_too_small_is_refused(server, monkeypatch):
    server.content = CONTENT[:1000]
    offer(monkeypatch, server.address, CONTENT, sha256="")
    with pytest.raises(SystemExit, match=r"the server sent 0\.0 MB, expected 1\.3"):
        weights.main(["net"])
    assert not FILE.exists()


def test_another_file_is_refused_and_not_kept(server, monkeypatch):
    offer(monkeypatch, server.address, b"another")
    with pytest.raises(SystemExit, match="its SHA-256 begins with"):
        weights.main(["net"])
    assert not FILE.exists()
    assert not PART.exists()


def test_a_web_page_in_the_place_of_a_file_is_named(server, monkeypatch):
    server.content = b"\n<!DOCTYPE html><title>Google Drive - Quota exceeded</title>"
    offer(monkeypatch, server.address, b"", sha256="")
    with pytest.raises(SystemExit, match="is a web page"):
        weights.main(["net"])
    assert not FILE.exists()


@pytest.mark.parametrize(("status", "message"), [(404, "404"), (403, "403")])
def test_a_refusal_names_the_address(server, status, message):
    server.status = status
    with pytest.raises(SystemExit, match=rf"{message}[\s\S]*{server.address}"):
        weights.main(["net"])
    assert not FILE.exists()


def test_no_server_at_all(server, monkeypatch):
    offer(monkeypatch, "http://127.0.0.1:9/net.pth", CONTENT)
    monkeypatch.setattr(weights, "Retry", lambda *a, **k: 0)
    with pytest.raises(SystemExit, match=r"fetch http://127.0.0.1:9/net.pth yourself"):
        weights.main(["net"])


def test_an_unknown_name_stops_before_any_download(server):
    with pytest.raises(SystemExit, match=r"no weights 'nett': expected one of .*flownet2"):
        weights.main(["net", "nett"])
    assert server.asked == []


def test_a_missing_file_gives_the_command_and_the_address(server):
    with pytest.raises(VigilError, match=rf"python -m stages.weights net\n[\s\S]*{server.address}"):
        weights_file("net")


def test_a_damaged_file_is_found_before_work(server):
    FILE.parent.mkdir(parents=True)
    FILE.write_bytes(CONTENT[:-1])
    with pytest.raises(VigilError, match="expected"):
        weights_file("net")


def test_the_table_is_complete(server):
    printed = weights.table()
    for name, entry in WEIGHTS.items():
        assert name in printed
        assert entry.address in printed
        assert entry.file
        assert entry.licence
        assert len(entry.sha256) in (0, 8)
        assert name == "net" or entry.address.startswith("https://")
        assert entry.title


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))


@pytest.fixture
def published(server, monkeypatch):
    """Write a state dictionary where the published file belongs."""

    def write(content) -> None:
        FILE.parent.mkdir(parents=True, exist_ok=True)
        torch.save(content, FILE)
        offer(monkeypatch, server.address, FILE.read_bytes())

    return write


@pytest.mark.parametrize("wrapped", [True, False])
def test_weights_are_loaded(published, wrapped):
    state = {key: torch.full_like(value, 3) for key, value in network().state_dict().items()}
    published({"epoch": 0, "state_dict": state, "best_EPE": 1e10} if wrapped else state)
    loaded = network()
    load_weights(loaded, "net")
    assert all(torch.equal(value, state[key]) for key, value in loaded.state_dict().items())


def test_batch_counters_may_be_missing(published):
    state = {key: value for key, value in network().state_dict().items() if "num_batches" not in key}
    published(state)
    load_weights(network(), "net")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("0.bias"), r"0\.bias: found missing, expected \(2,\)"),
        (lambda state: state.update({"2.weight": torch.ones(1)}), r"2\.weight: found \(1,\), expected no such"),
        (lambda state: state.update({"0.weight": torch.ones(2, 1, 5, 5)}), r"found \(2, 1, 5, 5\), expected \(2, 1, 3"),
    ],
)
def test_the_first_parameter_that_does_not_fit_is_named(published, change, message):
    state = dict(network().state_dict())
    change(state)
    published(state)
    with pytest.raises(VigilError, match=message):
        load_weights(network(), "net")


def test_a_state_that_was_converted_is_checked_too():
    load_state(network(), dict(network().state_dict()), FILE)
    with pytest.raises(VigilError, match=r"net\.pth: 0\.weight: found missing"):
        load_state(network(), {}, FILE)
