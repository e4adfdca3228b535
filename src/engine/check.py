"""`check=true` and `check=data`: build everything as for a run and train nothing."""

import logging
from pathlib import Path

from omegaconf import DictConfig

from ..callbacks.run_description import run_title
from ..callbacks.run_results import count_parameters
from ..config.instantiate import (
    instantiate_callbacks,
    instantiate_datamodule,
    instantiate_loggers,
    instantiate_model,
    instantiate_task,
    instantiate_trainer,
)
from ..config.prepare import prepare_config
from ..config.validate import validate
from ..datamodules import ImageDataModule, ImageFolderDataModule
from ..datamodules.scan import scan
from .resume import check_resumable

log = logging.getLogger(__name__)


def check(cfg: DictConfig, run_dir: Path) -> bool:
    """Build the objects of a run in `run_dir`; with `check=data` also read every image.

    Returns:
        Whether the data are in order; True where they were not read.

    Raises:
        UserError: what would keep the run from starting.
    """
    prepare_config(cfg)
    if cfg.resume:
        check_resumable(cfg)
    validate(cfg)
    datamodule = instantiate_datamodule(cfg)
    if isinstance(datamodule, ImageFolderDataModule):
        datamodule.prepare_data()
        datamodule.split_files()
    model = instantiate_model(cfg, datamodule)
    task = instantiate_task(cfg, model, datamodule)
    callbacks = instantiate_callbacks(cfg, run_dir)
    loggers = instantiate_loggers(cfg, run_dir)
    trainer = instantiate_trainer(cfg, run_dir, callbacks, loggers)
    datamodule.trainer, trainer.datamodule = trainer, datamodule  # as in a training
    problems: list[str] = []
    if cfg.check == "data" and isinstance(datamodule, ImageDataModule):
        result = scan(datamodule)
        problems = result.problems
        log.info("%s", result.report())
    parameters = f"{count_parameters(task):,}"
    title, device = run_title(trainer, task), trainer.strategy.root_device
    log.info("The settings work: %s, %s parameters, on %s.", title, parameters, device)
    return not problems
