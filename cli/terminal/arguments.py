"""The library's errors speak of its arguments and functions; here they are options and commands."""

import ast
import re
import shlex

# What errors have between backticks. A value in place of {} is Python's there, the shell's here.
_SPELLINGS = {
    "force=True": "--force",
    "Run.resumed": "--resume",
    "batch_size": "batch size (-b)",
    "batch_sizes": "-b",
    "image_size": "--image-size",
    "image_size=(H, W)": "--image-size HxW",
    "pool={}": "--pool {}",
    "split": "--split",
    "train_split": "--train-split",
    "train_split={}": "--train-split {}",
    "val_split": "--val-split",
    "val_split={}": "--val-split {}",
    "val_fraction={}": "--val-fraction {}",
    "folds": "--folds",
    "Columns(image=NAME)": "--image-column",
    "Columns(label=NAME)": "--label-column",
    "MixerConfig.variant({})": "--variant {}",
    "CATALOG": "`mixer models`",
    "info.labels": "`mixer info`",
    "load({})": "`mixer convert {} OUT`",
    "convert.resize": "`mixer resize`",
    "convert.fuse({})": "`mixer fuse {} OUT`",
    "analysis.check": "`mixer check`",
    "benchmark.report.to_json": "`mixer benchmark -o`",
    "features.store.write_npz": "`mixer embed IMAGE... -o FILE.npz`",
    "features.index.update({})": "`mixer embed {} -o FILE.npz`",
}


def as_options(text: str) -> str:
    """A message of the library, for somebody at the command line."""
    return re.sub("`([^`]+)`", _spelled, text)


def _spelled(found: re.Match[str]) -> str:
    if found[1] in _SPELLINGS:
        return _SPELLINGS[found[1]]
    for said, option in _SPELLINGS.items():
        before, gap, after = said.partition("{}")
        value = found[1].removeprefix(before).removesuffix(after)
        if gap and found[1] == before + value + after:
            return option.format(_quoted(value))
    return found[0]


def _quoted(value: str) -> str:
    try:
        return shlex.quote(str(ast.literal_eval(value)))
    except (ValueError, SyntaxError):  # it came from elsewhere, e.g. a file's name
        return shlex.quote(value)
