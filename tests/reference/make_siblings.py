"""Writes tests/golden/siblings/: ResMLP, gMLP and gMixer as timm computes and trains them.

timm 1.0.31 and PyTorch 2.13 on the CPU; if torchvision is missing, an empty stand-in will do. Two
blocks of width 32, images of 24 x 32 in patches of 8, 7 classes; all parameters moved away from
their initial values, and GELU or SiLU as timm's named models have it.

    <family>.safetensors      the weights, under timm's names
    <family>.npz              `images` (3, 24, 32, 3), normalised; `stem`, `block_<i>`,
                              `pre_logits`, `logits`
    <family>_training.npz     ten steps of torch.optim.AdamW from these weights, lr 0.01 constant,
                              weight decay 0.1 on matrices: `loss` (10,), and the weights afterwards
                              as `after/<name>`
    batches.npz               for those: `pixels` (10, 6, 24, 32, 3) uint8, normalised as
                              (x / 255 - 0.5) / 0.25, and `labels` (10, 6)
    parameters.json           timm's models -> [parameters with 1000 classes, without a head,
                              multiply-accumulates of an image as PyTorch's FlopCounterMode counts
                              them]
    published.json            timm's repositories of all four families -> what timm says of them:
                              classes, licence, and the preprocessing

Run it once: python make_siblings.py
"""

import json
from functools import partial
from pathlib import Path

import numpy as np
import timm
import torch
from safetensors.torch import save_file
from timm.layers import GluMlp
from timm.models.mlp_mixer import Affine, GatedMlp, MlpMixer, ResBlock, SpatialGatingBlock
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

GOLDEN = Path(__file__).parents[1] / "golden" / "siblings"
FRAME = {"img_size": (24, 32), "patch_size": 8, "num_blocks": 2, "embed_dim": 32, "num_classes": 7}
FAMILIES = {
    "resmlp": {"mlp_ratio": 2, "block_layer": ResBlock, "norm_layer": Affine},
    "gmlp": {"mlp_ratio": 3, "block_layer": SpatialGatingBlock, "mlp_layer": GatedMlp},
    "gmixer": {"mlp_ratio": (0.625, 2.0), "mlp_layer": GluMlp, "act_layer": nn.SiLU},
}
MODELS = [f"resmlp_{size}_224" for size in ("12", "24", "36", "big_24")]
MODELS += [f"gmlp_{size}_224" for size in ("ti16", "s16", "b16")]
MODELS += ["gmixer_12_224", "gmixer_24_224"]


def moved(family: str) -> MlpMixer:
    torch.manual_seed(0)
    model = MlpMixer(**FRAME, **FAMILIES[family]).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            scale = 0.05 if "gate.proj.weight" in name else 0.1
            p += scale * torch.randn(p.shape)
    return model


def outputs(model: MlpMixer, images: torch.Tensor) -> dict[str, np.ndarray]:
    seen: dict[str, torch.Tensor] = {}
    modules = {"stem": model.stem, **{f"block_{i}": b for i, b in enumerate(model.blocks)}}
    hooks = [
        module.register_forward_hook(partial(lambda n, *args: seen.update({n: args[2]}), name))
        for name, module in modules.items()
    ]
    with torch.inference_mode():
        tokens = model.forward_features(images)
        seen["pre_logits"] = model.forward_head(tokens, pre_logits=True)
        seen["logits"] = model(images)
    for hook in hooks:
        hook.remove()
    return {name: value.numpy().copy() for name, value in seen.items()}


def train(model: MlpMixer, pixels: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    parameters = list(model.parameters())
    kernels = [p for p in parameters if p.squeeze().ndim > 1]
    others = [p for p in parameters if p.squeeze().ndim <= 1]
    groups = [{"params": kernels, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.01)
    losses = []
    for x, y in zip(pixels, labels, strict=True):
        optimizer.zero_grad()
        images = (torch.from_numpy(x).permute(0, 3, 1, 2) / 255 - 0.5) / 0.25
        loss = nn.functional.cross_entropy(model(images), torch.from_numpy(y))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    after = {f"after/{name}": p.detach().numpy() for name, p in model.named_parameters()}
    return {"loss": np.array(losses, np.float32), **after}


def parameters(name: str, classes: int) -> int:
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=classes)
    return sum(p.numel() for p in model.parameters())


def macs(name: str) -> int:
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        timm.create_model(name).eval()(torch.empty(1, 3, 224, 224))
    return counter.get_total_flops() // 2


def published() -> dict[str, dict[str, object]]:
    """What timm's own list of weights says, of all that lie on the Hub."""
    fields = ("num_classes", "license", "interpolation", "crop_pct", "mean", "std")
    names = timm.list_models(["mixer_*", "resmlp_*", "gmlp_*", "gmixer_*"], pretrained=True)
    configs = {name: timm.get_pretrained_cfg(name) for name in names}
    return {
        name: {field: getattr(cfg, field) for field in fields}
        for name, cfg in sorted(configs.items())
        if cfg.hf_hub_id
    }


def write_json(name: str, value: object) -> None:
    (GOLDEN / name).write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    GOLDEN.mkdir(exist_ok=True)
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (10, 6, 24, 32, 3), dtype=np.uint8)
    labels = rng.integers(0, 7, (10, 6))
    np.savez_compressed(GOLDEN / "batches.npz", pixels=pixels, labels=labels.astype(np.int32))
    for family in FAMILIES:
        model = moved(family)
        save_file(model.state_dict(), GOLDEN / f"{family}.safetensors", {"format": "pt"})
        images = torch.randn((3, 3, 24, 32), generator=torch.Generator().manual_seed(1))
        expected = outputs(model, images)
        shown = images.permute(0, 2, 3, 1).numpy()
        np.savez_compressed(GOLDEN / f"{family}.npz", images=shown, **expected)
        np.savez_compressed(GOLDEN / f"{family}_training.npz", **train(model, pixels, labels))
    counts = {name: [parameters(name, 1000), parameters(name, 0), macs(name)] for name in MODELS}
    write_json("parameters.json", counts)
    write_json("published.json", published())


if __name__ == "__main__":
    main()
