"""What a training run depends on besides data and code, and the recipe of each model; imports no torch."""

import json
import math
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from inference.errors import InferenceError

RECIPE_FILE = "recipe.json"


class RunError(InferenceError):
    """A run folder cannot be used; the message names it and what is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything a run depends on besides data and code; written to ``recipe.json`` of the run folder.

    Parameters
    ----------
    stages
        (epochs, input size in pixels) in order: small pictures first, the serving size last.
    samples_per_epoch
        Draws, with replacement, by ``dataset.sampling_weights``.
    warm_up
        Share of all steps in which the learning rate rises.
    average_decay
        Decay per step of the exponential moving average of the weights, which is what is exported.
    nih_share
        Share of draws from NIH images.
    mix_probability, mix_alpha
        Share of batches whose pictures are blended in pairs, and the parameter of the Beta distribution of the blend
        (mixup, Zhang et al., ICLR 2018).
    inside_weight, lungs_weight, border_weight
        Weight of what the class activation maps of pneumonia are asked for beside the label (right for the right
        reasons, Ross et al., IJCAI 2017): to lie inside the radiologists' boxes where there are any, inside the lung
        fields elsewhere, and away from the outer border everywhere.
    begins_from
        SHA-256 of the weights file that the run begins with; empty for random weights.
    threads
        Of torch, on the CPU.
    """

    stages: tuple[tuple[int, int], ...] = ((14, 128), (6, 160), (4, 224))
    samples_per_epoch: int = 4800
    batch_size: int = 32
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.05
    warm_up: float = 0.1
    average_decay: float = 0.998
    nih_share: float = 0.35
    mix_probability: float = 0.4
    mix_alpha: float = 0.4
    inside_weight: float = 0.4
    lungs_weight: float = 0.15
    border_weight: float = 0.2
    dropout: float = 0.2
    seed: int = 20261123
    begins_from: str = ""
    threads: int = 1

    def __post_init__(self) -> None:
        if not self.stages or min(min(epochs, size - 31) for epochs, size in self.stages) < 1:
            raise ValueError(f"stages {self.stages} need at least one epoch each, at 32 pixels or more")
        if not 1 <= self.batch_size <= self.samples_per_epoch:
            raise ValueError(f"batch_size {self.batch_size} is not between 1 and samples_per_epoch")
        if self.batch_size == 1 and any(size < 64 for _, size in self.stages):
            raise ValueError("batch_size 1 needs stages of 64 pixels or more: one cell cannot be normalised")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ValueError(f"learning_rate {self.learning_rate} is not above 0")
        if self.seed < 0:
            raise ValueError(f"seed {self.seed} is below 0")
        if self.threads < 1:
            raise ValueError(f"threads {self.threads} is below 1")

    @property
    def epochs(self) -> int:
        """Number of epochs of all stages."""
        return sum(epochs for epochs, _ in self.stages)

    def size(self, epoch: int) -> int:
        """Input size of an epoch, counted from 0."""
        for epochs, size in self.stages:
            if epoch < epochs:
                return size
            epoch -= epochs
        return self.stages[-1][1]

    def to_json(self) -> str:
        """The text of ``recipe.json``."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Recipe":
        """Read the text of ``recipe.json``; what it does not name keeps its default.

        Raises
        ------
        ValueError
            Unknown key or a value that cannot be.
        """
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError("a recipe is a JSON object")  # noqa: TRY004 - every fault of the text is a ValueError
        if unknown := values.keys() - {field.name for field in fields(cls)}:
            raise ValueError(f"unknown key {min(unknown)}")
        if "stages" in values:
            values["stages"] = tuple((int(epochs), int(size)) for epochs, size in values["stages"])
        return cls(**values)


RECIPES: dict[str, Recipe] = {
    "resnet18": Recipe(stages=((9, 96), (6, 128), (5, 160), (5, 224))),
    "efficientnet_b0": Recipe(stages=((7, 96), (4, 128), (2, 160), (3, 224))),
    "densenet121": Recipe(stages=((9, 96), (5, 128), (4, 160), (2, 224))),
}
"""By model; a model that is not here is trained by the defaults of ``Recipe``."""


def recipe_of(model: str) -> Recipe:
    """Look up the recipe that a model is trained by unless told otherwise."""
    return RECIPES.get(model, Recipe())


def read_recipe(folder: Path) -> Recipe | None:
    """Read the recipe of a run folder; None where no run was begun.

    Raises
    ------
    RunError
        ``recipe.json`` is there and cannot be used.
    """
    file = folder / RECIPE_FILE
    try:
        return Recipe.from_json(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise RunError(f"{file}: {error}") from error


def write_recipe(folder: Path, recipe: Recipe) -> None:
    """Write the recipe of a run that begins, or see that the run that is there has the same one.

    Raises
    ------
    RunError
        The folder holds a run by another recipe, going on with which would be neither run; or it cannot be written.
    """
    known = read_recipe(folder)
    if known is None:
        partial = folder / f"{RECIPE_FILE}.part"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            partial.write_text(recipe.to_json(), encoding="utf-8")
            partial.replace(folder / RECIPE_FILE)
        except OSError as error:
            raise RunError(f"{folder} cannot be written: {error.strerror}") from error
    elif replace(known, threads=recipe.threads) != recipe:
        changed = [f.name for f in fields(Recipe) if getattr(known, f.name) != getattr(recipe, f.name)]
        raise RunError(f"{folder} holds a run by another recipe ({', '.join(changed)} differ); choose another folder")
