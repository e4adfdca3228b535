"""`best.ckpt`, also of a run whose folder has been moved or copied since it began."""

from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint


class BestCheckpoint(ModelCheckpoint):
    """Lightning's checkpoint of the best figure, which otherwise forgets that figure when it finds itself in another folder.

    Args:
        options: what ModelCheckpoint takes.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the paths of the checkpoint for those of this folder."""

        def here(path: str) -> str:
            return str(Path(self.dirpath or "") / Path(path.replace("\\", "/")).name) if path else path

        moved = dict(state_dict)
        moved["dirpath"] = self.dirpath
        for name in ("best_model_path", "kth_best_model_path", "last_model_path"):
            moved[name] = here(state_dict.get(name) or "")
        moved["best_k_models"] = {here(path): score for path, score in state_dict.get("best_k_models", {}).items()}
        super().load_state_dict(moved)
