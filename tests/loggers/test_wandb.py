"""The W&B logger offline; its files are read back."""

import json
import struct

import pytest
from helpers import QUICK, composed

from src.engine.train import train
from src.runs.reading import check_folder

pytest.importorskip("wandb")
OPTIONS = ["model=lenet", "data.image_size=16", *QUICK, "logger=wandb"]


def records(folder):
    """What W&B's file of an offline run holds: a log as LevelDB writes it, in blocks of 32 KiB."""
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = folder.glob("*.wandb")
    data = path.read_bytes()
    position, content = 7, b""
    while position < len(data):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        content += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(content)
            content = b""


@pytest.mark.slow
def test_a_resumed_run_continues_its_wandb_run(tmp_path):
    folder = tmp_path / "run"
    first = train(composed(OPTIONS), folder)
    check_folder(folder)  # as `resume` does
    resume = f"resume={folder}/checkpoints/last.ckpt"
    train(composed([*OPTIONS, "trainer.max_epochs=2", resume]), folder)

    parts = sorted(folder.glob("wandb/offline-run-*"))
    logged = [list(records(part)) for part in parts]
    runs = [record.run for part in logged for record in part if record.HasField("run")]
    assert {run.run_id for run in runs} == {(folder / "wandb_run_id").read_text().strip()}
    assert {run.display_name for run in runs} == {f"{tmp_path.name}/run"}
    assert [r.exit.exit_code for r in logged[0] if r.HasField("exit")] == [0]
    history = {
        "/".join(item.nested_key) or item.key: json.loads(item.value_json)
        for record in logged[0]
        for item in record.history.item
    }
    assert history["results/test/acc"] == pytest.approx(first["test"]["acc"])
    assert "plots/confusion_matrix" in {name.removesuffix("/filenames") for name in history}
    assert list(parts[0].glob("files/media/images/plots/confusion_matrix*.png"))
