"""What the Hub's library raises -> one sentence with the next step."""

from typing import Any

from .hub_address import HubAddress, cache_folder, endpoint


def sentence(address: HubAddress, error: BaseException) -> str:
    """What went wrong and what to do, in one sentence."""
    from huggingface_hub import errors

    repo, page = address.repo, f"{endpoint()}/{address.repo}"
    if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__:
        return sentence(address, error.__cause__)
    if isinstance(error, errors.OfflineModeIsEnabled):
        return (
            f"{address.file or 'The model'} of {repo} isn't in the Hub's cache, and HF_HUB_OFFLINE "
            "forbids to fetch it; unset HF_HUB_OFFLINE and run this again."
        )
    if isinstance(error, errors.GatedRepoError):
        return f"{repo} is gated; accept its terms at {page} and set HF_TOKEN to your token."
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{repo} has no revision {address.revision!r}; {page}/refs lists those it has."
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return f"{repo} has no file {address.file!r} there; {page}/tree/main lists its files."
    if isinstance(error, errors.HfHubHTTPError):
        return _http_sentence(repo, error)
    if isinstance(error, errors.HTTPError):  # type: ignore[attr-defined]
        detail = str(error).partition("\n")[0] or type(error).__name__
        return f"The connection to {endpoint()} failed ({detail}); check the network and try again."
    if isinstance(error, errors.FileMetadataError) or not isinstance(error, OSError):
        return f"{endpoint()} doesn't answer as the Hub does ({error!r}); check HF_ENDPOINT."
    if error.errno is None:  # the library's own check of the size
        return f"A file of {repo} came incomplete; run this again."
    return (
        f"{cache_folder()} can't take the files of {repo}: {error.strerror}; make room there, or "
        "set HF_HOME to a folder that can be written to."
    )


def _http_sentence(repo: str, error: Any) -> str:
    code = error.response.status_code
    if code == 401 and "Invalid credentials" in str(error):
        page = f"{endpoint()}/settings/tokens"
        return f"The Hub doesn't know the token in HF_TOKEN; make a new one at {page}."
    if code == 401:  # the Hub doesn't say which, to who may not know
        return (
            f"There is no repository {repo} on the Hub, or it is private; check the spelling, or "
            "set HF_TOKEN to a token that may read it."
        )
    if code == 404:
        return f"There is no repository {repo} on the Hub that you may read; check the spelling."
    if code == 403:
        return f"The Hub refuses {repo} to you (403); set HF_TOKEN to a token that may read it."
    if code == 429:
        return "The Hub wants fewer requests (429); wait some minutes, or set HF_TOKEN."
    return f"The Hub fails ({code}) at {repo}; try again later."


def may_pass(error: Exception) -> bool:
    """Whether the Hub wasn't reached, or could answer otherwise another time."""
    from huggingface_hub import errors

    if isinstance(error, errors.HfHubHTTPError):
        return error.response.status_code == 429 or error.response.status_code >= 500
    return isinstance(error, (errors.OfflineModeIsEnabled, errors.HTTPError))  # type: ignore[attr-defined]
