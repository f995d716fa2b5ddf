"""The options of `mixer predict`, and which go together."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from mixer_mlx.choices import DEFAULT_MODEL
from mixer_mlx.errors import ConfigError

from ..terminal import options, sheet
from ..terminal.part_file import PartFile
from .lines import PredictFormat, chosen_format
from .write import check_pyarrow

_RESUMABLE = ("json", "csv")


@dataclass(frozen=True)
class PredictOptions:
    """Each field is an option."""

    images: options.ImagesArgument
    model: options.ModelOption = DEFAULT_MODEL
    k: Annotated[int, typer.Option("-k", "--top-k", min=1, help="Number of classes to show.")] = 5
    batch_size: options.BatchSize = 32
    workers: options.Workers = None
    null: options.Null = False
    exact: options.Exact = False
    threshold: Annotated[
        float,
        typer.Option("--threshold", min=0, max=1, help="Hide predictions below this probability."),
    ] = 0
    reject: Annotated[
        bool,
        typer.Option(
            "--reject",
            help="Call an image unsure below the probability that fine-tune stored: above it 95 % "
            "were right.",
        ),
    ] = False
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            help="Only images whose most probable class is this one, by name or index; repeatable.",
            metavar="CLASS",
        ),
    ] = None
    format: Annotated[
        PredictFormat | None,
        typer.Option("--format", help="Output format. Default: by the suffix of -o, else table."),
    ] = None
    out: options.Out = None
    resume: options.Resume = False
    sort_into: Annotated[
        Path | None,
        typer.Option(
            "--sort-into",
            help="Copy each image into a folder for its class, inside DIR.",
            metavar="DIR",
            file_okay=False,
        ),
    ] = None
    link: Annotated[
        bool, typer.Option("--link", help="With --sort-into: make symbolic links, not copies.")
    ] = False
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With --sort-into: print what would be done.")
    ] = False
    sheet: Annotated[
        Path | None,
        typer.Option(
            "--sheet", help="Draw a contact sheet of the images and classes.", metavar="FILE.png"
        ),
    ] = None
    force: options.Force = False
    dtype: options.DTypeOption = None
    device: options.DeviceOption = None
    quiet: options.Quiet = False

    @property
    def style(self) -> PredictFormat:
        """The format in which results are written."""
        return chosen_format(self.format, self.out)

    @property
    def target(self) -> PartFile | None:
        """The file of -o."""
        if self.out is None:
            return None
        # The file doesn't record what --only leaves out, and a sheet needs all images.
        resumable = self.style in _RESUMABLE and not (self.only or self.sheet)
        return PartFile(
            self.out, resumable, self.style == "parquet", force=self.force, resume=self.resume
        )

    @property
    def only_prints(self) -> bool:
        """Whether the images are named here, and all results go to stdout."""
        return "-" not in self.images and not (self.out or self.sort_into or self.sheet)

    @property
    def recovery(self) -> str:
        """What to do after an interrupted run."""
        resumable = self.target and self.target.resumable
        return f"run the same command again{' with --resume' if resumable else ''}."

    def check_usage(self) -> None:
        """Raises BadParameter for options that don't go together."""
        rules = {
            "--resume needs -o FILE.": self.resume and not self.out,
            "--resume works with json and csv only.": self.resume and self.style not in _RESUMABLE,
            "--resume doesn't work with --only or --sheet.": self.resume
            and (self.only or self.sheet),
            "parquet needs -o FILE.": self.style == "parquet" and not self.out,
            "--link needs --sort-into DIR.": self.link and not self.sort_into,
            "--dry-run needs --sort-into DIR.": self.dry_run and not self.sort_into,
            "--dry-run writes nothing; leave out -o and --sheet.": self.dry_run
            and (self.out or self.sheet),
        }
        for rule, broken in rules.items():
            if broken:
                raise typer.BadParameter(rule)

    def check_outputs(self) -> None:
        """Raises MixerError for what can be known to fail before a model is loaded."""
        if self.target:
            self.target.check()
        if self.style == "parquet":
            check_pyarrow()
        if self.sheet:
            sheet.check(self.sheet, force=self.force)
        for folder in map(Path, filter(os.path.isdir, self.images)):
            if self.sort_into and self.sort_into.resolve().is_relative_to(folder.resolve()):
                raise ConfigError(
                    f"{self.sort_into} is inside {folder}, whose images are to be sorted; "
                    "choose a folder beside it."
                )
