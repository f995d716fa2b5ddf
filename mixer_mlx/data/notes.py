"""What the reader of a dataset has to say: how it understood the layout, and what it left out."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from mixer_mlx.images.names import Skipped

Say = Callable[[str], object]
"""Takes a sentence for the user."""


@dataclass
class Notes:
    """Filled while a dataset is found and read.

    `form` is how it was read, e.g. "one folder per class"; `left_out` names whole folders.
    """

    form: str = ""
    left_out: list[str] = field(default_factory=list)
    skipped: Skipped = field(default_factory=Skipped)

    def sentences(self, what: str, use: str) -> Iterator[str]:
        """How the dataset `what` was read and is used, and what was left out; a line each."""
        yield f"Read {what} as {self.form}: {use}."
        yield from self.left_out_sentences(what)

    def left_out_sentences(self, what: str) -> Iterator[str]:
        """What was left out; nothing if that is nothing."""
        if self.left_out:
            yield f"Left out: {', '.join(self.left_out)}."
        if skipped := self.skipped.sentence():
            yield skipped
        if name := self.skipped.unknown_encoding:
            yield (
                f"Names in {what} have an unknown encoding, e.g. {name}; pack it again with names "
                "in UTF-8 if they are wrong."
            )


def listed(names: Sequence[str], most: int = 5) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
