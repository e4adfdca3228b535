"""Train a network: python train.py model=simple_v3 data=cifar10 trainer.accelerator=gpu

`check=true`, `find_lr=true` and `reproduce=RUN` do something else with the same settings; `-m`
runs a sweep. torch and lightning are imported inside `main`, so that `--help`, `--cfg job` and
typing errors answer at once.
"""

import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from src.config.cli import run, two_line_errors
from src.config.stored import resumed_config


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg: DictConfig) -> float:
    """One run; returns the validation loss of its best checkpoint."""
    job = HydraConfig.get()
    run_dir = Path(job.runtime.output_dir)
    typed = OmegaConf.to_container(job.overrides.task)  # as typed: interpolations stay
    if job.mode == RunMode.MULTIRUN:  # a job of a sweep whose launcher starts no process for it
        from src.sweeps.plan import run_job

        return run_job(cfg, run_dir)
    with two_line_errors():
        if cfg.reproduce:
            from src.engine.reproduce import reproduce

            sys.exit(1 if reproduce(cfg.reproduce, run_dir) else 0)
        if cfg.find_lr:
            from src.engine.find_lr import find_lr

            return find_lr(cfg, typed, run_dir)
        if cfg.resume:
            cfg = resumed_config(cfg, typed)
        if cfg.check:
            from src.engine.check import check

            sys.exit(0 if check(cfg, run_dir) else 1)
        from src.engine.train import check_finite, objective, train

        results = train(cfg, run_dir)
        check_finite(results, "val", "test")
        return objective(results)


if __name__ == "__main__":
    run(main)
