"""What docs/reliability.md states, measured again: python benchmarks/reliability.py kills (or mistakes, files, checkpoints, ...)

Every sub-command prints its figures and exits with 1 when one of them is not as promised. Scratch files go to a temporary folder.
"""

import argparse
import csv
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
TIMING = {"seconds", "images_per_second", "train_seconds"}


def environment() -> dict[str, str]:
    """For processes of their own: this tree, no GPU, one thread."""
    return os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}


def composed(overrides: list[str]):
    """The config of a command line."""
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("config", ["trainer.accelerator=cpu", "logger=none", *overrides])


# Kills -----------------------------------------------------------------------------------------------------------------

SMALL = ["model=simple_v3", "data/augment=crop_flip", "data.image_size=16", "trainer.limit_train_batches=12", "trainer.max_epochs=4"]
SETUPS = {
    "checkpoints at epoch ends and every 5 steps": ["callbacks.last.every_n_train_steps=5"],
    "checkpoints every 4 steps, which the epoch's end is one of; two validations an epoch": [
        "callbacks.last.every_n_train_steps=4",
        "trainer.val_check_interval=0.5",
    ],
    "checkpoints at epoch ends, two batches a step, two loader processes, plateau schedule": [
        "trainer.accumulate_grad_batches=2",
        "data.num_workers=2",
        "scheduler=plateau",
        "scheduler.patience=0",
    ],
}


def train_in(folder: Path, options: list[str], steps=None) -> None:
    """One run in this process; `steps` is a shared counter of training batches."""
    import torch

    from src.callbacks import StepSeed
    from src.training import train

    torch.set_num_threads(1)
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    if steps is not None:
        original = StepSeed.on_train_batch_end

        def counting(self, *args, **kwargs):
            original(self, *args, **kwargs)
            steps.value += 1

        StepSeed.on_train_batch_end = counting
    train(composed(options), folder)


def killed_run(folder: Path, options: list[str], moment: Callable[[int], bool]) -> bool:
    """Start a run and SIGKILL it as soon as `moment(batches so far)` says so. Returns whether it was still running."""
    context = multiprocessing.get_context("fork")  # imports once, not thirty times; the kill is as real
    steps = context.Value("q", 0, lock=False)
    process = context.Process(target=train_in, args=(folder, options, steps))
    process.start()
    while process.is_alive() and not moment(steps.value):
        time.sleep(1e-4)
    alive = process.is_alive()
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    return alive and process.exitcode == -signal.SIGKILL


def whole_run(folder: Path, options: list[str]) -> int:
    process = multiprocessing.get_context("fork").Process(target=train_in, args=(folder, options))
    process.start()
    process.join()
    return process.exitcode


def differences(one: Path, other: Path) -> list[str]:
    """What two finished run folders do not share bit for bit: weights, optimizer states, tables, figures. Times aside."""
    import torch

    found = []
    for name in ("best", "last"):
        a, b = (torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True) for run in (one, other))
        found += [f"{name}.ckpt {key}" for key in a["state_dict"] if not torch.equal(a["state_dict"][key], b["state_dict"][key])]
        for key, state in a["optimizer_states"][0]["state"].items():
            for entry, value in state.items():
                if not torch.equal(torch.as_tensor(value), torch.as_tensor(b["optimizer_states"][0]["state"][key][entry])):
                    found.append(f"{name}.ckpt optimizer {key} {entry}")
    tables = []
    for run in (one, other):
        with open(run / "metrics.csv", newline="") as file:
            tables.append([{key: value for key, value in row.items() if key not in TIMING} for row in csv.DictReader(file)])
    if tables[0] != tables[1]:
        found.append("metrics.csv")
    results = [json.loads((run / "results.json").read_text()) for run in (one, other)]
    found += [f"results.json {key}" for key in results[0] if key not in TIMING and results[0][key] != results[1].get(key)]
    return found


