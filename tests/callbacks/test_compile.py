"""Compilation in place."""

import torch

from src.callbacks import Compile


def test_the_network_is_compiled_and_keeps_its_names(fit):
    plain = fit(limit_train_batches=2).task.state_dict()
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    compiled = fit(Compile(backend=backend), limit_train_batches=2).task.state_dict()
    assert graphs and list(compiled) == list(plain)
    assert all(torch.equal(compiled[name], value) for name, value in plain.items())
