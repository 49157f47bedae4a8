"""Real power cuts: an emulated Debian whose plug is pulled, over and over, with one disk. See ``scripts/powercut``."""
