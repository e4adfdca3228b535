"""Evaluate a trained network: python evaluate.py ckpt=runs/NAME"""

from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from src.config.cli import require, run, two_line_errors


@hydra.main(version_base="1.3", config_path="conf", config_name="evaluate")
def main(cfg: DictConfig) -> float:
    """One evaluation; returns its loss."""
    with two_line_errors():
        require(cfg, "ckpt")
        from src.engine.evaluate import evaluate
        from src.engine.train import check_finite

        metrics = evaluate(cfg, Path(HydraConfig.get().runtime.output_dir))
        check_finite({"evaluation": metrics}, "evaluation")
        return metrics["loss"]


if __name__ == "__main__":
    run(main)
