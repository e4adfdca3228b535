"""One worker of a search: it takes trials from the study, runs them, and reports to the study.

Several workers may share a study. Each holds a lock for its life, whose name its trials carry: a
trial in the state RUNNING whose lock is free was cut off, and the next worker resumes it. Optuna's
heartbeat does not do this: it beats in `study.optimize` only, not with `ask` and `tell`.
"""

import csv
import math
import random
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
from hydra.core.config_loader import ConfigLoader
from omegaconf import DictConfig
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, Trial, TrialState

from ..errors import UserError
from ..reporting.sweep_plots import importances, search_history
from ..runs.files import Lock, read_json
from ..runs.run_folder import RunFolder, last_checkpoint, set_status, status
from .compose import compose_run, freeze, frozen_config
from .pool import Pool
from .resources import slot_environments
from .space import to_overrides
from .summary import describe_result, update_summary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SAMPLERS = {"random": optuna.samplers.RandomSampler, "tpe": optuna.samplers.TPESampler}
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)
MIN_TRIALS_FOR_IMPORTANCES = 5


@dataclass(eq=False)
class TrialJob:
    """A trial that this worker runs."""

    trial: Trial
    folder: Path
    max_epochs: int | None
    reported: set[int] = field(default_factory=set)  # epochs
    read_at: int = 0  # modification time of metrics.csv when it was read

    @property
    def label(self) -> str:
        return f"Trial {self.folder.name}"


