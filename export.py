"""Export a trained network: python export.py ckpt=runs/NAME format=onnx"""

import hydra
from omegaconf import DictConfig

from src.config.cli import require, run, two_line_errors


@hydra.main(version_base="1.3", config_path="conf", config_name="export")
def main(cfg: DictConfig) -> None:
    """One exported file."""
    with two_line_errors():
        require(cfg, "ckpt")
        from src.engine.export import export

        export(cfg)


if __name__ == "__main__":
    run(main)
