"""One file from the web: resumed after an interruption, checked, and there whole or not at all.

Until it is complete and checked, the file is `name.part`; `name.part.json` records its URL and the
server's validator (a strong ETag, or Last-Modified), so that the server sends the rest only if the
file is still the same. Then it is renamed to `name`, and `name.json` records where it came from.
One process at a time fetches into a folder; another waits, and finds the file.
"""

import base64
import hashlib
import json
import re
import ssl
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, build_opener

from mixer_mlx import __version__
from mixer_mlx.errors import ConfigError, SourceError
from mixer_mlx.runtime import atomic
from mixer_mlx.runtime.documents import as_dataclass, read_json
from mixer_mlx.runtime.files import beside, open_output

from .cache import exclusive
from .listener import SILENT, Listener
from .web import Redirects, TryAgainError, check_url, chunks, file_name, interrupted, refusal

WAITS = (0.5, 1.0, 2.0, 4.0)
"""Seconds before each retry. They start again whenever a try came `_WORTHWHILE` bytes further."""
TIMEOUT = 30.0
"""Seconds until a connection, or a silence within one, counts as failed."""

MAX_BYTES = 2**33
"""Size of a file whose size isn't known beforehand; the largest published one has 0.9 GB."""

_WORTHWHILE = 1 << 20


@dataclass(frozen=True)
class Fetched:
    """A file on this machine, or a folder with `files`, and its revision (a commit or an ETag).

    `files` are what was fetched: weights, and before them `config.json` if there is one. The folder
    may hold files of earlier fetches too. `licence` is the repository's, where it was asked.
    """

    path: Path
    revision: str
    files: tuple[str, ...]
    licence: str | None = None


@dataclass(frozen=True)
class Record:
    """Where a file comes from, and once it is finished its size in bytes and its checksum."""

    url: str
    etag: str | None = None
    last_modified: str | None = None
    size: int | None = None
    sha256: str | None = None

    @property
    def validator(self) -> str | None:
        """What `If-Range` may ask with. A weak ETag doesn't promise equal bytes."""
        weak = self.etag is None or self.etag.startswith("W/")
        return self.last_modified if weak else self.etag


def fetch(url: str, folder: Path, *, listener: Listener = SILENT) -> Fetched:
    """As `download`, with the revision: the file's ETag, else its SHA-256."""
    path = download(url, folder, listener=listener)
    record = recorded(path)
    revision = (record and (record.etag or record.sha256)) or "unknown"
    return Fetched(path, revision.strip('"'), (path.name,))


def download(
    url: str, folder: Path, *, size: int | None = None, listener: Listener = SILENT
) -> Path:
    """The file behind an http(s) URL, in `folder` under its own name; fetched once.

    A file that an earlier call finished is returned without any network. `size` is the number of
    bytes it must have, if known. A folder holds one file of a name: another URL that ends in the
    same name replaces it. Raises SourceError; an interrupted download is kept, to be resumed.
    """
    check_url(url)
    transfer = _Transfer(url, folder / file_name(url), size, listener)
    if transfer.finished():
        return transfer.target
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with exclusive(folder.parent / f".{folder.name}.lock"):
            transfer.run()
    except OSError as error:  # those of the network have become SourceError before
        with suppress(OSError):
            transfer.discard()
        raise SourceError(
            f"{url} can't be stored in {folder} ({error.strerror or error}); free some space "
            "there, or set MIXER_MLX_CACHE to a folder that you can write to."
        ) from error
    return transfer.target


def recorded(path: Path) -> Record | None:
    """Where a finished download came from; None if `path` isn't one, or has another size now."""
    record = _read(beside(path, ".json"))
    if record is None or not path.is_file() or path.stat().st_size != record.size:
        return None
    return record


