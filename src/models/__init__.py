"""Networks: plain `nn.Module`s that take `in_channels` and `num_classes` and return logits. They know neither data nor training.

A new network needs no line here: its YAML names it by its full path, `src.models.my_net.MyNet`.
"""

from src.models.efficientnet_lite0 import EfficientNetLite0
from src.models.lenet import LeNet
from src.models.quick import Quick
from src.models.resnet9 import ResNet9
from src.models.simple_v3 import SimpleV3
from src.models.timm import Timm
from src.models.torchvision import Torchvision

__all__ = ["EfficientNetLite0", "LeNet", "Quick", "ResNet9", "SimpleV3", "Timm", "Torchvision"]
