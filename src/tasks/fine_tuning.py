"""Which part of a network is its head, what is frozen, and how parameters are grouped for the optimizer."""

from torch import nn

from src.errors import UserError


def head_of(model: nn.Module, num_classes: int) -> nn.Module:
    """The last layer with parameters, which makes the logits; all before it is the backbone.

    Raises:
        UserError: it has not one output a class.
    """
    last = [m for m in model.modules() if any(True for _ in m.parameters(recurse=False))][-1]
    outputs = getattr(last, "out_features", getattr(last, "out_channels", None))
    if outputs != num_classes:
        raise UserError(
            f"The head of {type(model).__name__} cannot be told: its last layer with parameters is {last}, for {num_classes} classes.",
            "Build the network so that its last layer makes the logits, or leave task.freeze_backbone and task.backbone_lr as they are.",
        )
    return last


def set_frozen(model: nn.Module, head: nn.Module, frozen: bool) -> None:
    """Freeze or release the parameters of the backbone."""
    own = {id(p) for p in head.parameters()}
    for parameter in model.parameters():
        if id(parameter) not in own:
            parameter.requires_grad_(not frozen)


def parameter_groups(model: nn.Module, head: nn.Module | None, decay_norm_and_bias: bool) -> list[dict]:
    """Parameter groups for an optimizer: backbone before head, each split into what weight decay is meant for and what is not.

    Args:
        head: None makes no difference between backbone and head.
        decay_norm_and_bias: False gives vectors (norm layers and biases) a group with no weight decay, as He et al. (2019,
            Bag of Tricks) found best.

    Returns:
        Groups with `params`, `backbone` (bool) and, where it is 0, `weight_decay`.
    """
    own = set(map(id, head.parameters())) if head is not None else set(map(id, model.parameters()))
    groups: list[dict] = []
    for backbone in (True, False):
        part = [p for p in model.parameters() if (id(p) not in own) == backbone]
        if decay_norm_and_bias:
            groups.append({"params": part, "backbone": backbone})
        else:
            groups.append({"params": [p for p in part if p.ndim <= 1], "backbone": backbone, "weight_decay": 0.0})
            groups.append({"params": [p for p in part if p.ndim > 1], "backbone": backbone})
    return [group for group in groups if group["params"]]
