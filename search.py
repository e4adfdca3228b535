"""Search for hyperparameters: python search.py model=lenet search=recipe n_trials=20"""

from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from src.config.cli import run, two_line_errors


@hydra.main(version_base="1.3", config_path="conf", config_name="search")
def main(cfg: DictConfig) -> None:
    """One search, or one more worker of it."""
    with two_line_errors():
        from src.sweeps.search import search

        job = HydraConfig.get()
        typed = OmegaConf.to_container(job.overrides.task)  # as typed: interpolations stay
        search(cfg, typed, Path(job.runtime.output_dir))


if __name__ == "__main__":
    run(main)
