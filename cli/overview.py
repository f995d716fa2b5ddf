"""Every command by purpose, with examples: what `mixer` alone and the end of each `--help` show."""

GROUPS: dict[str, dict[str, tuple[str, ...]]] = {
    "Use": {
        "predict": (
            "classify files and folders",
            "mixer predict photo.jpg album/",
            "mixer predict album/ -o album.csv",
        ),
        "embed": (
            "a vector for each image",
            "mixer embed album/ -o album.npz",
            "mixer embed album/ --layer blocks.3 -o b3.parquet",
        ),
        "nearest": (
            "find the images most like it",
            "mixer nearest photo.jpg --in album/",
            "mixer nearest photo.jpg --in album.npz --sheet near.png",
        ),
        "serve": (
            "a page in the browser",
            "mixer serve --open",
            "mixer serve -m cifar10 --index album.npz",
        ),
    },
    "Train": {
        "teach": (
            "on a page, by camera or files",
            "mixer teach photos/ --open",
            "mixer teach photos/ -m cifar10 -o taught/",
        ),
        "check": (
            "find duplicates and broken files",
            "mixer check photos/ --sheet problems.png",
            "mixer check photos/ -m my-model --plot enough.png",
        ),
        "few-shot": (
            "in seconds, from a few images",
            "mixer few-shot photos/ --save my-model",
            "mixer few-shot photos/ --shots 1,5,all",
        ),
        "fine-tune": (
            "with one folder per class",
            "mixer fine-tune photos/ -o my-model",
            "mixer fine-tune photos/ -m cifar10 --epochs 10",
        ),
        "train": (
            "train from scratch",
            "mixer train photos/ --variant S/16",
            "mixer train photos/ -o my-model --resume",
        ),
    },
    "Understand": {
        "evaluate": (
            "measure accuracy",
            "mixer evaluate photos/ -m my-model",
            "mixer evaluate photos/ -m my-model --report report.html",
        ),
        "report": (
            "write a run's report anew",
            "mixer report my-run",
            "mixer report my-run --data photos/ -o report.html",
        ),
        "explain": (
            "show what speaks for its class",
            "mixer explain photo.jpg -o why.png",
            "mixer explain photo.jpg --class cat -o why.png",
        ),
        "visualize": (
            "draw what its units look like",
            "mixer visualize cifar10 -o units/",
            "mixer visualize cifar10 -o units/ --block 0,1,2",
        ),
        "info": (
            "show architecture and source",
            "mixer info cifar10",
            "mixer info my-model --format json",
        ),
        "benchmark": (
            "measure speed and memory",
            "mixer benchmark --variant B/16",
            "mixer benchmark -m my-model -b 1,32",
        ),
    },
    "Export": {
        "convert": (
            "import timm or JAX weights",
            "mixer convert hf://user/repo my-model",
            "mixer convert Mixer-B_16.npz my-model",
        ),
        "export": (
            "export to timm, ONNX, Core ML",
            "mixer export my-model back/ --format timm",
            "mixer export my-model My.mlpackage --format coreml",
        ),
        "upload": (
            "share on the Hugging Face Hub",
            "mixer upload my-run user/repo --dry-run",
            "mixer upload my-run user/repo",
        ),
        "fuse": (
            "merge LoRA adapters",
            "mixer fuse my-run my-model",
        ),
        "resize": (
            "take larger images",
            "mixer resize my-model large --image-size 448",
        ),
    },
    "Manage": {
        "models": (
            "list the published models",
            "mixer models",
        ),
        "cache": (
            "downloaded and converted models",
            "mixer cache list",
            "mixer cache remove mixer_b16_224.sam",
        ),
        "env": (
            "versions and performance tips",
            "mixer env",
        ),
    },
}
"""Group -> command -> its purpose and examples, of which the overview shows the first."""


def overview() -> str:
    """What `mixer` alone prints."""
    lines = ["mixer classifies images with MLP-Mixer, on Apple silicon and Linux."]
    for group, commands in GROUPS.items():
        lines += ["", group]
        lines += [f"  {example:46}{purpose}" for purpose, example, *_ in commands.values()]
    lines += ["", "mixer COMMAND --help explains a command, mixer --help lists all of them."]
    return "\n".join(lines) + "\n"


def epilog(command: str) -> str:
    """The end of a command's `--help`: its examples, which the parser must not wrap."""
    ((_, *examples),) = (commands[command] for commands in GROUPS.values() if command in commands)
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in examples)])
