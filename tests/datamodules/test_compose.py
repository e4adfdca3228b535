"""Several augmentations: per image in the loader, of whole batches on the device."""

from types import SimpleNamespace

import torch
from helpers import composed
from torchvision.transforms import v2

from src.config.instantiate import instantiate_datamodule
from src.datamodules import Compose, CropFlip, PerImage, RandomResizedCrop


def test_transforms_per_image_run_in_the_loader_and_the_others_on_the_device():
    cfg = composed(
        [
            "data=digits", "data.image_size=8", "data/augment=photos", "data.augment.crop.flip=0",
            "data.augment.crop.scale=[1,1]", "data.augment.crop.ratio=[1,1]",
            "~data.augment.color", "+data/augment@data.augment.erasing=random_erasing",
            "data.augment.erasing.transform.p=1", "data.num_workers=0",
        ]
    )  # fmt: skip
    data = instantiate_datamodule(cfg)
    data.trainer = SimpleNamespace(
        training=True, global_rank=0, world_size=1, overfit_batches=0,
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
    )  # fmt: skip
    loaded = next(iter(data.train_dataloader()))
    assert loaded[0].shape[-1] == 12  # erased, and not yet cropped
    images, _ = data.on_after_batch_transfer(loaded, 0)
    assert images.shape[-1] == 8
    positions = torch.arange(64)
    darker = (
        data.augmented(positions).float().mean() / data.images("train", positions).float().mean()
    )
    assert 0.5 < darker < 0.95


def test_parts_are_joined_and_may_be_left_out():
    both = Compose(a=v2.RandomInvert(1.0), b=PerImage(lambda image: image // 2), crop=None)
    image = torch.full((1, 1, 2, 2), 55, dtype=torch.uint8)
    assert both.per_image(image, [0]).unique().tolist() == [100]
    assert torch.equal(both(image), image)
    assert Compose().per_image is None and Compose().store_scale == 1
    assert Compose(a=CropFlip(), b=RandomResizedCrop(store_scale=2)).store_scale == 2
