"""What Hydra calls before it writes into the folder of a run or of a sweep."""

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from ..runs.reading import check_folder
from .cli import two_line_errors


class FolderCheck(Callback):
    """Refuses a folder whose links lead out of it; named in the files of conf."""

    def on_run_start(self, config: DictConfig, **kwargs) -> None:
        _check(config, "run")

    def on_multirun_start(self, config: DictConfig, **kwargs) -> None:
        _check(config, "sweep")


def _check(config: DictConfig, mode: str) -> None:
    with two_line_errors():  # Hydra would warn only
        HydraConfig.instance().set_config(config)  # for ${hydra:...} in the name
        check_folder(Path(config.hydra[mode].dir))
