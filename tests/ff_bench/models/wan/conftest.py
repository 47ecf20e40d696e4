"""Libraries of the Wan family import torchvision where it is installed."""

from ff_bench.libraries import mend_torchvision

mend_torchvision()
