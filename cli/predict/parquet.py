"""Rows of predictions into a Parquet file, a bounded group at a time."""

from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO

from mixer_mlx.errors import MixerError

from .lines import COLUMNS, Row, rows

if TYPE_CHECKING:
    from mixer_mlx import Result

_GROUP_ROWS = 2**14


def check_pyarrow() -> None:
    """Raises MixerError where pyarrow is missing."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise MixerError(
            "Parquet needs pyarrow, the extra `parquet`: pip install 'mixer-mlx[parquet]'; "
            "--format csv needs nothing."
        ) from error


class ParquetRows:
    """COLUMNS as string, int32, int32, string, float32, string; empty is null.

    Bytes of a name that are not UTF-8, which Parquet can't hold, are written as backslash escapes.
    Left by an error, the file is closed properly too, so that it can be read.
    """

    def __init__(self, file: BinaryIO):
        import pyarrow
        import pyarrow.parquet

        types = (
            pyarrow.string(),
            pyarrow.int32(),
            pyarrow.int32(),
            pyarrow.string(),
            pyarrow.float32(),
            pyarrow.string(),
        )
        self._schema = pyarrow.schema(list(zip(COLUMNS, types, strict=True)))
        self._table: Any = pyarrow.Table
        self._writer = pyarrow.parquet.ParquetWriter(file, self._schema)
        self._rows: list[Row] = []

    def __enter__(self) -> "ParquetRows":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not isinstance(error, OSError):  # after which nothing more can be written
            self._write_group()
            self._writer.close()

    def add(self, result: "Result") -> None:
        """Take a picture's rows."""
        self._rows.extend(rows(result))
        if len(self._rows) >= _GROUP_ROWS:
            self._write_group()

    def flush(self) -> None:
        """Nothing: without its end the file can't be read, so nothing is safe before."""

    def _write_group(self) -> None:
        columns = zip(*self._rows, strict=True) if self._rows else ((),) * len(COLUMNS)
        values = [list(map(_utf8, column)) for column in columns]
        self._writer.write_table(
            self._table.from_arrays(
                [
                    self._array(column, field.type)
                    for column, field in zip(values, self._schema, strict=True)
                ],
                schema=self._schema,
            )
        )
        self._rows.clear()

    @staticmethod
    def _array(values: list[object], kind: Any) -> Any:
        import pyarrow

        return pyarrow.array(values, kind)


def _utf8(value: object) -> object:
    if not isinstance(value, str):
        return value
    return value.encode("utf-8", "backslashreplace").decode("utf-8")
