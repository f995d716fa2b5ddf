"""Downloads against a server on this machine: what comes is right, or there is one sentence."""

import errno
import hashlib
import os
import random
import socket
import subprocess
import sys
import threading
from contextlib import nullcontext
from io import BytesIO
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request

import pytest
from filelock import FileLock
from hub_server import Fault, HubServer

from mixer_mlx.convert.fetch import download as module
from mixer_mlx.convert.fetch.download import Record, download, recorded
from mixer_mlx.convert.fetch.listener import Listener
from mixer_mlx.convert.fetch.web import Redirects
from mixer_mlx.errors import SourceError

PATH = "/mixer_models/imagenet1k/Mixer-B_16.npz"
DATA = random.Random(0).randbytes(3_000_000)  # noqa: S311


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITS", (0.0, 0.0, 0.0, 0.0))


@pytest.fixture
def url(hub: HubServer) -> str:
    hub.files[PATH] = DATA
    return hub.url + PATH


@pytest.fixture
def one_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITS", ())


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def refused(url: str, folder: Path, sentence: str, **options: int) -> BaseException | None:
    """Download must fail with one sentence that holds `sentence`, and nothing may be trusted."""
    with pytest.raises(SourceError, match=sentence) as caught:
        download(url, folder, **options)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")
    assert recorded(folder / url.rpartition("/")[2]) is None
    return caught.value.__cause__


