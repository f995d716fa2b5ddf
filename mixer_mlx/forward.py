"""Images through a network in batches, decoded in threads while the batch before is computed."""

import itertools
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeAlias, TypeVar

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from mixer_mlx.checks import check_whole
from mixer_mlx.data.batches import check_pixels
from mixer_mlx.images.inputs import Given, ImageInput, ImagesInput, each
from mixer_mlx.images.pillow import bare
from mixer_mlx.images.preprocess import Preprocess, normalized
from mixer_mlx.ops.activations import compiled_activations
from mixer_mlx.runtime import worker
from mixer_mlx.runtime.streams import Part, one_core_each, rounds, streams
from mixer_mlx.runtime.threads import in_threads, workers
from mixer_mlx.runtime.tuning import (
    COMPILE_FORWARD_AFTER,
    COMPILE_FORWARD_BELOW,
    COMPILE_FORWARD_FROM,
)

from .errors import CheckpointError, ImageError
from .model import MlpMixer
from .model_info import ModelInfo
from .quantization import cast
from .runtime import backend

Network: TypeAlias = Callable[[MlpMixer, mx.array], mx.array]
"""A model and normalised images (N, H, W, in) -> an output for each image, (N, ...)."""
Finish: TypeAlias = Callable[[mx.array], tuple[mx.array, ...]]
"""The network's output in float32, (N, ...) -> what is kept of it, N rows each.

A GPU compiles a batch once for each of these functions, so the same one must be used again."""

_Decoded: TypeAlias = tuple[ImageInput, NDArray[np.uint8] | ImageError]
_Batched: TypeAlias = Callable[[mx.array], mx.array]
_Whole: TypeAlias = Callable[[mx.array], tuple[mx.array, ...]]
Row = TypeVar("Row")

MAX_BATCH_SIZE = 10**6


def everything(output: mx.array) -> tuple[mx.array, ...]:
    """A `Finish` that keeps the output."""
    return (output,)


@dataclass(frozen=True)
class Pending:
    """A batch that the device may still be computing."""

    pixels: NDArray[np.uint8]  # (N, H, W, in)
    finish: Finish
    finite: mx.array  # whether all of the output is
    found: tuple[mx.array, ...]


class Computed(NamedTuple):
    """What was kept of a batch, and whether that took a second try in float32."""

    found: tuple[mx.array, ...]
    in_float32: bool


def described(model: MlpMixer, info: ModelInfo, device: mx.Device, what: str) -> str:
    """For a repr: the name, the size, `what` it computes, and where."""
    count = info.config.num_parameters
    size = f"{count:,}" if count < 100_000 else f"{count / 1e6:,.1f} M"
    dtype = backend.dtype_name(model.dtype)
    return f"{info.name}, {size} parameters, {what}, {device.type.name} {dtype}"


