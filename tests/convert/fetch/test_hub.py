"""The Hub against a server on this machine that answers as it does."""

import logging
import socket
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from hub_server import COMMIT, TOKEN, Fault, HubServer, Repo, set_hub
from huggingface_hub import errors, file_download
from huggingface_hub.utils import _http

from mixer_mlx.convert.fetch import hub as module
from mixer_mlx.convert.fetch.download import Fetched
from mixer_mlx.convert.fetch.hub import choose, fetch
from mixer_mlx.convert.fetch.hub_address import HubAddress, parse
from mixer_mlx.convert.fetch.listener import Listener
from mixer_mlx.errors import SourceError

NAME = "timm/mixer_tiny"
API = f"/api/models/{NAME}"
FILES = {
    "config.json": b'{"architecture": "mixer"}',
    "model.safetensors": bytes(range(256)) * 100,
    "pytorch_model.bin": b"pickle",
    "README.md": b"words",
    "jax/weights.npz": b"PK",
}
NEXT_COMMIT = "f" * 40


def resolve(file: str, commit: str = COMMIT) -> str:
    return f"/{NAME}/resolve/{commit}/{file}"


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = SimpleNamespace(sleep=lambda _: None, time=time.time)
    monkeypatch.setattr(module, "WAITS", (0.0, 0.0, 0.0))
    monkeypatch.setattr(_http, "time", quick)  # the library's own waits come to 23 s
    monkeypatch.setattr(file_download, "time", quick)


@pytest.fixture
def repo(hub: HubServer) -> Repo:
    hub.repos[NAME] = Repo(dict(FILES))
    return hub.repos[NAME]


@pytest.fixture
def gone(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Call it, and nobody listens at the Hub's address any more."""

    def close() -> None:
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            port = bound.getsockname()[1]
        set_hub(monkeypatch, HF_ENDPOINT=f"http://127.0.0.1:{port}")

    return close


def refused(sentence: str, repo: str = NAME, **options: str) -> BaseException | None:
    with pytest.raises(SourceError, match=sentence) as caught:
        fetch(repo, **options)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")
    return caught.value.__cause__


# Addresses


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("timm/mixer_b16", HubAddress("timm/mixer_b16")),
        ("hf://timm/mixer_b16", HubAddress("timm/mixer_b16")),
        ("hf://timm/mixer_b16@v1.0", HubAddress("timm/mixer_b16", None, "v1.0")),
        ("hf://u/r/a.npz", HubAddress("u/r", "a.npz")),
        ("hf://u/r/deep/a.npz@main", HubAddress("u/r", "deep/a.npz", "main")),
        ("hf://u/r@main/deep/a.npz", HubAddress("u/r", "deep/a.npz", "main")),
        ("hf://u/r@refs/pr/1", HubAddress("u/r", None, "refs/pr/1")),
        ("hf://u/r@refs/pr/1/a.npz", HubAddress("u/r", "a.npz", "refs/pr/1")),
        ("hf://u/r/a.npz@refs/pr/1", HubAddress("u/r", "a.npz", "refs/pr/1")),
        ("hf://u/r/a.npz@feature/x", HubAddress("u/r", "a.npz", "feature/x")),
    ],
)
def test_parse(text: str, address: HubAddress) -> None:
    assert parse(text) == address


@pytest.mark.parametrize(
    "text",
    ["a", "a/b/c", "./a", "../a", "~/a", "/a", "a/", "a b/c", "a/.b", "a/b..c", "https://h/a", "",
     "weights/B_16.npz", "weights/model.safetensors", "a/b\n"],
)  # fmt: skip
def test_what_is_no_address(text: str) -> None:
    assert parse(text) is None


@pytest.mark.parametrize(
    "text",
    ["hf://", "hf://a", "hf:///a", "hf://a/", "hf://a/b@", "hf://a/b@x@y", "hf://a/b@x/f@y",
     "hf://../b", "hf://a/../b", "hf://a/b/../../c", "hf://a/b/./c", "hf://a/b//c", "hf://a/b/",
     "hf://a/b@../../x", "hf://a/b@/x", "hf://a/b/c\\d", "hf://a/b/c\x00", "hf://a/b@x\n",
     "hf://a--b/c", "hf://a/b.git", "hf://a/-b"],
)  # fmt: skip
def test_malformed_address(text: str) -> None:
    with pytest.raises(
        SourceError, match=r"; write hf://user/repo\[@revision\]\[/file\]|isn't a valid"
    ):
        parse(text)


