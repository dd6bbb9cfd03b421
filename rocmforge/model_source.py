"""From what a user calls a model to a file on this machine.

A model is named by a path, by an alias of the configuration file, as `hf:owner/repo[:file]`, or not
at all (the embedded one). Hub files go through huggingface-hub into its usual cache, with its
progress bar; a cut connection is taken up again where it broke, and every file is compared with the
SHA-256 that the hub states.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rocmforge.embedded import EMBEDDED_MODEL_PATH
from rocmforge.errors import InvalidConfiguration, ModelLoadFailed

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

EMBEDDED_ALIAS = "embedded"
_HUB_NAME = re.compile(r"hf:(?P<repo>[\w.-]+/[\w.-]+)(?::(?P<file>.+))?")
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")
# The best trade of size against quality first; what people download when they do not choose.
_PREFERRED = ("Q4_K_M", "Q5_K_M", "Q4_0", "Q6_K", "Q8_0", "F16", "BF16", "F32")
_DOWNLOAD_ATTEMPTS = 6
_RETRY_DELAY_S = 0.5


@dataclass(frozen=True)
class HubName:
    """`hf:owner/repo[:file]`: file is a file name, or a part of it such as `Q4_K_M`."""

    repo: str
    file: str | None = None

    @classmethod
    def parse(cls, name: str) -> HubName:
        """Raises InvalidConfiguration when the name has another shape."""
        match = _HUB_NAME.fullmatch(name)
        if match is None:
            raise InvalidConfiguration(
                f"{name!r} is not a hub model; write hf:owner/repo or hf:owner/repo:file.gguf"
            )
        return cls(match["repo"], match["file"])


def resolve_model(name: str | None, aliases: Mapping[str, str] | None = None) -> Path:
    """The GGUF file that `name` means; downloads it when it is a hub model that is not cached yet.

    Raises InvalidConfiguration (a name of no shape), ModelLoadFailed (no such file, or no
    download).
    """
    aliases = aliases or {}
    name = aliases.get(name, name) if name is not None else EMBEDDED_ALIAS
    if name == EMBEDDED_ALIAS:
        return EMBEDDED_MODEL_PATH
    if name.startswith("hf:"):
        return download(HubName.parse(name))
    path = Path(name).expanduser()
    if path.is_file():
        return path
    known = ", ".join(sorted({*aliases, EMBEDDED_ALIAS}))
    raise ModelLoadFailed(
        f"there is no model file {name!r}, and no alias of that name (known: {known}); "
        "give a path to a .gguf file, or hf:owner/repo for one from the hub"
    )


def download(name: HubName) -> Path:
    """The local path of a hub model; of a split model, its first shard (all shards are fetched).

    Raises ModelLoadFailed with the reason: unknown repository, no GGUF file, no network, damaged
    data.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi()
    try:
        files = {f.path: f for f in _gguf_files(api, name)}
    except HfHubHTTPError as error:
        raise ModelLoadFailed(f"the hub refused {name.repo}: {error}") from error
    except _network_errors() as error:
        return _from_cache(name, error)
    wanted = shards_of(choose_file(name, list(files)), list(files))
    first, *_ = [_fetch(name, files[file]) for file in wanted]
    return first


def choose_file(name: HubName, files: list[str]) -> str:
    """The file that `name` means among a repository's GGUF `files` (of a split model, the first
    shard).

    Raises ModelLoadFailed listing the files when there is none or the name fits several.
    """
    first_shards = [f for f in files if (m := _SHARD.search(f)) is None or int(m[1]) == 1]
    if name.file is not None:
        fits = [f for f in first_shards if f == name.file] or [
            f for f in first_shards if name.file.lower() in f.lower()
        ]
    else:
        fits = first_shards
        for tag in _PREFERRED:
            tagged = [f for f in fits if tag in f.upper()]
            if tagged:
                fits = tagged[:1]
                break
    if len(fits) == 1:
        return fits[0]
    listing = "\n  ".join(sorted(first_shards)) or "(no .gguf file at all)"
    what = "several files fit" if fits else "no file fits"
    asked = f"{name.repo}:{name.file}" if name.file else name.repo
    raise ModelLoadFailed(f"{what} hf:{asked}; name one as hf:{name.repo}:FILE\n  {listing}")


