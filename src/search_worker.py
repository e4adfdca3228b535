"""One worker of a search: it asks the study for trials, runs them, some at a time, and tells the study how they go.

Every trial holds a lock on its folder, which its process inherits. A trial that the study calls running and that nobody holds was cut
off: whoever proposes the next trial lets it go on from its last checkpoint. Importing this needs Optuna; `src/search.py` says so.
"""

import csv
import ctypes
import json
import logging
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import optuna
import yaml
from filelock import FileLock
from omegaconf import DictConfig
from optuna.distributions import BaseDistribution
from optuna.trial import Trial, TrialState

from hydra_plugins.processes import cores, signals_raise, visible_gpus
from src import charts
from src.command_line import quoted
from src.errors import UserError
from src.job_folder import OVERRIDES, last_checkpoint, record, status
from src.run_folder import read_json, write_text
from src.sweep_summary import line, write_summary

log = logging.getLogger(__name__)
SCRIPT = Path(__file__).parent.parent / "train.py"
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)


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


def overrides(settings: dict[str, Any]) -> list[str]:
    """A trial's settings as they are typed."""
    return [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in settings.items()]
