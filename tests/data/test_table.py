"""Lists of images: CSV, TSV, and the Hub's metadata.csv."""

import json
from pathlib import Path

import pytest

from mixer_mlx import ConfigError
from mixer_mlx.analysis.check import find, read_all_splits, scan
from mixer_mlx.data.read import Columns, read_split, read_splits
from mixer_mlx.training.fingerprint import fingerprint


def lines(folder: Path, name: str, *rows: str) -> Path:
    path = folder / name
    path.write_text("\n".join(rows) + "\n", "utf-8")
    return path


def test_a_list_is_a_dataset(folder: Path) -> None:
    path = lines(
        folder,
        "list.csv",
        'file_name,size,"Label"',
        '"train/cat/1.png",3,"cat, tabby"',
        "",
        "train/dog/1.png,4,dog",
        f"{folder}/val/dog/1.png,5,dog ",
    )
    found, split = read_split(path)
    assert split == ""
    assert found.classes == ("cat, tabby", "dog")
    assert found.labels.tolist() == [0, 1, 1]
    assert found.paths == tuple(
        folder / name for name in ("train/cat/1.png", "train/dog/1.png", "val/dog/1.png")
    )
    assert fingerprint(found)["images"] == 3


def test_a_column_may_name_the_split(folder: Path) -> None:
    path = lines(
        folder,
        "list.tsv",
        "split\tclass\tpath",
        *(f"train\t{label}\ttrain/cat/{label}.png" for label in (2, 1, 5, 3)),
        "validation\t5\tval/cat/1.png",
        "test\t1\tval/cat/2.png",
    )
    train, val = read_splits(path)
    assert train.classes == val.classes == ("1", "2", "3", "5")
    assert (train.labels.tolist(), val.labels.tolist()) == ([1, 0, 3, 2], [3])
    assert len(read_splits(path, val_split="test")[1]) == 1


def test_labels_that_are_numbers_are_sorted_as_such(folder: Path) -> None:
    rows = [f"train/cat/1.png,{number}" for number in (10, 9, 2)]
    assert read_split(lines(folder, "a.csv", "image,label", *rows))[0].classes == ("2", "9", "10")


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (["path,label", "9.png,a", "train/cat/9.png,b"], "line 2 names 9.png"),
        (["path,label", '"a\nb",a'], "line 3 names"),
        (["path,label", "train/cat/1.png,"], "line 2 lacks a value for label"),
        (["path,label", "train/cat/1.png"], "line 2 lacks a value for label"),
        (["path,kind", "train/cat/1.png,a"], "no column that could be the label; its columns are"),
        (["where,label", "train/cat/1.png,a"], "no column that could be the image"),
        (["path,label"], "no lines below its header"),
        ([""], "no column that could be the image"),
        (["path,label", "train/cat/1.png,a", "train/cat/2.png,a"], "has only the class a"),
        (["path,label", '"open'], "can't be read as UTF-8 text in columns"),
    ],
)
def test_what_is_wrong_with_a_list(rows: list[str], sentence: str, folder: Path) -> None:
    with pytest.raises(ConfigError, match=sentence):
        read_splits(lines(folder, "list.csv", *rows))


def test_other_columns_and_other_encodings(folder: Path) -> None:
    path = folder / "list.csv"
    path.write_bytes("\ufeffPath,kind,label\ntrain/cat/1.png,é,x\n".encode())
    assert read_split(path)[0].classes == ("x",)
    assert read_split(path, columns=Columns(label="kind"))[0].classes == ("é",)
    with pytest.raises(ConfigError, match="no column Kind; its columns are Path, kind, label"):
        read_split(path, columns=Columns(label="Kind"))
    path.write_bytes("path,label\ntrain/cat/1.png,é\n".encode("latin-1"))
    with pytest.raises(ConfigError, match="UTF-8"):
        read_split(path)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_utf_16_as_excel_writes_it(encoding: str, suffix: str, folder: Path) -> None:
    """Excel's "Unicode text": UTF-16 with a byte-order mark, separated by tabs."""
    mark = "" if encoding == "utf-16" else "\ufeff"
    text = f"{mark}path\tlabel\r\ntrain/cat/1.png\té\r\ntrain/dog/1.png\t犬\r\n"
    (folder / f"list{suffix}").write_bytes(text.encode(encoding))
    found = read_split(folder / f"list{suffix}")[0]
    assert found.counts() == {"é": 1, "犬": 1}
    (folder / f"list{suffix}").write_bytes(text.encode(encoding)[:-1])
    with pytest.raises(ConfigError, match="save it as CSV in UTF-8"):
        read_split(folder / f"list{suffix}")