def shards_of(file: str, files: list[str]) -> list[str]:
    """All shards of the split model whose first shard is `file`; [file] when it is not split.

    Raises ModelLoadFailed when a shard is missing from `files`.
    """
    match = _SHARD.search(file)
    if match is None:
        return [file]
    stem, count = file[: match.start()], int(match[2])
    wanted = [f"{stem}-{i:05d}-of-{count:05d}.gguf" for i in range(1, count + 1)]
    missing = sorted(set(wanted) - set(files))
    if missing:
        raise ModelLoadFailed(f"the repository lacks {len(missing)} shards: {', '.join(missing)}")
    return wanted


def _gguf_files(api: HfApi, name: HubName) -> list[RepoFile]:
    from huggingface_hub.hf_api import RepoFile

    tree = api.list_repo_tree(name.repo, recursive=True)
    return [f for f in tree if isinstance(f, RepoFile) and f.path.endswith(".gguf")]


def _network_errors() -> tuple[type[Exception], ...]:
    """What the hub client raises when the network fails.

    Which HTTP library is below it differs by version; its own error derives from that library's
    base.
    """
    from huggingface_hub.errors import HfHubHTTPError

    bases = [base for base in HfHubHTTPError.__bases__ if issubclass(base, Exception)]
    return (OSError, *bases)


def _fetch(name: HubName, file: RepoFile) -> Path:
    """Download one file and compare it with the hub's SHA-256; damaged data is fetched once
    more."""
    for force in (False, True):
        path = _download_with_retries(name, file.path, force=force)
        if file.lfs is None or _is_verified(path, file.lfs.sha256):
            return path
    raise ModelLoadFailed(
        f"{file.path} arrived damaged twice: its SHA-256 is not the hub's; "
        f"try again later, or delete {path}"
    )


def _download_with_retries(name: HubName, file: str, *, force: bool) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    last: Exception | None = None
    for attempt in range(_DOWNLOAD_ATTEMPTS):
        try:
            return Path(hf_hub_download(name.repo, file, force_download=force))
        except HfHubHTTPError as error:
            raise ModelLoadFailed(f"the hub refused {name.repo}:{file}: {error}") from error
        except _network_errors() as error:
            last = error
            time.sleep(_RETRY_DELAY_S * 2**attempt)
    raise ModelLoadFailed(
        f"downloading {name.repo}:{file} failed {_DOWNLOAD_ATTEMPTS} times; "
        f"check the network and run the command again: {last}"
    )


def _is_verified(path: Path, sha256: str) -> bool:
    """Whether the file has this SHA-256; a file that passed once is marked and not read again."""
    blob = path.resolve()
    mark = blob.with_name(blob.name + ".verified")
    stamp = f"{sha256} {blob.stat().st_size} {blob.stat().st_mtime_ns}"
    if mark.is_file() and mark.read_text() == stamp:
        return True
    with blob.open("rb") as stream:
        if hashlib.file_digest(stream, "sha256").hexdigest() != sha256:
            return False
    mark.write_text(stamp)
    return True


def _from_cache(name: HubName, cause: Exception) -> Path:
    """Without a network, what was downloaded before will do."""
    cached = _cached_files().get(name.repo)
    if not cached:
        raise ModelLoadFailed(
            f"the hub cannot be reached and {name.repo} is not cached: {cause}"
        ) from cause
    wanted = shards_of(choose_file(name, list(cached)), list(cached))
    return cached[wanted[0]]


def cached_hub_models() -> list[tuple[str, Path]]:
    """(name as `hf:owner/repo:file`, path) of every GGUF file in the hub's cache."""
    return [
        (f"hf:{repo}:{file}", path)
        for repo, files in sorted(_cached_files().items())
        for file, path in sorted(files.items())
    ]


def _cached_files() -> dict[str, dict[str, Path]]:
    """Repository → file → path of what the hub's cache holds; the latest revision wins."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repos = scan_cache_dir().repos
    except CacheNotFound:
        return {}
    found: dict[str, dict[str, Path]] = {}
    for repo in repos:
        for revision in sorted(repo.revisions, key=lambda r: r.last_modified):
            for file in revision.files:
                if file.file_name.endswith(".gguf"):
                    name = file.file_path.relative_to(revision.snapshot_path).as_posix()
                    found.setdefault(repo.repo_id, {})[name] = file.file_path
    return found
