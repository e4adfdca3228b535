"""Train a network: python train.py model=simple_v3 data=cifar10 trainer.accelerator=gpu

torch and lightning are imported inside `main`, so that `--help`, `--cfg job`, tab completion and typing errors answer at once.
"""

import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from src.command_line import run, two_line_errors
from src.stored_config import continued_config


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg: DictConfig) -> float:
    """One run; returns the validation loss of its best checkpoint."""
    job = HydraConfig.get()
    if job.mode == RunMode.MULTIRUN:  # a sweep whose engine gives its jobs no process of their own; see src/sweep.py
        from src.sweep import run_job

        return run_job(cfg, Path(job.runtime.output_dir))
    if cfg.resume:
        cfg = continued_config(cfg, list(job.overrides.task))
    with two_line_errors():
        from src.training import check_only, objective, train

        if cfg.get("check"):
            if not check_only(cfg, Path(job.runtime.output_dir)):
                sys.exit(1)
            return 0.0
        return objective(train(cfg, Path(job.runtime.output_dir)))


if __name__ == "__main__":
    run(main)
