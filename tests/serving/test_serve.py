"""`regraft serve`: what it answers, to whom, and how it ends."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.browser import browser
from tests.conftest import COLOURS, Cli, photo
from tests.serving.conftest import Server, serving

import regraft as rg


def ask(
    server: Server, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
) -> tuple[int, Any]:
    """Return status and JSON, or text, of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    try:
        connection.request(method, path, body or None, headers or {})
        answer = connection.getresponse()
        text = answer.read().decode()
        is_json = (answer.getheader("content-type") or "").startswith("application/json")
        return answer.status, json.loads(text) if is_json else text
    finally:
        connection.close()


def form(files: dict[str, bytes]) -> tuple[bytes, dict[str, str]]:
    parts = [
        b'--x\r\nContent-Disposition: form-data; name="image"; filename="%s"\r\n\r\n%s\r\n' % (name.encode(), data)
        for name, data in files.items()
    ]
    return b"".join(parts) + b"--x--\r\n", {"content-type": "multipart/form-data; boundary=x"}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    root = tmp_path_factory.mktemp("images")
    return {f"{name}.png": photo(root / f"{name}.png", colour, 1).read_bytes() for name, colour in COLOURS.items()}


def test_one_image_gets_the_row_of_predict(server: Server, tiny_run: Path, images: dict[str, bytes]) -> None:
    for data in images.values():
        status, row = ask(server, "POST", "/predict", data)
        (wanted,) = rg.predict(tiny_run, [data])
        assert status == 200
        assert row["prediction"] == wanted.prediction
        assert row["probabilities"] == pytest.approx(wanted.probabilities, abs=1e-5)
        assert row["model"] == ask(server, "GET", "/healthz")[1]["model"]
    body, headers = form({"a.png": images["red.png"]})
    assert ask(server, "POST", "/predict", body, headers)[1]["probability"] > 0


def test_a_batch_gets_a_row_for_each_image(server: Server, images: dict[str, bytes]) -> None:
    body, headers = form({**images, "../../etc/passwd": b"no image"})
    status, given = ask(server, "POST", "/predict/batch", body, headers)
    assert status == 200
    assert [row["name"] for row in given["results"]] == [*images, "../../etc/passwd"]
    assert given["results"][3]["error"]["type"] == "unreadable_image"
    assert [row["prediction"] for row in given["results"][:3]] == [
        ask(server, "POST", "/predict", data)[1]["prediction"] for data in images.values()
    ]


def test_clients_share_batches(server: Server, images: dict[str, bytes]) -> None:
    data = images["blue.png"]
    wanted = ask(server, "POST", "/predict", data)[1]["probabilities"]
    before = counts(server)
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda _: ask(server, "POST", "/predict", data), range(48)))
    assert {status for status, _ in found} == {200}
    for _, row in found:
        assert row["probabilities"] == pytest.approx(wanted, abs=1e-5)
    after = counts(server)
    assert after["regraft_images_total"] - before["regraft_images_total"] == 48
    assert after["regraft_batches_total"] - before["regraft_batches_total"] < 48


def counts(server: Server) -> dict[str, float]:
    lines = ask(server, "GET", "/metrics")[1].splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}


def test_it_describes_itself(server: Server) -> None:
    status, given = ask(server, "GET", "/openapi.json")
    assert (status, given["openapi"]) == (200, "3.1.0")
    assert set(given["paths"]) == {"/predict", "/predict/batch", "/healthz", "/metrics"}
    assert "curl --data-binary" in ask(server, "GET", "/docs")[1]
    assert "connect-src 'self'" in ask(server, "GET", "/")[1]
    assert counts(server)['regraft_requests_total{path="/docs",status="200"}'] >= 1


def test_more_than_the_queue_holds_is_answered_with_429(served_file: Path, images: dict[str, bytes]) -> None:
    body, headers = form({f"{place}.png": images["red.png"] for place in range(3)})
    with serving(served_file, "--queue", "2") as server:
        status, given = ask(server, "POST", "/predict/batch", body, headers)
        assert (status, given["error"]["type"]) == (429, "busy")
        assert ask(server, "POST", "/predict", images["red.png"])[0] == 200


def test_a_token_is_asked_for(served_file: Path, images: dict[str, bytes]) -> None:
    with serving(served_file, token="sesame") as server:
        data = images["red.png"]
        assert ask(server, "POST", "/predict", data)[0] == 401
        assert ask(server, "POST", "/predict", data, {"Authorization": "Bearer other"})[0] == 401
        assert ask(server, "GET", "/metrics")[0] == 401
        assert ask(server, "GET", "/healthz")[0] == 200
        assert ask(server, "POST", "/predict", data, {"Authorization": "Bearer sesame"})[0] == 200


def test_it_is_not_open_to_others_unless_told(served_file: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REGRAFT_TOKEN", raising=False)
    result = cli("serve", served_file, "--host", "0.0.0.0")
    assert result.code == 2
    assert "no token was given" in result.err
    with pytest.raises(rg.SettingsError, match="no token was given"):
        rg.serve(served_file, host="::")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = cli("serve", served_file, "--port", taken.getsockname()[1])
    assert result.code == 2
    assert "cannot be listened at" in result.err


def test_an_extra_that_is_not_installed_is_named(served_file: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("starlette", "uvicorn", "python_multipart"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, name, None)
            result = cli("serve", served_file, "--port", "0")
        assert (result.code, f"Serving takes {name}" in result.err) == (2, True), result.err
        assert "pip install 'regraft[serve]'" in result.err


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_it_answers_what_it_began_and_ends(served_file: Path, images: dict[str, bytes], sent: signal.Signals) -> None:
    data = images["blue.png"]
    with serving(served_file) as server, socket.create_connection(("127.0.0.1", server.port), 30) as connection:
        head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n".encode()
        connection.sendall(head + data[:100])
        time.sleep(0.3)
        server.process.send_signal(sent)
        time.sleep(0.3)
        connection.sendall(data[100:])
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
        assert server.process.wait(30) == 0


@pytest.mark.slow
def test_the_page_asks_its_server(server: Server, tiny_run: Path, tmp_path: Path) -> None:
    files = [photo(tmp_path / f"{name}.png", colour, 3) for name, colour in COLOURS.items()]
    wanted = rg.predict(tiny_run, files)
    home = f"http://127.0.0.1:{server.port}/"
    with browser() as page:
        page.open(home)
        page.drop(files)
        page.wait("document.querySelectorAll('.photo[aria-busy=false]').length === 3")
        cards = page.value("[...document.querySelectorAll('.photo')].map(card => ({...card.dataset}))")
        for card, row in zip(cards, wanted, strict=True):
            assert card["prediction"] == row.prediction
            assert json.loads(card["shares"]) == pytest.approx(list(row.probabilities.values()), abs=1e-3)
        assert all(one.startswith((home, "blob:", "data:")) for one in page.requests)
        assert page.problems == []
