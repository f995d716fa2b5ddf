"""Output files: failures that can be known before the work starts."""

from collections.abc import Sequence
from pathlib import Path

from mixer_mlx.errors import MixerError


def check(path: Path, *, force: bool, what: str = "", suffixes: tuple[str, ...] = ()) -> None:
    """Raises MixerError for a file that can't be written or may not be overwritten.

    `what` says what the file is, if only some `suffixes` are allowed.
    """
    if suffixes and path.suffix.lower() not in suffixes:
        raise MixerError(f"{what}; call it {path.with_suffix(suffixes[0])}.")
    if not path.parent.is_dir():
        raise MixerError(f"The folder {path.parent} doesn't exist; create it first.")
    check_free(path, force=force)


def check_free(path: Path, *, force: bool) -> None:
    """Raises MixerError for a file that exists and may not be overwritten."""
    if path.exists() and not force:
        raise MixerError(
            f"{path} already exists; choose another name, or overwrite it with --force."
        )


def in_folder(folder: Path, names: Sequence[str], *, force: bool) -> list[Path]:
    """Paths of new files in a folder, which is made if its parent exists.

    Raises MixerError for a folder that can't be made, and files that may not be overwritten.
    """
    if not folder.parent.is_dir():
        raise MixerError(f"The folder {folder.parent} doesn't exist; create it first.")
    if folder.exists() and not folder.is_dir():
        raise MixerError(f"{folder} is a file; choose another name for the folder.")
    paths = [folder / name for name in names]
    for path in paths:
        check_free(path, force=force)
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise MixerError(f"{folder} can't be written: {error.strerror}.") from error
    return paths
