"""Our model -> one HTML file that classifies images, opened from disk, without a network.

It holds the network as ONNX, and ONNX Runtime's build for browsers, from the folder of the npm
package onnxruntime-web. Nothing else may run in it: its policy names its script by a hash.
"""

import base64
import gzip
import hashlib
import html
import json
import re
from importlib.resources import files
from pathlib import Path
from string import Template

from mixer_mlx.choices import ExportWeights
from mixer_mlx.errors import ConfigError
from mixer_mlx.model_info import ModelInfo
from mixer_mlx.runtime.atomic import replacing_file

from . import onnx
from .graph import Graph

SCRIPT, WASM = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
"""The files of onnxruntime-web, in its folder `dist`. Tried with version 1.30."""
MAX_BYTES = 100 * 2**20
"""Of a page; browsers take long to read larger ones, and phones give up."""
_EXPORTS = re.compile(r"export\s*\{([^}]*)\};?\s*(//[^\n]*)?\s*$")


def find_runtime(folder: Path | None) -> Path:
    """The folder that has the runtime's two files. Raises ConfigError."""
    given = folder or Path("node_modules", "onnxruntime-web")
    for place in (given, given / "dist", given / "node_modules" / "onnxruntime-web" / "dist"):
        if (place / SCRIPT).is_file() and (place / WASM).is_file():
            return place
    raise ConfigError(
        f"There is no {SCRIPT} and {WASM} in {given}; run `npm install onnxruntime-web`, and give "
        "the folder of the package as `runtime`."
    )


def write(path: Path, graph: Graph, weights: ExportWeights, runtime: Path | None) -> None:
    """Write the page. Raises OSError, and ConfigError for one that would be too large."""
    text = page(graph, weights, find_runtime(runtime))
    with replacing_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def page(graph: Graph, weights: ExportWeights, runtime: Path) -> str:
    """The page's text."""
    network = onnx.build(graph, weights).SerializeToString(deterministic=True)
    parts = {"wasm": (runtime / WASM).read_bytes(), "network": network}
    data = {name: base64.b64encode(gzip.compress(part, 6, mtime=0)) for name, part in parts.items()}
    if (size := sum(map(len, data.values()))) > MAX_BYTES:
        raise ConfigError(
            f"The page would have {size / 2**20:,.0f} MiB, more than the {MAX_BYTES // 2**20} that "
            "browsers open well; choose smaller weights, or a smaller model."
        )
    style, code = _part("page.css"), _runtime(runtime) + _part("page.js")
    policy = (
        f"default-src 'none'; script-src {_hash(code)} 'wasm-unsafe-eval'; "
        f"style-src {_hash(style)}; base-uri 'none'; form-action 'none'"
    )
    title = graph.info.name.encode("utf-8", "backslashreplace").decode()
    return Template(_part("page.html")).substitute(
        policy=policy,
        title=html.escape(title),
        about=html.escape(_about(graph.info)),
        info=_json(_info(graph)),
        style=style,
        script=code,
        **{name: text.decode() for name, text in data.items()},
    )


def _info(graph: Graph) -> dict[str, object]:
    """What the page's script reads."""
    preprocess = graph.info.preprocess
    return {
        "image_size": list(preprocess.image_size),
        "target_size": list(preprocess.target_size),
        "resize_mode": preprocess.resize_mode,
        "interpolation": preprocess.interpolation,
        "in_channels": graph.input_shape[2],
        "labels": list(graph.info.labels),
    }


def _about(info: ModelInfo) -> str:
    licence = info.source.get("license")
    return (
        f"{info.config.title}, {info.config.num_classes:,} classes, images of "
        f"{info.config.image_size[0]} x {info.config.image_size[1]}"
        + (f", licence {licence}." if licence else ".")
    )


def _part(name: str) -> str:
    return (files(__package__) / "page" / name).read_text("utf-8")


def _runtime(folder: Path) -> str:
    """ONNX Runtime's module as code that defines `ort`, in place of exporting names."""
    text = (folder / SCRIPT).read_text("utf-8")
    found = _EXPORTS.search(text)
    if found is None or "</script" in text.lower():
        raise ConfigError(
            f"{folder / SCRIPT} isn't as in onnxruntime-web 1.30; install that version."
        )
    names = [entry.split(" as ") for entry in found[1].split(",")]
    pairs = ",".join(f"{theirs[-1].strip()}:{theirs[0].strip()}" for theirs in names)
    return f"{text[: found.start()]}\nconst ort={{{pairs}}};\n"


def _json(value: object) -> str:
    """JSON that no text in it can end the element of."""
    return json.dumps(value).replace("<", "\\u003c")


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"
