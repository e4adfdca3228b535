"""Compare trained networks on the same images: python compare.py runs=[runs/A,runs/B]"""

from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from src.config.cli import require, run, two_line_errors


@hydra.main(version_base="1.3", config_path="conf", config_name="compare")
def main(cfg: DictConfig) -> None:
    """One comparison."""
    with two_line_errors():
        require(cfg, "runs")
        from src.engine.compare import compare

        compare(cfg, Path(HydraConfig.get().runtime.output_dir))


if __name__ == "__main__":
    run(main)
