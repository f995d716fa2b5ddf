"""Which folders of a dataset are classes, and which are splits; what is unclear is refused."""

from collections.abc import Collection, Mapping
from typing import Protocol, Self, TypeVar

from mixer_mlx.errors import ConfigError

from .dataset import family, is_unlabelled
from .notes import listed


class Folder(Protocol):
    """What `folders.Tree` is to this module."""

    def folders(self) -> Mapping[str, Self]:
        """Subfolders by name."""

    def loose_images(self) -> int:
        """How many images lie directly in it."""


F = TypeVar("F", bound="Folder")


def _is_nested(folder: Folder) -> bool:
    """Whether it holds folders and no images of its own."""
    return not folder.loose_images() and bool(folder.folders())


def unwrapped(tree: F, kind: str | None = None) -> F:
    """The folder inside if `tree` only encloses a dataset, or with `kind` a split of that family.

    So `photos.zip` may hold `photos/<class>`, and `seg_train` another `seg_train`.
    """
    folders = tree.folders()
    if len(folders) == 1 and not tree.loose_images():
        ((name, inner),) = folders.items()
        if family(name) == kind and _is_nested(inner):
            return inner
    return tree


def find_splits(tree: F, wanted: Collection[str], left_out: list[str]) -> dict[str, F]:
    """The splits among the folders of `tree` by name; empty if they are classes.

    With a folder named in `wanted`, all are splits. Others beside splits are added to `left_out`.
    Raises ConfigError for folders that could be either.
    """
    folders = tree.folders()
    if not folders.keys().isdisjoint(wanted):
        return {name: unwrapped(folder, family(name)) for name, folder in folders.items()}
    nested = {name: folder for name, folder in folders.items() if _is_nested(folder)}
    known = {name: folder for name, folder in nested.items() if family(name)}
    if not known:
        _refuse_flat_splits(tree, folders, nested)
        _refuse_alike(tree, folders, nested)
        return {}
    splits = set(known)
    families = {family(name) for name in known}
    if not ("train" in families and len(families) > 1):
        classes = {inner for folder in known.values() for inner in folder.folders()}
        alike = {n for n, folder in nested.items() if len(classes & folder.folders().keys()) > 1}
        unclear = [
            name
            for name in folders
            if name not in alike | splits and not _is_left_out(name, nested)
        ]
        if unclear and ("train" in families or alike - splits or not classes.isdisjoint(unclear)):
            raise ConfigError(
                f"Expected only splits in {tree}, such as {min(known)}, or only classes, but it "
                f"holds {listed(unclear)}, too; put the classes into one folder per split, or "
                "rename the folder if it is a class."
            )
        if unclear:
            return {}
        splits |= alike
    rest = [name for name in folders if name not in splits]
    left_out += [f"{name} ({'not a split' if name in nested else 'no classes'})" for name in rest]
    return {n: unwrapped(folders[n], family(n)) for n in folders if n in splits}


def _is_left_out(name: str, nested: Collection[str]) -> bool:
    """Whether it looks like a split without labels."""
    return bool(family(name) or is_unlabelled(name)) and name not in nested


def _refuse_flat_splits(
    tree: Folder, folders: Mapping[str, Folder], nested: Collection[str]
) -> None:
    """Raise ConfigError for train/*.jpg beside test/*.jpg: splits, but no labels."""
    names = [name for name in folders if name not in nested]
    if len(names) < 2 or len(names) < len(folders):
        return
    if any(map(family, names)) and all(_is_left_out(name, nested) for name in names):
        raise ConfigError(
            f"Expected one folder per class in the splits of {tree}, e.g. "
            f"{tree}/{names[0]}/<class>/*.jpg, but {listed(names)} hold images; sort them by "
            "class, or give a list of images and labels."
        )


def _refuse_alike(
    tree: Folder, folders: Mapping[str, Folder], nested: Mapping[str, Folder]
) -> None:
    """Raise ConfigError if all folders hold folders of the same names, as splits do."""
    if len(folders) < 2 or len(nested) < len(folders):
        return
    common = sorted(set.intersection(*(set(folder.folders()) for folder in nested.values())))
    if len(common) < 2:
        return
    first, second, *_ = folders
    if all(map(family, common)):
        raise ConfigError(
            f"Expected splits above classes, e.g. {tree}/{common[-1]}/{first}, but {first} and "
            f"{second} hold {listed(common)}; move them."
        )
    raise ConfigError(
        f"The folders of {tree} ({listed(list(folders))}) hold folders of the same names "
        f"({listed(common)}), as splits do; choose with `train_split={first!r}` and "
        f"`val_split={second!r}`, or, if they are classes, move their images out of "
        "the inner folders."
    )
