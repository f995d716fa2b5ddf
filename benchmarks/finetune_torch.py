"""Fine-tunes timm's Mixer as its users would; called by finetune.py with a case in JSON.

AdamW, learning rate 5e-4, decay 0.05, cosine without warm-up, 20 epochs, label smoothing 0.1,
padded crops and flips, in batches of 32.
"""

import json
import math
import sys
from pathlib import Path

import numpy as np
import torch
import worker_torch
from PIL import Image
from torch import nn

EPOCHS, BATCH, LR = 20, 32, 5e-4


def main() -> None:
    case = json.loads(Path(sys.argv[1]).read_text())
    torch.manual_seed(case["seed"])
    rng = np.random.default_rng(case["seed"])
    model, mean, std = worker_torch.load(case)
    model.reset_classifier(case["classes"])
    nn.init.zeros_(model.head.weight)
    images, labels = decoded(case["train"], case["image_size"])
    size = min(BATCH, len(images))
    steps = EPOCHS * (len(images) // size)
    optimizer = torch.optim.AdamW(groups(model), lr=LR)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: (1 + math.cos(math.pi * step / steps)) / 2
    )
    loss = nn.CrossEntropyLoss(label_smoothing=0.1)
    model.train()
    for _ in range(EPOCHS):
        order = rng.permutation(len(images))
        for start in range(0, len(images) - size + 1, size):
            rows = order[start : start + size]
            pixels = np.stack([augmented(images[i], rng, case["flip"]) for i in rows])
            x = worker_torch.normalised(torch.from_numpy(pixels), mean, std, torch.float32)
            optimizer.zero_grad()
            loss(model(x), torch.tensor(labels[rows])).backward()
            optimizer.step()
            schedule.step()
    model.eval()
    images, labels = decoded(case["test"], case["image_size"])
    with torch.inference_mode():
        x = worker_torch.normalised(torch.from_numpy(images), mean, std, torch.float32)
        right = torch.cat([model(part).argmax(dim=1) for part in x.split(64)])
    print(json.dumps({"top1": float((right.numpy() == labels).mean()), "steps": steps}))


def groups(model: nn.Module) -> list[dict[str, object]]:
    """Kernels, which decay, and the rest."""
    kernels = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim < 2]
    return [{"params": kernels, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]


def decoded(part: tuple[list[str], list[int]], size: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (N, H, W, 3), squashed to the size as the model's preprocessing does, and labels."""
    height, width = size
    images = [
        np.array(Image.open(path).convert("RGB").resize((width, height), Image.Resampling.BICUBIC))
        for path in part[0]
    ]
    return np.stack(images), np.array(part[1])


def augmented(image: np.ndarray, rng: np.random.Generator, flip: bool) -> np.ndarray:
    """Shifted by up to 4 pixels over zeros, and mirrored in half of the cases."""
    height, width = image.shape[:2]
    padded = np.pad(image, ((4, 4), (4, 4), (0, 0)))
    top, left = rng.integers(0, 9, size=2)
    image = padded[top : top + height, left : left + width]
    return image[:, ::-1] if flip and rng.random() < 0.5 else image


if __name__ == "__main__":
    main()
