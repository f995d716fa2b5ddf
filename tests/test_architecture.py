"""The rooms and the arrows between them, as docs/architecture.md draws them."""

import ast
import importlib.util
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = {name: ROOT / name for name in ("mixer_mlx", "convert", "cli", "benchmarks")}

# A room or module of the library may import those of an earlier line, and those of its own.
LAYERS = [
    ["errors", "choices"],
    ["checks"],
    ["config"],
    ["ops", "images", "runtime"],
    ["layers"],
    ["siblings", "shuffle"],
    ["labels", "model", "markup"],
    ["results"],
    ["calibration", "catalog", "inference", "lora", "quantization", "resolution"],
    ["model_info"],
    ["checkpoint"],
    ["adapters", "channels", "loaded"],
    ["data"],
    ["forward"],
    ["features"],
    ["classify", "sklearn"],
    ["analysis"],
    ["training"],
    ["benchmark"],
]
# Who may use a library: modules, or whole rooms.
ONLY = {
    "typer": {"cli"},
    "rich": {"cli"},
    "PIL": {"mixer_mlx.images", "mixer_mlx.data", "mixer_mlx.analysis"},
    "pillow_heif": {"mixer_mlx.images.formats"},
    "pi_heif": {"mixer_mlx.images.formats"},
    "huggingface_hub": {"convert.fetch", "convert.export.upload"},
    "coremltools": {"convert.export.coreml"},
    "coreai": {"convert.export.coreai"},
    "onnx": {"convert.export.onnx"},
    "pyarrow": {"mixer_mlx.data", "mixer_mlx.features", "cli"},
    "sklearn": {"mixer_mlx.sklearn"},
    "starlette": {"cli.serve"},
    "uvicorn": {"cli.serve"},
    "tqdm": {"mixer_mlx.classify"},
    "tensorboardX": {"mixer_mlx.training.trackers"},
    "mlx": {"mixer_mlx", "convert"},
}


def modules() -> dict[str, Path]:
    """Every file of the three rooms, cli and convert by their own names, and of the benchmarks."""
    found = {}
    for room, folder in ROOMS.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            found[".".join([room, *parts]).removesuffix(".__init__")] = path
    return found


MODULES = modules()


def imports(module: str) -> set[str]:
    """Dotted names that a module imports, wherever in it, with our rooms by their own names."""
    path = MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, *filter(None, [node.module])])
            elif module.startswith("benchmarks.") and f"benchmarks.{base}" in MODULES:
                base = f"benchmarks.{base}"
            names |= {f"{base}.{alias.name}" for alias in node.names}
    return {re.sub(r"^mixer_mlx\.(cli|convert)\b", r"\1", name) for name in names}


def home(name: str) -> str | None:
    """The module of ours that an imported name is, or is in."""
    while name and name not in MODULES:
        name = name.rpartition(".")[0]
    return name or None


@pytest.mark.parametrize("module", MODULES)
def test_arrows(module: str) -> None:
    room = module.split(".")[0]
    for name in imports(module):
        top = name.split(".")[0]
        if module == "mixer_mlx.__main__":
            assert top == "cli"
        elif top == "cli":
            assert room == "cli", f"{module} imports {name}"
        elif top == "convert":
            assert room != "mixer_mlx" or module == "mixer_mlx", f"{module}: {name}"
        allowed = ONLY.get(top)
        homes = {".".join(module.split(".")[:n]) for n in range(1, module.count(".") + 2)}
        assert room == "benchmarks" or allowed is None or allowed & homes, f"{module}: {name}"


@pytest.mark.parametrize("module", [m for m in MODULES if not m.startswith("benchmarks")])
def test_relative_inside_a_room(module: str) -> None:
    """So that a type checker follows the import wherever the rooms of cli and convert lie."""
    room = module.split(".")[0]
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.ImportFrom) and not node.level and room != "mixer_mlx":
            assert not f"{node.module}.".startswith(f"mixer_mlx.{room}."), (
                f"{module}: {node.module}"
            )


def test_no_circles() -> None:
    # The face hands on names from everywhere, when they are used.
    inner = [module for module in MODULES if module != "mixer_mlx"]
    arrows = {
        module: {home(name) for name in imports(module)} - {None, module, "mixer_mlx"}
        for module in inner
    }
    list(TopologicalSorter(arrows).static_order())  # raises CycleError for a circle


def test_layers_inside_the_library() -> None:
    order = {name: level for level, names in enumerate(LAYERS) for name in names}
    library = [module for module in MODULES if module.startswith("mixer_mlx.")]
    seen = {module.split(".")[1] for module in library}
    assert seen - {"__main__"} == set(order), "LAYERS lists every module"
    for module in library:
        name = module.split(".")[1]
        for imported in imports(module) if name in order else ():
            parts = imported.split(".")
            if parts[0] == "mixer_mlx" and parts[1] in order:
                assert order[parts[1]] <= order[name], f"{module} imports {imported}"


def test_no_pickle() -> None:
    for module in MODULES:
        if not module.startswith("benchmarks."):
            used = {name.split(".")[0] for name in imports(module)}
            assert not used & {"pickle", "dill", "torch"}


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


PAGE = (ROOT / "docs" / "architecture.md").read_text("utf-8")


def test_the_page_names_every_module() -> None:
    drawn = PAGE.split("## The ways through")[0]
    for module in MODULES:
        room, name = module.split(".")[0], module.split(".")[-1]
        if room != "benchmarks" and module not in ROOMS and not name.startswith("__"):
            assert re.search(rf"\b{name}\b", drawn), f"docs/architecture.md doesn't name {module}"
    levels = [drawn.index(f"\n    {name}") for name in _drawn_names()]
    assert levels == sorted(levels), "the page draws the layers in another order"


def _drawn_names() -> list[str]:
    """The first module or room of each layer, as the page writes it."""
    firsts = [names[0] for names in LAYERS]
    return [f"{name}.py" if f"{name}.py" in PAGE else f"{name}/" for name in firsts]


@pytest.mark.skipif(sys.platform != "linux", reason="NOT RUN: other systems enter other files")
def test_the_way_of_predict_is_as_the_page_says(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("ways", ROOT / "scripts" / "ways.py")
    assert spec is not None
    assert spec.loader is not None
    ways = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(ways)
    found = ways.entered(["predict", ways.CAT, "-m", "cifar10"], tmp_path)
    shown = PAGE.split("`mixer predict cat.png` enters")[1].split("`mixer")[0]
    assert set(re.findall(r"[\w/]+\.py", shown)) == set(found), "run scripts/ways.py --write"
