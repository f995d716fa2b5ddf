"""`mixer predict` written with timm, for predict.py and startup.py to compare.

    python benchmarks/timm_predict.py IMAGES MODEL OUT.jsonl --workers 2

IMAGES is a folder or a file; MODEL a folder written by `mixer export --format timm`. HEICs need
pillow-heif.
"""

import argparse
import json
from pathlib import Path

import torch
from worker_torch import Files, load, transform


def main() -> None:
    options = parse()
    config = json.loads((options.model / "config.json").read_text("utf-8"))
    known = config["pretrained_cfg"]
    case = {"timm": options.model, "mean": known["mean"], "std": known["std"]}
    model, *_ = load({**case, "hidden_act": config["hidden_act"]})
    model.eval()
    source = options.images
    paths = sorted(source.iterdir()) if source.is_dir() else [source]
    files = Files(paths, transform(known["input_size"][1:], known["crop_pct"]))
    prepare = read_heic if paths[0].suffix == ".heic" else None
    workers, size = options.workers, options.batch_size
    loader = torch.utils.data.DataLoader(files, size, num_workers=workers, worker_init_fn=prepare)
    with torch.inference_mode(), options.out.open("w") as out:
        names = iter(paths)
        for images in loader:
            top = torch.softmax(model(images), dim=-1).topk(min(5, config["num_classes"]))
            for row in zip(top.values.tolist(), top.indices.tolist(), strict=True):
                pairs = zip(*row, strict=True)
                predictions = [{"index": i, "probability": p} for p, i in pairs]
                line = {"image": str(next(names)), "predictions": predictions}
                out.write(json.dumps(line) + "\n")


def read_heic(worker: int) -> None:
    """Have Pillow open HEICs, in a process of the loader."""
    import pillow_heif

    pillow_heif.register_heif_opener()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--batch-size", type=int, default=32, help="a worker decodes whole batches")
    return parser.parse_args()


if __name__ == "__main__":
    main()
