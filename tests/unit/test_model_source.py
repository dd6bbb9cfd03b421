"""Names of models to files: paths, aliases, and a hub that cuts connections and corrupts bytes."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from rocmforge.embedded import EMBEDDED_MODEL_PATH
from rocmforge.errors import InvalidConfiguration, ModelLoadFailed
from rocmforge.model_source import HubName, choose_file, resolve_model, shards_of
from tests.support.hub_server import HubServer

REPO = "someone/tiny-GGUF"
DATA = bytes(range(256)) * 100_000  # 25 MB: more than two chunks of the client


class Resolved(NamedTuple):
    stdout: str
    stderr: str


def resolve_in_child(hub: HubServer, home: Path, name: str) -> Resolved:
    """The hub's address is read when huggingface-hub is imported, so each test has its own
    process."""
    code = (
        "import sys; from rocmforge.model_source import resolve_model\n"
        "from rocmforge.errors import RocmForgeError\n"
        "try: print('PATH', resolve_model(sys.argv[1]))\n"
        "except RocmForgeError as e: print(type(e).__name__, e)\n"
    )
    env = os.environ | {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    # A terminal for stderr: elsewhere the client draws no progress bar.
    screen, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 100))
    with subprocess.Popen(
        [sys.executable, "-W", "error::ResourceWarning", "-c", code, name],
        env=env,
        stdout=subprocess.PIPE,
        stderr=terminal,
        text=True,
    ) as child:
        os.close(terminal)
        shown = "".join(screen_lines(screen))
        out = child.stdout.read()
    assert child.returncode == 0, shown
    return Resolved(out, shown)


def screen_lines(screen: int) -> Iterator[str]:
    with os.fdopen(screen, "rb", buffering=0) as stream:
        while True:
            try:
                data = stream.read(65536)
            except OSError:  # how Linux says that the last writer has closed a terminal
                return
            if not data:
                return
            yield data.decode("utf-8", "replace")


def downloaded(result: Resolved) -> bytes:
    assert result.stdout.startswith("PATH "), result.stdout + result.stderr
    return Path(result.stdout.removeprefix("PATH ").strip()).read_bytes()


def test_path_alias_and_embedded(tmp_path):
    file = tmp_path / "model.gguf"
    file.write_bytes(b"x")
    assert resolve_model(None) == EMBEDDED_MODEL_PATH
    assert resolve_model(str(file)) == file
    assert resolve_model("mine", {"mine": str(file)}) == file
    with pytest.raises(ModelLoadFailed, match="known: embedded, mine"):
        resolve_model("other", {"mine": str(file)})
    with pytest.raises(InvalidConfiguration, match="hf:owner/repo"):
        resolve_model("hf:nonsense")


def test_choice_of_file():
    files = [
        "m-Q8_0.gguf",
        "m-Q4_K_M.gguf",
        "m-F16-00001-of-00002.gguf",
        "m-F16-00002-of-00002.gguf",
    ]
    assert choose_file(HubName("o/r"), files) == "m-Q4_K_M.gguf"
    assert choose_file(HubName("o/r", "q8_0"), files) == "m-Q8_0.gguf"
    first = choose_file(HubName("o/r", "f16"), files)
    assert shards_of(first, files) == files[2:]
    with pytest.raises(ModelLoadFailed, match="several files fit"):
        choose_file(HubName("o/r", "m-"), files)
    with pytest.raises(ModelLoadFailed, match="no file fits"):
        choose_file(HubName("o/r", "Q2_K"), files)
    with pytest.raises(ModelLoadFailed, match="lacks 1 shards"):
        shards_of(first, files[:3])


def test_download_survives_cut_connections_and_is_cached(tmp_path):
    with HubServer(REPO, {"tiny-Q8_0.gguf": DATA, "README.md": b"#"}, cuts=3) as hub:
        result = resolve_in_child(hub, tmp_path, f"hf:{REPO}")
        assert downloaded(result) == DATA
        assert hub.cuts == 0
        assert any(r and r != "bytes=0-" for r in hub.ranges[1:]), "taken up where it broke"
        assert "%" in result.stderr, "a progress bar"
        before = len(hub.ranges)
        assert downloaded(resolve_in_child(hub, tmp_path, f"hf:{REPO}:tiny-Q8_0.gguf")) == DATA
        assert len(hub.ranges) == before, "the second time nothing is fetched"
    # The hub is gone: what was downloaded is still served.
    assert downloaded(resolve_in_child(hub, tmp_path, f"hf:{REPO}")) == DATA


def test_corrupted_byte_is_found_and_fetched_again(tmp_path):
    with HubServer(REPO, {"tiny.gguf": DATA}, corruptions=1) as hub:
        assert downloaded(resolve_in_child(hub, tmp_path, f"hf:{REPO}")) == DATA
        assert hub.corruptions == 0


def test_lasting_corruption_is_an_error(tmp_path):
    with HubServer(REPO, {"tiny.gguf": DATA}, corruptions=99) as hub:
        result = resolve_in_child(hub, tmp_path, f"hf:{REPO}")
    assert result.stdout.startswith("ModelLoadFailed tiny.gguf arrived damaged twice")


def test_unknown_repository_is_an_error(tmp_path):
    with HubServer(REPO, {}) as hub:
        result = resolve_in_child(hub, tmp_path, "hf:nobody/nothing")
    assert result.stdout.startswith("ModelLoadFailed the hub refused nobody/nothing")


def test_all_shards_are_fetched(tmp_path):
    files = {f"m-{i:05d}-of-00003.gguf": bytes([i]) * 1000 for i in (1, 2, 3)}
    with HubServer(REPO, files) as hub:
        result = resolve_in_child(hub, tmp_path, f"hf:{REPO}")
    first = Path(result.stdout.removeprefix("PATH ").strip())
    assert {p.name: p.read_bytes() for p in first.parent.iterdir()} == files
