"""One file from the web: resumed where it was cut, checked, and there whole or not at all.

While a file comes it lies in `name.<key>.part`; the key is made from the URL and the server's
validator (a strong ETag, or Last-Modified), which `name.part.json` keeps. So the same part always
holds the same bytes at the same places: a later process resumes it, and two processes at once write
over each other without harm, with no lock to rely on. Once complete and checked it is renamed to
`name`, and `name.json` records where it came from.
"""

import base64
import glob
import hashlib
import json
import os
import re
import ssl
import time
import uuid
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, build_opener

from mixer_mlx import __version__
from mixer_mlx.errors import SourceError
from mixer_mlx.runtime import atomic

from .listener import SILENT, Listener
from .web import Redirects, TryAgainError, check_url, chunks, cut, file_name, refusal

WAITS = (0.5, 1.0, 2.0, 4.0)
"""Seconds before each new try. They start again whenever a try came `_WORTHWHILE` bytes further."""
TIMEOUT = 30.0
"""Seconds until a connection, or a silence within one, counts as failed."""

_WORTHWHILE = 1 << 20


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


def download(
    url: str, folder: Path, *, size: int | None = None, listener: Listener = SILENT
) -> Path:
    """The file behind an http(s) URL, in `folder` under its own name; fetched once.

    What an earlier call finished is returned without any network. `size` is the number of bytes it
    must have, if known. One folder holds one file of a name: another URL that ends in the same name
    replaces it. Raises SourceError; a download that was cut is then kept to be resumed.
    """
    check_url(url)
    transfer = _Transfer(url, folder / file_name(url), size, listener)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        transfer.run()
    except OSError as error:  # those of the network have become SourceError before
        with suppress(OSError):
            transfer.discard()
        raise SourceError(
            f"{url} can't be stored in {folder}: {error.strerror or error}; make room there, or "
            "choose a folder that can be written to."
        ) from error
    return transfer.target


def recorded(path: Path) -> Record | None:
    """Where a finished download came from; None if `path` isn't one, or has another size now."""
    record = _read(_beside(path, ".json"))
    if record is None or not path.is_file() or path.stat().st_size != record.size:
        return None
    return record


class _Transfer:
    """One call of `download`: what it wants, and how far into the file it has come."""

    def __init__(self, url: str, target: Path, size: int | None, listener: Listener) -> None:
        self.url, self.target, self.size, self.listener = url, target, size, listener
        self.note = _beside(target, ".part.json")
        self.reached = 0

    def run(self) -> None:
        if self.finished():
            return
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
        part = self.part(record)
        start = _size(part)
        with ExitStack() as stack:
            response = stack.enter_context(self.open(record, start))
            if response.status != 206:  # not the rest: the file changed, or there was no part
                start, headers = 0, response.headers
                record = Record(self.url, headers["ETag"], headers["Last-Modified"])
                part = self.part(record)
            total = self.total(response, start)
            if record.validator:
                _write(self.note, record)
            else:  # can't be resumed
                stack.callback(part.unlink, missing_ok=True)
            try:
                done = self.store(response, part, start, total)
                self.finish(part, done, record, response.headers)
            except FileNotFoundError as error:  # another process was faster
                raise TryAgainError(f"{part} has disappeared; run this again.") from error

    def part(self, record: Record) -> Path:
        key = uuid.uuid4().hex
        if record.validator:
            key = hashlib.sha256(f"{record.url}\n{record.validator}".encode()).hexdigest()
        return _beside(self.target, f".{key[:16]}.part")

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
            raise cut(self.url, str(error)) from error
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
        """How long the whole file is, as far as the server says; refuse what can't be it."""
        headers = response.headers
        encoding, kind = headers["Content-Encoding"], headers.get_content_type()
        if encoding not in (None, "identity") or kind == "text/html":
            raise SourceError(
                f"{self.url} answers with a {encoding or 'web'} page instead of a file; check the "
                "address, and whether this network asks for a login."
            )
        length = re.fullmatch(r"(\d+)", headers["Content-Length"] or "")
        if response.status == 206:
            span = headers["Content-Range"] or ""
            length = re.fullmatch(rf"bytes {start}-\d+/(\d+)", span)
            if length is None:
                self.discard()
                raise TryAgainError(f"{self.url} sends another part than asked for: {span}.")
        total = int(length[1]) if length else None
        if total is not None:
            self.check_size(total)
        return total

    def check_size(self, size: int) -> None:
        if self.size not in (None, size):
            self.discard()
            raise SourceError(
                f"{self.url} has {size:,} bytes where {self.size:,} are expected; it isn't the "
                "file that is meant: check the address."
            )

    def store(self, response: HTTPResponse, part: Path, start: int, total: int | None) -> int:
        """Write what comes to where it belongs; return the length of the whole."""
        done = start
        part.touch()
        with part.open("r+b") as file:
            if file.seek(0, os.SEEK_END) < start:  # the part that was seen has gone
                raise FileNotFoundError(part)
            file.seek(start)
            for chunk in chunks(self.url, response):
                file.write(chunk)
                done += len(chunk)
                self.reached = max(self.reached, done)
                self.listener.progress(done, total)
            if total is not None and done < total:
                short = ConnectionError("ended early")
                raise cut(self.url, f"{done:,} of {total:,} bytes") from short
            file.truncate()
        return done

    def finish(self, part: Path, size: int, record: Record, headers: HTTPMessage) -> None:
        """Check the part as a whole, and put it where it belongs."""
        self.check_size(size)
        if _size(part) != size:  # not the part that was written, but a new one
            raise FileNotFoundError(part)
        if not _matches_hash(part, headers):
            self.discard()
            raise SourceError(f"{self.url} came damaged (its MD5 is wrong); run this again.")
        record = replace(record, size=size, sha256=_digest(part))
        atomic.sync(part)
        _beside(self.target, ".json").unlink(missing_ok=True)
        part.replace(self.target)
        _write(_beside(self.target, ".json"), record)

    def discard(self) -> None:
        """Forget what an unfinished download has left."""
        for path in self.target.parent.glob(f"{glob.escape(self.target.name)}.*.part"):
            path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


def _matches_hash(path: Path, headers: HTTPMessage) -> bool:
    """Whether a file has the MD5 that Google's storage states for it, if it states one."""
    stated = re.search(r"md5=([\w+/=]+)", ",".join(headers.get_all("x-goog-hash", [])))
    return stated is None or base64.b64decode(stated[1]).hex() == _digest(path, "md5")


def _digest(path: Path, name: str = "sha256") -> str:
    with path.open("rb") as file:
        new = partial(hashlib.new, name, usedforsecurity=False)
        return hashlib.file_digest(file, new).hexdigest()


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _read(path: Path) -> Record | None:
    try:
        return Record(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _write(path: Path, record: Record) -> None:
    with atomic.replacing_file(path) as temporary:
        temporary.write_text(json.dumps(asdict(record), indent=2) + "\n", encoding="utf-8")
