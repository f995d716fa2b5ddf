"""Output files: what can be known to fail before the work."""

from pathlib import Path

from mixer_mlx.errors import MixerError


def check(path: Path, *, force: bool, what: str = "", suffixes: tuple[str, ...] = ()) -> None:
    """Raises MixerError for a file that can't be written, or would replace one unasked.

    `what` says what the file is, where only some `suffixes` fit that.
    """
    if suffixes and path.suffix.lower() not in suffixes:
        raise MixerError(f"{what}; call it {path.with_suffix(suffixes[0])}.")
    if not path.parent.is_dir():
        raise MixerError(f"The folder {path.parent} doesn't exist; create it first.")
    check_free(path, force=force)


def check_free(path: Path, *, force: bool) -> None:
    """Raises MixerError for a file that would be replaced unasked."""
    if path.exists() and not force:
        raise MixerError(
            f"{path} already exists; choose another name, or overwrite it with --force."
        )