@pytest.mark.parametrize(
    "options", [{"file": "../x"}, {"file": "/x"}, {"revision": "../../x"}, {"revision": ""}]
)
def test_names_that_could_leave_the_cache(hub: HubServer, options: dict[str, str]) -> None:
    refused("isn't a valid", **options)
    refused("isn't a valid repository name", repo="user/../x")
    assert hub.count() == 0


# What is fetched


def test_model(hub: HubServer, repo: Repo, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    found = fetch(NAME, listener=Listener(progress=lambda *state: seen.append(state)))
    folder = tmp_path / "hf-home" / "hub" / "models--timm--mixer_tiny" / "snapshots" / COMMIT
    assert found == Fetched(folder, COMMIT, ("config.json", "model.safetensors"))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        name: FILES[name] for name in found.files
    }
    assert seen == [(25_600, 25_600)]
    assert hub.count() == 5
    assert hub.count(API) == 1
    assert hub.count(resolve("config.json")) == hub.count(resolve("model.safetensors")) == 2


@pytest.mark.parametrize("revision", [None, "main", "v1.0", "refs/pr/1", COMMIT])
def test_one_file_of_a_revision(repo: Repo, revision: str | None) -> None:
    repo.revisions = ("main", "v1.0", "refs/pr/1")
    found = fetch(NAME, file="jax/weights.npz", revision=revision)
    assert found.path.read_bytes() == b"PK"
    assert (found.revision, found.files) == (COMMIT, ("jax/weights.npz",))


def test_files_are_asked_for_by_commit(hub: HubServer, repo: Repo) -> None:
    """Else a push between two of them would mix them."""
    fetch(NAME, revision="main")
    assert [path for _, path, _ in hub.requests] == [
        f"{API}/revision/main",
        *[resolve("config.json")] * 2,
        *[resolve("model.safetensors")] * 2,
    ]


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["model.safetensors", "other.safetensors", "a.npz"], ["model.safetensors"]),
        (["x.safetensors", "a.npz", "pytorch_model.bin"], ["x.safetensors"]),
        (["a.npz", "pytorch_model.bin", "config.json"], ["config.json", "a.npz"]),
        (["pytorch_model.bin", "sub/x.safetensors"], ["pytorch_model.bin"]),
    ],
)
def test_choice_of_weights(names: list[str], chosen: list[str]) -> None:
    assert choose(NAME, names) == tuple(chosen)


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["b.npz", "a.npz"], r"has 2 files that could be the weights; name one, e.g. .*/a\.npz"),
        (["README.md", "sub/x.npz"], r"has no weights .* name it as hf://timm/mixer_tiny/"),
    ],
)
def test_no_choice(names: list[str], sentence: str) -> None:
    with pytest.raises(SourceError, match=sentence):
        choose(NAME, names)


# The cache


