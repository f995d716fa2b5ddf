"""The worker of timm on PyTorch; with --compile, torch.compile."""

import importlib.util
import json
import platform
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import serve
from serve import Case, Plain

try:
    import torch
    from safetensors.torch import load_file
    from torch import nn
except ImportError as error:
    serve.missing(error)

COMPILE = "--compile" in sys.argv[1:]


def import_timm() -> ModuleType:
    """Import timm, which needs the names of torchvision's compiled operators."""
    try:
        import torchvision  # noqa: F401
    except RuntimeError as error:  # "operator torchvision::nms does not exist"
        if "torchvision::" not in str(error):
            raise
        define_missing_torchvision_ops()
    import timm

    return timm


def define_missing_torchvision_ops() -> None:
    """Declare torchvision's C++ operators by name if its library doesn't load.

    That happens if its build is for another PyTorch. timm's Mixer and its transforms use none
    of the operators (they are for object detection), but torchvision can't be imported
    without their names.
    """
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    spec = importlib.util.find_spec("torchvision")
    assert spec is not None  # noqa: S101  # its import has just failed
    assert spec.origin is not None  # noqa: S101
    source = (Path(spec.origin).parent / "_meta_registrations.py").read_text("utf-8")
    names = set(re.findall(r'register_(?:meta|fake)\("(?:torchvision::)?(\w+)"', source))
    library = torch.library.Library("torchvision", "DEF")
    for name in sorted(names - {"nms"}):
        library.define(f"{name}(Tensor a) -> Tensor")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    KEPT.append(library)


KEPT: list[object] = []
"""What has to live as long as the process."""


def device(case: Case) -> torch.device:
    """The case's device as PyTorch names it."""
    if case["device"] == "cpu":
        return torch.device("cpu")
    torch.backends.cudnn.allow_tf32 = False  # already PyTorch's default for products
    return torch.device("cuda" if torch.cuda.is_available() else "mps")


def wait(where: torch.device) -> None:
    """Wait until the device has finished."""
    if where.type != "cpu":
        getattr(torch, where.type).synchronize()


def load(case: Case) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """timm's Mixer from an exported folder, strictly; mean and std, (3, 1, 1). All on the CPU."""
    timm = import_timm()
    folder = Path(case["timm"])
    config = json.loads((folder / "config.json").read_text("utf-8"))
    options: dict[str, Any] = {"num_classes": config["num_classes"]}
    if case["hidden_act"] == "gelu_tanh":
        options["act_layer"] = lambda: nn.GELU(approximate="tanh")
    if config["architecture"] == "mlp_mixer_custom":
        model: nn.Module = timm.models.mlp_mixer.MlpMixer(**config["model_args"], **options)
    else:
        model = timm.create_model(config["architecture"], **config["model_args"], **options)
    model.load_state_dict(load_file(folder / "model.safetensors"))
    mean, std = (torch.tensor(case[key]).reshape(3, 1, 1) for key in ("mean", "std"))
    return model, mean, std


def normalised(
    pixels: torch.Tensor, mean: torch.Tensor, std: torch.Tensor, dtype: torch.dtype
) -> torch.Tensor:
    """uint8 (N, H, W, 3) -> (N, 3, H, W)."""
    return ((pixels.permute(0, 3, 1, 2).contiguous() / 255 - mean) / std).to(dtype)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(function) if COMPILE else function


class Inference(Plain):
    """uint8 pixels in NumPy to float32 logits in NumPy."""

    def __init__(self, case: Case) -> None:
        self.device, dtype = device(case), getattr(torch, case["dtype"])
        model, mean, std = (part.to(self.device) for part in load(case))
        model.eval().to(dtype)
        self.forward = compiled(lambda pixels: model(normalised(pixels, mean, std, dtype)).float())
        self.pixels = torch.from_numpy(serve.noise(case))

    @torch.inference_mode()
    def run(self) -> None:
        self.logits = self.forward(self.pixels.to(self.device)).cpu().numpy()

    def output(self) -> dict[str, np.ndarray]:
        return {"logits": self.logits}


class Training(Plain):
    """One update in float32 by torch.optim's fused optimiser, its fastest on CPU and CUDA."""

    def __init__(self, case: Case) -> None:
        self.device, self.clip_norm = device(case), case["clip_norm"]
        model, mean, std = (part.to(self.device) for part in load(case))
        self.model = model.train()
        self.loss = compiled(
            lambda pixels, labels: nn.functional.cross_entropy(
                model(normalised(pixels, mean, std, torch.float32)), labels
            )
        )
        self.optimizer = optimizer(model, case)
        self.pixels = torch.from_numpy(serve.noise(case))
        self.labels = torch.from_numpy(serve.labels(case).astype(np.int64))
        self.losses: list[float] = []

    def run(self) -> None:
        self.optimizer.zero_grad()
        loss = self.loss(self.pixels.to(self.device), self.labels.to(self.device))
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm)
        self.optimizer.step()
        self.losses.append(loss.item())
        wait(self.device)

    def output(self) -> dict[str, np.ndarray]:
        return {"losses": np.array(self.losses)}


def optimizer(model: nn.Module, case: Case) -> torch.optim.Optimizer:
    """Decay on kernels only, as in mixer-mlx."""
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1]},
        {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    common = {"lr": case["lr"], "weight_decay": case["weight_decay"], "fused": True}
    if case["optimizer"] == "adamw":
        return torch.optim.AdamW(groups, **common)
    return torch.optim.SGD(groups, momentum=case["momentum"], **common)


def transform(image_size: list[int], crop_pct: float) -> Callable[[Any], torch.Tensor]:
    """timm's evaluation transform: resize, centre crop, normalise."""
    import_timm()
    from timm.data import create_transform

    half = (0.5, 0.5, 0.5)
    return create_transform(
        (3, *image_size), interpolation="bicubic", crop_pct=crop_pct, mean=half, std=half
    )


class Files(torch.utils.data.Dataset):
    """Images by number, opened as timm's datasets open them."""

    def __init__(self, paths: list[Path], transform: Callable[[Any], torch.Tensor]) -> None:
        self.paths, self.transform = paths, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        from PIL import Image

        with self.paths[index].open("rb") as file:
            return self.transform(Image.open(file).convert("RGB"))


class Decoding(Plain):
    """Files to normalised float32 batches: torch's DataLoader, whose workers stay alive."""

    def __init__(self, case: Case) -> None:
        files = Files(
            sorted(Path(case["pictures"]).iterdir()), transform(case["image_size"], 0.875)
        )
        self.loader = torch.utils.data.DataLoader(
            files, case["batch"], num_workers=case["threads"], persistent_workers=True
        )

    def run(self) -> None:
        self.first: torch.Tensor | None = None
        for images in self.loader:
            self.first = images if self.first is None else self.first

    def output(self) -> dict[str, np.ndarray]:
        assert self.first is not None  # noqa: S101  # it ran
        return {"images": self.first.permute(0, 2, 3, 1).numpy()}


def versions() -> dict[str, str]:
    import PIL

    timm = import_timm()
    import torchvision

    return {
        "timm": timm.__version__,
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "python": platform.python_version(),
        "pillow": PIL.__version__,
    }


if __name__ == "__main__":
    try:
        found = versions()
    except ImportError as error:
        serve.missing(error)
    serve.serve(found, {"inference": Inference, "training": Training, "pictures": Decoding})
