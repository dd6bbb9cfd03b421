"""API keys from a file, and an open server that others can reach."""

from __future__ import annotations

import os
import signal

import httpx

from tests.support.live_server import LiveServer, eventually, live_server


def status(server, key: str) -> int:
    return server.post("/tokenize", {"content": "x"}, authorization=f"Bearer {key}").status_code


def test_keys_of_a_file_are_read_again_on_sighup(tmp_path):
    path = tmp_path / "keys"
    path.write_text("# ours\nsecret-one\n\n  secret-two\n")
    path.chmod(0o600)
    settings = {"security_api_keys_file": path, "api_keys": "secret-three", "log_level": "debug"}
    with live_server(**settings) as server:
        server.wait_ready()
        for key in ("secret-one", "secret-two", "secret-three"):
            assert status(server, key) == 200
        for key in ("none", "wrong", "# ours", "secret-on", "secret-one1"):
            assert status(server, key) == 401
        path.write_text("secret-four\n")
        server.process.send_signal(signal.SIGHUP)
        eventually(lambda: server.events("reloaded"))
        assert status(server, "secret-four") == status(server, "secret-three") == 200
        assert status(server, "secret-one") == 401
        # What cannot be used leaves the keys as they are.
        path.write_text("")
        server.process.send_signal(signal.SIGHUP)
        eventually(lambda: server.events("reload_failed"))
        assert status(server, "secret-four") == 200
        assert status(server, "none") == 401
        headers = {"authorization": "Bearer secret-four"}
        props = httpx.get(server.url + "/props", headers=headers).json()
        os.kill(props["engine"]["pid"], signal.SIGKILL)
        eventually(lambda: server.events("engine_died"))
    assert "secret-" not in "".join(server.raw)


def test_a_key_file_that_others_can_read_is_refused(tmp_path):
    path = tmp_path / "keys"
    path.write_text("secret-one\n")
    path.chmod(0o644)
    server = LiveServer(security_api_keys_file=path)
    assert server.wait_exit() == 2
    assert "chmod 600" in "".join(server.raw)


def test_an_open_server_that_others_can_reach_warns():
    with live_server("--host", "0.0.0.0") as server:
        eventually(lambda: server.events("bound_without_key"))
    with live_server("--host", "0.0.0.0", api_keys="secret-one") as server:
        server.wait_ready()
        assert not server.events("bound_without_key")
    with live_server() as server:
        server.wait_ready()
        assert not server.events("bound_without_key")
