"""Thresholds of speed and memory, with what each was measured on.

They change results by rounding at most. "Two cores" are those of an AMD EPYC under
Linux, with OpenBLAS, in float32.
"""

MAX_STREAMS = 16
"""Parts of a batch computed at once: MLX schedules only about a hundred operations ahead, over all
streams together."""

MATMUL_COST = 4
"""One core's time for a forward pass's matrix products, relative to all else: B/16, two cores."""

MAX_PART = 2**21
"""Numbers in the widest layer of a part in a forward pass, 8 MiB in float32: with larger parts
B/16 was slower on two cores, since the kernel hands out large arrays page by page."""

MAX_TRAINING_PART = 2**22
"""The same in training, but larger: with two images per part, adding up gradients took a fifth of
B/16's step."""

COMPILE_FORWARD_FROM = 2**14
COMPILE_STEP_FROM = 2**16
"""Numbers in a block's output from which compiling pays off on the CPU: g++ takes about 0.5 s for
each kernel the first time on a machine. Chosen on two cores."""

COMPILE_FORWARD_BELOW = 2**17
"""And up to which: of larger ones only the activations are compiled. MLX's compiled kernels that
repeat a number along an axis, as in layer norm, don't use vectors; its others do. Measured on two
cores of an Intel Xeon, in turns: compiled as a whole, 64 images of the built-in model take 1.16
times as long, one of B/16 1.06 to 1.09 times; but 8 images of the built-in model 0.92 times."""

COMPILE_FORWARD_AFTER = 2**22
"""Numbers in a block's output, added up over earlier batches of one size, from which compiling pays
off also for small ones: 512 single images of the built-in model. Compiled, it takes 4.6 to 5.1 ms
of processor time for each instead of 9.3 to 10.8, and g++ takes 2.6 s for its five kernels, once on
a machine; later processes find them compiled. Measured on two busy cores of an Intel Xeon."""

COMPILE_GELU_FROM = 2**20
"""Elements of an array from which GELU is compiled on the CPU, where g++ takes about 0.5 s for each
function and dtype. A compiled GELU takes 1 ns per element instead of 8 or 10 on two cores, so below
this size it saves some 10 ms at most; one image doesn't reach it in most models."""

NORM_BY_PRODUCTS_FROM = 2**16
"""Numbers in an array from which a layer norm on the CPU sums by matrix products: 1.6 to 1.7 ns per
number instead of 2.3 to 2.4 (not compiled), and a step of AdamW takes 0.90 to 0.95 of the time for
the built-in model at batch 128. Below it, more operations cost more than they save. Measured on two
cores of an Intel Xeon."""

TRAINING_MEMORY_FRACTION = 0.6
"""Fraction of the memory that a training step may take; the rest is for the system and the images.
Chosen, not measured."""


def decode_bytes(memory: int) -> int:
    """Memory for all images being decoded, of what the process may use; a larger image is alone.

    A quarter, at most 8 GiB: in 8 GB ten 24-megapixel HEICs at once, and one in a container's
    1 GiB. Chosen so that the cores of a Mac have work, with room for the model and the system.
    """
    return min(memory // 4, 2**33)
