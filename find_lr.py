"""Find a learning rate: python find_lr.py model=lenet data=digits optimizer=adamw"""

from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from src.command_line import run, two_line_errors


@hydra.main(version_base="1.3", config_path="conf", config_name="find_lr")
def main(cfg: DictConfig) -> float:
    """One ramp; returns the suggested rate."""
    with two_line_errors():
        from src.lr_finder import find_lr

        job = HydraConfig.get()
        return find_lr(cfg, list(job.overrides.task), Path(job.runtime.output_dir))


if __name__ == "__main__":
    run(main)