def kills(n: int = 30, seed: int = 0) -> bool:
    """SIGKILL at random moments, a third of them aimed into a checkpoint write; then resumed and compared with the undisturbed run."""
    import src.training  # noqa: F401

    draw = random.Random(seed)
    equal = inside = restarted = unreadable = made = 0
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        for k, (title, extra) in enumerate(SETUPS.items()):
            options = [*SMALL, *extra]
            reference = scratch / f"whole{k}"
            assert whole_run(reference, options) == 0
            for i in range(k, n, len(SETUPS)):
                folder = scratch / f"{k}-{i}"
                part = folder / "checkpoints"
                aimed = (i // len(SETUPS)) % 3 == 0
                after, delay = draw.randint(1, 47), draw.uniform(0, 0.02)

                def moment(steps: int, part=part, aimed=aimed, after=after, delay=delay) -> bool:
                    if steps < after:
                        return False
                    if aimed:  # the next time that a checkpoint is on its way
                        return part.is_dir() and any(name.endswith(".part") for name in os.listdir(part))
                    time.sleep(delay)
                    return True

                if not killed_run(folder, options, moment):  # over before the moment came: only behind the last write
                    print(f"  kill {i}: the run was over")
                    continue
                made += 1
                left = list(part.glob("*.part")) if part.is_dir() else []
                inside += bool(left)
                readable = [checkpoint_readable(path) for path in part.glob("*.ckpt")] if part.is_dir() else []
                unreadable += readable.count(False)
                last = part / "last.ckpt"
                restarted += not last.is_file()
                code = whole_run(folder, [*options, *([f"resume={last}"] if last.is_file() else [])])
                wrong = differences(reference, folder) if code == 0 else [f"exit code {code}"]
                equal += not wrong
                print(f"  kill {i} behind batch {after}{' in a write' if left else ''}: {'; '.join(wrong[:4]) or 'bit-equal'}", flush=True)
            print(f"{title}: done", flush=True)
    print(f"{equal} of {made} bit-equal to the undisturbed run; {inside} kills inside a checkpoint write;")
    print(f"{unreadable} unreadable checkpoints; {restarted} came before the first checkpoint and started again from nothing")
    return equal == made and unreadable == 0 and inside >= (5 if n >= 30 else 1)


def checkpoint_readable(path: Path) -> bool:
    from src.checkpoint import read
    from src.errors import UserError

    try:
        read(path)
    except UserError:
        return False
    return True


# Mistakes --------------------------------------------------------------------------------------------------------------

# What is typed behind `python train.py`, and words that the two lines must hold. ROOT stands for a folder with pictures in it.
TOLD_BY_HYDRA = [
    ("optimizer.lrr=1", ["optimizer.lr?"]),
    ("optimzer.lr=1", ["optimizer.lr?"]),
    ("modle=lenet", ["model?"]),
    ("model=lenett", ["lenet"]),
    ("data=cifar", ["cifar10"]),
    ("optimizer=sdg", ["sgd"]),
    ("scheduler=cosin", ["cosine"]),
    ("data/augment=crop_flp", ["crop_flip"]),
    ("data/augmnt=none", ["data/augment?"]),
    ("model.dropuot=0.1", ["model.dropout?"]),
    ("model.width=64", ["dropout"]),
    ("lr=0.1", ["optimizer.lr?"]),
    ("batch_size=5", ["data.batch_size?"]),
    ("trainer.max_epoch=3", ["trainer.max_epochs?"]),
    ("+seed=1", ["plus sign"]),
    ("optimizer.lr", ["KEY=VALUE"]),
    ("optimizer.betas=[0.9", ["KEY=VALUE"]),
    ("--multirn", ["--multirn"]),
    ("experiment=vgg", ["vgg16_cifar10"]),
    ("hydra.run.dir=/dev/null/x", ["/dev/null/x", "Not a directory"]),
    ("resume=nowhere.ckpt", ["nowhere.ckpt"]),
    ("resume=last", ["resume=PATH"]),
]
TOLD_BEFORE_DATA = [
    ("trainer.max_epochs=ten", ["trainer.max_epochs", "whole number"]),
    ("+model.dropuot=0.1", ["model.dropout?"]),
    ("optimizer.lr=abc", ["optimizer.lr", "a number"]),
    ("optimizer.lr=", ["optimizer.lr", "a number"]),
    ("optimizer.lr=-1", ["learning rate"]),
    ("data.batch_size=1.5", ["data.batch_size", "whole number"]),
    ("data.batch_size=0", ["data.batch_size", "above 0"]),
    ("seed=1.5", ["seed", "whole number"]),
    ("test=maybe", ["test", "true or false"]),
    ("trainer.precision=15", ["trainer.precision", "bf16-mixed"]),
    ("trainer.precision=16-mixed", ["bf16-mixed"]),
    ("trainer.accelerator=gpu", ["no GPU", "trainer.accelerator=cpu"]),
    ("optimizer.fused=true trainer.gradient_clip_val=1 trainer.precision=bf16-mixed", ["optimizer.fused"]),
    ("optimizer=adam optimizer.betas=[0.9]", ["optimizer.betas", "list of 2"]),
    ("callbacks.best.monitor=val/los", ["val/loss"]),
    ("model=vgg16 data.image_size=16", ["data.image_size=32"]),
    ("model=torchvision model.name=resnet1", ["resnet18"]),
    ("model._target_=src.models.LeNett", ["src.models.LeNet"]),
]


def typed(*arguments: str, cwd: Path) -> tuple[subprocess.CompletedProcess, float]:
    """`python train.py ...` as a person types it, and how long it took."""
    start = time.monotonic()
    command = [sys.executable, str(ROOT / "train.py"), *arguments]
    result = subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=300)
    return result, time.monotonic() - start


