"""An image-classification research template: Lightning trains, Hydra composes, torchmetrics measures, TensorBoard shows.

Importing this package imports nothing else, so that command lines answer at once. `src.load(path)` gives a trained network.
"""


def __getattr__(name: str):
    if name == "load":
        from src.classifier import load

        return load
    raise AttributeError(f"module 'src' has no attribute {name!r}")
