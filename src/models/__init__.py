"""Networks: plain `nn.Module`s that know neither data nor training.

They take `in_channels` (of the images) and `num_classes` (number of logits), and `image_size` where
layers depend on it. A new network needs no line here: its YAML file names it by its full path,
`src.models.my_net.MyNet`.
"""

from .efficientnet_lite0 import EfficientNetLite0
from .lenet import LeNet
from .quick import Quick
from .resnet9 import ResNet9
from .simple_v3 import SimpleV3
from .timm import Timm
from .torchvision import Torchvision

__all__ = ["EfficientNetLite0", "LeNet", "Quick", "ResNet9", "SimpleV3", "Timm", "Torchvision"]