def mistakes() -> bool:
    """40 typing errors: two lines, the right hint, exit code 2, and in what time."""
    wrong = 0
    with tempfile.TemporaryDirectory() as cwd:
        imports = []
        for _ in range(3):
            start = time.monotonic()
            subprocess.run([sys.executable, "-c", "import src.training"], env=environment(), check=True)
            imports.append(time.monotonic() - start)
        base = sorted(imports)[1]
        for title, listed in (("told by Hydra alone", TOLD_BY_HYDRA), ("told before any data are read", TOLD_BEFORE_DATA)):
            slowest, which = 0.0, ""
            for line, words in listed:
                result, seconds = typed(*line.split(), cwd=Path(cwd))
                lines = result.stderr.strip().splitlines()
                right = result.returncode == 2 and len(lines) == 2 and all(word in result.stderr for word in words)
                wrong += not right
                slowest, which = max((slowest, which), (seconds, line))
                if not right:
                    print(f"  {line}: exit code {result.returncode}\n{result.stderr[-500:]}")
            beyond = "" if title.startswith("told by") else f", {slowest - base:.2f} s beyond the imports ({base:.2f} s, median of 3)"
            print(f"{title}: {len(listed)}, the slowest in {slowest:.2f} s{beyond}: {which}", flush=True)
    total = len(TOLD_BY_HYDRA) + len(TOLD_BEFORE_DATA)
    print(f"{total - wrong} of {total} end with two lines, the right hint and exit code 2")
    return wrong == 0


# Files -----------------------------------------------------------------------------------------------------------------


