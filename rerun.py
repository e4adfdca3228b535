"""Repeat a finished run from its folder and compare the figures: python rerun.py run=runs/NAME. Exits with 1 where they differ."""

import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from src.command_line import require, run, two_line_errors
from src.stored_config import stored_config


@hydra.main(version_base="1.3", config_path="conf", config_name="rerun")
def main(cfg: DictConfig) -> None:
    """One repetition, in a folder of its own."""
    with two_line_errors():
        require(cfg, "run")
        folder = Path(cfg.run).expanduser()
        again = OmegaConf.create(stored_config(folder / "config.yaml"))
        from src.repetition import repeat

        if repeat(folder, again, Path(HydraConfig.get().runtime.output_dir)):
            sys.exit(1)


if __name__ == "__main__":
    run(main)
