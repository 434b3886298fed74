"""Train one classifier from random weights; resumable from the last finished epoch."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from inference.models.catalog import Architecture
from inference.models.preprocess import InputSpec, normalise
from inference.training.augment import augment
from inference.training.dataset import LabelledImage, load_images, sampling_weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything a run depends on besides data and code; written to ``recipe.json`` of the run folder.

    Parameters
    ----------
    stages
        (epochs, input size in pixels) in order: small pictures first, the serving size last.
    samples_per_epoch
        Draws, with replacement, by ``sampling_weights``.
    average_decay
        Decay per step of the exponential moving average of the weights, which is what is exported.
    mix_probability, mix_alpha
        Share of batches whose pictures are blended in pairs, and the parameter of the Beta distribution of the blend
        (mixup, Zhang et al., ICLR 2018).
    inside_weight, border_weight
        Weight of what the class activation maps are asked for beside the label: to lie inside the radiologists' boxes
        where there are any, and away from the outer border everywhere.
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
    inside_weight: float = 0.15
    border_weight: float = 0.15
    dropout: float = 0.2
    seed: int = 20261123
    threads: int = 1

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


Report = Callable[[dict[str, float]], None]


class Fit:
    """One run in one folder: ``recipe.json``, ``log.jsonl`` and ``state.pt`` (the last finished epoch)."""

    def __init__(self, architecture: Architecture, rows: list[LabelledImage], folder: Path, recipe: Recipe) -> None:
        self._recipe = recipe
        self._rows = rows
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "recipe.json").write_text(json.dumps(asdict(recipe), indent=2) + "\n")
        torch.manual_seed(recipe.seed)
        torch.set_num_threads(recipe.threads)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        network = architecture.build()
        for module in network.modules():
            if isinstance(module, nn.Dropout):
                module.p = recipe.dropout
        self._architecture = architecture
        self.network = network.to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = AveragedModel(self.network, avg_fn=self._average, use_buffers=True)
        decayed = [p for p in self.network.parameters() if p.ndim > 1]
        others = [p for p in self.network.parameters() if p.ndim <= 1]
        self._optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}],
            lr=recipe.learning_rate,
        )
        self._steps_per_epoch = recipe.samples_per_epoch // recipe.batch_size
        self._draw = sampling_weights(rows, recipe.nih_share)
        self._images: tuple[int, NDArray[np.uint8]] | None = None
        self.epoch = 0
        self._resume()

    def _average(self, averaged: Tensor, current: Tensor, count: Tensor | int) -> Tensor:
        decay = min(self._recipe.average_decay, (1 + int(count)) / (10 + int(count)))
        return averaged.lerp(current, 1 - decay) if averaged.is_floating_point() else current

    def _resume(self) -> None:
        state_file = self._folder / "state.pt"
        if not state_file.exists():
            return
        state = torch.load(state_file, weights_only=True, map_location=self._device)
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.epoch = int(state["epoch"])

    def _save(self) -> None:
        state = {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "epoch": self.epoch,
        }
        partial = self._folder / "state.pt.part"
        torch.save(state, partial)
        partial.replace(self._folder / "state.pt")

    def _rate(self, step: int) -> float:
        """Learning rate of a step: linear warm-up, then a half cosine to zero."""
        progress = step / (self._recipe.epochs * self._steps_per_epoch)
        if progress < self._recipe.warm_up:
            return self._recipe.learning_rate * (0.05 + 0.95 * progress / self._recipe.warm_up)
        rest = (progress - self._recipe.warm_up) / (1 - self._recipe.warm_up)
        return self._recipe.learning_rate * (0.5 * (1 + float(np.cos(np.pi * rest))) + 1e-3)

    def run(self, report: Report) -> None:
        """Train the epochs that are left; ``report`` gets one record of figures an epoch."""
        while self.epoch < self._recipe.epochs:
            began = time.monotonic()
            loss = self._train_epoch()
            self.epoch += 1
            self._save()
            record = {
                "epoch": self.epoch,
                "size": self._recipe.size(self.epoch - 1),
                "loss": loss,
                "duration_s": time.monotonic() - began,
            }
            with (self._folder / "log.jsonl").open("a") as log:
                log.write(json.dumps(record) + "\n")
            report(record)

    def _train_epoch(self) -> float:
        recipe, size = self._recipe, self._recipe.size(self.epoch)
        if self._images is None or self._images[0] != size:
            self._images = (size, load_images(self._rows, size))
        images = self._images[1]
        spec = InputSpec(rows=size, columns=size)
        rng = np.random.default_rng((recipe.seed, self.epoch))
        targets = np.asarray([row.target for row in self._rows], dtype=np.float32)
        self.network.train()
        total = 0.0
        for step in range(self._steps_per_epoch):
            rate = self._rate(self.epoch * self._steps_per_epoch + step)
            for group in self._optimizer.param_groups:
                group["lr"] = rate
            drawn = rng.choice(len(self._rows), recipe.batch_size, p=self._draw)
            changed = [augment(images[i], self._rows[i].boxes, rng) for i in drawn]
            batch = np.stack([normalise(image, spec) for image, _ in changed])
            masks = np.stack([mask for _, mask in changed])
            x = torch.from_numpy(batch).to(self._device, memory_format=torch.channels_last)
            y = torch.from_numpy(targets[drawn]).to(self._device)
            is_mixed = rng.random() < recipe.mix_probability
            if is_mixed:
                keep = float(rng.beta(recipe.mix_alpha, recipe.mix_alpha))
                order = torch.from_numpy(rng.permutation(recipe.batch_size)).to(self._device)
                x, y = keep * x + (1 - keep) * x[order], keep * y + (1 - keep) * y[order]
            with torch.autocast(self._device.type, dtype=torch.bfloat16):
                activations = self._architecture.trunk(self.network, x)
                logits = self._architecture.head(self.network, activations)[:, 0]
            loss = nn.functional.binary_cross_entropy_with_logits(logits.float(), y)
            if not is_mixed:
                loss = loss + self._explanation_loss(activations.float(), torch.from_numpy(masks).to(self._device), y)
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self.network.parameters(), 2.0)
            self._optimizer.step()
            self.average.update_parameters(self.network)
            total += float(loss.detach())
        return total / self._steps_per_epoch

    def _explanation_loss(self, activations: Tensor, masks: Tensor, targets: Tensor) -> Tensor:
        """What the class activation maps of a batch lack: energy inside the boxes, none at the border.

        For networks that pool and then apply one linear layer, the map is the weighted sum of the activations (Zhou et
        al., CVPR 2016), which Grad-CAM generalises; for others nothing is asked.

        Parameters
        ----------
        activations
            (batch, channels, h, w) float32 of the target layer.
        masks
            (batch, rows, columns) float32, 1 inside the boxes; all 0 where there are none.
        targets
            (batch,) float32; only images that aim at pneumonia have a map worth asking anything of.
        """
        last = [module for module in self.network.modules() if isinstance(module, nn.Linear)][-1]
        if last.in_features != activations.shape[1] or min(activations.shape[2:]) < 4:
            return activations.new_zeros(())
        maps = torch.einsum("bchw,c->bhw", activations, last.weight[0]).relu()
        energy = maps.sum((1, 2)) + 1e-3
        border = torch.ones_like(masks[:1])
        depth = round(0.08 * masks.shape[1])
        border[:, depth:-depth, depth:-depth] = 0
        pool = nn.functional.adaptive_avg_pool2d
        at_border = (maps * pool(border, maps.shape[1:])).sum((1, 2)) / energy
        inside = (maps * pool(masks, maps.shape[1:])).sum((1, 2)) / energy
        has_boxes = (masks.sum((1, 2)) > 0).float()
        is_positive = (targets >= 0.5).float()
        outside = -(inside + 0.05).log() * has_boxes
        lost = self._recipe.inside_weight * outside + self._recipe.border_weight * at_border * is_positive
        return lost.mean()