class Forward:
    """`network` for a model's pixels, uint8 (N, H, W, in) from `preprocess`.

    Computed by `runtime.worker`, in parts where that is faster, and compiled where that pays off.
    Outputs that aren't finite are recomputed in float32, with a RuntimeWarning. `what` names them
    in messages, e.g. "logits". Raises CheckpointError if they still aren't finite, and ConfigError
    for pixels of another shape or dtype.
    """

    def __init__(
        self,
        model: MlpMixer,
        preprocess: Preprocess,
        device: mx.Device,
        network: Network,
        what: str,
    ):
        self._model, self._preprocess, self._device = model, preprocess, device
        self._network, self._what = network, what
        self._mean, self._std = mx.array(preprocess.mean), mx.array(preprocess.std)
        self._plain: _Batched = partial(self._output, model)
        self._compiled: _Batched = mx.compile(self._plain, inputs=model.state)
        self._whole: dict[Finish, _Whole] = {}
        self._sizes: Counter[int] = Counter()  # of earlier batches
        self._own()

    def __call__(
        self, pixels: NDArray[np.uint8], finish: Finish = everything
    ) -> tuple[mx.array, ...]:
        """What `finish` keeps of the outputs, float32 (N, ...), computed."""
        self._own()
        check_pixels(pixels, self._model.config)
        return self._finished(worker.submit(self._start, pixels, finish))

    def _own(self) -> None:
        """Compute what is lazy in the model here: only the thread that made it can."""
        with worker.busy:
            mx.eval(self._model.state, self._mean, self._std)

    def _start(self, pixels: NDArray[np.uint8], finish: Finish) -> Pending | Computed:
        """Start computing a batch; only on a GPU without waiting for it. Runs on the worker."""
        turns = self._rounds(len(pixels))
        with mx.stream(self._device), one_core_each(len(turns[0])):
            finite, *found = self._forward(pixels, finish, turns)
            running = Pending(pixels, finish, finite, tuple(found))
            # Before the threads of matrix products change again; another job would cost time, too.
            if not backend.gpu_is_default():
                return self._computed(running)
            mx.async_eval(running.finite, *running.found)
            return running

    def _computed(self, running: Pending) -> Computed:
        """Wait for a batch. Runs on the worker."""
        mx.eval(running.finite, *running.found)
        if running.finite.item():
            return Computed(running.found, in_float32=False)
        turns = self._rounds(len(running.pixels))
        with mx.stream(self._device), one_core_each(len(turns[0])):
            found = running.finish(self._in_float32(running.pixels, turns))
            mx.eval(*found)
        return Computed(found, in_float32=True)

    def _finished(self, future: Future[Pending | Computed]) -> tuple[mx.array, ...]:
        """Wait for a batch, and return what `finish` keeps of it."""
        running = future.result()
        if isinstance(running, Pending):
            running = worker.run(self._computed, running)
        if running.in_float32:
            warnings.warn(
                f"{self._what.capitalize()} in {backend.dtype_name(self._model.dtype)} were not "
                "finite and are recomputed in float32; use dtype float32 to avoid this.",
                RuntimeWarning,
                stacklevel=3,
            )
        return running.found

    def stream(
        self,
        images: ImagesInput,
        finish: Finish,
        rows: Callable[[tuple[mx.array, ...]], Sequence[Row]],
        *,
        batch_size: int,
        exact: bool,
    ) -> Iterator[tuple[ImageInput, Row | ImageError]]:
        """Each image in order, with its row or the error if it can't be read.

        `rows` makes the rows of a batch from what `finish` kept. Images are read lazily: memory
        doesn't depend on their number. The last batch may be smaller. Raises ConfigError at once
        for a batch size that isn't positive.
        """
        check_whole("batch_size", batch_size, 1, MAX_BATCH_SIZE)
        self._own()
        return self._stream(self._decoded(images, exact), finish, rows, batch_size)

    def _stream(
        self,
        images: Generator[_Decoded, None, None],
        finish: Finish,
        rows: Callable[[tuple[mx.array, ...]], Sequence[Row]],
        batch_size: int,
    ) -> Iterator[tuple[ImageInput, Row | ImageError]]:
        def results(
            batch: list[_Decoded], running: Future[Pending | Computed] | None
        ) -> Iterator[tuple[ImageInput, Row | ImageError]]:
            found = iter(rows(self._finished(running)) if running else ())
            for image, value in batch:
                yield image, value if isinstance(value, ImageError) else next(found)

        with closing(images) as decoded:
            before: list[_Decoded] = []
            running = None
            while batch := list(itertools.islice(decoded, batch_size)):
                done, running = running, self._next(batch, finish)
                yield from results(before, done)
                before = batch
            yield from results(before, running)

    def _next(self, batch: list[_Decoded], finish: Finish) -> Future[Pending | Computed] | None:
        """Start computing the images of a batch that could be read; None if there are none."""
        good = [value for _, value in batch if not isinstance(value, ImageError)]
        return worker.submit(self._start, np.stack(good), finish) if good else None

    def _decoded(self, images: ImagesInput, exact: bool) -> Generator[_Decoded, None, None]:
        """Images in order, each with its pixels or error, decoded in threads."""

        def pixels(item: tuple[ImageInput, Given | ImageError]) -> _Decoded:
            image, value = item
            if isinstance(value, ImageError):
                return image, value
            try:
                return image, self._preprocess(value, exact=exact)
            except ImageError as error:
                return image, bare(error)

        # Few, since an image of an archive may be in memory until it is decoded.
        return in_threads(pixels, each(images), ahead=2 * workers())

    def _forward(
        self, pixels: NDArray[np.uint8], finish: Finish, turns: list[list[Part]]
    ) -> tuple[mx.array, ...]:
        """Whether all outputs are finite, and what `finish` keeps of them; not yet evaluated."""
        if not self._pays_off(len(pixels)):
            return _checked(self._in_parts(self._plain, pixels, turns), finish)
        if not backend.gpu_is_default() and backend.worth_compiling(
            self._model.config, len(pixels), COMPILE_FORWARD_BELOW
        ):
            with compiled_activations():
                return _checked(self._in_parts(self._plain, pixels, turns), finish)
        if len(turns) == len(turns[0]) == 1:
            return self._whole_of(finish)(mx.array(pixels))
        return _checked(self._in_parts(self._compiled, pixels, turns), finish)

    def _pays_off(self, size: int) -> bool:
        """Whether to compile: only for a size that repeats, and if small, often."""
        earlier = self._sizes[size]
        self._sizes[size] += 1
        threshold = min(COMPILE_FORWARD_FROM, COMPILE_FORWARD_AFTER // max(1, earlier))
        return earlier > 0 and backend.worth_compiling(self._model.config, size, threshold)

    def _whole_of(self, finish: Finish) -> _Whole:
        """All that is done with an undivided batch as one function: fewer kernels to launch."""
        if finish not in self._whole:
            self._whole[finish] = mx.compile(
                lambda pixels: _checked(self._plain(pixels), finish), inputs=self._model.state
            )
        return self._whole[finish]

    def _output(self, model: MlpMixer, pixels: mx.array) -> mx.array:
        """The network's output for uint8 pixels, float32."""
        images = normalized(pixels, self._mean, self._std)
        return self._network(model, images).astype(mx.float32)

    def _in_parts(
        self, output: _Batched, pixels: NDArray[np.uint8], turns: list[list[Part]]
    ) -> mx.array:
        """In the parts of `_rounds`."""
        outputs: list[mx.array] = []
        for parts in turns:
            found = []
            for stream, (start, end) in zip(streams(len(parts)), parts, strict=True):
                with mx.stream(stream):
                    found.append(output(mx.array(pixels[start:end])))
            if len(turns) > 1 or len(parts) > 1:
                mx.async_eval(found)  # together, before the next round
            outputs += found
        return outputs[0] if len(outputs) == 1 else mx.concatenate(outputs)

    def _in_float32(self, pixels: NDArray[np.uint8], turns: list[list[Part]]) -> mx.array:
        """Run a float32 copy of a half-precision model."""
        model = self._model
        if model.dtype != mx.float32:
            output = self._in_parts(partial(self._output, cast(model, mx.float32)), pixels, turns)
            if _finite(output).item():
                return output
        raise CheckpointError(
            f"The model's {self._what} are not finite even in float32; use intact weights."
        )

    def _rounds(self, size: int) -> list[list[Part]]:
        """How a batch is divided where that is faster, see `streams`."""
        with mx.stream(self._device):
            return rounds(self._model.config, size)


def _finite(output: mx.array) -> mx.array:
    return mx.isfinite(output).all()


def _checked(output: mx.array, finish: Finish) -> tuple[mx.array, ...]:
    return (_finite(output), *finish(output))
