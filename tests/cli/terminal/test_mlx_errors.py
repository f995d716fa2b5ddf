"""MLX's RuntimeErrors, raised where they come up, end in one sentence with the next step.

The texts are those of MLX's Metal and CPU backends, the reasons those of Metal's command buffers.
"""

from pathlib import Path

import pytest

from mixer_mlx.cli.terminal.mlx_errors import sentence

BUFFER = "[METAL] Command buffer execution failed: "
MEMORY = [
    BUFFER + "Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)",
    "[metal::malloc] Attempting to allocate 99 bytes which is greater than the maximum allowed "
    "buffer size of 9 bytes.",
    "[metal::malloc] Resource limit (499000) exceeded.",
    "[malloc] Unable to allocate 99 bytes.",
    "[malloc_or_wait] Unable to allocate 99 bytes.",
]
WATCHDOG = [
    BUFFER + "Impacting Interactivity "
    "(0000000e:kIOGPUCommandBufferCallbackErrorImpactingInteractivity)",
    BUFFER + "Caused GPU Timeout Error (00000002:kIOGPUCommandBufferCallbackErrorTimeout)",
]
OTHER = [
    BUFFER + "Discarded (victim of GPU error/recovery) "
    "(00000005:kIOGPUCommandBufferCallbackErrorInnocentVictim)",
    "[metal::load_device] No Metal device available.",
]


def raising(error: Exception):  # type: ignore[no-untyped-def]
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "what", "step"),
    [
        *((RuntimeError(text), "There isn't enough memory (", "batch (-b).") for text in MEMORY),
        *((RuntimeError(text), "macOS stopped the GPU", "batch (-b).") for text in WATCHDOG),
        *((RuntimeError(text), "The GPU failed (", "--device cpu if it") for text in OTHER),
        (MemoryError(), "There isn't enough memory; close", "batch (-b)."),
    ],
)
def test_a_sentence(  # type: ignore[no-untyped-def]
    mixer, cat: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, what: str, step: str
) -> None:
    monkeypatch.setattr("mixer_mlx.forward.Forward._forward", raising(error))
    run = mixer("predict", cat, "-m", "cifar10")
    assert run.code == 1
    assert run.err.startswith(f"Error: {what}")
    assert step in run.err
    assert run.err.count("\n") == 1
    if str(error):
        assert str(error).rstrip(".") in run.err


def test_training_can_be_resumed(  # type: ignore[no-untyped-def]
    mixer, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = ("fine-tune", photos, "-m", "cifar10", "-o", tmp_path / "run", "--steps", 1, "-b", 2)
    for text, step in ((MEMORY[0], "--grad-accum"), (WATCHDOG[0], "continue with --resume")):
        error = RuntimeError(text)
        monkeypatch.setattr(
            "mixer_mlx.training.loop.make_step", lambda *_, e=error, **__: raising(e)
        )
        run = mixer(*args, "--force")
        assert run.code == 1
        assert step in run.err.splitlines()[-1]
        assert "--resume" in run.err.splitlines()[-1]


def test_other_errors_are_bugs_of_ours() -> None:
    for error in (
        RuntimeError("dictionary changed size"),
        RuntimeError("[reshape] no"),
        KeyError(),
    ):
        assert sentence(error, ["predict"]) is None
