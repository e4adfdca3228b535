"""The supervisor of processes, with small scripts in place of training runs."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from helpers import ROOT, use_as_worker
from omegaconf import DictConfig

from src.runs.run_folder import status
from src.sweeps.pool import Job, Pool
from src.sweeps.resources import slot_environments

# Does what the file `task` in the folder of a job says, as a run does it.
FAKE_JOB = """
import json, signal, subprocess, sys, time
task = (folder / "task").read_text()
(folder / "run.json").write_text(json.dumps({"status": "running"}))
(folder / "started").write_text(json.dumps([environment, str(log)]))
if task == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
if task == "exit":
    sys.exit(3)
if task == "child":
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    (folder / "child").write_text(str(child.pid))
    sys.exit(1)
time.sleep(60 if task == "wait" else 0)
(folder / "run.json").write_text(json.dumps({"status": "completed"}))
(folder / "results.json").write_text(json.dumps({"status": "completed"}))
"""


class FakePool(Pool[Job]):
    """Remembers which jobs have ended, and ends one."""

    def __init__(self, slots: int = 1, to_stop: Job | None = None):
        super().__init__([{"SLOT": name} for name in "ab"[:slots]], log_to_file=True)
        self.to_stop = to_stop
        self.ended: list[Job] = []

    def should_stop(self, job: Job) -> bool:
        return job is self.to_stop and (job.folder / "started").exists()

    def on_end(self, job: Job) -> None:
        self.ended.append(job)


@pytest.fixture
def make_job(tmp_path, monkeypatch):
    """Makes a job that does something; the pool starts a function in place of the worker."""
    use_as_worker(FAKE_JOB, tmp_path, monkeypatch)

    def make(name: str, task: str) -> Job:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "task").write_text(task)
        return Job(name, folder, [], DictConfig({}))

    return make


def test_jobs_run_side_by_side_and_their_ends_are_recorded(make_job):
    jobs = [make_job(task, task) for task in ("finish", "kill", "exit", "child")]
    pool = FakePool(slots=2)
    pool.run(iter(jobs))
    assert set(pool.ended) == set(jobs)
    assert [status(job.folder) for job in jobs] == ["completed", "interrupted", "failed", "failed"]
    errors = [json.loads((job.folder / "results.json").read_text()).get("error") for job in jobs]
    assert errors[1] == "ended by SIGKILL" and errors[2].startswith("ended with exit code 3")
    started = [json.loads((job.folder / "started").read_text()) for job in jobs]
    assert [environment["SLOT"] for environment, _ in started[:2]] == ["a", "b"]
    assert started[0][0]["PYTHONPATH"].split(os.pathsep)[0] == str(ROOT)
    assert started[0][1] == str(jobs[0].folder / "output.log")
    with pytest.raises(ProcessLookupError):  # what a failed job leaves behind is ended
        for _ in range(50):
            os.kill(int((jobs[3].folder / "child").read_text()), 0)
            time.sleep(0.1)


def test_earlier_results_do_not_stand_for_a_job_that_cannot_start(make_job):
    job = make_job("a", "no such task")
    (job.folder / "task").unlink()
    (job.folder / "run.json").write_text('{"status": "interrupted"}')
    (job.folder / "results.json").write_text('{"status": "interrupted", "error": "earlier"}')
    FakePool().run(iter([job]))
    assert status(job.folder) == "failed"


def test_a_job_can_be_stopped_and_jobs_may_come_later(make_job):
    first, second = make_job("first", "wait"), make_job("second", "finish")

    def jobs():
        yield first
        for _ in range(3):
            yield None
        yield second

    FakePool(slots=2, to_stop=first).run(jobs())
    assert status(first.folder) == "interrupted" and status(second.folder) == "completed"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_running_jobs(number, make_job):
    jobs = [make_job("a", "wait"), make_job("b", "wait")]

    def interrupt() -> None:
        while not (jobs[0].folder / "started").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), number)

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    threading.Thread(target=interrupt).start()
    expected = SystemExit if number == signal.SIGTERM else KeyboardInterrupt
    with pytest.raises(expected) as caught:
        FakePool().run(iter(jobs))
    if number == signal.SIGTERM:
        assert caught.value.code == 128 + signal.SIGTERM
    assert status(jobs[0].folder) == "interrupted" and not (jobs[1].folder / "started").exists()


JOB_SCRIPT = """
import os, sys, threading, time
from pathlib import Path
from src.sweeps import worker

def job(folder, environment, log):  # as `run_job`, with this in place of a training
    worker.main = end
    worker.run_job(folder, environment, log)

def end():
    import torch
    print(os.getppid(), torch.get_num_threads(), os.environ["NAME"], sys.argv[1], flush=True)
    time.sleep(60)

if __name__ == "__main__":
    from src.sweeps import processes
    processes.start_server()
    environment = os.environ | {"NAME": "given", "OMP_NUM_THREADS": "1"}
    started = processes.CONTEXT.Process(target=job, args=(Path("folder"), environment, None))
    started.start()
    started.join()
"""


@pytest.fixture
def start_job(tmp_path):
    """Starts a supervisor of one job, which writes its parent, threads and environment."""
    (tmp_path / "supervisor.py").write_text(JOB_SCRIPT)

    def start(name: str) -> subprocess.Popen:
        command = [sys.executable, "supervisor.py", name]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        return subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
        )

    return start


@pytest.mark.skipif(sys.platform != "linux", reason="there is no server elsewhere")
def test_jobs_end_with_a_supervisor_that_is_killed(start_job):
    process = start_job("stay")
    server, *facts = process.stdout.readline().split()
    assert facts == ["1", "given", "folder"]  # threads, environment and arguments of the job
    threads = [path.read_text().strip() for path in Path(f"/proc/{server}/task").glob("*/comm")]
    # A process with threads must not fork; that of jemalloc, which pyarrow brings, is made for it.
    assert len([name for name in threads if name != "jemalloc_bg_thd"]) == 1
    process.kill()
    begin = time.monotonic()
    assert process.stdout.read() == ""  # the pipe closes when server and job are gone
    assert time.monotonic() - begin < 30
    process.wait()


# Resources


def trainers(accelerator: str, devices: int | str | list[int], jobs: int = 4) -> list[dict]:
    return [{"accelerator": accelerator, "devices": devices, "num_nodes": 1}] * jobs


@pytest.mark.parametrize(
    ("devices", "slots", "expected"),
    [
        (1, None, ["0", "1", "5"]),
        (1, 2, ["0", "1"]),
        (2, None, [None]),
        (1, 4, ["0", "1", "5", "0"]),
        (3, None, [None]),
        ([0], None, [None]),
    ],
)
def test_each_job_has_gpus_of_its_own(devices, slots, expected, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,5")
    environments = slot_environments(trainers("gpu", devices), slots, 4)
    assert [each.get("CUDA_VISIBLE_DEVICES") for each in environments] == expected


def test_cpu_threads_are_divided_unless_they_are_given(monkeypatch):
    monkeypatch.setattr("src.sweeps.resources.num_cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    two_processes = trainers("cpu", 2)
    assert slot_environments(two_processes, 2, 4) == [{"OMP_NUM_THREADS": "2"}] * 2
    assert slot_environments(two_processes, None, 4) == [{}]
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert slot_environments(two_processes, 2, 4) == [{}, {}]
