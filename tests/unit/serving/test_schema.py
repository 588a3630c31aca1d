"""The OpenAPI description: whatever it allows, and whatever it does not, no answer is a failure of the server."""

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error

from running_server import running


@pytest.fixture(scope="module")
def described():
    """The description of a server that answers quickly."""
    with running(max_new_bytes=48, max_waiting=512, max_seconds=20) as server:
        yield schemathesis.openapi.from_url(f"{server.url}/openapi.json")


@pytest.mark.filterwarnings("ignore:Do not use the `random` module:Warning")  # schemathesis's own strategies do
@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=lambda mode: mode.value)
def test_no_request_makes_the_server_fail(described, mode):
    tried = set()

    def check(case):
        answer = case.call()
        case.validate_response(answer, checks=[not_a_server_error])
        if answer.status_code >= 400:
            assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
        tried.add(case.path)

    for operation in (found.ok() for found in described.get_all_operations()):
        if mode is schemathesis.GenerationMode.NEGATIVE and operation.method == "get":
            continue  # nothing that could be wrong
        limits = settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
        limits(given(operation.as_strategy(generation_mode=mode))(check))()
    assert {"/v1/completions", "/v1/chat/completions", "/tokenize", "/api/patch"} <= tried


def test_every_path_is_described(described):
    paths = set(described.raw_schema["paths"])
    assert {"/v1/completions", "/v1/chat/completions", "/v1/models", "/tokenize", "/tokenizer_info"} <= paths
    assert {"/health", "/metrics", "/api/model", "/api/patch", "/api/alternatives", "/detokenize"} <= paths
    fields = described.raw_schema["components"]["schemas"]["CompletionRequest"]
    assert {"prompt", "max_tokens", "echo", "logprobs", "best_of", "threshold_factor"} <= set(fields["properties"])
    assert fields["additionalProperties"] is False