class SearchWorker:
    """Runs trials until the study has enough of them.

    Args:
        cfg: conf/search.yaml with what was typed.
        study: where trials come from.
        space: from `read_space`.
        fixed: overrides of every trial.
        folder: of the study.
        loader: Hydra's.
    """

    def __init__(
        self,
        cfg: DictConfig,
        study: optuna.Study,
        space: Mapping[str, BaseDistribution],
        fixed: Sequence[str],
        folder: Path,
        loader: ConfigLoader,
    ):
        if cfg.sampler not in SAMPLERS:
            raise UserError(
                f"There is no sampler={cfg.sampler}.", f"Choose one of {', '.join(SAMPLERS)}."
            )
        study.pruner = optuna.pruners.NopPruner()
        if cfg.pruner is not None:
            startup, warmup = cfg.pruner.startup_trials, cfg.pruner.warmup_epochs
            study.pruner = optuna.pruners.MedianPruner(startup, warmup)
        self.cfg, self.study, self.space, self.fixed = cfg, study, space, fixed
        self.folder, self.loader = folder, loader
        self.study_lock = Lock(folder / ".study.lock")
        self.name = uuid.uuid4().hex
        self.failures = 0  # in a row
        environments = slot_environments([cfg.trainer], cfg.workers, cfg.workers)
        self.pool: Pool[TrialJob] = Pool(
            environments, True, self._report_start, self._watch, self._finish
        )

    def run(self) -> None:
        """Run trials until the study has enough. Those that are ended early can be resumed."""
        path = self._lock_path(self.name)
        try:
            with Lock(path):
                self.pool.run(self._jobs())
        finally:
            path.unlink(missing_ok=True)
            self._summarize()

    def _lock_path(self, worker: str) -> Path:
        return self.folder / ".workers" / worker

    def _jobs(self) -> Iterator[TrialJob | None]:
        """Jobs for the pool; None while other trials, which may be cut off, are running."""
        waiting = False
        while True:
            trial = self._claim()
            if trial is not None:
                yield self._prepare(trial)
                continue
            running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
            if not running:
                return
            if not waiting and self.name not in map(_worker, running):
                print("Waiting for the trials of other workers.", flush=True)
                waiting = True
            yield None

    def _claim(self) -> Trial | None:
        """The next trial: one that was cut off, or a new one; None if the study has enough."""
        with self.study_lock:
            for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                if self._is_cut_off(trial):
                    self._requeue(trial)
            trials = self.study.get_trials(deepcopy=False)
            states = (*ENDED, TrialState.RUNNING)
            if sum(trial.state in states for trial in trials) >= self.cfg.n_trials:
                return None
            # Workers that shared a seed would propose the same trials.
            seed = random.Random(f"{self.cfg.seed} {len(trials)}").getrandbits(32)
            self.study.sampler = SAMPLERS[self.cfg.sampler](seed=seed)
            proposed = self.study.ask(dict(self.space))
            proposed.set_user_attr("worker", self.name)
            proposed.set_user_attr("folder", self._trial_folder(proposed).name)
            return proposed

    def _is_cut_off(self, trial: FrozenTrial) -> bool:
        worker = _worker(trial)
        if worker is not None and Lock.is_held(self._lock_path(worker)):
            return False
        return not RunFolder(self._trial_folder(trial)).is_used_elsewhere()

    def _requeue(self, trial: FrozenTrial) -> None:
        """Let a trial that was cut off run again, in the same folder."""
        folder = self._trial_folder(trial)
        if status(folder) in ("completed", "pruned"):  # only its worker could not tell the study
            self._tell(trial.number, folder)
            return
        self.study.tell(trial.number, state=TrialState.FAIL)
        if set(trial.params) == set(self.space):
            self.study.enqueue_trial(trial.params, {"folder": folder.name})

    def _trial_folder(self, trial: Trial | FrozenTrial) -> Path:
        return self.folder / trial.user_attrs.get("folder", str(trial.number))

    def _prepare(self, trial: Trial) -> TrialJob:
        folder = self._trial_folder(trial)
        overrides = [*self.fixed, *to_overrides(trial.params), "test=false"]
        config = frozen_config(folder, compose_run(self.loader, overrides), f"Trial {folder.name}")
        freeze(folder, config, overrides)
        return TrialJob(trial, folder, config.trainer.max_epochs)

    def _report_start(self, job: TrialJob) -> None:
        resumed = " is resumed" if last_checkpoint(job.folder) else ""
        settings = " ".join(to_overrides(job.trial.params))
        print(f"{job.label}{resumed}: {settings}", flush=True)

    def _watch(self, job: TrialJob) -> None:
        """Report new epochs, and end a trial that is worse than the others were by then."""
        losses = _new_losses(job)
        if not losses:
            return
        self._report_losses(job, losses)
        epoch = max(losses)
        finished = job.max_epochs is not None and epoch + 1 == job.max_epochs
        if finished or not job.trial.should_prune():
            return
        self.pool.stop(job)
        if status(job.folder) != "completed":
            reason = f"val/loss {losses[epoch]:.4f} in epoch {epoch + 1} is worse than the median"
            set_status(job.folder, "pruned", reason)

    def _report_losses(self, job: TrialJob, losses: Mapping[int, float]) -> None:
        for epoch in sorted(losses.keys() - job.reported):
            job.trial.report(losses[epoch], epoch)
            job.reported.add(epoch)

    def _finish(self, job: TrialJob) -> None:
        self._report_losses(job, _new_losses(job))
        self._tell(job.trial, job.folder)
        print(f"{job.label}: {describe_result(job.folder)}", flush=True)
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
            loss = read_json(folder / "results.json")["val"]["loss"]
            if math.isfinite(loss):
                self.study.tell(trial, loss)
                return
            set_status(folder, "failed", f"val/loss is {loss}")
        self.study.tell(trial, state=TrialState.PRUNED if state == "pruned" else TrialState.FAIL)

    def _summarize(self) -> None:
        if any(self.study.get_trials(deepcopy=False)):
            update_summary(self.folder, "search", lambda: search_figures(self.study))


def _worker(trial: FrozenTrial) -> str | None:
    return trial.user_attrs.get("worker")


def _new_losses(job: TrialJob) -> dict[int, float]:
    """Validation losses by epoch, if there are new ones."""
    table = job.folder / "metrics.csv"
    written_at = table.stat().st_mtime_ns if table.is_file() else 0
    if written_at == job.read_at:
        return {}
    job.read_at = written_at
    with open(table, newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row.get("val/loss")]
    return {int(row["epoch"]): float(row["val/loss"]) for row in rows}


def search_figures(study: optuna.Study) -> list[tuple[str, "Figure"]]:
    """Plots of a study, with their titles."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    values = [(trial.number, trial.value) for trial in complete if trial.value is not None]
    figures = [("Validation loss by trial", search_history(values))]
    differ = len({value for _, value in values}) > 1
    if len(values) >= MIN_TRIALS_FOR_IMPORTANCES and differ:
        fractions = optuna.importance.get_param_importances(study)
        figures.append(("Importance for the validation loss", importances(fractions)))
    return figures
