"""One worker of a search: it takes trials from the study, runs them, and reports to the study.

Several workers may share a study. A worker locks the folder of each of its trials: one in the state
RUNNING whose lock is free was cut off, and the next worker resumes it. Optuna's heartbeat does not
do this: it works in `study.optimize` only, not with `ask` and `tell`.
"""

import math
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import optuna
from matplotlib.figure import Figure
from omegaconf import DictConfig
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, Trial, TrialState

from ..config.console import show
from ..errors import UserError
from ..reporting.sweep_plots import importances, search_history
from ..runs.files import Lock, read_json
from ..runs.reading import UNREADABLE, number, read_table
from ..runs.run_folder import RunFolder, last_checkpoint, set_status, status
from .compose import compose_run, freeze, restore
from .job_files import describe_result
from .pool import Job, Pool
from .resources import slot_environments
from .space import to_overrides
from .summary import update_summary

SAMPLERS = {"random": optuna.samplers.RandomSampler, "tpe": optuna.samplers.TPESampler}
COUNTED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
FOLDER_NAME = re.compile(r"[0-9]{1,9}")  # of a trial
TRIAL_LOCK = ".trial.lock"  # held by the worker of a trial
MIN_TRIALS_FOR_IMPORTANCES = 5


@dataclass(eq=False)
class TrialJob(Job):
    """A trial that this worker runs."""

    trial: Trial
    lock: Lock
    epoch: int = -1  # the last one that was reported
    read_at: int = 0  # modification time of metrics.csv when it was read
    prune_reason: str = ""


def trial_folder(trial: Trial | FrozenTrial) -> str:
    """The name of the folder of a trial: that of the trial which it continues, or its number."""
    name = trial.user_attrs.get("folder")
    return name if isinstance(name, str) and FOLDER_NAME.fullmatch(name) else str(trial.number)