def test_offline_after_a_download(
    hub: HubServer, repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, file = fetch(NAME), fetch(NAME, file="jax/weights.npz")
    asked = hub.count()
    set_hub(monkeypatch, HF_HUB_OFFLINE="1")
    assert fetch(NAME) == found
    assert fetch(NAME, revision=COMMIT) == found
    assert fetch(NAME, file="jax/weights.npz") == file
    assert hub.count() == asked


@pytest.mark.parametrize("trouble", ["refused", "500", "429"])
def test_hub_that_fails_after_a_download(
    hub: HubServer, repo: Repo, gone: Callable[[], None], trouble: str
) -> None:
    found = fetch(NAME)
    if trouble == "refused":
        gone()
    else:
        hub.faults[API] = Fault(status=int(trouble))
    assert fetch(NAME) == found
    assert fetch(NAME, file="config.json").path == found.path / "config.json"


def test_repository_that_was_withdrawn_is_not_served_from_the_cache(
    hub: HubServer, repo: Repo
) -> None:
    fetch(NAME)
    hub.repos.clear()
    refused("There is no repository timm/mixer_tiny")


def test_commit_needs_no_network(hub: HubServer, repo: Repo) -> None:
    found, file = fetch(NAME), fetch(NAME, file="jax/weights.npz")
    asked = hub.count()
    assert fetch(NAME, revision=COMMIT) == found
    assert fetch(NAME, revision=COMMIT, file="jax/weights.npz") == file
    assert hub.count() == asked


def test_commit_of_which_other_files_are_cached(repo: Repo) -> None:
    """A weights file that lies in the cache by chance isn't taken for the model."""
    repo.files["other.npz"] = b"PK"
    fetch(NAME, file="other.npz")
    fetch(NAME, file="config.json")
    assert fetch(NAME, revision=COMMIT).files == ("config.json", "model.safetensors")


def test_moved_branch(repo: Repo) -> None:
    old = fetch(NAME)
    repo.commit, repo.files["model.safetensors"] = NEXT_COMMIT, b"new"
    new = fetch(NAME)
    assert new.revision == NEXT_COMMIT
    assert (new.path / "model.safetensors").read_bytes() == b"new"
    assert (old.path / "model.safetensors").read_bytes() == FILES["model.safetensors"]


def test_files_that_the_library_fetched_serve_offline(
    hub: HubServer, repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import hf_hub_download

    for name in ("config.json", "model.safetensors"):
        hf_hub_download(NAME, name, endpoint=hub.url, cache_dir=tmp_path / "elsewhere")
    set_hub(monkeypatch, HF_HUB_CACHE=str(tmp_path / "elsewhere"))
    set_hub(monkeypatch, HF_HUB_OFFLINE="yes")
    found = fetch(NAME)
    assert (found.path / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert found.revision == COMMIT


def test_cut_download_leaves_nothing(hub: HubServer, repo: Repo, tmp_path: Path) -> None:
    hub.faults[resolve("model.safetensors")] = Fault(cut=1000)
    refused("failed .*; check the network and try again")
    sizes = [path.stat().st_size for path in tmp_path.rglob("blobs/*")]
    assert sizes == [len(FILES["config.json"])]
    hub.faults.clear()
    assert (fetch(NAME).path / "model.safetensors").read_bytes() == FILES["model.safetensors"]


# Failures


def test_offline_and_not_cached(
    hub: HubServer, repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_hub(monkeypatch, HF_HUB_OFFLINE="1")
    cause = refused("The model of timm/mixer_tiny isn't in the Hub's cache, .* unset HF_HUB_OFF")
    assert isinstance(cause, errors.OfflineModeIsEnabled)
    refused("a.npz of timm/mixer_tiny isn't in the Hub's cache", file="a.npz")
    assert hub.count() == 0


def test_no_network(repo: Repo, gone: Callable[[], None]) -> None:
    gone()
    assert isinstance(refused("The connection to http://127.0.0.1:.*refused"), errors.HTTPError)


def test_one_503(hub: HubServer, repo: Repo) -> None:
    hub.faults[API] = Fault(status=503, times=1)
    hub.faults[resolve("model.safetensors")] = Fault(status=503, times=1)
    assert fetch(NAME).revision == COMMIT


def test_lasting_500(hub: HubServer, repo: Repo) -> None:
    hub.faults[API] = Fault(status=500)
    cause = refused(r"The Hub failed to serve timm/mixer_tiny \(500\); try again later")
    assert isinstance(cause, errors.HfHubHTTPError)
    assert hub.count(API) == 4


def test_lasting_500_at_a_file(hub: HubServer, repo: Repo) -> None:
    hub.faults[resolve("model.safetensors")] = Fault(status=500)
    cause = refused(r"The Hub failed to serve timm/mixer_tiny \(500\); try again later")
    assert isinstance(cause, errors.LocalEntryNotFoundError)


def test_missing_repository(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    cause = refused("There is no repository timm/mixer_tiny on the Hub, or it is private")
    assert isinstance(cause, errors.RepositoryNotFoundError)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    refused("There is no repository timm/mixer_tiny on the Hub that you may read")


def test_private_repository(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    repo.private = True
    refused("or it is private; check the spelling, or set HF_TOKEN to a token that may read it")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert fetch(NAME).revision == COMMIT


def test_gated_repository(hub: HubServer, repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    repo.gated = True
    cause = refused(f"is gated; accept its terms at {hub.url}/{NAME} and set HF_TOKEN")
    assert isinstance(cause, errors.GatedRepoError)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert fetch(NAME).revision == COMMIT


def test_wrong_token(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    cause = refused(r"doesn't accept the token in HF_TOKEN; create a new one at .*/settings/tokens")
    assert isinstance(cause, errors.HfHubHTTPError)


def test_refused_repository(hub: HubServer, repo: Repo) -> None:
    hub.faults[API] = Fault(status=403)
    refused(r"The Hub denies access to timm/mixer_tiny \(403\)")
    assert hub.count(API) == 1


def test_missing_revision(repo: Repo) -> None:
    cause = refused("timm/mixer_tiny has no revision 'v9'", revision="v9")
    assert isinstance(cause, errors.RevisionNotFoundError)
    refused(f"has no revision '{NEXT_COMMIT}'", revision=NEXT_COMMIT)


def test_missing_file(repo: Repo) -> None:
    cause = refused("timm/mixer_tiny has no file 'a.npz'", file="a.npz")
    assert isinstance(cause, errors.RemoteEntryNotFoundError)


def test_short_body(hub: HubServer, repo: Repo) -> None:
    hub.faults[resolve("model.safetensors")] = Fault(longer=10)
    refused(r"The connection to .* failed")
    hub.faults[resolve("model.safetensors")] = Fault(
        headers={"Content-Length": "", "X-Linked-Size": "9"}
    )
    assert isinstance(refused("A file of timm/mixer_tiny arrived incomplete; run this"), OSError)


@pytest.mark.parametrize(
    "fault",
    [Fault(status=200), Fault(status=200, cut=0, headers={"Content-Length": ""})],
    ids=["other JSON", "nothing"],
)
def test_endpoint_that_is_no_hub(hub: HubServer, repo: Repo, fault: Fault) -> None:
    hub.faults[API] = fault
    refused("didn't answer like the Hub .*; check HF_ENDPOINT")


def test_commit_that_is_none(hub: HubServer, repo: Repo) -> None:
    repo.commit = "../../.."
    refused("didn't answer like the Hub")
    assert hub.count() == 1


def test_endpoint_that_is_no_url(monkeypatch: pytest.MonkeyPatch) -> None:
    set_hub(monkeypatch, HF_ENDPOINT="huggingface.co")
    refused("'huggingface.co' isn't a URL")


def test_cache_that_cannot_be_written(
    repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    set_hub(monkeypatch, HF_HUB_CACHE=str(tmp_path / "file"))
    cause = refused("The files of timm/mixer_tiny can't be stored in .*set HF_HOME to a folder")
    assert isinstance(cause, OSError)


def test_nothing_on_stderr(
    hub: HubServer,
    repo: Repo,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, logger="huggingface_hub")
    hub.faults[API] = Fault(status=503, times=1)
    hub.faults[resolve("model.safetensors")] = Fault(status=503, times=3)
    hub.faults[resolve("config.json")] = Fault(headers={"X-HF-Warning": "topic; some advice"})
    fetch(NAME)
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []
    assert logging.getLogger("huggingface_hub").level == logging.WARNING


@pytest.mark.parametrize(
    ("tags", "licence", "warned"),
    [
        (["timm", "license:apache-2.0"], "apache-2.0", False),
        (["license:cc-by-nc-4.0"], "cc-by-nc-4.0", True),
        (["license:other"], "other", True),
        (["license:cc-by-sa-4.0", 3], "cc-by-sa-4.0", False),
        (["timm"], None, False),
        (None, None, False),
    ],
)
def test_a_licence_that_limits_use_is_said_before_the_download(
    repo: Repo, tags: object, licence: str | None, warned: bool
) -> None:
    repo.tags = tags
    said: list[str] = []

    def progress(*_: object) -> None:
        said.append("downloading")

    found = fetch(NAME, listener=Listener(said.append, progress))
    assert found.licence == licence
    assert (f"The licence of {NAME}" in said[0]) == warned