def test_file_and_record(hub: HubServer, url: str, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    listener = Listener(progress=lambda *state: seen.append(state))
    path = download(url, tmp_path / "new", listener=listener)
    assert path == tmp_path / "new" / "Mixer-B_16.npz"
    assert path.read_bytes() == DATA
    assert recorded(path) == Record(
        url=url,
        etag=f'"{hashlib.md5(DATA).hexdigest()}"',  # noqa: S324
        last_modified=None,
        size=3_000_000,
        sha256=hashlib.sha256(DATA).hexdigest(),
    )
    assert left(path.parent) == ["Mixer-B_16.npz", "Mixer-B_16.npz.json"]
    assert seen[-1] == (3_000_000, 3_000_000)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_second_call_needs_no_network(hub: HubServer, url: str, tmp_path: Path) -> None:
    path = download(url, tmp_path)
    hub.faults[PATH] = Fault(status=500)
    assert download(url, tmp_path, size=3_000_000) == path
    assert hub.count() == 1


def test_finished_file_of_another_size_than_expected(url: str, tmp_path: Path) -> None:
    download(url, tmp_path)
    with pytest.raises(SourceError, match=r"3,000,000 bytes instead of 7"):
        download(url, tmp_path, size=7)


@pytest.mark.parametrize("damage", ["cut", "no record", "other record"])
def test_file_that_is_not_the_finished_one_is_fetched_again(
    hub: HubServer, url: str, tmp_path: Path, damage: str
) -> None:
    path = download(url, tmp_path)
    if damage == "cut":
        path.write_bytes(DATA[:-1])
    elif damage == "no record":
        (tmp_path / "Mixer-B_16.npz.json").unlink()
    else:
        (tmp_path / "Mixer-B_16.npz.json").write_text('["no", "record"]')
    assert download(url, tmp_path).read_bytes() == DATA
    assert hub.count() == 2


def test_same_name_from_elsewhere_replaces(hub: HubServer, url: str, tmp_path: Path) -> None:
    hub.files["/other/Mixer-B_16.npz"] = b"other"
    download(url, tmp_path)
    path = download(hub.url + "/other/Mixer-B_16.npz", tmp_path)
    assert path.read_bytes() == b"other"


def test_record_is_never_that_of_an_older_file(
    hub: HubServer, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash between the file and its record leaves the file without one."""
    path = download(url, tmp_path)
    path.write_bytes(b"cut")
    hub.files[PATH] = DATA[::-1]  # as long as before

    def crash(path: Path, record: Record) -> None:
        if record.sha256:
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "_write", crash)
    with pytest.raises(KeyboardInterrupt):
        download(url, tmp_path)
    assert path.read_bytes() == DATA[::-1]
    assert recorded(path) is None


# Resuming


@pytest.mark.parametrize("cut", [0, 1, 1_500_000, 2_999_999])
def test_cut_is_resumed_in_the_same_call(
    hub: HubServer, url: str, tmp_path: Path, cut: int
) -> None:
    hub.faults[PATH] = Fault(cut=cut, times=1)
    assert download(url, tmp_path).read_bytes() == DATA
    assert [headers.get("Range") for _, _, headers in hub.requests] == [
        None,
        f"bytes={cut}-" if cut else None,
    ]
    assert left(tmp_path) == ["Mixer-B_16.npz", "Mixer-B_16.npz.json"]


def test_many_cuts_at_random_places(hub: HubServer, url: str, tmp_path: Path) -> None:
    places = random.Random(1)  # noqa: S311
    for count in range(40):
        data = places.randbytes(places.randrange(1, 20_000))
        hub.files[PATH] = data
        hub.faults[PATH] = Fault(cut=places.randrange(len(data)), times=places.randrange(1, 5))
        assert download(url, tmp_path / str(count)).read_bytes() == data


def test_large_pieces_are_not_counted_as_failures(
    hub: HubServer, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAITS", (0.0,))
    hub.files[PATH] = DATA * 2
    hub.faults[PATH] = Fault(cut=1_200_000)
    assert download(url, tmp_path).read_bytes() == DATA * 2


def test_lasting_cut_is_resumed_by_a_killed_process_successor(
    hub: HubServer, url: str, tmp_path: Path
) -> None:
    """A process that is killed while it waits for more leaves what the next one starts from."""
    code = (
        "import os, signal, sys; from pathlib import Path;"
        "from mixer_mlx.convert.fetch.download import Listener, download;"
        "die = lambda done, total: done > 2_000_000 and os.kill(os.getpid(), signal.SIGKILL);"
        "download(sys.argv[1], Path(sys.argv[2]), listener=Listener(progress=die))"
    )
    run = subprocess.run([sys.executable, "-c", code, url, tmp_path], capture_output=True)
    assert run.returncode == -9, run.stderr
    assert not (tmp_path / "Mixer-B_16.npz").exists()
    assert download(url, tmp_path).read_bytes() == DATA
    start = int(hub.requests[-1][2]["Range"].removeprefix("bytes=").removesuffix("-"))
    assert 1_000_000 < start < 3_000_000


@pytest.mark.usefixtures("one_try")
def test_changed_file_is_fetched_from_the_start(hub: HubServer, url: str, tmp_path: Path) -> None:
    hub.faults[PATH] = Fault(cut=2_000_000)
    refused(url, tmp_path, r"was interrupted")
    hub.faults.clear()
    hub.files[PATH] = DATA[::-1]
    assert download(url, tmp_path).read_bytes() == DATA[::-1]
    assert hub.requests[-1][2]["If-Range"] == f'"{hashlib.md5(DATA).hexdigest()}"'  # noqa: S324
    assert left(tmp_path) == ["Mixer-B_16.npz", "Mixer-B_16.npz.json"]


def test_part_longer_than_the_file_is_dropped(
    hub: HubServer, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(module, "WAITS", ())
        hub.faults[PATH] = Fault(cut=2_000_000, times=1)
        refused(url, tmp_path, r"was interrupted")
    (part,) = tmp_path.glob("*.part")
    part.write_bytes(DATA + b"too much")
    assert download(url, tmp_path).read_bytes() == DATA
    assert [headers.get("Range") for _, _, headers in hub.requests] == [
        None,
        "bytes=3000008-",
        None,
    ]


@pytest.mark.parametrize("rest", [b"", b" and more"])
def test_server_that_ignores_ranges(
    hub: HubServer, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rest: bytes
) -> None:
    hub.ranges = False
    monkeypatch.setattr(module, "WAITS", ())
    hub.faults[PATH] = Fault(cut=2_000_000, times=1)
    refused(url, tmp_path, r"was interrupted")
    (part,) = tmp_path.glob("*.part")
    if rest:
        part.write_bytes(DATA + rest)
    assert download(url, tmp_path).read_bytes() == DATA


@pytest.mark.usefixtures("one_try")
def test_part_of_another_url_is_not_resumed(hub: HubServer, url: str, tmp_path: Path) -> None:
    hub.files["/mirror/Mixer-B_16.npz"] = DATA
    hub.faults[PATH] = Fault(cut=2_000_000, times=1)
    refused(url, tmp_path, r"was interrupted")
    path = download(hub.url + "/mirror/Mixer-B_16.npz", tmp_path)
    assert path.read_bytes() == DATA
    assert hub.count() == 2
    assert recorded(path).url == hub.url + "/mirror/Mixer-B_16.npz"
    assert left(tmp_path) == ["Mixer-B_16.npz", "Mixer-B_16.npz.json"]


@pytest.mark.parametrize("moment", ["open", "store"])
@pytest.mark.parametrize("fate", ["gone", "new"])
def test_part_that_another_process_takes_away(
    hub: HubServer,
    url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
    fate: str,
) -> None:
    """Between the request and the writing, or before the part is put in place."""
    with monkeypatch.context() as patch:
        patch.setattr(module, "WAITS", ())
        hub.faults[PATH] = Fault(cut=2_000_000, times=1)
        refused(url, tmp_path, r"was interrupted")
    step = getattr(module._Transfer, moment)
    stolen: list[str] = []
    waited: list[float] = []

    def steal(*args: object) -> object:
        result = step(*args)
        if not stolen:
            stolen.append(fate)
            (part,) = tmp_path.glob("*.part")
            part.unlink()
            if fate == "new":
                part.touch()
        return result

    monkeypatch.setattr(module._Transfer, moment, steal)
    monkeypatch.setattr(module.time, "sleep", waited.append)
    assert download(url, tmp_path).read_bytes() == DATA
    assert stolen == [fate]
    assert waited == [0.0]


@pytest.mark.parametrize(
    ("etag", "modified", "resumed"),
    [
        ("", "Mon, 02 Feb 2026 10:00:00 GMT", True),
        ('W/"weak"', "Mon, 02 Feb 2026 10:00:00 GMT", True),
        ('W/"weak"', "", False),
        ("", "", False),
    ],
)
@pytest.mark.usefixtures("one_try")
def test_validators(
    hub: HubServer, url: str, tmp_path: Path, etag: str, modified: str, resumed: bool
) -> None:
    hub.faults[PATH] = Fault(cut=1_000_000, headers={"ETag": etag, "Last-Modified": modified})
    refused(url, tmp_path, r"was interrupted")
    assert len(left(tmp_path)) == (2 if resumed else 0)
    hub.faults.clear()
    assert download(url, tmp_path).read_bytes() == DATA
    assert hub.requests[-1][2].get("If-Range") == (modified if resumed else None)


@pytest.mark.parametrize("span", ["bytes 0-2999999/3000000", "bytes 1000000-2999999/*", ""])
def test_range_that_was_not_asked_for(
    hub: HubServer, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, span: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(module, "WAITS", ())
        hub.faults[PATH] = Fault(cut=1_000_000, times=1)
        refused(url, tmp_path, r"was interrupted")
    hub.faults[PATH] = Fault(headers={"Content-Range": span}, times=1)
    assert download(url, tmp_path).read_bytes() == DATA
    assert hub.count() == 3


def test_two_at_once(hub: HubServer, url: str, tmp_path: Path) -> None:
    """One fetches, the others wait for it, and all end with the right file."""
    hub.faults[PATH] = Fault(cut=700_000, times=3)
    hub.files[PATH] = DATA * 3
    both = threading.Barrier(4)
    results: list[bytes | BaseException] = []

    def run() -> None:
        both.wait()
        try:
            results.append(download(url, tmp_path).read_bytes())
        except BaseException as error:
            results.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [DATA * 3] * 4
    assert hub.count() == 4  # three that were cut, and the rest
    assert left(tmp_path) == ["Mixer-B_16.npz", "Mixer-B_16.npz.json"]


@pytest.mark.parametrize("error", [OSError(errno.ENOLCK, "No locks"), NotImplementedError])
def test_file_system_without_locks(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(_: FileLock) -> None:
        raise error

    monkeypatch.setattr(FileLock, "acquire", refuse)
    assert download(url, tmp_path).read_bytes() == DATA


def test_two_at_once_without_locks(
    hub: HubServer, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the two do to each other's part, none ends with a wrong file."""
    monkeypatch.setattr(module, "exclusive", lambda _: nullcontext())
    hub.files[PATH] = DATA * 3
    results: list[bytes | BaseException] = []

    def run() -> None:
        try:
            results.append(download(url, tmp_path).read_bytes())
        except SourceError as error:
            results.append(error)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {found for found in results if isinstance(found, bytes)} <= {DATA * 3}
    assert download(url, tmp_path).read_bytes() == DATA * 3


# Failures


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_passing_failure(hub: HubServer, url: str, tmp_path: Path, status: int) -> None:
    hub.faults[PATH] = Fault(status=status, times=4)
    assert download(url, tmp_path).read_bytes() == DATA
    assert hub.count(PATH) == 5


@pytest.mark.parametrize(
    ("status", "sentence", "requests"),
    [
        (500, r"the server failed \(500 Internal Server Error\); try again later", 5),
        (429, r"the server failed \(429 Too Many Requests\); try again later", 5),
        (404, r"doesn't exist \(404\); check the address", 1),
        (401, r"isn't public \(401\); download it where you are logged in", 1),
        (403, r"isn't public \(403\)", 1),
        (418, r"can't be fetched \(418", 1),
    ],
)
def test_status(
    hub: HubServer, url: str, tmp_path: Path, status: int, sentence: str, requests: int
) -> None:
    hub.faults[PATH] = Fault(status=status)
    cause = refused(url, tmp_path, sentence)
    assert isinstance(cause, HTTPError)
    assert cause.code == status
    assert hub.count(PATH) == requests
    assert left(tmp_path) == []


def test_waits_grow_and_end(
    hub: HubServer, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(module, "WAITS", (0.5, 1.0, 2.0, 4.0))
    monkeypatch.setattr(module.time, "sleep", waits.append)
    hub.faults[PATH] = Fault(status=503)
    refused(url, tmp_path, "the server failed")
    assert waits == [0.5, 1.0, 2.0, 4.0]


def test_short_body(hub: HubServer, url: str, tmp_path: Path) -> None:
    hub.faults[PATH] = Fault(longer=10)
    cause = refused(url, tmp_path, r"was interrupted \(3,000,000 of 3,000,010 bytes\); run")
    assert isinstance(cause, ConnectionError)


def test_wrong_size_is_seen_before_anything_comes(hub: HubServer, url: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"has 3,000,000 bytes instead of 2,999,999"):
        download(
            url,
            tmp_path,
            size=2_999_999,
            listener=Listener(progress=lambda *_: pytest.fail("bytes came")),
        )
    assert left(tmp_path) == []


def test_wrong_size_without_a_length(hub: HubServer, url: str, tmp_path: Path) -> None:
    hub.faults[PATH] = Fault(headers={"Content-Length": ""})
    refused(url, tmp_path, r"has 3,000,000 bytes instead of 4,000,000", size=4_000_000)
    assert left(tmp_path) == []
    assert download(url, tmp_path, size=3_000_000).read_bytes() == DATA


@pytest.mark.parametrize("length", ["", None])
def test_a_body_of_unknown_size_is_bounded(
    hub: HubServer, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: str | None
) -> None:
    """Also without a length, which a server may leave out to fill the disk."""
    monkeypatch.setattr(module, "MAX_BYTES", 2_000_000)
    if length is not None:
        hub.faults[PATH] = Fault(headers={"Content-Length": length})
    refused(url, tmp_path, "has more than the expected 2,000,000 bytes")
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    ("headers", "sentence"),
    [
        ({"Content-Type": "text/html; charset=utf-8"}, "returned a web page instead"),
        ({"Content-Encoding": "gzip"}, "returned a gzip page instead"),
    ],
)
def test_page_instead_of_a_file(
    hub: HubServer, url: str, tmp_path: Path, headers: dict[str, str], sentence: str
) -> None:
    hub.faults[PATH] = Fault(headers=headers)
    refused(url, tmp_path, sentence)
    assert left(tmp_path) == []


def test_stated_md5(hub: HubServer, url: str, tmp_path: Path) -> None:
    hub.files[PATH] = b"hello"  # the example of RFC 1321's successors: 5d41402abc4b2a76b9719d91...
    right = "crc32c=mnG7TA==,md5=XUFAKrxLKna5cZ2REBfFkg=="
    hub.faults[PATH] = Fault(headers={"x-goog-hash": right.replace("XUFA", "AAAA")})
    refused(url, tmp_path, "arrived damaged")
    assert left(tmp_path) == []
    hub.faults[PATH] = Fault(headers={"x-goog-hash": right})
    assert download(url, tmp_path).read_bytes() == b"hello"


@pytest.mark.parametrize(
    "stated", ["", "md5=", "md5=XUFA", "md5=" + "\xff" * 22 + "==", "sha9=" * 10**4]
)
def test_stated_hashes_of_other_kinds_are_passed_over(
    hub: HubServer, url: str, tmp_path: Path, stated: str
) -> None:
    hub.files[PATH] = b"hello"
    hub.faults[PATH] = Fault(headers={"x-goog-hash": stated})
    assert download(url, tmp_path).read_bytes() == b"hello"


@pytest.mark.parametrize(("reached", "waits"), [(0, []), (1, [0.0] * 4)])
def test_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reached: int, waits: list[float]
) -> None:
    """It is said at once, unless something came before: then the network may come back."""
    start, waited = module._Transfer.__init__, []

    def begin(self: module._Transfer, *args: object) -> None:
        start(self, *args)
        self.reached = reached

    monkeypatch.setattr(module._Transfer, "__init__", begin)
    monkeypatch.setattr(module.time, "sleep", waited.append)
    monkeypatch.setenv("no_proxy", "*")
    with socket.socket() as bound:  # a port that nobody listens to
        bound.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{bound.getsockname()[1]}"
        cause = refused(f"http://{host}/file.npz", tmp_path, rf"{host} can't be reached .*refused")
    assert isinstance(cause, URLError)
    assert isinstance(cause.reason, ConnectionRefusedError)
    assert waited == waits


def test_silence(hub: HubServer, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITS", ())
    monkeypatch.setattr(module, "TIMEOUT", 0.05)
    hub.faults[PATH] = Fault(wait=(over := threading.Event()))
    try:
        assert isinstance(refused(url, tmp_path, r"was interrupted \(timed out\)"), TimeoutError)
    finally:
        over.set()


@pytest.mark.parametrize(
    "bad",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/a.npz",
        "http://",
        "http:///a.npz",
        "http://127.0.0.1:x/a.npz",
        "http://[::1/a.npz",
        "http://127.0.0.1/a b.npz",
        "http://127.0.0.1/\x1b[2Ja.npz",
        "http://127.0.0.1/é.npz",
        "a.npz",
        "",
    ],
)
def test_bad_url(tmp_path: Path, bad: str) -> None:
    with pytest.raises(SourceError, match=r"isn't a URL that can be fetched; give one like https"):
        download(bad, tmp_path)


@pytest.mark.parametrize(
    "end", ["", "/", "/folder/", "/%2e%2e", "/.hidden", "/a%2Fb", "/a%00b", "/%1b"]
)
def test_url_without_a_file_name(tmp_path: Path, end: str) -> None:
    with pytest.raises(SourceError, match=r"doesn't end in a file name"):
        download("http://127.0.0.1" + end, tmp_path)


def test_redirect(hub: HubServer, url: str, tmp_path: Path) -> None:
    hub.faults["/short.npz"] = Fault(status=302, headers={"Location": url})
    path = download(hub.url + "/short.npz", tmp_path)
    assert path.name == "short.npz"
    assert path.read_bytes() == DATA


def test_redirect_loop(hub: HubServer, url: str, tmp_path: Path) -> None:
    hub.faults[PATH] = Fault(status=302, headers={"Location": url})
    assert isinstance(refused(url, tmp_path, "redirects in circles"), HTTPError)


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/a"])
def test_redirect_out_of_the_web(hub: HubServer, url: str, tmp_path: Path, target: str) -> None:
    hub.faults[PATH] = Fault(status=302, headers={"Location": target})
    refused(url, tmp_path, r"which isn't secure|check the address")
    assert left(tmp_path) == []


def test_no_redirect_from_https_to_http() -> None:
    request = Request("https://127.0.0.1/a.npz")

    def follow(target: str) -> str:
        new = Redirects().redirect_request(request, BytesIO(), 302, "", {}, target)
        return new.full_url

    assert follow("https://127.0.0.1/b.npz") == "https://127.0.0.1/b.npz"
    with pytest.raises(SourceError, match="which isn't secure"):
        follow("http://127.0.0.1/a.npz")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="NOT RUN: needs /dev/full")
def test_disk_full(
    hub: HubServer, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        module, "open_output", lambda *_: os.fdopen(os.open("/dev/full", os.O_WRONLY), "wb")
    )
    cause = refused(url, tmp_path, r"can't be stored in .* \(No space left on device\); free")
    assert isinstance(cause, OSError)
    assert left(tmp_path) == []


def test_folder_that_is_a_file(hub: HubServer, url: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        SourceError, match=r"can't be stored in .* \((File exists|Not a directory)\)"
    ):
        download(url, tmp_path / "file")
