"""Wrong usage in plain words, and options by their former names."""

import shlex
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from mixer_mlx.cli.commands import application
from mixer_mlx.cli.main import renamed
from mixer_mlx.cli.overview import GROUPS, overview


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--threshold", "2"), "'--threshold': it must be at most 1."),
        (("-k", "0"), "'-k' / '--top-k': it must be at least 1."),
        (("-k", "many"), "'-k' / '--top-k': it must be a whole number."),
        (("--threshold", "high"), "'--threshold': it must be a number."),
        (("--dtype", "int8"), "'--dtype': 'int8' is not one of 'float32', 'float16', 'bfloat16'."),
    ],
)
def test_no_phrase_of_the_parser(mixer, options: tuple[str, ...], message: str) -> None:  # type: ignore[no-untyped-def]
    run = mixer("predict", "cat.png", *options)
    assert run.code == 2
    assert run.err.endswith(f"Error: Invalid value for {message}\n")


def test_former_names(capsys: pytest.CaptureFixture[str]) -> None:
    old = ["--accumulation", "2", "--erasing=0.5", "--freeze", "backbone", "--output", "x"]
    new = ["--grad-accum", "2", "--random-erasing=0.5", "--freeze-backbone", "--out", "x"]
    assert list(renamed(old)) == new
    assert capsys.readouterr().err.splitlines() == [
        f"Warning: {one} is now called {other}; the old name will go."
        for one, other in (
            ("--accumulation", "--grad-accum"),
            ("--erasing", "--random-erasing"),
            ("--freeze", "--freeze-backbone"),
        )
    ]
    assert list(renamed(["--freeze=backbone", "--", "--erasing"])) == [
        *("--freeze-backbone", "--", "--erasing")
    ]


def test_former_names_work(mixer) -> None:  # type: ignore[no-untyped-def]
    run = mixer("fine-tune", "--show-recipe", "--freeze", "backbone", "--accumulation", 4)
    assert run.code == 0
    assert {'freeze = "backbone"', "accumulation = 4"} <= set(run.out.splitlines())


def test_alone_it_shows_every_command(mixer) -> None:  # type: ignore[no-untyped-def]
    assert mixer() == (0, overview(), "")
    shown = {name for commands in GROUPS.values() for name in commands}
    assert shown == set(get_command(application()).commands)  # type: ignore[attr-defined]
    assert max(map(len, overview().splitlines())) <= 80


EXAMPLES = [
    (name, example)
    for commands in GROUPS.values()
    for name, (_, *examples) in commands.items()
    for example in examples
]


@pytest.mark.parametrize(("name", "example"), EXAMPLES)
def test_an_example_is_what_the_parser_takes(
    mixer,  # type: ignore[no-untyped-def]
    name: str,
    example: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert f"\n    {example}\n" in mixer(name, "--help").out
    monkeypatch.chdir(tmp_path)
    for file in ("album.npz", "photo.jpg", "Mixer-B_16.npz"):
        Path(file).touch()
    program, command, *arguments = shlex.split(example)
    assert (program, command) == ("mixer", name)
    parser = get_command(application()).commands[name]  # type: ignore[attr-defined]
    if hasattr(parser, "commands"):
        parser = parser.commands[arguments.pop(0)]
    context = parser.make_context(name, arguments)
    assert not context.args


def test_data_and_the_folder_to_resume_are_asked_for(mixer, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    run = mixer("fine-tune", "-m", "cifar10")
    assert (run.code, "name the images to train on: DATA." in run.err) == (2, True)
    run = mixer("fine-tune", tmp_path, "-m", "cifar10", "--resume")
    assert (run.code, "--resume needs the folder of the run: -o RUN." in run.err) == (2, True)
    assert sys.argv[0] == "mixer"
