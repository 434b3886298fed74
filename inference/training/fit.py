"""Train one classifier from random or given weights; resumable from the last finished epoch, with the same outcome.

What a run leaves is a folder: ``recipe.json``, ``log.jsonl`` (figures of each epoch) and ``state.pt`` (the last
finished epoch). Making a checkpoint of it is ``export``'s work.
"""

import fcntl
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, TextIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from inference.models.catalog import Architecture
from inference.models.preprocess import InputSpec, normalise
from inference.training.augment import augment
from inference.training.dataset import Box, LabelledImage, load_images, sampling_weights
from inference.training.recipe import Recipe, RunError, write_recipe
from inference.training.state import LOG_FILE, STATE_FILE, write_state

LOCK_FILE = "lock"

BORDER = 0.08
"""Outer share of the image, each side, where a map has no business."""

LUNG_FIELDS: tuple[Box, ...] = ((0.08, 0.12, 0.38, 0.66), (0.54, 0.12, 0.38, 0.66))
"""Where lungs lie on frontal radiographs, generously; for images of pneumonia that nobody drew boxes on."""

Report = Callable[[dict[str, float]], None]
"""Gets one record of figures an epoch: ``epoch`` (from 1), ``size``, ``loss``, ``duration_s``."""
Advance = Callable[[int, int, float], None]
"""Called after each step with the epoch (from 0), the steps done in it and the mean loss so far."""


