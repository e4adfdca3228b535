"""An image-classification research template on Lightning, Hydra, torchmetrics and TensorBoard.

Importing this package imports nothing else, so that command lines answer at once.
`src.load(path)` gives a trained network.
"""


def __getattr__(name: str):
    if name == "load":
        from .inference import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
