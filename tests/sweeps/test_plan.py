"""How a sweep is composed, checked and frozen before its first job."""

import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import QUICK, ROOT
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import OmegaConf

from src.errors import UserError
from src.runs.files import Lock, read_json, write_json
from src.runs.run_folder import RunFolder, status
from src.sweeps.plan import PLAN, plan_sweep, run_job
from src.sweeps.pool import Job
from src.sweeps.worker import JOB_CONFIG, read_job

SMALL = [*QUICK, "model=lenet", "data.image_size=16", "logger=none"]
# conf/hydra/launcher gives defaults to launchers that have a schema of the same name.
pytestmark = pytest.mark.filterwarnings("ignore:\\s*'hydra/launcher")


@pytest.fixture(autouse=True)
def new_plan() -> Iterator[None]:
    yield
    forget_plan()


def forget_plan() -> None:
    """As if the process that planned a sweep were gone."""
    PLAN.jobs.clear()
    if PLAN.lock is not None:
        PLAN.lock.release()


def plan(sweep: Path, *typed: str, conf: Path = ROOT / "conf") -> list[Job]:
    """The jobs that `python train.py -m ... hydra.sweep.dir=SWEEP` plans."""
    forget_plan()
    with initialize_config_dir(str(conf), version_base="1.3", job_name="train"):
        arguments = [*typed, f"hydra.sweep.dir='{sweep}'", "hydra.mode=MULTIRUN"]
        hydra = GlobalHydra.instance().hydra
        plan_sweep(hydra.compose_config("config", arguments, RunMode.MULTIRUN))
    return list(PLAN.jobs.values())


def test_jobs_are_frozen_when_the_sweep_starts(tmp_path, caplog):
    conf = tmp_path / "conf"
    shutil.copytree(ROOT / "conf", conf)
    first = plan(tmp_path / "sweep", "model=lenet", "seed=0,1", conf=conf)
    assert [job.overrides for job in first] == [
        ["model=lenet", "seed=0"],
        ["model=lenet", "seed=1"],
    ]
    rate = first[0].config.optimizer.lr
    path = conf / "optimizer" / "sgd.yaml"
    path.write_text(path.read_text().replace(f"lr: {rate}", "lr: 0.5"))
    again = plan(tmp_path / "sweep", "model=lenet", "seed=0,1", conf=conf)
    assert [job.config.optimizer.lr for job in again] == [rate, rate]
    assert OmegaConf.load(again[1].folder / JOB_CONFIG).optimizer.lr == rate
    assert "Job 1 (seed=1) keeps the settings" in caplog.text


def test_jobs_are_those_of_hydra_in_its_order(tmp_path):
    typed = ["optimizer.lr=0.1,0.01", "seed=range(2)", "+note='a,b'"]
    overrides = [job.overrides for job in plan(tmp_path / "sweep", *typed)]
    assert overrides == [
        [f"optimizer.lr={lr}", f"seed={seed}", "+note='a,b'"]
        for lr in ("0.1", "0.01")
        for seed in (0, 1)
    ]
    conf = tmp_path / "conf"  # a grid in a file
    shutil.copytree(ROOT / "conf", conf)
    grid = "# @package _global_\nhydra: {sweeper: {params: {seed: '0,1'}}}\n"
    (conf / "experiment" / "grid.yaml").write_text(grid)
    overrides = [job.overrides for job in plan(tmp_path / "b", "experiment=grid", conf=conf)]
    assert overrides == [[f"seed={seed}", "experiment=grid"] for seed in (0, 1)]


def test_environment_variables_are_not_written_down(tmp_path, monkeypatch):
    monkeypatch.setenv("WORD", "do not write me")
    typed = ["+note=${oc.env:WORD}", "+same=${seed}", "seed=5,6"]
    plan(tmp_path, *typed)
    for job in plan(tmp_path, *typed):
        assert job.config.note == "do not write me" and job.config.same == job.config.seed
        assert read_job(job.folder, trusted=True) == job.config
    for path in tmp_path.rglob("*.yaml"):
        assert "do not write me" not in path.read_text()


def test_a_frozen_job_is_the_same_run(tmp_path):
    """It is read from the file that was written, not composed from conf/."""
    typed = [*SMALL, "seed=3", "optimizer=adam", "optimizer.lr=1e-3"]
    (job,) = plan(tmp_path / "a b=1,(c)", *typed)
    config = read_job(job.folder, trusted=True)
    assert config == job.config and config.seed == 3 and os.path.isabs(config.data.root)
    assert "hydra" not in config


