"""Which group each function that perf saw belongs to, and the table of hotspots.py's results."""

import re
from collections import Counter
from collections.abc import Sequence

from harness import OURS, Row
from markdown_table import table
from perf import Function
from session import time_text

# A kernel that MLX compiled is a library, called by its operations.
_COMPILED = r"^lib[A-Z]+[buifcV]\d+[IO][A-Z]"
_GELU = r"(?=.*Maximum)(?=.*Minimum)(?=.*Divide)"
_RULES = [
    ("kernel", "", r"^\[k\]"),
    ("waiting", "blas", r"blas_thread_server|inner_thread|exec_blas"),
    ("packing", "blas", r"gemm_[io][nt]copy"),
    ("products", "blas", ""),
    ("GELU's derivative", _COMPILED, rf"{_GELU}.*Sign"),
    ("GELU", _COMPILED, _GELU),
    ("layer norm", _COMPILED, "Rsqrt"),
    ("AdamW", _COMPILED, "Sqrt"),
    ("other element-wise", _COMPILED, ""),
    ("copies", "^libmlx", r"\bcopy_(general|single|vector|cpu|inplace)|::copy<"),
    ("sums", "^libmlx", r"\breduction_op|\bReduce::eval"),
    ("other element-wise", "^libmlx", r"\b(unary|binary|ternary|comparison)_(op|fp)"),
    ("copies", "^libc[.]", r"mem(set|move|cpy)"),
    ("MLX, memory", r"^lib(mlx|c|stdc\+\+)[.]", ""),
    ("Python", "", ""),
]
"""Group, and patterns of the library and the function: the first rule that fits decides."""
GROUPS = (
    "products",
    "packing",
    "waiting",
    "GELU",
    "GELU's derivative",
    "layer norm",
    "AdamW",
    "copies",
    "sums",
    "other element-wise",
    "MLX, memory",
    "Python",
    "kernel",
)
"""In the order of the table."""
NOTE = (
    "Per cent of the processor time that a run of mixer-mlx takes, by Linux's perf. Packing copies "
    "blocks of matrices for OpenBLAS's products; its threads wait for each other without sleeping. "
    "MLX's compiled kernels are known by their operations: GELU, AdamW, and layer norm where its "
    "root is fused with the rest. Otherwise they are among the sums and the other element-wise "
    "kernels, and the sums of large layer norms among the products. Memory is malloc; Python "
    "includes MLX's bindings and NumPy; the system's kernel includes page faults and switches "
    "between threads."
)


def group_of(function: Function) -> str:
    """Which of GROUPS."""
    return next(
        group
        for group, library, name in _RULES
        if re.search(library, function.library) and re.search(name, function.name)
    )


def percentages(functions: Sequence[Function]) -> dict[str, float]:
    """Group -> per cent of all samples."""
    counts: Counter[str] = Counter()
    for function in functions:
        counts[group_of(function)] += function.samples
    return {group: 100 * counts[group] / counts.total() for group in GROUPS}


def largest(functions: Sequence[Function], count: int = 12) -> list[Row]:
    """The functions with most samples, their names cut at 100 characters."""
    total = sum(function.samples for function in functions)
    return [
        {
            "percent": 100 * one.samples / total,
            "group": group_of(one),
            "library": one.library[:100],
            "function": one.name[:100],
        }
        for one in sorted(functions, reverse=True)[:count]
    ]


def lines(cases: Sequence[Row]) -> list[str]:
    """A row for each case; 0.0 is left out."""
    rows = []
    for case in cases:
        row = case["results"][OURS]
        cells = [f"{row['percent'][group]:.1f}" for group in GROUPS]
        cells = ["" if cell == "0.0" else cell for cell in cells]
        rows.append([case["case"]["name"], time_text(row["cpu_seconds"]), *cells])
    return [NOTE, "", *table(["", "processor time", *GROUPS], rows)]
