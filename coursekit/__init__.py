"A Colab-first deep-learning course kit."
from importlib.metadata import version

__version__ = version("coursekit")
