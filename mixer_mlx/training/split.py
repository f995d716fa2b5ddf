"""Which images a run held out, in a file: so it resumes with the same, whatever drew them."""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mixer_mlx.errors import ConfigError, TrainingError
from mixer_mlx.runtime.atomic import replacing_file
from mixer_mlx.runtime.documents import read_json

SPLIT_FILE = "split.json"


def write_split(folder: Path, part: NDArray[np.integer]) -> None:
    """Write each image's part, (N,): 0 for training, above for validation or its fold."""
    with replacing_file(folder / SPLIT_FILE) as temporary:
        temporary.write_text(json.dumps({"part": part.tolist()}) + "\n", "utf-8")


def read_split(folder: Path) -> NDArray[np.intp] | None:
    """The parts that a run wrote; None if it held out nothing, or before there were such files.

    Raises TrainingError for a damaged file.
    """
    path = folder / SPLIT_FILE
    if not path.is_file():
        return None
    try:
        part = read_json(path).get("part")
    except ConfigError as error:
        raise TrainingError(f"{path} can't be used: {error}") from error
    if not isinstance(part, list) or any(type(one) is not int or one < 0 for one in part):
        raise TrainingError(f"{path} is damaged; use an intact copy.")
    return np.array(part, np.intp)
