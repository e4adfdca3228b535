"""Predict the classes of images: python predict.py ckpt=runs/NAME path=photos

Exit code 0: every file has a prediction. 1: some could not be read; they are listed, the others
have theirs. 2: nothing was done.
"""

import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from src.config.cli import require, run, two_line_errors


@hydra.main(version_base="1.3", config_path="conf", config_name="predict")
def main(cfg: DictConfig) -> None:
    """One pass over the files."""
    with two_line_errors():
        require(cfg, "ckpt", "path")
        from src.engine.predict import predict

        results = predict(cfg, Path(HydraConfig.get().runtime.output_dir))
        if results["unreadable"]:
            sys.exit(1)


if __name__ == "__main__":
    run(main)
