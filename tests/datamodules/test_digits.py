"""The digits of scikit-learn."""

from src.datamodules import DigitsDataModule


def test_test_images_of_the_digits_are_not_in_train():
    data = DigitsDataModule(image_size=8)
    data.setup()
    train = {image.numpy().tobytes() for image in data._sets["train"][0]}
    assert len(data._sets["test"][0]) == 360
    assert not any(image.numpy().tobytes() in train for image in data._sets["test"][0])