@pytest.mark.parametrize(
    "rows",
    [
        ["path;label", "train/cat/1.png;a", "train/dog/1.png;b"],
        ["label\tpath", "a\ttrain/cat/1.png", "b\ttrain/dog/1.png"],
        ["train/cat/1.png,a", "train/dog/1.png,b"],
        ["a;train/cat/1.png", "b;train/dog/1.png"],
        ["path,label", r"train\cat\1.png,a", r"train\dog\1.png,b"],
        ['"path";"label"', r'"train\cat\1.png";"a"', r'"train\dog\1.png";"b"'],
    ],
)
def test_lists_as_other_programs_write_them(rows: list[str], folder: Path) -> None:
    found = read_split(lines(folder, "list.csv", *rows))[0]
    assert found.counts() == {"a": 1, "b": 1}
    assert found.paths == tuple(folder / f"train/{name}/1.png" for name in ("cat", "dog"))


def test_a_first_line_that_names_no_columns(folder: Path) -> None:
    path = lines(folder, "list.csv", "train/cat/1.png,a,7", "train/dog/1.png,b,8")
    with pytest.raises(ConfigError, match="names of columns in the first line"):
        read_split(path)


def test_missing_files_are_left_to_be_reported(folder: Path) -> None:
    rows = [f"train/cat/{i}.png,a" for i in (1, 2, 3, 99)] + ["train/dog/1.png,b", "gone.png,b"]
    path = lines(folder, "list.csv", "path,label", *rows)
    dataset = read_split(path)[0]
    assert len(dataset) == 6
    assert fingerprint(dataset)["images"] == 6
    scanned = scan(read_all_splits(path))
    assert [(f.kind, f.images) for f in find(scanned) if f.kind == "unreadable"] == [
        ("unreadable", (3,)),
        ("unreadable", (5,)),
    ]


@pytest.mark.parametrize("values", [("True", "False"), ("1", "0"), ("yes", "No")])
def test_a_column_may_mark_validation(values: tuple[str, str], folder: Path) -> None:
    rows = [f"{s}/{c}/{i}.png,{c},{values[s == 'train']}" for s in ("train", "val")
            for c in ("cat", "dog") for i in (1, 2)]  # fmt: skip
    path = lines(folder, "list.csv", "path,label,is_valid", *rows)
    train, val = read_splits(path)
    assert {path.parent.parent.name for path in train.paths if isinstance(path, Path)} == {"train"}
    assert (len(train), len(val)) == (4, 4)
    path = lines(folder, "list.csv", "path,label,is_valid", "train/cat/1.png,a,perhaps")
    with pytest.raises(ConfigError, match=r"true or false in column is_valid of .* line 2"):
        read_splits(path)


def test_metadata_as_json_lines(folder: Path) -> None:
    for split in ("train", "val"):
        (folder / split / "metadata.jsonl").write_text(
            "".join(
                json.dumps({"file_name": f"{name}/1.png", "label": label, "boxes": [1]}) + "\n"
                for name, label in (("cat", 10), ("dog", 9))
            )
        )
    train, val = read_splits(folder)
    assert train.classes == val.classes == ("9", "10")
    assert train.labels.tolist() == [1, 0]
    path = lines(folder, "list.jsonl", '{"path": "train/cat/1.png", "label": "a"}', "[1]")
    with pytest.raises(ConfigError, match=r"list.jsonl line 2 isn't a JSON object"):
        read_split(path)


def test_metadata_of_the_hub(folder: Path) -> None:
    for split in ("train", "val"):
        names = [f"{name}/{i}.png" for name in ("cat", "dog") for i in (1, 2)]
        rows = (f"{name},text {name},{'odd' if '1' in name else 'even'}" for name in names)
        lines(folder / split, "metadata.csv", "file_name,text,label", *rows)
    train, val = read_splits(folder)
    assert train.classes == ("even", "odd")
    assert train.labels.tolist() == val.labels.tolist() == [1, 0, 1, 0]
    # Metadata without labels are ignored, and folders are classes.
    for split in ("train", "val"):
        lines(folder / split, "metadata.csv", "file_name,text", "cat/1.png,words")
    assert read_splits(folder)[0].classes == ("cat", "dog")
    lines(folder, "metadata.csv", "file_name,label", "val/cat/1.png,a", "val/cat/2.png,b")
    assert read_split(folder)[0].classes == ("a", "b")
