"""The rooms and the arrows between them, as docs/architecture.md draws them."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = {"mixer_mlx": ROOT / "mixer_mlx", "convert": ROOT / "convert", "cli": ROOT / "cli"}

# A module of the library may import those of an earlier line, and those of its own without a
# circle; a package (data, analysis, training) stands for all of its modules.
LAYERS = [
    ["errors", "threads"],
    [
        "atomic",
        "blas",
        "backend",
        "config",
        "activations",
        "linear",
        "streams",
        "peers",
        "parallel",
    ],
    ["quiet", "formats", "decode", "image", "archives", "pictures"],
    ["labels", "model"],
    ["catalog", "resolution"],
    ["checkpoint"],
    ["data"],
    ["classify"],
    ["analysis"],
    ["training"],
]
# Who may use a library: (room, module) or a whole room.
ONLY = {
    "typer": {"cli"},
    "rich": {"cli"},
    "PIL": {
        *(f"mixer_mlx.{name}" for name in ("quiet", "formats", "decode", "image")),
        *("mixer_mlx.data", "mixer_mlx.analysis"),
    },
    "pillow_heif": {"mixer_mlx.formats"},
    "huggingface_hub": {"convert"},
    "pyarrow": {"mixer_mlx.data", "cli"},
    "tensorboardX": {"mixer_mlx.training.trackers"},
    "mlx": {"mixer_mlx", "convert"},
}


def modules() -> list[tuple[str, Path]]:
    return [
        (".".join([room, *path.relative_to(folder).with_suffix("").parts]), path)
        for room, folder in ROOMS.items()
        for path in sorted(folder.rglob("*.py"))
    ]


def imports(path: Path) -> set[str]:
    """Dotted names that a file imports, wherever in it, with our rooms by their own names."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {
        name.replace("mixer_mlx.cli", "cli").replace("mixer_mlx.convert", "convert")
        for name in names
    }


@pytest.mark.parametrize(("module", "path"), modules())
def test_arrows(module: str, path: Path) -> None:
    room = module.split(".")[0]
    for name in imports(path):
        top = name.split(".")[0]
        if module == "mixer_mlx.__main__":
            assert top == "cli"
        elif top == "cli":
            assert room == "cli", f"{module} imports {name}"
        elif top == "convert":
            assert room != "mixer_mlx" or module == "mixer_mlx.__init__", f"{module}: {name}"
        allowed = ONLY.get(top)
        homes = {room, module, module.rpartition(".")[0]}
        assert allowed is None or allowed & homes, f"{module} imports {name}"


def test_layers_inside_the_library() -> None:
    order = {name: level for level, names in enumerate(LAYERS) for name in names}
    library = {module: path for module, path in modules() if module.startswith("mixer_mlx.")}
    seen = {module.split(".")[1] for module in library}
    assert seen - {"__init__", "__main__"} <= set(order), "LAYERS lists every module"
    arrows: dict[str, set[str]] = {}
    for module, path in library.items():
        name = module.split(".")[1]
        if name.startswith("__"):
            continue
        for imported in imports(path):
            parts = imported.split(".")
            if parts[0] == "mixer_mlx" and parts[1] in order:
                assert order[parts[1]] <= order[name], f"{module} imports {imported}"
                arrows.setdefault(module, set()).update(
                    m for m in library if f"{imported}.".startswith(f"{m}.")
                )
    list(TopologicalSorter(arrows).static_order())  # raises CycleError for a circle


def test_no_pickle() -> None:
    for _, path in modules():
        assert not {name.split(".")[0] for name in imports(path)} & {"pickle", "dill", "torch"}


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, mixer_mlx.cli.main; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in run.stdout.split()}
    assert not loaded & {"mlx", "numpy", "PIL", "huggingface_hub", "safetensors"}


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, mixer_mlx; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in run.stdout.split()}
    assert not loaded & {"mlx", "numpy", "PIL", "typer"}