def test_a_received_sweep_folder_builds_nothing_of_its_own(tmp_path):
    """The frozen config of a job is data: it is checked before it is used."""
    (job,) = plan(tmp_path, "seed=0")
    path = job.folder / JOB_CONFIG
    content = OmegaConf.load(path)
    call = {"job_logging": {"handlers": {"x": {"()": "os.system", "command": "true"}}}}
    for part in ({"hydra": call}, {"defaults": ["/somewhere"]}):
        OmegaConf.save(OmegaConf.merge(content, part), path)
        with pytest.raises(UserError, match=f"holds {next(iter(part))}"):
            plan(tmp_path, "seed=0")
    content.model._target_ = "os.system"
    OmegaConf.save(content, path)
    with pytest.raises(UserError, match=r"model\._target_ names os\.system"):
        plan(tmp_path, "seed=0")


DDP = ["trainer=ddp", "trainer.accelerator=cpu"]


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["model=lenet,resnet18", "data.image_size=8"], "Job 0 (model=lenet): "),
        (["callbacks.best.monitor=val/loss,val/f1"], "Job 1 (callbacks.best.monitor=val/f1)"),
        (
            [*DDP, "hydra/launcher=basic", "trainer.devices=1,2"],
            "Job 1 (trainer.devices=2) takes 2",
        ),
        (["find_lr=true", "seed=0,1"], "find_lr is not possible in a sweep"),
    ],
)
def test_what_cannot_work_is_refused_before_the_first_job(typed, words, tmp_path):
    with pytest.raises(UserError) as error:
        plan(tmp_path / "sweep", *typed)
    assert words in error.value.problem
    assert not (tmp_path / "sweep").exists()


def test_check_builds_the_jobs_and_ends(tmp_path, capsys):
    with pytest.raises(SystemExit) as error:
        plan(tmp_path / "sweep", *SMALL, "seed=0,1", "optimizer.lr=0.1,0.2", "check=true")
    assert error.value.code == 0
    assert "4 jobs, 2 of them different but for the seed." in capsys.readouterr().out
    assert not (tmp_path / "sweep" / "0" / JOB_CONFIG).exists()


def test_a_sweep_grows_by_its_settings(tmp_path, capsys):
    """A job keeps its number, whichever key is outermost; another grid adds its jobs."""
    first = plan(tmp_path, "optimizer.lr=0.1,0.2", "seed=0,1")
    assert [job.folder.name for job in first] == ["0", "1", "2", "3"]
    grown = plan(tmp_path, "seed=0,1,2", "optimizer.lr=0.1,0.2")
    assert [job.folder.name for job in grown] == ["0", "2", "1", "3", "4", "5"]
    assert "2 of 6 jobs are new" in capsys.readouterr().out
    settings = {job.folder.name: job.overrides for job in grown}
    assert settings["4"] == ["seed=2", "optimizer.lr=0.1"]
    other = plan(tmp_path, "model=lenet,simple_v3")
    assert [job.folder.name for job in other] == ["6", "7"]
    assert "2 of 2 jobs are new" in capsys.readouterr().out
    assert len(plan(tmp_path, "seed=0,1,2", "optimizer.lr=0.1,0.2")) == 6
    assert "new" not in capsys.readouterr().out


def test_a_recipe_may_hold_a_grid(tmp_path):
    conf = tmp_path / "conf"
    shutil.copytree(ROOT / "conf", conf)
    recipe = "# @package _global_\nhydra:\n  sweeper:\n    params:\n      seed: 0,1,2\n"
    (conf / "experiment" / "grid.yaml").write_text(recipe)
    jobs = plan(tmp_path / "sweep", "experiment=grid", conf=conf)
    assert [job.overrides for job in jobs] == [[f"seed={i}", "experiment=grid"] for i in range(3)]


def test_jobs_that_share_a_folder_are_refused(tmp_path):
    with pytest.raises(UserError, match="holds another job, with seed=0"):
        plan(tmp_path, "seed=0", "hydra.sweep.subdir=job")
        plan(tmp_path, "seed=1", "hydra.sweep.subdir=job")
    with pytest.raises(UserError, match="2 jobs share 1 folders"):
        plan(tmp_path / "new", "seed=1,2", "hydra.sweep.subdir=job")


@pytest.mark.slow
def test_other_engines_number_jobs_themselves(tmp_path):
    plan(tmp_path, "seed=0,1")
    with pytest.raises(UserError, match="another order"):
        plan(tmp_path, "seed=1,2", "hydra/launcher=basic")
    assert len(plan(tmp_path, "seed=0,1,2", "hydra/launcher=basic")) == 3


def test_a_running_sweep_or_job_is_not_started_again(tmp_path, monkeypatch):
    plan(tmp_path, "seed=0")
    forget_plan()
    with Lock(tmp_path / ".lock"), pytest.raises(UserError, match="still running"):
        plan(tmp_path, "seed=0")
    monkeypatch.setattr(RunFolder, "is_used_elsewhere", lambda folder: folder.path.name == "0")
    with pytest.raises(UserError, match="still running"):
        plan(tmp_path, "seed=0")


