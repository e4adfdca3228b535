"""One run from the first step to the last line: fit, test the best checkpoint once, leave a complete folder."""

import errno
import logging
import math
import os
import shlex
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf

from src import checkpoint as ckpt
from src.build import build, build_trainer, checkpoint_callback, complete
from src.callbacks import Interrupted, Progress, StopSignals
from src.command_line import raised_in
from src.config_check import check
from src.datamodules import ImageDataModule
from src.datamodules.scan import scan
from src.errors import UserError
from src.findings import by_class, figures, write_findings
from src.loggers import EpochTable, TensorBoard
from src.report import write_report
from src.run_folder import RunFolder, command_line, flat, per_class, table, without_secrets
from src.tasks import ClassificationTask
from src.tasks.classification import LENGTHS

log = logging.getLogger(__name__)


def train(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Train as `cfg` says and write the run into `folder`.

    Returns:
        The content of `results.json`.

    Raises:
        UserError: whatever a person can put right; the folder says `failed` and why.
    """
    quieten()
    complete(cfg)
    first = is_first_process()
    if not first:
        logging.getLogger("src").setLevel(logging.ERROR)  # one process speaks for all
    if cfg.resume:
        check_resumable(cfg)  # before the folder of a run that may be complete is touched
    elif first and (folder / "checkpoints" / "last.ckpt").is_file():
        raise UserError(
            f"{folder} holds a run already.",
            f"Choose another folder, remove it, or go on with: python train.py {shlex.quote(f'resume={folder}')}",
        )
    run = RunFolder(folder, active=first)

    def failed(error: BaseException) -> None:
        text = error.problem if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        run.fail(text, "interrupted" if isinstance(error, KeyboardInterrupt | SystemExit) else "failed", seed=ckpt.to_plain(cfg.seed))

    with StopSignals(failed) as stop:
        try:
            run.start(OmegaConf.to_container(cfg, resolve=True), command_line())
            return _train(cfg, run, stop)
        except BaseException as error:
            told = explained(error, run.path)
            failed(told)
            if first:
                write_report(run.path)
            if isinstance(error, Interrupted) and (last := run.path / "checkpoints" / "last.ckpt").is_file():
                log.info("Go on with: python train.py %s", shlex.quote(f"resume={last}"))
            if told is error:
                raise
            raise told from error


def check_only(cfg: DictConfig, folder: Path) -> bool:
    """What `check=true` and `check=data` ask for: everything built as for a run, nothing trained; with `data`, every picture read.

    Args:
        folder: for what Lightning writes while it is set up.

    Returns:
        Whether the data are in order; True where they were not asked about.

    Raises:
        UserError: what would keep the run from starting.
    """
    quieten()
    complete(cfg)
    if cfg.resume:
        check_resumable(cfg)
    data, task = build(cfg)
    trainer = build_trainer(cfg, folder)
    found = None
    if cfg.check == "data":
        data.trainer = trainer
        found = scan(data)
        log.info("%s", found.report())
    parameters = sum(p.numel() for p in task.model.parameters())
    log.info("The config is fine: %s on %s, %s parameters, %s.", *_names(task, data), f"{parameters:,}", trainer.strategy.root_device)
    return found is None or not found.problems


def explained(error: BaseException, folder: Path) -> BaseException:
    """The error itself, or the `UserError` that says it in words a person can act on."""
    text = str(error)
    kept = next((path for name in ("last", "best") if (path := folder / "checkpoints" / f"{name}.ckpt").is_file()), None)
    go_on = f"go on with: python train.py {shlex.quote(f'resume={kept}')}" if kept else "start again."
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return UserError(f"The disk is full: {error.filename or folder} could not be written.", f"Make room, then {go_on}")
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return UserError(f"{error.filename or folder} cannot be written: {error.strerror}.", f"Put that right, then {go_on}")
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in text or "not enough memory" in text:
        return UserError(
            f"There was not enough memory: {text.splitlines()[0] if text else 'MemoryError'}",
            f"Lower data.batch_size (trainer.accumulate_grad_batches makes up for it) or data.image_size. To {go_on}",
        )
    if "DataLoader worker" in text and "killed by signal" in text:
        return UserError(
            f"A loader process was killed, most often for want of memory: {text.splitlines()[0]}",
            f"Lower data.num_workers or data.batch_size. To {go_on}",
        )
    if "does not have a deterministic implementation" in text:
        return UserError(text.partition(". ")[0] + ".", "Set trainer.deterministic=warn, or choose a network without this operation.")
    if isinstance(error, MisconfigurationException) or (isinstance(error, ValueError | TypeError) and raised_in(error, "lightning")):
        return UserError(f"trainer: {text.strip()}", "Check the keys under trainer (python train.py --cfg job shows them).")
    return error


def _train(cfg: DictConfig, run: RunFolder, stop: StopSignals) -> dict[str, Any]:
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    data, task = build(cfg)
    trainer = build_trainer(cfg, run.path, stop)
    if trainer.strategy.root_device.type == "cpu":
        # Lightning sets this to 1; every optimizer step then looks for NVIDIA's library anew where there is none.
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"
    data.trainer = trainer  # for choices that hang on the device
    trainer.strategy.connect(task)
    data.prepare_data()
    data.setup("fit")
    task.weigh(data.class_weights)
    parameters = sum(p.numel() for p in task.model.parameters())
    task.description["data"] = facts(data)
    run.note(data=task.description["data"], num_parameters=parameters, precision=str(trainer.precision), processes=trainer.world_size)
    sizes = ", ".join(f"{count:,} {split}" for split, count in data.sizes().items())
    log.info("%s on %s: %s parameters; %s pictures", *_names(task, data), f"{parameters:,}", sizes)

    step = _go_on(cfg, trainer) if cfg.resume else None
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoard):
            logger.begin(step)
    with onednn(cfg, trainer, data, task, parameters):
        trainer.fit(task, data, ckpt_path=cfg.resume, weights_only=True)

    run.note(automatic=task.automatic)
    # The checkpoints hold the averaged weights; behind the training their callbacks would bring back the others.
    trainer.callbacks = [callback for callback in trainer.callbacks if not isinstance(callback, WeightAveraging)]
    best, last = checkpoint_callback(trainer, "best"), checkpoint_callback(trainer, "last")
    checkpoint = best.best_model_path or f"{last.dirpath}/last.ckpt"
    # Under several processes one of them could see another's half-written file; Lightning's barrier comes with validate and test.
    trainer.validate(task, data, ckpt_path=checkpoint, weights_only=True, verbose=False)
    tested = bool(cfg.test) and data.has_test and cfg.trainer.get("limit_test_batches") != 0
    if tested:
        trainer.test(task, data, ckpt_path=checkpoint, weights_only=True, verbose=False)
    results = summarise(cfg, trainer, task, checkpoint, tested)
    split = "test" if tested else "val"
    write_findings(run, task, data, split)
    run.finish(results)
    if run.active:
        write_report(run.path, " on ".join(_names(task, data)), task, data, split)
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoard):
            logger.log_results(settings(cfg), final_figures(results), trainer.global_step)
    log.info("%s", table(per_class(task.classes, task.confusion[split])))
    log.info("%s", _closing_line(results, run.path))
    return results


def onednn(cfg: DictConfig, trainer: L.Trainer, data: ImageDataModule, task: ClassificationTask, parameters: int) -> AbstractContextManager:
    """Train without oneDNN where its set-up costs more than the arithmetic: LeNet on four pictures of 28x28 runs 1.5 times as fast.

    The bounds are tight because without it larger work is up to three times slower; `benchmarks/README.md` has the figures.
    """
    enabled = cfg.onednn
    if enabled is None:
        tiny = parameters < 100_000 and data.batch_size * data.image_size**2 <= 4 * 32**2
        enabled = not (tiny and trainer.strategy.root_device.type == "cpu")
        task.automatic["onednn"] = enabled
        if not enabled and task.channels_last is None:
            task.channels_last = task.automatic["channels_last"] = False  # that layout is oneDNN's
    return _without_onednn() if not enabled else nullcontext()


@contextmanager
def _without_onednn() -> Iterator[None]:
    flags: Any = torch.backends.mkldnn  # torch's own context manager sets more of them, and warns of them
    flags.enabled = False
    try:
        yield
    finally:
        flags.enabled = True


FIXED = ("seed", "model", "optimizer", "scheduler", "task", "data", "callbacks.ema", "callbacks.swa")  # what a resumed run keeps, but for:
FREE_OF_DATA = ("root", "num_workers", "pin_memory", "eval_batch_size", "device_resident", "cache_dir", "cache_gb", "bad_files")
FREE = ("task.compile", "task.channels_last", *(f"data.{name}" for name in FREE_OF_DATA))


def check_resumable(cfg: DictConfig) -> None:
    """Whether `cfg.resume` can be gone on from with this config.

    Raises:
        UserError: the checkpoint is damaged; a setting that the run cannot change on its way; a schedule laid out for another length.
    """
    config = OmegaConf.to_container(cfg, resolve=True)
    check(config)
    stored = ckpt.read(cfg.resume)
    before = stored["description"].get("config")
    if not before or not {"loops", "callbacks", "optimizer_states", "lr_schedulers", "epoch_sums"} <= set(stored):
        raise UserError(f"{cfg.resume} does not say how its run was set up.", "Resume from a checkpoint that train.py has written.")
    length = (before.get("trainer") or {}).get("max_epochs")
    if length not in (None, cfg.trainer.max_epochs) and any(name in cfg.scheduler for name in LENGTHS):
        raise UserError(
            f"The schedule of this run was laid out for {length} epochs and cannot be stretched to {cfg.trainer.max_epochs}.",
            f"Resume with trainer.max_epochs={length}, or start a new run.",
        )
    then, now = flat(before), flat(without_secrets(ckpt.to_plain(config)))
    for key in {**then, **now}:
        fixed = any(key == name or key.startswith(f"{name}.") for name in FIXED) and key not in FREE
        if fixed and key in then and then[key] != now.get(key):
            raise UserError(
                f"{key} was {then[key]} when this run began and cannot become {now.get(key)} on its way.",
                f"Leave {key} out of the command, or start a new run without resume.",
            )


def _go_on(cfg: DictConfig, trainer: L.Trainer) -> int:
    """Clear away what a killed run left half-written, let the table of epochs stand where the checkpoint does, and tell its step."""
    for part in Path(cfg.resume).parent.glob("*.part"):
        part.unlink()
    stored = ckpt.read(cfg.resume)
    for logger in trainer.loggers:
        if isinstance(logger, EpochTable):
            logger.go_on(stored["epoch"], stored.get("epoch_row") or {})
    return stored["global_step"]


def summarise(cfg: DictConfig, trainer: L.Trainer, task: ClassificationTask, checkpoint: str, tested: bool) -> dict[str, Any]:
    """The content of `results.json`."""
    progress = next(c for c in trainer.callbacks if isinstance(c, Progress))
    stored = torch.load(checkpoint, map_location="cpu", weights_only=True)
    results = {
        "status": "completed",
        "val": figures(task, "val"),
        "test": None,
        "best_epoch": stored["epoch"],
        "monitor": checkpoint_callback(trainer, "best").monitor,
        "metrics": list(cfg.get("metrics") or {}),  # those beside the task's own
        "epochs": trainer.current_epoch,
        "seed": cfg.seed,
        "train_seconds": round(progress.train_seconds, 3),
        "images_per_second": round(progress.images / max(progress.trained_seconds, 1e-9), 1),
        "num_parameters": sum(p.numel() for p in task.model.parameters()),
        "checkpoint": str(Path("checkpoints") / Path(checkpoint).name),
    }
    if tested:
        results["test"] = figures(task, "test") | by_class(task, "test")
    return results


def settings(cfg: DictConfig) -> dict[str, Any]:
    """The part of a config that runs are compared by, flat: what is chosen of each kind, and its numbers."""
    config = without_secrets(OmegaConf.to_container(cfg, resolve=True))
    data = ("_target_", "augment", "mixup", "cutmix", "batch_size", "image_size", "val_size", "fold", "balance")
    trainer = ("max_epochs", "precision", "accumulate_grad_batches", "gradient_clip_val")
    technical = ("_target_", "channels_last", "compile")
    chosen = flat(
        {
            "data": {key: config["data"].get(key) for key in data},
            **{group: config[group] for group in ("model", "optimizer", "scheduler")},
            "task": {key: value for key, value in config["task"].items() if key not in technical},
            "trainer": {key: config["trainer"].get(key) for key in trainer},
            "seed": config["seed"],
        }
    )
    return {key.removesuffix("._target_"): _setting(key, value) for key, value in chosen.items() if value not in (None, {})}


def _setting(key: str, value: Any) -> float | str:
    """A class by its name, lists and switches as text: what TensorBoard takes."""
    if key.endswith("_target_"):
        return value.rpartition(".")[2].removesuffix("DataModule")
    return value if isinstance(value, int | float | str) and not isinstance(value, bool) else str(value).lower()


def final_figures(results: Mapping[str, Any]) -> dict[str, float]:
    """Loss, accuracy and further metrics of the best checkpoint, by their names as metrics."""
    splits = [split for split in ("val", "test") if results[split]]
    return {f"{split}/{name}": results[split][name] for split in splits for name in ["loss", "acc", *results["metrics"]]}


def facts(data: ImageDataModule) -> dict[str, Any]:
    """What `run.json` says of the data: enough to tell later whether they are the same."""
    return {
        "sizes": data.sizes(),
        "classes": len(data.classes),
        "fingerprint": data.fingerprint(),
        "split_hash": data.split_hash() if "val" in data.sizes() else None,  # where the test split alone is measured, nothing is split
    }


def _names(task: ClassificationTask, data: ImageDataModule) -> tuple[str, str]:
    return type(task.model).__name__, type(data).__name__.removesuffix("DataModule")


def _closing_line(results: Mapping[str, Any], folder: Path) -> str:
    split = "test" if results["test"] else "val"
    figures = results[split]
    value = results["val"].get(results["monitor"].removeprefix("val/"))
    chosen_by = results["monitor"] + ("" if value is None else f" {value:.4f}")
    further = "".join(f"{split} {name} {figures[name]:.4f}, " for name in results["metrics"])
    return (
        f"{split} accuracy {figures['acc']:.4f}, {further}{split} loss {figures['loss']:.4f} (best of {results['epochs']} epochs: "
        f"epoch {results['best_epoch'] + 1}, chosen by {chosen_by}) "
        f"after {results['train_seconds']:.0f} s of training\n{folder}"
    )


def is_first_process() -> bool:
    """Whether this process is the one that writes files: the launcher of several processes sets their ranks before they start."""
    from lightning.fabric.utilities.rank_zero import rank_zero_only

    return getattr(rank_zero_only, "rank", 0) == 0


def quieten() -> None:
    """Silence what Lightning and torch say about things that are as they should be."""
    for text in (
        ".*does not have many workers.*",  # batches from memory need none
        ".*isinstance\\(treespec, LeafSpec\\).*",
        ".*callbacks used to create the checkpoint need to be provided.*",  # averaged weights lie in the checkpoint itself
        ".*The dirpath has changed from.*",  # a run folder that was moved: BestCheckpoint knows
        ".*Checkpoint directory .* exists and is not empty.*",  # a resumed run
        ".*number of training batches .* is smaller than the logging interval.*",  # the last mark is logged at the epoch's end
        ".*available but not used.*",
        ".*AMP with fp16 is not supported on CPU.*",  # src/build.py refuses it
        ".*recommended to use .*sync_dist=True.*",  # every process logs the same figures: torchmetrics has gathered them
        ".*TF32 acceleration on top of oneDNN.*",  # torch, about Intel's GPUs, when oneDNN's flags are touched
        ".*Found .* module\\(s\\) in eval mode at the start of training.*",  # frozen parts
    ):
        warnings.filterwarnings("ignore", message=text)
    for name in ("pytorch.utilities.rank_zero", "pytorch.accelerators.cuda", "fabric.utilities.seed", "fabric.utilities.distributed"):
        logging.getLogger(f"lightning.{name}").setLevel(logging.WARNING)


def objective(results: Mapping[str, Any]) -> float:
    """What a search minimises: the validation loss of the best checkpoint."""
    loss = results["val"]["loss"]
    return loss if math.isfinite(loss) else math.inf