def broken_pictures(folder: Path) -> None:
    """Files that no program should choke on, each named for what is wrong with it. None is a picture that can be used."""
    import zlib

    import numpy as np
    from PIL import Image

    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    for kind in ("jpg", "png", "webp", "gif", "tif", "bmp"):
        picture.save(folder / f"truncated.{kind}")
        whole = (folder / f"truncated.{kind}").read_bytes()
        (folder / f"truncated.{kind}").write_bytes(whole[: len(whole) // 2])
    picture.save(folder / "damaged.png")
    content = bytearray((folder / "damaged.png").read_bytes())
    content[len(content) // 2] ^= 0xFF
    (folder / "damaged.png").write_bytes(content)

    def chunk(name: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big")

    def png(width: int, height: int, *chunks: bytes) -> bytes:
        size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size + b"\x08\x02\0\0\0") + b"".join(chunks) + chunk(b"IEND", b"")

    (folder / "bomb.png").write_bytes(png(60_000, 60_000, chunk(b"IDAT", zlib.compress(b"\0" * 10_000_000))))
    (folder / "bomb_in_text.png").write_bytes(png(8, 8, chunk(b"zTXt", b"k\0\0" + zlib.compress(b"\0" * 200_000_000))))
    (folder / "no_pixels.png").write_bytes(png(0, 0))
    bitmap = b"BM" + b"\0" * 8 + (54).to_bytes(4, "little") + (40).to_bytes(4, "little")
    (folder / "bomb.bmp").write_bytes(bitmap + (2**31 - 1).to_bytes(4, "little") * 2 + b"\1\0\x18\0" + b"\0" * 24)
    (folder / "loop.tif").write_bytes(b"II*\0\x08\0\0\0\0\0\x08\0\0\0")  # its next directory is this one
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("no picture")
    (folder / "page.png").write_text("<html>404 Not Found</html>")
    script = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(" + str(folder / "ran") + ") (w) file closefile\nshowpage\n"
    (folder / "postscript.jpg").write_text(script)
    (folder / "noise.jpg").write_bytes(b"\xff\xd8\xff" + random.Random(0).randbytes(5000))
    (folder / "gone.jpg").symlink_to(folder / "nowhere")
    (folder / "endless.jpg").symlink_to("/dev/zero")
    (folder / "folder.jpg").mkdir()
    os.mkfifo(folder / "pipe.jpg")


def hostile_archives(folder: Path) -> None:
    """Archives of a folder `dog_cat` that want more than to be unpacked there."""
    import io
    import tarfile

    def archive(name: str, *members: tuple[str, dict, bytes]) -> None:
        with tarfile.open(folder / f"{name}.tar", "w") as tar:
            for path, facts, content in members:
                info = tarfile.TarInfo(path)
                info.size = len(content)
                for key, value in facts.items():
                    setattr(info, key, value)
                tar.addfile(info, io.BytesIO(content))

    archive("outside", ("dog_cat/../../ran", {}, b"x"))
    archive("absolute", (str(folder / "ran"), {}, b"x"))
    archive("link_outside", ("dog_cat/l", {"type": tarfile.SYMTYPE, "linkname": "../../.."}, b""), ("dog_cat/l/ran", {}, b"x"))
    archive("hard_link_outside", ("dog_cat/l", {"type": tarfile.LNKTYPE, "linkname": "../../../../etc/passwd"}, b""))
    archive("device", ("dog_cat/d", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3}, b""))
    archive("nothing_inside")
    sparse = tarfile.TarInfo("dog_cat/big")
    sparse.size = 1 << 50
    (folder / "larger_than_the_disk.tar").write_bytes(sparse.tobuf(tarfile.GNU_FORMAT) + b"\0" * 1024)
    archive("cut", ("dog_cat/a.jpg", {}, b"x" * 5000))
    (folder / "cut.tar").write_bytes((folder / "cut.tar").read_bytes()[:2000])


def packed_bomb(path: Path) -> None:
    """An IDX file that announces one picture and unpacks to a gigabyte."""
    import gzip

    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(bytes((0, 0, 8, 3)) + b"".join(n.to_bytes(4, "big") for n in (1, 28, 28)))
        for _ in range(256):
            file.write(b"\0" * (1 << 22))


def files() -> bool:
    """Broken and hostile pictures and archives: none runs, none hangs, each is named."""
    import resource

    from src.datamodules.download import extract
    from src.datamodules.fashion_mnist import read_idx
    from src.decode import decode
    from src.errors import UserError

    passed = total = 0
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        pictures, archives = scratch / "pictures", scratch / "archives"
        pictures.mkdir()
        archives.mkdir()
        broken_pictures(pictures)
        hostile_archives(archives)
        packed_bomb(archives / "bomb-idx3-ubyte.gz")
        tries = [(path, lambda path: decode(path, 32), ValueError) for path in sorted(pictures.iterdir())]
        for path in sorted(archives.glob("*.tar")):
            tries.append((path, lambda path: extract(path, path.parent / "dog_cat"), UserError))
        tries.append((archives / "bomb-idx3-ubyte.gz", lambda path: read_idx(path, 3), UserError))
        slowest = 0.0
        for path, attempt, kind in tries:
            total += 1
            signal.alarm(60)
            start = time.monotonic()
            try:
                attempt(path)
                print(f"  {path.name}: taken for good")
            except kind as error:
                passed += 1
                print(f"  {path.name}: {' '.join(str(error).split()).replace(str(scratch), '...')[:110]}")
            signal.alarm(0)
            slowest = max(slowest, time.monotonic() - start)
        ran = [path for path in (scratch / "ran", pictures / "ran", archives / "ran", archives / "dog_cat") if path.exists()]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{passed} of {total} kinds refused by name; {len(ran)} wrote elsewhere or ran; the slowest in {slowest:.2f} s; peak {peak:.0f} MB"
    )
    return passed == total and not ran


# Checkpoints -----------------------------------------------------------------------------------------------------------


class RunsCode:
    """What a hostile pickle holds."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch '{self.marker}'",)


def hostile_checkpoints(good: Path, folder: Path, marker: Path) -> None:
    """Files made from a good checkpoint, each named for what it wants."""
    import copy
    import pickle

    import torch

    def write(name: str, change: Callable[[dict], None]) -> None:
        content = copy.deepcopy(stored)
        change(content)
        torch.save(content, folder / f"{name}.ckpt")

    stored = torch.load(good, weights_only=True)
    code = RunsCode(marker)
    write("code_in_the_weights", lambda c: c["state_dict"].update(x=code))
    write("code_in_the_config", lambda c: c["description"].update(config=code))
    (folder / "plain_pickle.ckpt").write_bytes(pickle.dumps(code))
    write("foreign_target", lambda c: c["description"].update(model={"_target_": "os.system", "command": f"touch {marker}"}))
    write("target_by_detour", lambda c: c["description"].update(model={"_target_": "src.models.torchvision.torch.hub.load"}))
    text = {"_target_": "src.run_folder.write_text", "path": str(marker), "text": "x"}
    write("function_of_this_project", lambda c: c["description"].update(model=text))
    data = {"_target_": "src.datamodules.ImageFolderDataModule", "root": "${oc.env:HOSTILE_SECRET}"}
    write("interpolation", lambda c: c["description"]["config"].update(data=data))
    target = {"_target_": "shutil.rmtree", "path": str(folder)}
    write("foreign_data", lambda c: c["description"]["config"].update(data=target))
    name = next(key for key in stored["state_dict"] if key.endswith("weight"))
    write("wrong_shapes", lambda c: c["state_dict"].update({name: torch.zeros(3, 3)}))
    write("huge_tensor", lambda c: c["state_dict"].update({name: torch.zeros(1).expand(1 << 45)}))
    write("huge_network", lambda c: c["description"]["model"].update(image_size=400_000))
    write("no_tensor", lambda c: c["state_dict"].update({name: [1.0] * 5}))
    write("nonsense_facts", lambda c: c["description"].update(classes=10**9, channels="x", mean="abc"))
    write("no_description", lambda c: c.pop("description"))
    whole = good.read_bytes()
    for i in range(12):
        (folder / f"truncated_{i:02d}.ckpt").write_bytes(whole[: len(whole) * i // 12])


def checkpoints() -> bool:
    """Hostile and damaged checkpoints, given to `evaluate.py`'s own function and to `resume=`: none runs, none hangs, each is named."""
    from src.errors import UserError

    os.environ["HOSTILE_SECRET"] = "a-secret-of-the-environment"
    passed = total = leaked = 0
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        assert whole_run(scratch / "good", ["model=lenet", "data.image_size=16", "trainer.max_epochs=1"]) == 0
        folder, marker = scratch / "hostile", scratch / "ran"
        folder.mkdir()
        hostile_checkpoints(scratch / "good" / "checkpoints" / "best.ckpt", folder, marker)
        slowest = 0.0
        for path in sorted(folder.glob("*.ckpt")):
            total += 1
            signal.alarm(60)
            start = time.monotonic()
            try:
                evaluated(path, scratch / "out")
                print(f"  {path.name}: taken for good")
            except UserError as error:
                text = " ".join(str(error.problem).split()).replace(str(folder), "...")
                passed += path.name in text or "heckpoint" in text or path.stem in ("wrong_shapes", "huge_network", "interpolation")
                leaked += os.environ["HOSTILE_SECRET"] in str(error)
                print(f"  {path.name}: {text[:120]}")
            signal.alarm(0)
            slowest = max(slowest, time.monotonic() - start)
        ran = marker.exists()
    print(f"{passed} of {total} refused by name; code run: {ran}; secrets shown: {leaked}; the slowest in {slowest:.2f} s")
    return passed == total and not ran and not leaked


def evaluated(path: Path, folder: Path) -> None:
    """`evaluate.py ckpt=path`, in this process."""
    from hydra import compose, initialize_config_dir

    from src.evaluation import evaluate

    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("evaluate", ["trainer.accelerator=cpu"])
    cfg.ckpt = str(path)
    evaluate(cfg, folder)


# A full disk -----------------------------------------------------------------------------------------------------------


def full_disk() -> bool:
    """A small file system that fills up while a checkpoint is written. Needs the right to mount one (Linux, root)."""
    right = 0
    cases = {"while the first last.ckpt is written": "760k", "while the second best.ckpt is written": "1300k"}
    for title, size in cases.items():
        with tempfile.TemporaryDirectory() as scratch:
            disk = Path(scratch) / "disk"
            disk.mkdir()
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(disk)], check=True)
            try:
                run = disk / "run"
                options = ["model=lenet", "trainer.max_epochs=3", "logger=none", "trainer.accelerator=cpu", f"hydra.run.dir={run}"]
                result, _ = typed(*options, cwd=Path(scratch))
                lines = result.stderr.strip().splitlines()
                readable = {path.name: checkpoint_readable(path) for path in (run / "checkpoints").iterdir()}
                status = json.loads((run / "results.json").read_text())
                ok = result.returncode == 2 and len(lines) == 2 and "The disk is full" in lines[0] and readable and all(readable.values())
                ok = ok and status["status"] == "failed" and "disk is full" in status["error"]
                right += ok
                print(f"{title}: exit code {result.returncode}, {lines[0]}; {', '.join(readable)} load: {all(readable.values())}")
            finally:
                subprocess.run(["umount", str(disk)], check=True)
    return right == len(cases)


