"""Embedded checkpoints: small vision-language models that come with the package, and their recipe.

Each is an ordinary Hugging Face folder, loadable with
``AutoModelForImageTextToText.from_pretrained`` and ``AutoProcessor.from_pretrained``, trained on
the digit scenes of ``mechvrp.data`` by

    python -m mechvrp.models.zoo.train NAME

and measured by ``mechvrp models --evaluate NAME``, which writes the model card beside the weights
(``python -m mechvrp.models.zoo.evaluate NAME`` measures accuracy alone, with plain transformers).
"""

from mechvrp.models.zoo.folders import folder as folder
from mechvrp.models.zoo.folders import names as names

__all__ = ["folder", "names"]
