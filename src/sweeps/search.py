"""Searches: a sampler of Optuna proposes trials, each of which is a run in a process of its own.

A study is a folder: `study.db` (Optuna's storage in SQLite), a run folder for each trial, and a
summary. The same command continues it, or is a second worker of it. Trials never see the test
split.
"""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from ..config.cli import MODES
from ..config.console import show
from ..errors import UserError
from .processes import start_server

if TYPE_CHECKING:
    import optuna

# Settings of the search itself, which its trials do not have.
OWN_SETTINGS = ("n_trials", "workers", "sampler", "pruner", "max_failures", "search", "test")


def search(cfg: DictConfig, typed: Sequence[str], folder: Path) -> None:
    """Work on a study until it has `cfg.n_trials` complete or pruned trials.

    Args:
        cfg: conf/search.yaml with what was typed.
        typed: the overrides of the command line; all but those of the search hold for each trial.
        folder: of the study.

    Raises:
        UserError: a space that cannot be searched, a folder that holds another search, or too many
            failures in a row.
    """
    try:
        import optuna
    except ImportError:
        raise UserError(
            "Searches need Optuna, which is not installed.",
            'Install it: pip install -e ".[optuna]"',
        ) from None
    from .space import check_space, read_space, setting_name
    from .study import open_study
    from .trials import SearchWorker

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    _check_settings(cfg)
    start_server()
    fixed = [item for item in typed if setting_name(item).partition(".")[0] not in OWN_SETTINGS]
    space = read_space(cfg.search)
    check_space(space, fixed)
    settings = {"fixed": fixed, "space": OmegaConf.to_container(cfg.search)}
    study = open_study(folder, settings, space)
    try:
        SearchWorker(cfg, study, space, fixed, folder).work()
    except KeyboardInterrupt:
        show("\nStopped. The same command continues the search.", error=True)
        sys.exit(130)
    _report(study, fixed, folder)


def _check_settings(cfg: DictConfig) -> None:
    if cfg.test:
        raise UserError(
            "A search never sees the test split.",
            "Leave test=true out; train with the best settings afterwards to test them once.",
        )
    for key in ("resume", "check", *MODES):
        if cfg.get(key):
            raise UserError(
                f"{key} is not possible in a search, which checks and resumes its runs by itself.",
                f"Type the command without {key}=...",
            )
    if cfg.n_trials < 1 or cfg.workers < 1:
        raise UserError(
            f"n_trials={cfg.n_trials} workers={cfg.workers}: there is nothing to do.",
            "Set both to 1 or more.",
        )


def _report(study: "optuna.Study", fixed: Sequence[str], folder: Path) -> None:
    """Print the result, and the command that trains and tests the best trial."""
    from .space import to_overrides
    from .trials import trial_folder

    states = [trial.state.name for trial in study.get_trials(deepcopy=False)]
    complete = states.count("COMPLETE")
    show(f"\n{complete} trials complete, {states.count('PRUNED')} pruned.")
    show(str(folder / "search.html"))
    if not complete:
        return
    best = study.best_trial
    command = shlex.join(["python", "train.py", *fixed, *to_overrides(best.params)])
    show(f"Best: trial {trial_folder(best)}, val/loss {best.value:.4f}.")
    show(f"To train and test it:\n{command}")
