"""Writes tests/golden/training.npz: what PyTorch makes of a tiny Mixer in ten steps of training.

PyTorch 2.13 on the CPU and nothing of this project. The Mixer is written out here with timm's
names and layout: 8 x 12 pixels, patch 4, C 12, D_S 10, D_C 20, 2 blocks, 5 classes, GELU with erf,
layer norm eps 1e-6. Pixels are uint8, normalised as (x / 255 - 0.5) / 0.25. Label smoothing 0.1,
gradients clipped at 1 (`clip_grad_norm_`), warm-up of 3 steps, then cosine to 1e-4 at step 10:

    adamw   torch.optim.AdamW, lr 0.01, weight decay 0.1 on parameters of more than one axis
    sgd     torch.optim.SGD, lr 0.1, momentum 0.9
    layers  as adamw, with a learning rate for each layer: 0.7 to the power of the layers above it,
            counted as BEiT does (`get_num_layer_for_vit` in its optim_factory.py): the stem is
            layer 0, block i is i + 1, all else BLOCKS + 1
    muon    torch.optim.Muon, lr 0.01, momentum 0.95, weight decay 0.1, match_rms_adamw, for the
            kernels in blocks, and adamw for the rest; its iterations in float32 (`bfloat16` does
            nothing here), since bfloat16's rounding hides all but gross errors

Arrays: pixels (10, 6, H, W, 3) and labels (10, 6), `before/<name>`, `gradient/<name>` (of the first
step, before clipping), and for each `<optimizer>/loss` and `/norm` (10,), `/after/<name>`.

Run it once, from anywhere: python make_training.py. The file it wrote is frozen.
"""

import math
from pathlib import Path

import numpy as np
import torch
from torch import nn

GOLDEN = Path(__file__).parents[1] / "golden" / "training.npz"
H, W, P, C, D_S, D_C, BLOCKS, CLASSES = 8, 12, 4, 12, 10, 20, 2, 5
STEPS, WARMUP, BATCH = 10, 3, 6
END_LR = 1e-4
LAYER_DECAY = 0.7


class Mlp(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(nn.functional.gelu(self.fc1(x)))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(C, eps=1e-6), nn.LayerNorm(C, eps=1e-6)
        self.mlp_tokens, self.mlp_channels = Mlp(H * W // P**2, D_S), Mlp(C, D_C)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.mlp_tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.mlp_channels(self.norm2(x))


class Stem(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, C, P, P)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


class Mixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.blocks = Stem(), nn.Sequential(*(Block() for _ in range(BLOCKS)))
        self.norm, self.head = nn.LayerNorm(C, eps=1e-6), nn.Linear(C, CLASSES)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        x = (pixels.permute(0, 3, 1, 2) / 255 - 0.5) / 0.25
        return self.head(self.norm(self.blocks(self.stem(x))).mean(1))


def rate(lr: float, step: int) -> float:
    if step < WARMUP:
        return lr * (step + 1) / WARMUP
    done = (step - WARMUP) / (STEPS - WARMUP)
    return END_LR + (lr - END_LR) * 0.5 * (1 + math.cos(math.pi * done))


def layer(name: str) -> int:
    if name.startswith("stem."):
        return 0
    return int(name.split(".")[1]) + 1 if name.startswith("blocks.") else BLOCKS + 1


def layer_groups(model: Mixer) -> list[dict[str, object]]:
    return [
        {
            "params": [p],
            "weight_decay": 0.1 if p.ndim > 1 else 0.0,
            "scale": LAYER_DECAY ** (BLOCKS + 1 - layer(name)),
        }
        for name, p in model.named_parameters()
    ]


def optimizers(name: str, model: Mixer) -> list[torch.optim.Optimizer]:
    if name != "muon":
        return [optimizer(name, list(model.parameters()), model)]
    torch.Tensor.bfloat16 = torch.Tensor.float
    hidden = [p for p in model.blocks.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if all(p is not one for one in hidden)]
    muon = torch.optim.Muon(
        hidden, lr=0.01, momentum=0.95, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"
    )
    return [muon, optimizer("adamw", rest, model)]


def optimizer(name: str, parameters: list[nn.Parameter], model: Mixer) -> torch.optim.Optimizer:
    if name == "layers":
        return torch.optim.AdamW(layer_groups(model), lr=0.01)
    kernels = [p for p in parameters if p.ndim > 1]
    others = [p for p in parameters if p.ndim <= 1]
    if name == "sgd":
        return torch.optim.SGD([*kernels, *others], lr=0.1, momentum=0.9)
    groups = [{"params": kernels, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=0.01)


def main() -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (STEPS, BATCH, H, W, 3), dtype=np.uint8)
    labels = rng.integers(0, CLASSES, (STEPS, BATCH)).astype(np.int64)
    model = Mixer()
    with torch.no_grad():
        for p in model.parameters():  # no zeros and ones: every gradient tells something
            p += 0.2 * torch.randn(p.shape)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    arrays = {"pixels": pixels, "labels": labels.astype(np.int32)}
    arrays |= {f"before/{name}": p.numpy() for name, p in before.items()}
    for name, lr in (("adamw", 0.01), ("sgd", 0.1), ("layers", 0.01), ("muon", 0.01)):
        model.load_state_dict(before)
        optimisers = optimizers(name, model)
        losses, norms = [], []
        for step in range(STEPS):
            for group in [group for one in optimisers for group in one.param_groups]:
                group["lr"] = rate(lr, step) * group.get("scale", 1.0)
            model.zero_grad()
            logits = model(torch.from_numpy(pixels[step]))
            target = torch.from_numpy(labels[step])
            loss = nn.functional.cross_entropy(logits, target, label_smoothing=0.1)
            loss.backward()
            if step == 0:
                for key, p in model.named_parameters():
                    arrays[f"gradient/{key}"] = p.grad.numpy().copy()
            norms.append(float(nn.utils.clip_grad_norm_(model.parameters(), 1.0)))
            for one in optimisers:
                one.step()
            losses.append(loss.item())
        arrays[f"{name}/loss"] = np.array(losses, np.float32)
        arrays[f"{name}/norm"] = np.array(norms, np.float32)
        for key, p in model.named_parameters():
            arrays[f"{name}/after/{key}"] = p.detach().numpy().copy()
    np.savez_compressed(GOLDEN, **arrays)


if __name__ == "__main__":
    main()
