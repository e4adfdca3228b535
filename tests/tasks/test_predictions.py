"""Predictions come in the order of the split, whatever the order of the batches."""

import torch

from src.tasks.predictions import PredictionStore


def test_predictions_in_the_order_of_the_split():
    logits = torch.randn(7, 6, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(7) % 6
    store = PredictionStore(6)
    for rows in (torch.tensor([4, 1, 6]), torch.tensor([0, 5]), torch.tensor([3, 2])):
        store.update(rows, labels[rows], logits[rows])
    predictions = store.to_predictions()
    probabilities = logits.softmax(1)
    assert predictions.positions.tolist() == list(range(7))
    assert torch.equal(predictions.labels, labels)
    assert torch.equal(predictions.predicted, logits.argmax(1))
    assert torch.equal(predictions.topk, logits.topk(5).indices)
    assert torch.equal(predictions.confidence, probabilities.amax(1))
    assert torch.equal(predictions.true_probability, probabilities[range(7), labels])


def test_a_pass_without_images_gives_no_rows():
    store = PredictionStore(3)
    store.update(torch.tensor([0]), torch.tensor([1]), torch.zeros(1, 3))
    store.reset()
    predictions = store.to_predictions()
    assert predictions.labels.shape == (0,) and predictions.topk.shape == (0, 3)
