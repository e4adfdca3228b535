"""Searches: a sampler proposes trials, each is `train.py` in a process of its own, and a study on disk outlives them all.

A study is a folder: `study.db` (Optuna's storage in SQLite), a run folder a trial, `summary.csv`, `summary.md`, `search.html`. Whoever
types the same command works on the same study: later it goes on, meanwhile it is a second worker. Trials never see the test split.

Every trial holds a lock on its folder, which its process inherits. A trial that the study calls running and that nobody holds was cut
off: whoever proposes the next trial lets it go on from its last checkpoint.
"""

import csv
import ctypes
import json
import logging
import math
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import yaml
from filelock import FileLock
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from hydra_plugins.processes import cores, signals_raise, visible_gpus
from src import charts, config_check
from src.command_line import hydra_problem, quoted
from src.errors import UserError
from src.run_folder import read_json, write_text
from src.sweep import OVERRIDES, last_checkpoint, record, status
from src.sweep_summary import line, write_summary

try:
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
    from optuna.trial import Trial, TrialState
except ImportError:
    raise UserError("Searches need Optuna, which is not installed.", 'Install it: pip install -e ".[optuna]"') from None

log = logging.getLogger(__name__)
SCRIPT = Path(__file__).parent.parent / "train.py"
OWN = ("n_trials", "workers", "sampler", "pruner", "max_failures", "search", "test")  # keys that are no trial's business
FORBIDDEN = ("test", "resume", "check")
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)


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


def overrides(settings: dict[str, Any]) -> list[str]:
    """A trial's settings as they are typed."""
    return [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in settings.items()]


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


@dataclass
class Attempt:
    """A trial that this worker runs."""

    trial: "Trial"
    folder: Path
    lock: IO  # open file; the process inherits it
    slot: int
    process: Any = None  # subprocess.Popen, once it is started
    reported: set[int] = field(default_factory=set)  # epochs
    seen: float = 0.0  # when metrics.csv was written that was read last


