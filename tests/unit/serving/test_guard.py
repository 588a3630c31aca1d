"""Who may ask: the key, the host, the headers of every answer, and what logs may hold."""

import base64
import io
import json
import logging
import re

import pytest
from click.testing import CliRunner

from blt.cli.serve import serve
from blt.errors import ConfigurationError
from blt.generation import Request
from blt.serving import ServingConfig, guard
from blt.serving.server import allowed_hosts, is_loopback, refuse_open_address
from running_server import running

KEY = "sk-secret-key"
EVERY_PATH = [
    ("GET", "/"),
    ("GET", "/page/app.js"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/tiny"),
    ("GET", "/metrics"),
    ("GET", "/openapi.json"),
    ("GET", "/tokenizer_info"),
    ("GET", "/api/model"),
    ("GET", "/no-such-path"),
    ("OPTIONS", "/v1/completions"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/tokenize"),
    ("POST", "/detokenize"),
    ("POST", "/api/patch"),
    ("POST", "/api/alternatives"),
]


@pytest.fixture(scope="module")
def guarded():
    with running(api_key=KEY) as server:
        yield server


def basic(password):
    return "Basic " + base64.b64encode(f"anybody:{password}".encode()).decode()


@pytest.mark.parametrize(("method", "path"), EVERY_PATH)
def test_every_path_but_health_asks_for_the_key(guarded, method, path):
    wrong = ["", "Bearer", "Bearer x", f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", KEY, basic("x"), "Basic !", "Basic w6k="]
    for header in wrong:
        answer = guarded.http.request(method, path, headers={"Authorization": header} if header else {})
        assert answer.status_code == 401, header
        assert answer.json()["error"]["code"] == "invalid_api_key"
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    for header in (f"Bearer {KEY}", f"bearer {KEY}", basic(KEY)):
        answer = guarded.http.request(method, path, headers={"Authorization": header})
        assert answer.status_code != 401
    assert guarded.get("/health").json() == {"status": "ok"}


def test_every_path_that_there_is_has_been_tried(guarded):
    paths = {route.path for route in guarded.app.routes} - {"/health", "/v1/models/{name:path}", "/page/{name}"}
    assert paths == {path for _, path in EVERY_PATH} - {"/no-such-path", "/v1/models/tiny", "/page/app.js"}


def test_a_browser_is_asked_for_a_password(guarded):
    answer = guarded.get("/", headers={"Accept": "text/html,*/*"})
    assert answer.headers["WWW-Authenticate"].startswith('Basic realm="blt"')


def test_keys_are_compared_in_constant_time_and_at_one_length(guarded, monkeypatch):
    compared = []
    digest = guard.hmac.compare_digest
    monkeypatch.setattr(guard.hmac, "compare_digest", lambda a, b: compared.append((len(a), len(b))) or digest(a, b))
    for key in ("x", KEY, "x" * 500):
        guarded.get("/v1/models", headers={"Authorization": f"Bearer {key}"})
    assert compared == [(32, 32)] * 3


@pytest.mark.parametrize("path", ["/health", "/", "/v1/models", "/no-such-path", "/metrics", "/page/style.css"])
def test_every_answer_has_the_headers_that_keep_pages_of_others_out(server, path):
    answer = server.get(path, headers={"Origin": "https://example.com"})
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self';")
    assert "unsafe" not in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]
    assert "server" not in answer.headers
    refused = server.http.options(path, headers={"Origin": "https://example.com"})
    assert not [name for name in refused.headers if name.lower().startswith("access-control")]


def test_a_page_of_another_site_cannot_reach_a_server_without_key_by_a_name_of_its_own():
    with running(allowed_hosts=allowed_hosts("127.0.0.1", has_key=False)) as server:
        port = server.port
        for host in ("127.0.0.1", f"127.0.0.1:{port}", f"localhost:{port}", f"LOCALHOST:{port}", f"[::1]:{port}"):
            assert server.get("/v1/models", headers={"Host": host}).status_code == 200
        for host in ("evil.example", f"evil.example:{port}", "localhost.evil.example", "127.0.0.1.evil.example"):
            answer = server.get("/v1/models", headers={"Host": host})
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "unknown_host")
    assert allowed_hosts("127.0.0.1", has_key=True) is None
    assert allowed_hosts("0.0.0.0", has_key=False) is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.com", "8.8.8.8"])
def test_another_address_needs_a_key_or_the_word_that_none_is_wanted(host):
    with pytest.raises(ConfigurationError, match=r"--api-key-file \(or set BLT_API_KEY\), or say --no-key"):
        refuse_open_address(host, has_key=False, needs_no_key=False)
    refuse_open_address(host, has_key=True, needs_no_key=False)
    refuse_open_address(host, has_key=False, needs_no_key=True)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "[::1]", "127.8.8.8"])