class SearchWorker(Pool[TrialJob]):
    """Runs trials until the study has enough of them.

    Args:
        cfg: conf/search.yaml with what was typed.
        fixed: overrides of every trial.
        folder: of the study.
    """

    def __init__(
        self,
        cfg: DictConfig,
        study: optuna.Study,
        space: Mapping[str, BaseDistribution],
        fixed: Sequence[str],
        folder: Path,
    ):
        environments = slot_environments([cfg.trainer], cfg.workers, cfg.workers)
        super().__init__(environments, log_to_file=True)
        if cfg.sampler not in SAMPLERS:
            raise UserError(
                f"There is no sampler={cfg.sampler}.", f"Choose one of {', '.join(SAMPLERS)}."
            )
        study.pruner = optuna.pruners.NopPruner()
        if cfg.pruner is not None:
            startup, warmup = cfg.pruner.startup_trials, cfg.pruner.warmup_epochs
            study.pruner = optuna.pruners.MedianPruner(startup, warmup)
        self.cfg, self.study, self.space = cfg, study, space
        self.fixed, self.folder = fixed, folder
        self.failures = 0  # in a row

    def work(self) -> None:
        """Run trials until the study has enough. Those that are ended early can be resumed."""
        try:
            self.run(self.jobs())
        finally:
            self._summarize()

    def jobs(self) -> Iterator[TrialJob | None]:
        """Jobs for the pool; None while other trials, which may be cut off, are running."""
        waiting = False
        while True:
            job = self._claim()
            if job is None and not self._trials(TrialState.RUNNING):
                return
            if job is None and not waiting and not self._running:
                show("Waiting for the trials of other workers.")
                waiting = True
            yield job

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=states or None)

    def _claim(self) -> TrialJob | None:
        """The next trial: one that was cut off, or a new one; None if the study has enough."""
        with Lock(self.folder / ".study.lock"):
            for running in self._trials(TrialState.RUNNING):
                self._requeue_if_cut_off(running)
            if len(self._trials(*COUNTED)) >= self.cfg.n_trials:
                return None
            # Workers that shared a seed would propose the same trials.
            seed = random.Random(f"{self.cfg.seed} {len(self._trials())}").getrandbits(32)
            self.study.sampler = SAMPLERS[self.cfg.sampler](seed=seed)
            trial = self.study.ask(dict(self.space))
            folder = self.folder / trial_folder(trial)
            trial.set_user_attr("folder", folder.name)
            lock = Lock(folder / TRIAL_LOCK)
            lock.acquire()
        overrides = [*self.fixed, *to_overrides(trial.params), "test=false"]
        config = compose_run(overrides)
        job = TrialJob(f"Trial {folder.name}", folder, overrides, config, trial, lock)
        restore(job)
        freeze(job)
        return job

    def _requeue_if_cut_off(self, trial: FrozenTrial) -> None:
        """Let a trial whose worker is gone run again, in the same folder."""
        folder = self.folder / trial_folder(trial)
        if Lock.is_held(folder / TRIAL_LOCK) or RunFolder(folder).is_used_elsewhere():
            return
        if status(folder) in ("completed", "pruned"):  # only its worker could not tell the study
            self._tell(trial.number, folder)
            return
        self.study.tell(trial.number, state=TrialState.FAIL)
        if set(trial.params) == set(self.space):
            self.study.enqueue_trial(trial.params, {"folder": folder.name})

    def on_start(self, job: TrialJob) -> None:
        resumed = " is resumed" if last_checkpoint(job.folder) else ""
        settings = " ".join(to_overrides(job.trial.params))
        show(f"{job.label}{resumed}: {settings}")

    def should_stop(self, job: TrialJob) -> bool:
        """Whether a trial is worse than the others were after as many epochs."""
        loss = _report_losses(job)
        finished = job.epoch + 1 == job.config.trainer.max_epochs
        if loss is None or finished or not job.trial.should_prune():
            return False
        job.prune_reason = f"val/loss {loss:.4f} in epoch {job.epoch + 1} is worse than the median"
        return True

    def on_end(self, job: TrialJob) -> None:
        _report_losses(job)
        if job.prune_reason and status(job.folder) != "completed":
            set_status(job.folder, "pruned", job.prune_reason)
        self._tell(job.trial, job.folder)
        job.lock.release()
        show(f"{job.label}: {describe_result(job.folder)}")
        self._summarize()
        failed = status(job.folder) not in ("completed", "pruned")
        self.failures = self.failures + 1 if failed else 0
        if self.failures >= self.cfg.max_failures:
            error = read_json(job.folder / "results.json").get("error")
            raise UserError(
                f"{self.failures} trials failed in a row; the last one: {error}",
                f"See {job.folder / 'output.log'}. The same command continues the search once the "
                "cause is removed.",
            )

    def _tell(self, trial: Trial | int, folder: Path) -> None:
        """Tell the study how a trial ended. A loss that is not finite is a failure."""
        state = status(folder)
        if state == "completed":
            loss = number(read_json(folder / "results.json"), "val", "loss")
            if math.isfinite(loss):
                self.study.tell(trial, loss)
                return
            set_status(folder, "failed", f"val/loss is {loss}")
        self.study.tell(trial, state=TrialState.PRUNED if state == "pruned" else TrialState.FAIL)

    def _summarize(self) -> None:
        if self._trials():
            update_summary(self.folder, "search", self._figures)

    def _figures(self) -> list[tuple[str, Figure]]:
        """Plots of the study, with their titles."""
        complete = self._trials(TrialState.COMPLETE)
        losses = [(trial.number, trial.values[0]) for trial in complete]
        figures = [("Validation loss by trial", search_history(losses))]
        differ = len({loss for _, loss in losses}) > 1
        if len(losses) >= MIN_TRIALS_FOR_IMPORTANCES and differ:
            fractions = optuna.importance.get_param_importances(self.study)
            figures.append(("Importance for the validation loss", importances(fractions)))
        return figures


def _report_losses(job: TrialJob) -> float | None:
    """Report the epochs that are new in `metrics.csv`; returns the last loss, if there is one."""
    table = job.folder / "metrics.csv"
    written_at = table.stat().st_mtime_ns if table.is_file() else 0
    if written_at == job.read_at:
        return None
    job.read_at = written_at
    loss = None
    with suppress(*UNREADABLE, LookupError):  # of a run that has not started to write it
        for row in read_table(table):
            if row.get("val/loss") and int(row["epoch"]) > job.epoch:
                job.epoch, loss = int(row["epoch"]), float(row["val/loss"])
                job.trial.report(loss, job.epoch)
    return loss
