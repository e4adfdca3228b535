"""Searches: a sampler proposes trials, each is `train.py` in a process of its own, and a study on disk outlives them all.

A study is a folder: `study.db` (Optuna's storage in SQLite), a run folder a trial, `summary.csv`, `summary.md`, `search.html`. Whoever
types the same command works on the same study: later it goes on, meanwhile it is a second worker. Trials never see the test split.
"""

import json
import logging
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from src import config_check
from src.command_line import hydra_problem
from src.errors import UserError

try:
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
    from optuna.trial import TrialState
except ImportError:
    raise UserError("Searches need Optuna, which is not installed.", 'Install it: pip install -e ".[optuna]"') from None

from src.search_worker import Worker, overrides, sum_up

log = logging.getLogger(__name__)
OWN = ("n_trials", "workers", "sampler", "pruner", "max_failures", "search", "test")  # keys that are no trial's business
FORBIDDEN = ("test", "resume", "check")


def search(cfg: DictConfig, typed: Sequence[str], folder: Path) -> float | None:
    """Work on a study until it has `cfg.n_trials` complete or pruned trials, then sum it up.

    Args:
        cfg: conf/search.yaml with what was typed.
        typed: the command line's overrides; all but the search's own hold for every trial.
        folder: of the study.

    Returns:
        The lowest validation loss; None where no trial is complete.

    Raises:
        UserError: a space that cannot be searched, a folder that holds another search, too many failures in a row.
    """
    if cfg.test:
        raise UserError("A search never sees the test split.", "Leave test=true out; the run with the best settings tests them once.")
    if cfg.resume or cfg.check:
        raise UserError(
            "A search goes on by itself, and checks its space at the start.",
            "Type the command that it was started with, without resume= and check=.",
        )
    if cfg.n_trials < 1 or cfg.workers < 1:
        raise UserError(f"n_trials={cfg.n_trials} workers={cfg.workers}: there is nothing to do.", "Give 1 or more of both.")
    fixed = [override for override in typed if _key(override) not in OWN]
    space = read_space(cfg.search)
    check(space, fixed)
    study = open_study(folder, {"fixed": fixed, "space": OmegaConf.to_container(cfg.search)})
    try:
        Worker(cfg, study, space, fixed, folder).run()
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on.", file=sys.stderr)
        sys.exit(130)
    finally:
        sum_up(study, folder)
    return close(study, fixed, folder)


def read_space(node: DictConfig) -> dict[str, "BaseDistribution"]:
    """Keys of a run, with what may be put in for each: see conf/search.

    Raises:
        UserError: anything that is neither a range nor a choice.
    """
    space: dict[str, BaseDistribution] = {}
    for key, value in node.items():
        if key.lstrip("+~") in FORBIDDEN:
            raise UserError(f"search: {key} cannot be searched.", "A search never sees the test split, and goes on by itself.")
        if isinstance(value, ListConfig) and len(value):
            items = OmegaConf.to_container(value, resolve=True)
            space[key] = CategoricalDistribution([json.dumps(item) if isinstance(item, list | dict) else item for item in items])
            continue
        bounds = OmegaConf.to_container(value, resolve=True) if isinstance(value, DictConfig) else {}
        numbers = [bounds.get("low"), bounds.get("high"), bounds.get("step", 1)]
        known = {"low", "high"} <= set(bounds) <= {"low", "high", "log", "step"}
        if not known or not all(isinstance(number, int | float) and not isinstance(number, bool) for number in numbers):
            raise UserError(
                f"search: {key} is neither a range nor a choice: {value}.",
                "Write {low: 1e-4, high: 1e-1, log: true} for a number, [sgd, adam] for a choice.",
            )
        whole = all(isinstance(number, int) for number in numbers)
        try:
            space[key] = (IntDistribution if whole else FloatDistribution)(**bounds)
        except ValueError as error:
            raise UserError(f"search: {key}: {error}", "Check low, high, log and step.") from None
    if not space:
        raise UserError("There is nothing to search.", "Choose search=optimizer, or write a file of your own into conf/search.")
    return space


def check(space: dict[str, Any], fixed: Sequence[str]) -> None:
    """Compose a run at the ends of each range and with each choice, so that a slip shows before the first trial."""
    loader = GlobalHydra.instance().config_loader()
    for override in fixed:
        if _key(override) in space:
            raise UserError(f"{_key(override)} is given and searched.", f"Leave {override} out, or the key out of conf/search.")
    groups = [key for key, values in space.items() if isinstance(values, CategoricalDistribution)]
    first = {key: values.choices[0] if key in groups else values.low for key, values in space.items()}
    for key, values in space.items():
        for value in values.choices if key in groups else [values.high]:
            try:
                composed = loader.load_configuration("config", [*fixed, *overrides(first | {key: value})], RunMode.RUN)
                with open_dict(composed):
                    del composed["hydra"]
                config_check.check(OmegaConf.to_container(composed, resolve=True))
            except UserError as error:
                raise UserError(f"search: {key}={value}: {error.problem}", error.remedy) from None
            except (HydraException, OmegaConfBaseException) as error:
                problem, remedy = hydra_problem(error) or (str(error), "Check conf/search.")
                raise UserError(f"search: {key}={value}: {problem}", remedy) from None


def _key(override: str) -> str:
    key = override.partition("=")[0].lstrip("+~")
    return "pruner" if key.startswith("pruner.") else key


def open_study(folder: Path, asked: dict[str, Any]) -> "optuna.Study":
    """The study of a folder, made if need be.

    Raises:
        UserError: the folder holds another search.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".study.lock"):
        storage = optuna.storages.RDBStorage(f"sqlite:///{folder / 'study.db'}", {"connect_args": {"timeout": 60}})
        study = optuna.create_study(storage=storage, study_name="search", load_if_exists=True)
        before = study.user_attrs.get("asked", asked)
        if before != asked:
            raise UserError(
                f"{folder} holds another search: {' '.join(before['fixed'])} over {', '.join(before['space'])}.",
                "Type the command that it was started with, or put this one elsewhere: hydra.run.dir=studies/NAME.",
            )
        study.set_user_attr("asked", asked)
    return study


def close(study: "optuna.Study", fixed: Sequence[str], folder: Path) -> float | None:
    """Say what was found; returns the lowest validation loss."""
    states = [trial.state for trial in study.get_trials(deepcopy=False)]
    print(f"\n{states.count(TrialState.COMPLETE)} trials complete, {states.count(TrialState.PRUNED)} pruned.")
    print(folder / "search.html")
    if TrialState.COMPLETE not in states:
        return None
    best = study.best_trial
    print(f"Best: trial {best.user_attrs['folder']}, val/loss {best.value:.4f}. To train and test it:")
    print(shlex.join(["python", "train.py", *fixed, *overrides(best.params)]), flush=True)
    return best.value
