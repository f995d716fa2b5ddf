"""Parquet files written by pyarrow as the Hub's `datasets` writes them."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import numpy as np
import pytest
from data.conftest import CLASSES, IMAGE, features, parquet
from fuzz.mutate import mutate

from mixer_mlx import ConfigError, ImageError
from mixer_mlx.data import parquet as module
from mixer_mlx.data.parquet import Spool, group_files
from mixer_mlx.data.read import Columns, Dataset, read_split, read_splits
from mixer_mlx.images.stored import StoredImage
from mixer_mlx.training.fingerprint import fingerprint

pa = pytest.importorskip("pyarrow")
import pyarrow.parquet as pq  # noqa: E402


def written(
    path: Path, columns: dict[str, object], metadata: dict[bytes, bytes] | None = None
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns).replace_schema_metadata(metadata)
    pq.write_table(table, path, row_group_size=2)
    return path


def whole(path: Path, **columns: str) -> Dataset:
    return read_split(path, columns=Columns(**columns))[0]


@pytest.fixture
def shards(files, tmp_path: Path) -> Path:  # type: ignore[no-untyped-def]
    folder = tmp_path / "set" / "data"
    folder.mkdir(parents=True)
    (folder / "train-00000-of-00001.parquet").write_bytes(parquet(files, "train"))
    (folder / "validation-00000-of-00001.parquet").write_bytes(parquet(files, "val"))
    return folder.parent


def test_rows_are_images_in_any_order(files, shards: Path) -> None:  # type: ignore[no-untyped-def]
    train, val = read_splits(shards)
    assert train.classes == val.classes == ("dog", "cat")
    assert train.counts() == {"dog": 4, "cat": 6}
    expected = [data for name, data in files.items() if name.startswith("train")]
    assert [CLASSES["names"][label] for label in train.labels] == ["cat"] * 6 + ["dog"] * 4
    assert str(train.paths[5]) == f"{shards}/data/train-00000-of-00001.parquet row 5"
    order = np.random.default_rng(0).permutation(np.arange(30) % 10)
    with ThreadPoolExecutor(8) as threads:
        read = list(threads.map(lambda i: train.paths[i].read(), order))
    assert read == [expected[i] for i in order]


def test_a_row_group_is_decoded_once(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, _ = read_splits(shards)
    decoded: list[int] = []
    original = module.ParquetFile._decode

    def counted(self, group, spool):  # type: ignore[no-untyped-def]
        decoded.append(group)
        return original(self, group, spool)

    monkeypatch.setattr(module.ParquetFile, "_decode", counted)
    for index in (9, 0, 9, 8, 3):
        entry = train.paths[index]
        assert isinstance(entry, StoredImage)
        entry.read()
    assert decoded == [2, 0]


def test_many_files_and_the_hubs_own_conversion() -> None:
    sharded = [
        f"data/{split}-0000{i}-of-00002-0a1b.parquet" for split in ("test", "train") for i in (0, 1)
    ]
    assert group_files(sharded[::-1]) == {"data": {"test": sharded[:2], "train": sharded[2:]}}
    assert group_files(["plain_text/train/0001.parquet", "plain_text/train/0000.parquet",
                        "plain_text/partial-test/0000.parquet"]) == {"plain_text": {
        "train": ["plain_text/train/0000.parquet", "plain_text/train/0001.parquet"],
        "test": ["plain_text/partial-test/0000.parquet"]}}  # fmt: skip
    assert group_files(["my_train.parquet", "x.parquet", "val 2.parquet"]) == {
        ".": {"train": ["my_train.parquet"], "val": ["val 2.parquet"]}
    }
    assert group_files(["a.parquet", "trained.parquet"]) == {
        ".": {"": ["a.parquet", "trained.parquet"]}
    }
    with pytest.raises(ConfigError, match="Expected 3 files for split train, found 2"):
        group_files([f"train-0000{i}-of-00003.parquet" for i in (0, 2)])


def test_several_datasets_in_a_folder(shards: Path, files) -> None:  # type: ignore[no-untyped-def]
    other = shards / "other" / "train.parquet"
    other.parent.mkdir()
    other.write_bytes(parquet(files, "train"))
    with pytest.raises(ConfigError, match=r"several datasets \(data, other\)"):
        read_splits(shards)
    assert len(read_splits(shards / "data")[0]) == 10


def test_predictions_beside_images_are_no_dataset(folder: Path) -> None:
    written(folder / "predictions.parquet", {"image": ["a.png"], "label": ["cat"]})
    assert read_splits(folder)[0].counts() == {"cat": 6, "dog": 4}


def test_labels_are_text_numbers_or_categories(tmp_path: Path) -> None:
    image = [b"0", b"1", b"2"]
    text = written(tmp_path / "a.parquet", {"img": image, "label": ["b", "a", "b"]})
    assert (whole(text).classes, whole(text).labels.tolist()) == (("a", "b"), [1, 0, 1])
    numbers = written(tmp_path / "b.parquet", {"img": image, "class": [10, 9, 10]})
    assert (whole(numbers).classes, whole(numbers).labels.tolist()) == (("9", "10"), [1, 0, 1])
    kinds = pa.array(["z", "y", "z"]).dictionary_encode()
    categories = written(tmp_path / "c.parquet", {"img": image, "kind": kinds})
    assert (whole(categories).classes, whole(categories).labels.tolist()) == (("y", "z"), [1, 0, 1])
    assert [entry.read() for entry in whole(categories).paths] == image


def test_columns_are_found_or_asked_for(tmp_path: Path) -> None:
    columns = {"photo": [b"a", b"b"], "mask": [b"c", b"d"], "fine": [0, 1], "coarse": [1, 1]}
    label = {"_type": "ClassLabel", "names": ["x", "y"]}
    marked = features(photo=IMAGE, fine=label, coarse=label)
    path = written(tmp_path / "a.parquet", columns, marked)
    with pytest.raises(ConfigError, match=r"could be the label: fine, coarse; .*label=NAME"):
        whole(path)
    assert whole(path, label="fine").counts() == {"x": 1, "y": 1}
    assert whole(path, label="coarse").classes == ("x", "y")
    assert [entry.read() for entry in whole(path, label="fine").paths] == [b"a", b"b"]
    assert [entry.read() for entry in whole(path, image="mask", label="fine").paths] == [b"c", b"d"]
    with pytest.raises(ConfigError, match="no column kind; its columns are photo, mask, fine, co"):
        whole(path, label="kind")
    with pytest.raises(ConfigError, match=r"Expected image files in column fine .* not int64"):
        whole(path, image="fine")
    with pytest.raises(ConfigError, match=r"Expected text or whole .* column mask .* not binary"):
        whole(path, label="mask")
    unmarked = written(
        tmp_path / "b.parquet", columns | {"b2": [b"", b""]}, {b"huggingface": b"[]"}
    )
    with pytest.raises(ConfigError, match="several columns that could be the label"):
        whole(unmarked)
    none = written(tmp_path / "c.parquet", {"text": ["a"], "label": [0]})
    with pytest.raises(ConfigError, match="no column that could be the image; its columns are te"):
        whole(none)


@pytest.mark.parametrize(
    ("labels", "row"),
    [
        ([0, 1, -1], "row 2 has the label -1"),
        ([0, 2, 1], "row 1 has the label 2"),
        ([0, None, 1], "row 1 has the label none"),
    ],
)
def test_rows_without_a_class(labels, row: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    table = {"image": [b"a", b"b", b"c"], "label": labels}
    path = written(tmp_path / "a.parquet", table, features(image=IMAGE, label=CLASSES))
    with pytest.raises(ConfigError, match=row):
        whole(path)


def test_rows_without_a_image_are_errors_of_their_own(tmp_path: Path) -> None:
    rows = [
        {"bytes": b"a", "path": "a"},
        None,
        {"bytes": None, "path": "/gone.png"},
        {"bytes": b"d", "path": None},
    ]
    path = written(tmp_path / "a.parquet", {"image": rows, "label": list("abab")})
    first, second, third, fourth = whole(path).paths
    assert (first.read(), fourth.read()) == (b"a", b"d")
    for entry in (second, third):
        with pytest.raises(ImageError, match="Expected an image"):
            entry.read()


def test_what_changed_is_noticed(files, shards: Path) -> None:  # type: ignore[no-untyped-def]
    before = fingerprint(read_splits(shards)[0])
    shards.rename(shards.parent / "moved")
    assert fingerprint(read_splits(shards.parent / "moved")[0]) == before
    path = shards.parent / "moved" / "data" / "train-00000-of-00001.parquet"
    path.write_bytes(parquet(files | {"train/cat/1.png": b"other"}, "train"))
    assert fingerprint(read_splits(shards.parent / "moved")[0]) != before


def test_damaged_files_are_one_sentence(shards: Path) -> None:
    path = shards / "data" / "train-00000-of-00001.parquet"
    data = path.read_bytes()
    path.write_bytes(data[:1000])
    with pytest.raises(ConfigError, match="can't be read as Parquet"):
        read_splits(shards)
    path.write_bytes(data[:4] + bytes(1500) + data[1504:])
    train, _ = read_splits(shards)
    with pytest.raises(ConfigError, match=r"00001\.parquet can't be read as Parquet"):
        for entry in train.paths:
            entry.read()


def test_without_room_for_the_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with pytest.raises(ConfigError, match=r"1048576.0 GiB needed, .* set TMPDIR"):
        Spool(2**50)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="No such file"):
        Spool()
    assert not list(tmp_path.iterdir())


def test_any_damage_is_a_sentence(files, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    whole_file, refused = parquet(files, "train", group=3), 0
    for seed in range(300):
        path = tmp_path / "a.parquet"
        path.write_bytes(mutate(Random(seed), [whole_file]))  # noqa: S311
        try:
            for entry in whole(path).paths:
                entry.read()
        except (ConfigError, ImageError) as error:
            refused += str(error).endswith(".")
    assert refused > 200


def test_a_dictionary_is_not_written_out_for_each_row(tmp_path: Path) -> None:
    """A file may hold an image, or a label, once for any number of rows."""
    image, label, rows = bytes(2**20), "x" * 1000, 300
    table = pa.table({"image": [image] * rows, "label": [label, "y"] * (rows // 2)})
    path = tmp_path / "a.parquet"
    pq.write_table(table, path, dictionary_pagesize_limit=2**22, compression="zstd")
    assert path.stat().st_size < 10_000
    found, _ = read_split(path)
    assert len({id(name) for name in found.classes}) == 2
    before = pa.total_allocated_bytes()
    assert [entry.read() for entry in (found.paths[0], found.paths[-1])] == [image, image]
    assert pa.total_allocated_bytes() - before < 2**24
    spool = found.paths[0].read.args[0]
    assert spool._end == len(image)
    pq.write_table(pa.table({"image": [image], "label": ["x" * 1001]}), path)
    with pytest.raises(ConfigError, match="at most 1,000 characters, not 1,001"):
        read_split(path)


def test_more_rows_than_a_file_can_mean(tmp_path: Path) -> None:
    rows = module.MIN_ROWS + 1
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": [b"x"] * rows, "label": ["y"] * rows}), path)
    assert path.stat().st_size < rows
    with pytest.raises(ConfigError, match="claims 65,537 rows"):
        read_split(path)


def test_half_a_surrogate_pair_in_the_class_names(tmp_path: Path) -> None:
    """JSON may hold one, and UTF-8 can't."""
    features = {"label": {"names": ["\ud800", "b"], "_type": "ClassLabel"}}
    info = json.dumps({"info": {"features": features}}).encode()
    columns = {"image": [{"bytes": b"x", "path": "a"}] * 2, "label": [0, 1]}
    dataset = whole(written(tmp_path / "a.parquet", columns, {b"huggingface": info}))
    assert dataset.classes == ("\ud800", "b")
    assert list(dataset.labels) == [0, 1]
