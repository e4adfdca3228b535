"""Opening the study of a search, whose folder may come from somebody else."""

import errno
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial
from sqlalchemy.exc import SQLAlchemyError

from ..errors import UserError
from ..runs.files import Lock

MAX_BYTES = 100_000_000  # of study.db
NAMES_OTHERS = bytes.fromhex("d9d505f920a163d7")  # end of a journal of several databases
TABLES = "SELECT type, sql FROM sqlite_master WHERE type IN ('table', 'view', 'trigger')"
# What SQLite, SQLAlchemy and Optuna raise for files that hold something else.
DAMAGED = (sqlite3.Error, RuntimeError, ValueError, LookupError, TypeError, AttributeError)


def open_study(
    folder: Path, settings: dict[str, Any], space: Mapping[str, BaseDistribution]
) -> optuna.Study:
    """Open the study of a folder, or make it.

    Args:
        settings: the fixed overrides and the space of the search.
        space: the same space as Optuna has it.

    Raises:
        UserError: the folder holds another search, or a file that is not one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "study.db"
    with Lock(folder / ".study.lock"):
        try:
            _check_database(path)
            storage = optuna.storages.RDBStorage(
                f"sqlite:///{path}", {"connect_args": {"timeout": 60}}
            )
            study = optuna.create_study(storage=storage, study_name="search", load_if_exists=True)
            before = study.user_attrs.get("settings", settings)
            trials = study.get_trials(deepcopy=False)
        except (*DAMAGED, SQLAlchemyError, optuna.exceptions.OptunaError) as error:
            reason = " ".join(str(error).split())[:200]
            if "disk is full" in reason:  # SQLite's words
                raise OSError(errno.ENOSPC, "No space left on device", str(path)) from None
            raise _refused(path, f"it cannot be read: {reason}") from None
        if before != settings:
            raise _other_search(folder, before)
        if not all(_is_in(space, trial) for trial in trials):
            raise _refused(path, "it holds a trial with settings that this search does not try")
        study.set_user_attr("settings", settings)
    return study


def _check_database(path: Path) -> None:
    """Raise a ValueError for what Optuna does not make: reading a view can take forever."""
    if not path.exists():
        return
    journal = path.with_name(f"{path.name}-journal")  # of a process that was killed
    if journal.is_file() and journal.read_bytes()[-8:] == NAMES_OTHERS:
        raise ValueError(f"{journal.name} names other files, which SQLite would delete")
    if not path.is_file() or path.stat().st_size > MAX_BYTES:
        raise ValueError(f"it is not a file of at most {MAX_BYTES:,} bytes")
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)) as database:
        for kind, text in database.execute(TABLES):
            if kind != "table" or not str(text).upper().startswith("CREATE TABLE"):
                raise ValueError("it holds more than tables")


def _is_in(space: Mapping[str, BaseDistribution], trial: FrozenTrial) -> bool:
    """Whether the settings of a trial are of this space."""
    fixed = trial.system_attrs.get("fixed_params", {})
    if not isinstance(fixed, dict) or any(
        trial.distributions[key] != space.get(key) for key in trial.params
    ):
        return False
    return all(
        key in space and _holds(space[key], value)
        for key, value in [*fixed.items(), *trial.params.items()]
    )


def _holds(distribution: BaseDistribution, value: Any) -> bool:
    try:
        return distribution._contains(distribution.to_internal_repr(value))
    except (ValueError, TypeError):
        return False


def _other_search(folder: Path, before: Any) -> UserError:
    known = isinstance(before, dict) and isinstance(before.get("fixed"), list)
    typed = " ".join(map(str, before["fixed"])) if known else "unknown settings"
    space = ", ".join(map(str, before.get("space") or ())) if known else "an unknown space"
    return UserError(
        f"{folder} holds another search: {typed} over {space}.",
        "Type the command that it was started with, or choose another folder: "
        "hydra.run.dir=sweeps/NAME.",
    )


def _refused(path: Path, problem: str) -> UserError:
    return UserError(
        f"{path} is not used: {problem}.",
        "Check where it comes from, or choose another folder: hydra.run.dir=sweeps/NAME.",
    )
