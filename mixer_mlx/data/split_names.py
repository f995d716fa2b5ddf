"""What the name of a folder, a file or a column's cell says of a split."""

import re

TRAIN = ("train", "training")
VAL = ("val", "valid", "validation", "dev", "eval", "evaluation")
TEST = ("test", "testing")
KNOWN = {*TRAIN, *VAL, *TEST}

_FAMILIES = {"train": TRAIN, "val": VAL, "test": TEST}
_UNLABELLED = re.compile(r"pred|predict|predictions?|unlabell?ed|submissions?")
_NOUNS = r"(?:sets?|data|images?|imgs?|split)?"


def family(name: str) -> str | None:
    """ "train", "val" or "test" if one word of the name says so, e.g. "Training Data", "seg_train".

    None for a name without such a word, or with words of two families.
    """
    found = {
        kind
        for word in _words(name)
        for kind, names in _FAMILIES.items()
        if re.fullmatch(f"(?:{'|'.join(names)}){_NOUNS}", word)
    }
    return found.pop() if len(found) == 1 else None


def is_unlabelled(name: str) -> bool:
    """Whether the name is that of images without labels, e.g. "seg_pred"."""
    return any(_UNLABELLED.fullmatch(word) for word in _words(name))


def _words(name: str) -> list[str]:
    """Lower-case words, also of "TrainSet" and "train2017"."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return re.findall(r"[^\W\d_]+", spaced.lower())
