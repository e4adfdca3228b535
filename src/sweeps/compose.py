"""Configs of jobs: composed by Hydra, resolved, and frozen in the folder of the job.

A sweep folder may come from somebody else. A frozen config is plain data, which is read like the
config of any run folder; Hydra composes nothing from it.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from ..config.plain import escape_environment
from ..config.prepare import prepare_config
from ..config.stored import read_stored_config
from ..errors import UserError
from ..runs.environment import redact_secrets
from ..runs.files import write_text
from ..runs.run_folder import flatten
from .job_files import OVERRIDES
from .pool import Job
from .worker import JOB_CONFIG

log = logging.getLogger(__name__)


def expand_grid(config: DictConfig) -> list[list[str]]:
    """The overrides of each job of a sweep."""
    loader = GlobalHydra.instance().config_loader()
    params = config.hydra.sweeper.params or {}
    typed = [f"{key}={value}" for key, value in params.items()]
    typed += OmegaConf.to_container(config.hydra.overrides.task)  # with their interpolations
    overrides = OverridesParser.create(config_loader=loader).parse_overrides(typed)
    return BasicSweeper.split_arguments(overrides, max_batch_size=None)[0]


def compose_job(sweep: DictConfig, number: int, overrides: Sequence[str]) -> Job:
    """Compose a job of a sweep."""
    loader = GlobalHydra.instance().config_loader()
    composed = loader.load_sweep_config(sweep, list(overrides))
    with open_dict(composed):
        composed.hydra.job.id = composed.hydra.job.num = number
    with _hydra_config(composed):  # for ${hydra:job.num}
        folder = Path(composed.hydra.sweep.dir, composed.hydra.sweep.subdir).absolute()
    return Job(f"Job {number}", folder, list(overrides), _resolve(composed))


def compose_run(overrides: Sequence[str]) -> DictConfig:
    """Compose a single run: its config without Hydra's part."""
    loader = GlobalHydra.instance().config_loader()
    return _resolve(loader.load_configuration("config", list(overrides), RunMode.RUN))


def _resolve(composed: DictConfig) -> DictConfig:
    """A config without Hydra's part, complete as for a run.

    All interpolations are resolved, except those of environment variables, which may be secret.
    """
    written = escape_environment(OmegaConf.to_container(composed, resolve=False))
    del written["hydra"]
    with _hydra_config(composed):
        config = OmegaConf.create(OmegaConf.to_container(OmegaConf.create(written), resolve=True))
    prepare_config(config)
    _refuse_secrets(OmegaConf.to_container(config))
    return config


def _refuse_secrets(config: Any) -> None:
    """Raise a `UserError` for a secret, since the config of a job is written down as it is."""
    redacted = flatten(redact_secrets(config))
    for key, value in flatten(config).items():
        if redacted[key] != value:
            raise UserError(
                f"{key} is named like a secret, and each job of a sweep stores its settings.",
                f"Give it as an environment variable: {key}='${{oc.env:NAME}}', in quotes.",
            )


@contextmanager
def _hydra_config(composed: DictConfig) -> Iterator[None]:
    """Let `${hydra:...}` refer to this config."""
    hydra = HydraConfig.instance()
    before = hydra.cfg
    hydra.set_config(composed)
    try:
        yield
    finally:
        hydra.cfg = before


def freeze(job: Job) -> None:
    """Write down the config of a job, and what was typed for it."""
    write_text(job.folder / JOB_CONFIG, OmegaConf.to_yaml(job.config))
    write_text(job.folder / OVERRIDES, yaml.safe_dump(job.overrides, allow_unicode=True))


def restore(job: Job) -> None:
    """Give a job that was started before the config that was frozen then."""
    frozen = frozen_config(job.folder, job.config)
    if frozen != job.config:
        log.warning(
            "%s keeps the settings that it was started with; the YAML files have changed since.",
            job.label,
        )
        job.config = frozen


def frozen_config(folder: Path, composed: DictConfig) -> DictConfig:
    """The config with which a job was started first; `composed` if this is its first start.

    Raises:
        UserError: the file in the folder is damaged or not to be trusted.
    """
    path = folder / JOB_CONFIG
    return OmegaConf.create(read_stored_config(path, composed)) if path.is_file() else composed