def test_a_failed_job_starts_anew_and_an_interrupted_one_keeps_its_checkpoint(tmp_path):
    for job in plan(tmp_path, "model=lenet", "seed=0,1"):
        (job.folder / "checkpoints").mkdir()
        (job.folder / "checkpoints" / "last.ckpt").touch()
        (job.folder / "metrics.csv").touch()
    for number, how in enumerate(("failed", "interrupted")):
        write_json(tmp_path / str(number) / "results.json", {"status": how, "error": "x"})
    plan(tmp_path, "model=lenet", "seed=0,1")
    assert not (tmp_path / "0" / "checkpoints").exists()
    assert not (tmp_path / "0" / "metrics.csv").exists()
    assert (tmp_path / "1" / "checkpoints" / "last.ckpt").exists()
    assert status(tmp_path / "0") == "waiting"


def test_sweeps_that_start_in_the_same_second_have_folders_of_their_own():
    folders = set()
    for _ in range(3):
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3", job_name="train"):
            hydra = GlobalHydra.instance().hydra
            cfg = hydra.compose_config("config", ["hydra.mode=MULTIRUN"], RunMode.MULTIRUN)
            OmegaConf.clear_cache(cfg)
            folders.add(cfg.hydra.sweep.dir)
    assert len(folders) == 3


# Jobs in processes of other engines


@pytest.mark.slow
def test_a_job_in_a_shared_process_fails_is_resumed_and_is_left_alone_when_done(
    tmp_path, monkeypatch
):
    """As Ray, submitit and Hydra's own launcher run it."""
    (job,) = plan(tmp_path, *SMALL, "optimizer.lr=0.05")
    changed = OmegaConf.merge(job.config, {"optimizer": {"lr": 9.0}})  # the YAML was edited
    with monkeypatch.context() as patch:
        patch.setattr("src.engine.train.evaluate_best", lambda *_, **__: 1 / 0)
        assert math.isnan(run_job(changed, job.folder))
    assert status(job.folder) == "failed"
    assert "ZeroDivisionError" in read_json(job.folder / "results.json")["error"]
    Lock.held.clear()  # the second start is another process
    plan(tmp_path, *SMALL, "optimizer.lr=0.05")
    loss = run_job(changed, job.folder)
    assert read_json(job.folder / "results.json")["val"]["loss"] == loss
    assert OmegaConf.load(job.folder / "config.yaml").optimizer.lr == 0.05
    monkeypatch.setattr("src.engine.train.train", lambda *_: pytest.fail("it was run again"))
    assert run_job(changed, job.folder) == loss


@pytest.mark.parametrize(("engine", "extra"), [("ray", "ray"), ("submitit_slurm", "slurm")])
def test_a_missing_extra_is_named(engine, extra, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError) as error:
        plan(tmp_path, "seed=0,1", f"hydra/launcher={engine}")
    assert f'.[{extra}]"' in error.value.remedy


def test_slurm_starts_as_many_processes_as_a_job_has(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: True)
    monkeypatch.setattr("shutil.which", lambda name: name)
    typed = ["model=lenet", "hydra/launcher=submitit_slurm", *DDP, "seed=0,1", "trainer.devices=4"]
    assert len(plan(tmp_path / "a", *typed, "trainer.num_nodes=2")) == 2
    with pytest.raises(UserError, match="takes 4 processes, but SLURM is asked for 1 nodes"):
        plan(tmp_path / "b", *typed, "hydra.launcher.tasks_per_node=1")


def test_secrets_are_refused_where_jobs_would_store_them(tmp_path, monkeypatch):
    monkeypatch.setenv("A_KEY", "s3cr3t")
    with pytest.raises(UserError, match="logger.csv.api_key is named like a secret"):
        plan(tmp_path / "sweep", "logger=csv", "+logger.csv.api_key=abc", "seed=0,1")
    assert not (tmp_path / "sweep").exists()
    typed = ["+note.api_key=${oc.env:A_KEY}", "seed=0,1"]
    for job in plan(tmp_path / "sweep", *typed):
        assert read_job(job.folder, trusted=True).note.api_key == "s3cr3t"
    for path in (tmp_path / "sweep").rglob("*.yaml"):
        assert "s3cr3t" not in path.read_text()


def test_a_grid_in_the_parameters_of_the_sweeper(tmp_path):
    jobs = plan(tmp_path, "+hydra.sweeper.params.seed='1,2'")
    assert [job.config.seed for job in jobs] == [1, 2]


@pytest.mark.parametrize("results", [None, "", '{"status": "comp', '{"status": "trained"}'])
def test_a_job_without_its_results_is_unfinished(results, tmp_path):
    write_json(tmp_path / "run.json", {"status": "completed"})
    if results is not None:
        (tmp_path / "results.json").write_text(results)
    assert status(tmp_path) != "completed"