class Fit:
    """One run in one folder.

    Parameters
    ----------
    rows
        What is trained on; the caller chose the split.
    folder
        Made if it is not there; a run that is there goes on after its last finished epoch.
    initial
        The weights to begin with, as ``state_dict`` names them, whose hash the recipe holds as ``begins_from``; random
        ones when None. A run that goes on takes its own.

    Raises
    ------
    RunError
        The folder holds a run by another recipe, is in use by another process or cannot be written; its state cannot
        be read; or the recipe names weights to begin with, and they are not given.
    """

    def __init__(
        self,
        architecture: Architecture,
        rows: Sequence[LabelledImage],
        folder: Path,
        recipe: Recipe,
        initial: Mapping[str, Tensor] | None = None,
    ) -> None:
        self._recipe = recipe
        self._rows = rows
        self._folder = folder
        self._architecture = architecture
        if recipe.begins_from and initial is None and not (folder / STATE_FILE).exists():
            begins_from = f"the weights of SHA-256 {recipe.begins_from[:12]}..."
            raise RunError(f"{folder} begins with {begins_from}, and has no finished epoch; give them again (--from)")
        write_recipe(folder, recipe)
        self._lock = self._open_lock()
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.close()
            raise RunError(f"{folder} is in use by another process") from error
        torch.manual_seed(recipe.seed)
        torch.set_num_threads(recipe.threads)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        network = architecture.build()
        for module in network.modules():
            if isinstance(module, nn.Dropout):
                module.p = recipe.dropout
        last = _last_linear(network)
        # torchvision draws EfficientNet's last weights from +-1/sqrt(outputs), +-1 here: every logit would start
        # saturated, and the first epochs would only bring them down.
        nn.init.normal_(last.weight, std=0.01)
        nn.init.zeros_(last.bias)
        if initial is not None:
            network.load_state_dict(initial)
        self.network = network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload] # torch's overloads leave out memory_format with a device
        self.average = AveragedModel(self.network, avg_fn=self._average, use_buffers=True)
        decayed = [p for p in self.network.parameters() if p.ndim > 1]
        others = [p for p in self.network.parameters() if p.ndim <= 1]
        self._optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}],
            lr=recipe.learning_rate,
        )
        self.steps_per_epoch = recipe.samples_per_epoch // recipe.batch_size
        self._draw = sampling_weights(rows, recipe.nih_share)
        self._targets = np.asarray([row.target for row in rows], dtype=np.float32)
        self._images: tuple[int, NDArray[np.uint8]] | None = None
        self.epoch = 0
        try:
            self._resume()
        except RunError:
            self.close()
            raise

    def _open_lock(self) -> TextIO:
        file = self._folder / LOCK_FILE
        try:
            return file.open("w")
        except OSError as error:
            raise RunError(f"{file} cannot be written: {error.strerror}") from error

    def close(self) -> None:
        """Let another process have the folder."""
        self._lock.close()

    def _average(self, averaged: Tensor, current: Tensor, count: Tensor | int) -> Tensor:
        # The first steps count more, or the random weights of the start would stay in the average for long.
        decay = min(self._recipe.average_decay, (1 + int(count)) / (10 + int(count)))
        return averaged.lerp(current, 1 - decay) if averaged.is_floating_point() else current

    def _resume(self) -> None:
        if not (self._folder / STATE_FILE).exists():
            return
        state = read_state(self._folder, self.device)
        try:
            self.network.load_state_dict(state["network"])
            self.average.load_state_dict(state["average"])
            self._optimizer.load_state_dict(state["optimizer"])
            self.epoch = int(state["epoch"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise RunError(f"{self._folder / STATE_FILE} is of another network: {error}") from error

    def _save(self, epoch: int) -> None:
        state = {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "epoch": epoch,
        }
        write_state(self._folder, state)

    def _rate(self, step: int) -> float:
        """Learning rate of a step: linear warm-up, then a half cosine to zero."""
        progress = step / (self._recipe.epochs * self.steps_per_epoch)
        if progress < self._recipe.warm_up:
            return self._recipe.learning_rate * (0.05 + 0.95 * progress / self._recipe.warm_up)
        rest = (progress - self._recipe.warm_up) / (1 - self._recipe.warm_up)
        return self._recipe.learning_rate * (0.5 * (1 + float(np.cos(np.pi * rest))) + 1e-3)

    def run(self, report: Report, advance: Advance | None = None, until: int | None = None) -> None:
        """Train the epochs that are left; ``report`` gets one record of figures an epoch.

        Parameters
        ----------
        until
            Stop after so many epochs of the run, counted from its beginning; all of the recipe's when None.

        Raises
        ------
        RunError
            An epoch ends without a finite loss or cannot be written; the one before it is kept.
        """
        end = self._recipe.epochs if until is None else min(until, self._recipe.epochs)
        while self.epoch < end:
            began = time.monotonic()
            loss = self._train_epoch(advance)
            if not math.isfinite(loss):
                raise RunError(f"{self._folder}: epoch {self.epoch + 1} ended with a loss of {loss} and is not kept")
            self._save(self.epoch + 1)
            self.epoch += 1
            record = {
                "epoch": self.epoch,
                "size": self._recipe.size(self.epoch - 1),
                "loss": loss,
                "duration_s": time.monotonic() - began,
            }
            with (self._folder / LOG_FILE).open("a") as log:
                log.write(json.dumps(record) + "\n")
            report(record)

    def logits(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits of the averaged network, for watching a run; figures that count come from the engine.

        Parameters
        ----------
        images
            (n, rows, columns) uint8.

        Returns
        -------
        (n,) float32
        """
        spec = InputSpec(rows=images.shape[1], columns=images.shape[2])
        self.average.eval()
        found = []
        with torch.inference_mode(), torch.autocast(self.device.type, dtype=torch.bfloat16):
            for start in range(0, len(images), self._recipe.batch_size):
                part = images[start : start + self._recipe.batch_size]
                batch = torch.from_numpy(np.stack([normalise(image, spec) for image in part]))
                x = batch.to(self.device, memory_format=torch.channels_last)
                found.append(self.average(x)[:, 0].float().cpu().numpy())
        return np.concatenate(found)

    def _train_epoch(self, advance: Advance | None) -> float:
        recipe, size = self._recipe, self._recipe.size(self.epoch)
        if self._images is None or self._images[0] != size:
            self._images = (size, load_images(self._rows, size))
        images = self._images[1]
        # Each epoch begins with seeds of its own, so that a resumed run draws what an uninterrupted one would have.
        rng = np.random.default_rng((recipe.seed, self.epoch))
        torch.manual_seed(int(np.random.SeedSequence((recipe.seed, self.epoch)).generate_state(1)[0]))
        self.network.train()
        total = 0.0
        for step in range(self.steps_per_epoch):
            rate = self._rate(self.epoch * self.steps_per_epoch + step)
            for group in self._optimizer.param_groups:
                group["lr"] = rate
            loss = self._loss(images, rng)
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call] # torch leaves it unannotated
            nn.utils.clip_grad_norm_(self.network.parameters(), 2.0)
            self._optimizer.step()
            self.average.update_parameters(self.network)
            total += float(loss.detach())
            if advance is not None:
                advance(self.epoch, step + 1, total / (step + 1))
        return total / self.steps_per_epoch

    def _loss(self, images: NDArray[np.uint8], rng: np.random.Generator) -> Tensor:
        """Draw a batch and say how far the network is from what is asked of it."""
        recipe = self._recipe
        spec = InputSpec(rows=images.shape[1], columns=images.shape[2])
        drawn = rng.choice(len(self._rows), recipe.batch_size, p=self._draw)
        rows = [self._rows[i] for i in drawn]
        changed = [augment(images[i], row.boxes or LUNG_FIELDS, rng) for i, row in zip(drawn, rows, strict=True)]
        batch = np.stack([normalise(image, spec) for image, _ in changed])
        masks = torch.from_numpy(np.stack([mask for _, mask in changed])).to(self.device)
        x = torch.from_numpy(batch).to(self.device, memory_format=torch.channels_last)
        y = torch.from_numpy(self._targets[drawn]).to(self.device)
        is_mixed = rng.random() < recipe.mix_probability
        if is_mixed:
            keep = float(rng.beta(recipe.mix_alpha, recipe.mix_alpha))
            order = torch.from_numpy(rng.permutation(recipe.batch_size)).to(self.device)
            x, y = keep * x + (1 - keep) * x[order], keep * y + (1 - keep) * y[order]
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            activations = self._architecture.trunk(self.network, x)
            logits = self._architecture.head(self.network, activations)[:, 0]
        loss = nn.functional.binary_cross_entropy_with_logits(logits.float(), y)
        if is_mixed:  # two pictures on top of each other have no map worth asking anything of
            return loss
        has_boxes = torch.tensor([bool(row.boxes) for row in rows], device=self.device)
        return loss + self._explanation_loss(activations.float(), masks, has_boxes, y >= 0.5)

    def _explanation_loss(self, activations: Tensor, masks: Tensor, has_boxes: Tensor, is_positive: Tensor) -> Tensor:
        """What the class activation maps of a batch lack: energy in boxes or lungs, none at the border.

        For networks that pool and then apply one linear layer, the map is the weighted sum of the activations (Zhou et
        al., CVPR 2016), which Grad-CAM generalises; for others nothing is asked.

        Parameters
        ----------
        activations
            (batch, channels, h, w) float32 of the target layer.
        masks
            (batch, rows, columns) float32, 1 inside the boxes, or inside the lung fields of an image without boxes.
        has_boxes, is_positive
            (batch,) bool; only images that aim at pneumonia have a map worth asking anything of.
        """
        last = _last_linear(self.network)
        if last.in_features != activations.shape[1] or min(activations.shape[2:]) < 4:
            return activations.new_zeros(())
        maps = torch.einsum("bchw,c->bhw", activations, last.weight[0]).relu()
        border = torch.ones_like(masks[:1])
        depth = round(BORDER * masks.shape[1])
        border[:, depth:-depth, depth:-depth] = 0
        at_border = _share(maps, border)
        missed = -(_share(maps, masks) + 0.05).log()
        recipe = self._recipe
        return (
            recipe.inside_weight * _mean(missed, has_boxes & is_positive)
            + recipe.lungs_weight * _mean(missed, ~has_boxes & is_positive)
            + recipe.border_weight * _mean(at_border, is_positive)
        )


def _last_linear(network: nn.Module) -> nn.Linear:
    return [module for module in network.modules() if isinstance(module, nn.Linear)][-1]


def _share(maps: Tensor, masks: Tensor) -> Tensor:
    """Share of each map's energy inside its mask; maps (batch, h, w), masks (batch or 1, rows, columns)."""
    height, width = maps.shape[1:]
    inside = maps * nn.functional.adaptive_avg_pool2d(masks, (height, width))
    return inside.sum((1, 2)) / (maps.sum((1, 2)) + 1e-3)


def _mean(values: Tensor, chosen: Tensor) -> Tensor:
    """Mean of the chosen values; 0 when there are none."""
    weights = chosen.float()
    return (values * weights).sum() / weights.sum().clamp(min=1)


def read_state(folder: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read the last finished epoch of a run: ``network``, ``average``, ``optimizer``, ``epoch``.

    Raises
    ------
    RunError
        There is none, or it is damaged.
    """
    file = folder / STATE_FILE
    try:
        state: dict[str, Any] = torch.load(file, weights_only=True, map_location=device)
    except FileNotFoundError as error:
        raise RunError(f"{folder} has no finished epoch ({STATE_FILE})") from error
    except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
        raise RunError(f"{file} cannot be read: {error}") from error
    return state