def test_this_machine_alone_needs_none(host):
    assert is_loopback(host)
    refuse_open_address(host, has_key=False, needs_no_key=False)


@pytest.mark.parametrize(
    ("arguments", "content", "message"),
    [
        (["--host", "0.0.0.0"], None, "other machines could use this server without a key"),
        (["--api-key-file", "key"], "", "key is empty"),
        (["--api-key-file", "key"], "é", "no HTTP header can carry"),
        (["--api-key-file", "key", "--no-key"], "a", "there is a key"),
        (["--max-rows", "0"], None, "max_rows: at least 1, got 0"),
        (["--max-body-bytes", "10"], None, "max_body_bytes: at least 1024"),
        (["--host", "999.1.1.1", "--no-key"], None, "give another, or --port 0"),
    ],
)
def test_options_that_cannot_be_are_refused_before_a_model_is_loaded(
    tmp_path, monkeypatch, arguments, content, message
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BLT_API_KEY", raising=False)
    if content is not None:
        (tmp_path / "key").write_text(content, encoding="utf-8")
    result = CliRunner().invoke(serve, [*arguments, "--model", "nowhere"])
    assert message in str(result.exception)


def test_a_key_is_not_shown_where_settings_are():
    assert KEY not in repr(ServingConfig(api_key=KEY))


def test_logs_hold_no_path_no_prompt_and_no_key(guarded, monkeypatch):
    kept = io.StringIO()
    handler = logging.StreamHandler(kept)
    loggers = [logging.getLogger(name) for name in ("", "uvicorn", "uvicorn.error", "uvicorn.access", "blt.serving")]
    for logger in loggers:
        logger.addHandler(handler)

    def failing(request, logits):
        raise ZeroDivisionError(f"{request.prompt!r}")

    try:
        headers = {"Authorization": f"Bearer {KEY}"}
        guarded.post("/v1/completions", {"prompt": "my secret", "max_tokens": 2}, headers=headers)
        guarded.post("/v1/completions", {"prompt": "my secret", "max_tokens": -2}, headers=headers)
        guarded.get("/secret/path", headers={"Authorization": f"Bearer {KEY}-wrong"})
        monkeypatch.setattr(Request, "choose", failing)
        monkeypatch.setattr(Request, "plain_sampling", lambda request: None)
        failed = guarded.post("/v1/completions", {"prompt": "my secret"}, headers=headers)
        assert failed.status_code == 500
        assert "secret" not in failed.text
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
    assert "secret" not in kept.getvalue()
    assert re.search(r"APIError|ZeroDivisionError", kept.getvalue())


def test_metrics_are_in_the_format_of_prometheus(server):
    server.post("/v1/completions", {"prompt": "Tom", "max_tokens": 5, "temperature": 0})
    answer = server.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    names = set()
    for line in answer.text.splitlines():
        if line.startswith("#"):
            assert re.fullmatch(r"# (HELP \w+ .+|TYPE \w+ (counter|gauge|histogram))", line)
        else:
            name, value = re.fullmatch(r'(\w+)(?:\{[\w="/+.,-]+\})? (\S+)', line).groups()
            assert float(value) >= 0
            names.add(name)
    assert {"blt_requests_total", "blt_new_bytes_total", "blt_step_seconds_bucket", "blt_rows_running"} <= names
    assert 'path="/v1/completions",status="200"' in answer.text
    server.get("/a/path/that/nobody/has/thought/of")
    assert "nobody" not in server.get("/metrics").text
    assert json.dumps(server.get("/openapi.json").json())
