"""Ask a trained network about picture files: python predict.py ckpt=runs/.../checkpoints/best.ckpt path=photos

Exit code 0: every file has a prediction. 1: some could not be read; they are named, the others have theirs. 2: nothing was done.
"""

import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from src.command_line import require, run, two_line_errors


@hydra.main(version_base="1.3", config_path="conf", config_name="predict")
def main(cfg: DictConfig) -> None:
    """One pass over the files."""
    with two_line_errors():
        require(cfg, "ckpt", "path")
        from src.prediction import predict

        results = predict(cfg, Path(HydraConfig.get().runtime.output_dir))
    if results["unreadable"]:
        sys.exit(1)


if __name__ == "__main__":
    run(main)