class _Transfer:
    """One call of `download`: what it wants, and how far into the file it has come."""

    def __init__(self, url: str, target: Path, size: int | None, listener: Listener) -> None:
        self.url, self.target, self.size, self.listener = url, target, size, listener
        self.part, self.note = beside(target, ".part"), beside(target, ".part.json")
        self.reached = 0

    def run(self) -> None:
        waits = list(WAITS)
        while not self.finished():
            before = self.reached
            try:
                self.attempt()
            except TryAgainError as failure:
                if self.reached - before >= _WORTHWHILE:
                    waits = list(WAITS)
                if not waits:
                    raise SourceError(str(failure)) from failure.__cause__
                time.sleep(waits.pop(0))
        self.discard()

    def finished(self) -> bool:
        record = recorded(self.target)
        return record is not None and record.url == self.url and self.size in (None, record.size)

    def attempt(self) -> None:
        """One request, from the end of the part to the end of the file."""
        record = _read(self.note)
        if record is None or record.url != self.url:
            record = Record(self.url)
        start = _size(self.part) if record.validator else 0
        with self.open(record, start) as response:
            if response.status != 206:  # the whole: the file changed, or there was no part
                start, headers = 0, response.headers
                record = Record(self.url, headers["ETag"], headers["Last-Modified"])
            total = self.total(response, start)
            try:
                done = self.store(response, record, start, total)
                self.finish(done, record, response.headers)
            except FileNotFoundError as error:
                raise TryAgainError(
                    f"{self.part} was removed during the download; run this again."
                ) from error
            finally:
                if not record.validator:  # can't be resumed
                    self.discard()

    def open(self, record: Record, start: int) -> HTTPResponse:
        headers = {"User-Agent": f"mixer-mlx/{__version__}"}
        if start and record.validator:
            headers |= {"Range": f"bytes={start}-", "If-Range": record.validator}
        request = Request(self.url, headers=headers)  # noqa: S310  # check_url has seen it
        try:
            response: HTTPResponse = build_opener(Redirects).open(request, timeout=TIMEOUT)
        except HTTPError as error:
            error.close()
            if error.code == 416:  # the part is longer than the file
                self.discard()
            raise refusal(self.url, error) from error
        except URLError as error:
            raise self.unreachable(error) from error
        except (OSError, HTTPException, ValueError) as error:
            raise interrupted(self.url, str(error)) from error
        return response

    def unreachable(self, error: URLError) -> Exception:
        host = urlsplit(self.url).netloc
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            return SourceError(
                f"The certificate of {host} can't be verified ({error.reason.verify_message}); set "
                "SSL_CERT_FILE to a file of trusted certificates (Python from python.org: run its "
                "Install Certificates.command)."
            )
        text = f"{host} can't be reached ({error.reason}); check the network, then run this again."
        return TryAgainError(text) if self.reached else SourceError(text)

    def total(self, response: HTTPResponse, start: int) -> int | None:
        """The size of the whole file, if the server gives it; refuse what can't be the file."""
        headers = response.headers
        encoding, kind = headers["Content-Encoding"], headers.get_content_type()
        if encoding not in (None, "identity") or kind == "text/html":
            raise SourceError(
                f"{self.url} returned a {encoding or 'web'} page instead of a file; check the "
                "address, and whether this network asks for a login."
            )
        length = re.fullmatch(r"([0-9]{1,18})", headers["Content-Length"] or "")
        if response.status == 206:
            span = headers["Content-Range"] or ""
            length = re.fullmatch(rf"bytes {start}-\d{{1,18}}/(\d{{1,18}})", span)
            if length is None:
                self.discard()
                raise TryAgainError(
                    f"{self.url} sent a range that wasn't asked for ({span}); run this again."
                )
        total = int(length[1]) if length else None
        if total is not None:
            self.check_size(total)
            self.check_limit(total)
        return total

    def check_limit(self, size: int) -> None:
        """Refuse what is longer than known, or than MAX_BYTES."""
        limit = MAX_BYTES if self.size is None else self.size
        if size > limit:
            self.discard()
            raise SourceError(
                f"{self.url} has more than the expected {limit:,} bytes; check the address."
            )

    def check_size(self, size: int) -> None:
        if self.size not in (None, size):
            self.discard()
            raise SourceError(
                f"{self.url} has {size:,} bytes instead of {self.size:,}; check the address."
            )

    def store(self, response: HTTPResponse, record: Record, start: int, total: int | None) -> int:
        """Append what comes to the part; return the size of the whole."""
        done = start
        if not start:
            self.note.unlink(missing_ok=True)  # before the part that it describes is emptied
        with open_output(self.part, "ab" if start else "wb") as file:
            if file.tell() != start:  # the part that was seen is gone
                raise FileNotFoundError(self.part)
            if not start and record.validator:
                _write(self.note, record)
            for chunk in chunks(self.url, response):
                done += len(chunk)
                self.check_limit(done)
                file.write(chunk)
                self.reached = max(self.reached, done)
                self.listener.progress(done, total)
        if total is not None and done < total:
            short = ConnectionError("ended early")
            raise interrupted(self.url, f"{done:,} of {total:,} bytes") from short
        return done

    def finish(self, size: int, record: Record, headers: HTTPMessage) -> None:
        """Check the part as a whole, and put it in place."""
        self.check_size(size)
        if _size(self.part) != size:  # not what was written, or not that alone
            raise FileNotFoundError(self.part)
        if not _matches_hash(self.part, headers):
            self.discard()
            raise SourceError(f"{self.url} arrived damaged (its MD5 is wrong); run this again.")
        record = replace(record, size=size, sha256=_digest(self.part))
        atomic.sync(self.part)
        beside(self.target, ".json").unlink(missing_ok=True)
        self.part.replace(self.target)
        _write(beside(self.target, ".json"), record)

    def discard(self) -> None:
        """Remove an unfinished download."""
        self.note.unlink(missing_ok=True)
        self.part.unlink(missing_ok=True)


def _matches_hash(path: Path, headers: HTTPMessage) -> bool:
    """Whether a file has the MD5 that Google's storage states for it, if it states one."""
    stated = re.search(r"md5=([A-Za-z0-9+/]{22}==)", ",".join(headers.get_all("x-goog-hash", [])))
    try:
        return stated is None or base64.b64decode(stated[1]).hex() == _digest(path, "md5")
    except ValueError:  # not base64
        return False


def _digest(path: Path, name: str = "sha256") -> str:
    with path.open("rb") as file:
        new = partial(hashlib.new, name, usedforsecurity=False)
        return hashlib.file_digest(file, new).hexdigest()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _read(path: Path) -> Record | None:
    try:
        return as_dataclass(Record, read_json(path))
    except ConfigError:
        return None


def _write(path: Path, record: Record) -> None:
    with atomic.replacing_file(path) as temporary:
        temporary.write_text(json.dumps(asdict(record), indent=2) + "\n", encoding="utf-8")
