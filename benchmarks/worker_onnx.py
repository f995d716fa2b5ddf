"""The worker of ONNX Runtime, for files of `mixer export --format onnx`."""

import os
import platform

import numpy as np
import serve
from serve import Case, Plain

try:
    import onnxruntime
except ImportError as error:
    serve.missing(error)


class Inference(Plain):
    """uint8 pixels to float32 logits in NumPy, on the CPU, as ONNX Runtime does by default."""

    def __init__(self, case: Case) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ["OMP_NUM_THREADS"])
        self.session = onnxruntime.InferenceSession(
            case["onnx"], options, providers=["CPUExecutionProvider"]
        )
        self.pixels = serve.noise(case)

    def run(self) -> None:
        (self.logits,) = self.session.run(None, {"image": self.pixels})

    def output(self) -> dict[str, np.ndarray]:
        return {"logits": self.logits}


if __name__ == "__main__":
    serve.serve(
        {"onnxruntime": onnxruntime.__version__, "python": platform.python_version()},
        {"inference": Inference},
    )
