import pytest

from running_server import running


@pytest.fixture(scope="package")
def server():
    with running() as started:
        yield started


@pytest.fixture
def client(server):
    with server.openai() as made:
        yield made