# Soak ------------------------------------------------------------------------------------------------------------------


def soak(n: int = 1000) -> bool:
    """Many epochs of a tiny run: memory and open files by hundreds of epochs."""
    import gc

    import lightning as L

    from src.build import build_trainer  # noqa: F401
    from src.callbacks import Progress
    from src.training import train

    seen: list[tuple[int, float, int]] = []
    original = Progress.on_train_epoch_end

    def watch(self, trainer: L.Trainer, module) -> None:
        original(self, trainer, module)
        if (trainer.current_epoch + 1) % max(n // 10, 1) == 0:
            gc.collect()
            with open("/proc/self/statm") as file:
                memory = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
            seen.append((trainer.current_epoch + 1, memory, len(os.listdir("/proc/self/fd"))))
            print(f"epoch {seen[-1][0]:>5}: {memory:.1f} MB, {seen[-1][2]} open files", flush=True)

    Progress.on_train_epoch_end = watch
    with tempfile.TemporaryDirectory() as scratch:
        options = ["model=lenet", "data.image_size=16", f"trainer.max_epochs={n}", "trainer.limit_train_batches=2", "logger=tensorboard"]
        train(composed([*options, "trainer.limit_val_batches=1", "scheduler=constant"]), Path(scratch))
    growth = seen[-1][1] - seen[1][1]
    print(f"from epoch {seen[1][0]} to {seen[-1][0]}: {growth:+.1f} MB, {seen[-1][2] - seen[1][2]:+d} open files")
    return growth < 0.05 * seen[1][1] and seen[-1][2] == seen[1][2]


def config_fuzz(n: int = 200) -> bool:
    """Random values for every listed key: no traceback, and what trains is what config.yaml says."""
    test = ROOT / "tests" / "test_config_fuzz.py"
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-n0", "-m", "slow or not slow", f"{test}::test_two_hundred_values"]
    return subprocess.run(command, cwd=ROOT, env=environment() | {"FUZZ_EXAMPLES": str(n)}).returncode == 0


def config_values() -> bool:
    """Every listed key with eight values that hurt where nobody has thought of them; as in `config_fuzz`, but none by chance."""
    import logging
    import warnings

    import pytest

    sys.path.insert(0, str(ROOT / "tests"))
    from test_config_fuzz import GROUPS, keys, run_and_compare

    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    tried: dict[tuple[str, str], str] = {}
    for group in GROUPS:
        for key in keys(group):
            for value in ("0", "-1", "null", "2", "true", "0.5", "nan", "[]"):
                if (key, value) in tried:
                    continue
                with tempfile.TemporaryDirectory() as scratch, pytest.MonkeyPatch.context() as monkeypatch:
                    try:
                        tried[key, value] = run_and_compare(group, key, value, Path(scratch) / "run", monkeypatch)
                    except Exception as error:
                        tried[key, value] = "wrong"
                        print(f"  {group} {key}={value}: {type(error).__name__}: {' '.join(str(error).split())[:200]}", flush=True)
    keys_tried, outcomes = {key for key, _ in tried}, list(tried.values())
    trained, refused, wrong = (outcomes.count(outcome) for outcome in ("trained", "refused", "wrong"))
    print(f"{len(tried)} values of {len(keys_tried)} keys: {trained} trained as written, {refused} refused in two lines, {wrong} neither")
    return wrong == 0


COMMANDS: dict[str, Callable[..., bool]] = {
    function.__name__: function for function in (kills, mistakes, files, checkpoints, full_disk, config_fuzz, config_values, soak)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=COMMANDS)
    parser.add_argument("-n", type=int, help="how many, for kills, config_fuzz and soak")
    arguments = parser.parse_args()
    options = {} if arguments.n is None else {"n": arguments.n}
    sys.exit(0 if COMMANDS[arguments.what](**options) else 1)


if __name__ == "__main__":
    main()
