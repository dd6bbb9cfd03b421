import openai
import pytest

from tests.support.live_server import live_server


@pytest.fixture(scope="session")
def server():
    """One server for all tests that do not hurt it."""
    with live_server(ping_interval_s=0.2) as running:
        yield running.wait_ready()


@pytest.fixture
def client(server):
    with openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0) as one:
        yield one
