"""A model -> a repository on the Hugging Face Hub, in one commit."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from huggingface_hub import (
    CommitOperationAdd,
    EvalResult,
    HfApi,
    ModelCardData,
    constants,
    errors,
    get_token,
)
from huggingface_hub.utils.tqdm import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)

from mixer_mlx import checkpoint
from mixer_mlx.errors import CheckpointError, SourceError
from mixer_mlx.model import MlpMixer
from mixer_mlx.model_info import ModelInfo

from ..fetch import hub
from ..fetch.hub_address import HubAddress, check_address
from ..fetch.listener import Listener
from ..fetch.web import check_url
from . import card, timm

CARD_FILE = "README.md"
_MODEL_FILES = {checkpoint.CONFIG_FILE, checkpoint.WEIGHTS_FILE}


@dataclass(frozen=True)
class Uploaded:
    """What was uploaded, or would be: `files` are names and bytes, `url` is that of the commit.

    `notes` say why the layout isn't timm's, a phrase each.
    """

    repo: str
    layout: Literal["timm", "native"]
    files: dict[str, int]
    card: str
    url: str | None = None
    notes: Sequence[str] = field(default=())


def upload(
    model: MlpMixer,
    info: ModelInfo,
    repo: str,
    *,
    figures: Sequence[card.Figure] = (),
    public: bool = False,
    licence: str | None = None,
    dry_run: bool = False,
    listener: Listener,
) -> Uploaded:
    """Write a model's files to a temporary folder, and send them to `repo` ("user/repo").

    The layout is timm's if timm, and so transformers, computes what the model does, else our own.
    A repository that doesn't exist is made, private unless `public`; call `check` before, which
    knows of others. With `dry_run` nothing is sent, and no token is needed. Raises SourceError for
    what the Hub refuses, CheckpointError for what can't be written here.
    """
    notes = _why_not_timm(model, info)
    data = _metadata(info, repo, timm_reads=not notes, figures=figures, licence=licence)
    text = card.body(info, repo, timm=not notes, figures=figures)
    page = f"---\n{data.to_yaml()}\n---\n\n{text}"
    try:
        with TemporaryDirectory(prefix="mixer-mlx-") as folder:
            path = Path(folder)
            if notes:
                checkpoint.check_savable(model, info)
                checkpoint.write(path, model, info)
            else:
                timm.write_files(path, model, info)
            (path / CARD_FILE).write_text(page, encoding="utf-8", errors="backslashreplace")
            files = {entry.name: entry.stat().st_size for entry in sorted(path.iterdir())}
            url = None if dry_run else _send(path, repo, public=public, listener=listener)
    except (OSError, RuntimeError) as error:  # MLX reports a failed write as RuntimeError
        raise CheckpointError(f"The model can't be written: {error}; free some space.") from error
    return Uploaded(repo, "native" if notes else "timm", files, page, url, notes)


def check(repo: str, *, force: bool) -> None:
    """Raise SourceError if the Hub would refuse the upload; call it before long work.

    A repository that holds a model is replaced only with `force`.
    """
    check_address(HubAddress(repo))
    if get_token() is None:
        raise SourceError(
            "Uploads need a token of the Hub; create one with write access at "
            f"{constants.ENDPOINT}/settings/tokens, and set HF_TOKEN to it."
        )
    with _in_sentences(repo):
        try:
            found = hub.repo_info(repo, None)
        except errors.RepositoryNotFoundError as error:
            if "Invalid credentials" in str(error):
                raise
            return
        names = {file.rfilename for file in found.siblings or ()}
    if names & _MODEL_FILES and not force:
        raise SourceError(
            f"{repo} holds a model already; choose another name, or replace it with `force=True`."
        )


def _why_not_timm(model: MlpMixer, info: ModelInfo) -> list[str]:
    """Why timm can't load the model, or would compute something else; empty if it can."""
    if model.quantized:
        return ["timm has no quantised weights"]
    return [note.partition(", so ")[0] for note in timm.notes(info)]


def _metadata(
    info: ModelInfo,
    repo: str,
    *,
    timm_reads: bool,
    figures: Sequence[card.Figure],
    licence: str | None,
) -> ModelCardData:
    """What the Hub reads at the head of a card."""
    task = "image-classification" if info.config.num_classes else "image-feature-extraction"
    libraries = ["timm", "transformers", "mlx"] if timm_reads else ["mlx"]
    results = [
        EvalResult(
            task_type=task,
            dataset_type=figure.dataset.lower(),
            dataset_name=figure.dataset,
            dataset_split=figure.split,
            metric_type="accuracy",
            metric_name="top-1 accuracy",
            metric_value=round(figure.top1, 4),
        )
        for figure in figures
    ]
    return ModelCardData(
        license=licence or card.licence(info),
        library_name=libraries[0],
        pipeline_tag=task,
        tags=[task, *libraries, "mlp-mixer", "mixer-mlx"],
        base_model=card.base_model(info),
        model_name=repo.partition("/")[2],
        eval_results=results or None,
    )


def _send(folder: Path, repo: str, *, public: bool, listener: Listener) -> str:
    """Commit a folder's files, and return the commit's address."""
    api = HfApi()
    files = sorted(folder.iterdir())
    mib = sum(file.stat().st_size for file in files) / 2**20
    with _in_sentences(repo):
        api.create_repo(repo, private=not public, exist_ok=True)
        listener.message(f"Uploading {mib:,.1f} MiB to {constants.ENDPOINT}/{repo}.")
        done = api.create_commit(
            repo,
            [CommitOperationAdd(file.name, file) for file in files],
            commit_message="Upload a model with mixer-mlx",
        )
    return str(done.commit_url)


@contextmanager
def _in_sentences(repo: str) -> Iterator[None]:
    """Turn what the Hub's library raises into SourceErrors, and keep its bars and log quiet."""
    check_url(constants.ENDPOINT)
    bars = not are_progress_bars_disabled()
    with hub.quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if bars:
            disable_progress_bars()
        try:
            yield
        except (hub.HTTP_ERROR, *hub.ODD_ANSWERS, RuntimeError) as error:
            raise SourceError(_sentence(repo, error)) from error
        finally:
            if bars:
                enable_progress_bars()


def _sentence(repo: str, error: BaseException) -> str:
    """What went wrong and what to do, in one sentence."""
    page = f"{constants.ENDPOINT}/settings/tokens"
    if isinstance(error, RuntimeError) and error.__cause__:  # of a single file
        return _sentence(repo, error.__cause__)
    if isinstance(error, errors.OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE forbids uploads; unset it and run this again."
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        if status == 401:
            return (
                "The Hub doesn't accept the token in HF_TOKEN; create a new one with write access "
                f"at {page}."
            )
        if status in (403, 404):
            return (
                f"Your token may not write to {repo} ({status}); use a repository of your own, or "
                f"a token with write access from {page}."
            )
        if status == 429:
            return "The Hub is limiting requests (429); wait a few minutes."
        detail = str(error.server_message or status).rstrip(".")
        return f"The Hub refused the upload to {repo} ({detail}); nothing was committed."
    if not isinstance(error, (hub.HTTP_ERROR, OSError)):
        return f"{constants.ENDPOINT} didn't answer like the Hub ({error!r}); check HF_ENDPOINT."
    detail = str(error).partition("\n")[0].rstrip(".") or type(error).__name__
    return (
        f"The upload to {repo} was cut off ({detail}); nothing was committed, so check the network "
        "and run this again."
    )