class Worker:
    """Proposes trials and runs them, some at a time, beside other workers of the same study.

    Args:
        cfg: conf/search.yaml with what was typed.
        study: from `open_study`.
        space: from `read_space`.
        fixed: overrides of every trial.
        folder: of the study.
    """

    def __init__(self, cfg: DictConfig, study: "optuna.Study", space: dict[str, "BaseDistribution"], fixed: Sequence[str], folder: Path):
        self.cfg, self.study, self.space, self.fixed, self.folder = cfg, study, space, fixed, folder
        self.claims = FileLock(folder / ".study.lock")
        self.running: list[Attempt] = []
        self.failures = 0  # in a row
        self.gpus = visible_gpus([cfg.trainer]) if cfg.workers > 1 and cfg.trainer.devices == 1 else []
        self.samplers: dict[str, Callable] = {
            "random": optuna.samplers.RandomSampler,
            "tpe": optuna.samplers.TPESampler,
        }
        if cfg.sampler not in self.samplers:
            raise UserError(f"There is no sampler={cfg.sampler}.", f"Choose one of {', '.join(self.samplers)}.")
        self.study.pruner = optuna.pruners.NopPruner()
        if cfg.pruner is not None:
            self.study.pruner = optuna.pruners.MedianPruner(cfg.pruner.startup_trials, cfg.pruner.warmup_epochs)

    def run(self) -> None:
        """Until the study has its trials. Whoever ends the worker ends its trials too; they can go on."""
        told = False
        with signals_raise():
            try:
                while True:
                    for attempt in list(self.running):
                        self._watch(attempt)
                    while len(self.running) < self.cfg.workers and (claimed := self._claim()):
                        self._start(claimed)
                    if not self.running:
                        if not self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                            return
                        if not told:  # one of them may yet be cut off
                            print("Waiting for the trials of other workers.", flush=True)
                        told = True
                    time.sleep(0.2 if self.running else 1.0)
            except BaseException:
                for attempt in self.running:
                    _stop(attempt.process)
                    attempt.lock.close()
                raise

    def _claim(self) -> Attempt | None:
        """The next trial: one that was cut off, or a new one; None if the study has enough."""
        with self.claims:
            trials = self.study.get_trials(deepcopy=False)
            running = [trial for trial in trials if trial.state == TrialState.RUNNING]
            for trial in running:
                name = trial.user_attrs.get("folder", str(trial.number))
                if (lock := _hold(self.folder / name)) is None:
                    continue
                lock.close()
                self.study.tell(trial.number, state=TrialState.FAIL)
                if trial.params:
                    self.study.enqueue_trial(trial.params, {"folder": name})
                running = [other for other in running if other is not trial]
            if sum(trial.state in ENDED for trial in trials) + len(running) >= self.cfg.n_trials:
                return None
            # Of its own for every trial: workers that shared a seed would propose the same.
            seed = random.Random(f"{self.cfg.seed} {len(trials)}").getrandbits(32)
            self.study.sampler = self.samplers[self.cfg.sampler](seed=seed)
            asked = self.study.ask(self.space)
            name = asked.user_attrs.get("folder", str(asked.number))
            asked.set_user_attr("folder", name)
            slot = next(i for i in range(self.cfg.workers) if i not in [attempt.slot for attempt in self.running])
            lock = _hold(self.folder / name)
            assert lock is not None  # who could hold it waits for `claims`
            attempt = Attempt(asked, self.folder / name, lock, slot)
            self.running.append(attempt)
            return attempt

    def _start(self, attempt: Attempt) -> None:
        if status(attempt.folder) == "completed":  # and its worker could not say so any more
            self._end(attempt)
            return
        asked = [*self.fixed, *overrides(attempt.trial.params), "test=false"]
        (attempt.folder / OVERRIDES).parent.mkdir(exist_ok=True)
        write_text(attempt.folder / OVERRIDES, yaml.safe_dump(asked))
        where = f"hydra.run.dir={quoted(str(attempt.folder))}"
        command = [sys.executable, str(SCRIPT), *asked, where, "hydra.output_subdir=null"]
        if last := last_checkpoint(attempt.folder):
            command.append(f"resume={last}")
        environment = dict(os.environ)
        if self.cfg.workers > 1:
            environment.setdefault("OMP_NUM_THREADS", str(max(1, cores() // self.cfg.workers)))
        if len(self.gpus) > 1:
            environment["CUDA_VISIBLE_DEVICES"] = self.gpus[attempt.slot % len(self.gpus)]
        with open(attempt.folder / "output.log", "ab") as output:
            attempt.process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that Ctrl-C reaches the worker alone, and each trial is ended once
                pass_fds=() if os.name == "nt" else (attempt.lock.fileno(),),
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )
        print(f"{self._name(attempt)}{' goes on' if last else ''}: {' '.join(overrides(attempt.trial.params))}", flush=True)

    def _name(self, attempt: Attempt) -> str:
        return f"Trial {attempt.folder.name}"

    def _watch(self, attempt: Attempt) -> None:
        """Tell the study of new epochs, and end a trial that is hopeless."""
        ended = attempt.process.poll() is not None
        table = attempt.folder / "metrics.csv"
        written = table.stat().st_mtime_ns if table.is_file() else 0
        if written != attempt.seen:
            attempt.seen = written
            with open(table, newline="", encoding="utf-8") as file:
                losses = {int(row["epoch"]): float(row["val/loss"]) for row in csv.DictReader(file) if row.get("val/loss")}
            for epoch in sorted(losses.keys() - attempt.reported):
                attempt.trial.report(losses[epoch], epoch)
                attempt.reported.add(epoch)
            epochs = yaml.safe_load((attempt.folder / "config.yaml").read_text(encoding="utf-8"))["trainer"]["max_epochs"] or 0
            hopeful = ended or not losses or max(losses) + 1 >= epochs > 0
            if not hopeful and attempt.trial.should_prune():
                _stop(attempt.process)
                last = max(losses)
                record(attempt.folder, "pruned", f"val/loss {losses[last]:.4f} in epoch {last + 1} is worse than the median")
                self._end(attempt)
                return
        if ended:
            self._end(attempt)

    def _end(self, attempt: Attempt) -> None:
        """Tell the study how a trial ended."""
        state, loss = status(attempt.folder), None
        if state in ("waiting", "running"):  # it could not tell itself
            code = attempt.process.returncode
            how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code} before it could say why"
            record(attempt.folder, "failed", how)
        elif state == "completed":
            loss = read_json(attempt.folder / "results.json")["val"]["loss"]
        if loss is not None and not math.isfinite(loss):
            record(attempt.folder, "failed", f"val/loss is {loss}")
            loss = None
        with self.claims:  # nobody may find it running and its folder free
            if loss is not None:
                self.study.tell(attempt.trial, loss)
            else:
                self.study.tell(attempt.trial, state=TrialState.PRUNED if state == "pruned" else TrialState.FAIL)
            attempt.lock.close()
        self.running.remove(attempt)
        print(f"{self._name(attempt)}: {line(attempt.folder)}", flush=True)
        sum_up(self.study, self.folder)
        failed = loss is None and state != "pruned"
        self.failures = self.failures + 1 if failed else 0
        if self.failures >= self.cfg.max_failures:
            raise UserError(
                f"{self.failures} trials failed in a row; the last one: {read_json(attempt.folder / 'results.json')['error']}",
                f"{attempt.folder / 'output.log'} has its output. The same command goes on once the cause is removed.",
            )


def _hold(folder: Path) -> IO | None:
    """An open file that locks a trial's folder for this process and those that inherit it; None where another has it."""
    folder.mkdir(exist_ok=True)
    file = open(folder / ".lock", "a")  # noqa: SIM115 (closed when the trial ends)
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file


LIBC: Any = ctypes.CDLL(None) if sys.platform == "linux" else None


def _die_with_parent() -> None:
    """Linux: a trial whose worker is killed goes with it (PR_SET_PDEATHSIG); elsewhere it runs on and keeps its lock."""
    LIBC.prctl(1, signal.SIGKILL)


def _stop(process: subprocess.Popen | None) -> None:
    """End a trial and the processes that it has started."""
    if process is None or process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(30)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        process.kill()
        process.wait()
    if os.name != "nt":
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


def sum_up(study: "optuna.Study", folder: Path) -> None:
    """Write `summary.csv`, `summary.md` and `search.html`, which must never cost a trial."""
    try:
        complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        shown = {"Validation loss by trial": charts.history([(trial.number, trial.value) for trial in complete if trial.value is not None])}
        if importances := importance(study):
            shown["Importance for the validation loss"] = charts.shares(importances)
        if any(folder.glob(f"*/{OVERRIDES}")):
            write_summary(folder, "search", shown)
    except Exception:
        log.warning("The summary of %s could not be written.", folder, exc_info=True)


def importance(study: "optuna.Study") -> dict[str, float]:
    """How much of the validation loss each key decides, the largest first; nothing while there is little to tell it from."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(complete) < 5 or len({trial.value for trial in complete}) == 1:
        return {}
    return optuna.importance.get_param_importances(study)


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
