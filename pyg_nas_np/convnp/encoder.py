r"""A prior from measurements of other spaces: trained encoders of graphs of operations, and their weight files."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Self

from pyg_nas_np.convnp.weights import WEIGHTS
from pyg_nas_np.features.operation_inputs import EncoderInputs, shared_operation_inputs
from pyg_nas_np.features.tables import KeptRows, chunked, kept_on_disk, mostly_whole, space_sample
from pyg_nas_np.nn.operation_encoder import OperationEncoder
from pyg_nas_np.spaces.base import Archs, EnumerableSpace, SearchSpace
from pyg_nas_np.spaces.described import has_graphs
from pyg_nas_np.utils import as_device, foreign_file, map_chunks, on_device, read_tensors, write_tensors
from pyg_nas_np.utils.defaults import fixed_defaults
from pyg_nas_np.utils.state_files import load_module, read_json

FORMAT = "pyg_nas_np.encoder/1"

CHUNK = {"cpu": 1 << 10, "cuda": 1 << 14}
"""Graphs that are encoded at a time; on a CPU their states fit into the cache."""

CPU = torch.device("cpu")

REFERENCE = 1 << 11
"""Architectures that give the scale of the scores of a space, and tell whether it was seen."""

KEPT_FROM = 10_000
"""Size of a space from which the scores of all its architectures are kept on disk."""

SEEN = 0.04
"""A family was seen if this part of its graphs, or of those of the space, are the same.

Small graphs meet by chance: 2.8 % of the different cells of NAS-Bench-201 are cells of NAS-Bench-101 too. Of a draw
from all cells of NAS-Bench-101, 4.7 % are among the 20,001 that were measured."""

UNDERSTOOD = 0.8
"""An encoder is asked about a space if it knows the roles of this part of its operations."""

UNIVERSAL = "universal"
"""Name of the encoders that the package ships."""


class PriorEncoder:
    r"""Scores architectures of any space with graphs by what was measured in other spaces.

    Args:
        encoders: Trained encoders, whose standardised scores are averaged.
        card: What they were trained on.
    """

    def __init__(self, encoders: Sequence[OperationEncoder], card: dict[str, Any]) -> None:
        self.encoders, self.card = list(encoders), card

    def scores(self, space: SearchSpace[Any], archs: Archs = None, device: str | torch.device = "auto") -> Tensor:
        r"""Returns the scores of architectures, ``[B]`` float32, with mean 0 and standard deviation 1 over the space.

        Args:
            space: A space whose architectures are graphs.
            archs: Architectures; where the space has an index also official indices, or :obj:`None` for all.
            device: Where the encoder runs; the scores are on the CPU.

        Raises:
            InvalidArchitectureError: If they are not.
            DeviceUnavailableError: If this machine has no such device.
        """
        return SpaceScores(self, space)(archs, as_device(device))

    @fixed_defaults
    @torch.no_grad()
    def raw(self, inputs: EncoderInputs) -> Tensor:
        r"""Returns the scores by each encoder, ``[B, members]``."""
        return torch.stack([encoder(*inputs).score for encoder in self.encoders], dim=1)

    def on(self, device: torch.device) -> PriorEncoder:
        r"""Returns the encoders for use on a device: themselves on the CPU, copies elsewhere."""
        return PriorEncoder([on_device(encoder, device) for encoder in self.encoders], self.card)

    def digest(self, text: str = "") -> str:
        r"""Returns a hash of a text and the weights, 16 hexadecimal digits."""
        digest = hashlib.sha256(text.encode())
        for encoder in self.encoders:
            for name, value in encoder.state_dict().items():
                digest.update(name.encode() + value.contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def state_dict(self) -> dict[str, Any]:
        r"""Returns weights and card, for :meth:`from_state`."""
        members = [encoder.state_dict() for encoder in self.encoders]
        return {"config": self.encoders[0].config, "card": self.card, "members": members}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        r"""Returns what :meth:`state_dict` has described."""
        encoders = [_with_weights(state["config"], member, "the state of an encoder") for member in state["members"]]
        return cls(encoders, dict(state["card"]))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self.encoders)} x {self.encoders[0]!r})"


class SpaceScores:
    r"""Scores of the architectures of one space by one encoder, each computed once; see :meth:`PriorEncoder.scores`.

    Args:
        encoder: The encoder.
        space: A space whose architectures are graphs.
    """

    def __init__(self, encoder: PriorEncoder, space: SearchSpace[Any]) -> None:
        self.encoder, self.space, self.inputs = encoder, space, shared_operation_inputs(space)
        raw = self._raw(space_sample(space, REFERENCE))
        self._mean, self._std = raw.mean(dim=0), raw.std(dim=0, unbiased=False).clamp_min(1e-6)
        scores = self._scaled(raw)
        self._spread = float(scores.std(unbiased=False).clamp_min(1e-6))
        self._whole: Tensor | None = None
        self._rows = KeptRows(self._columns)

    @fixed_defaults
    def __call__(self, archs: Archs = None, device: torch.device = CPU) -> Tensor:
        r"""Returns the scores of architectures, ``[B]`` float32 on the CPU, computed on a device."""
        if mostly_whole(self.space, archs):
            if self._whole is None:
                self._whole = self._compute_all(device)
            return self._whole.clone() if archs is None else self._whole[archs]
        if isinstance(archs, Tensor):
            return self._compute(archs, device)
        return self._rows(self.space.resolve(archs), device)[:, 0]

    def _compute_all(self, device: torch.device) -> Tensor:
        assert isinstance(self.space, EnumerableSpace)
        if len(self.space) < KEPT_FROM:
            return self._compute(None, device)
        # Names of spaces are no names of files.
        name = f"encoded-{self.encoder.digest(self.space.name)}"
        return kept_on_disk(name, len(self.space), lambda archs: self._compute(archs, device))

    def _columns(self, archs: Archs, device: torch.device) -> Tensor:
        return self._compute(archs, device).unsqueeze(1)

    def _compute(self, archs: Archs, device: torch.device) -> Tensor:
        return (self._scaled(self._raw(archs, device)) / self._spread).float()

    def _scaled(self, raw: Tensor) -> Tensor:
        return ((raw - self._mean) / self._std).mean(dim=1)

    def _raw(self, archs: Archs, device: torch.device = CPU) -> Tensor:
        if archs is None and isinstance(self.space, EnumerableSpace):
            archs = torch.arange(len(self.space), device="cpu")
        size = CHUNK[device.type]
        parts = list(archs.split(size)) if isinstance(archs, Tensor) else chunked(self.space.resolve(archs), size)
        encoder = self.encoder.on(device)
        found = map_chunks(lambda part: encoder.raw(self.inputs(part).to(device)).cpu(), parts)
        return torch.cat(found) if found else torch.empty(0, len(self.encoder.encoders))


class Encoders:
    r"""Encoders with different memories, so that none is asked about architectures whose labels it has seen.

    The first one has seen every family of tables, each other one was trained without some.

    Args:
        priors: The encoders.
        fingerprints: Family → its different graphs, as :func:`short_fingerprints` tells them.
    """

    def __init__(self, priors: Sequence[PriorEncoder], fingerprints: Mapping[str, Tensor]) -> None:
        self.priors, self.fingerprints = list(priors), dict(fingerprints)

    def seen(self, space: SearchSpace[Any]) -> list[str]:
        r"""Returns the families whose tables hold cells of a space, whatever the operations are called there."""
        own = short_fingerprints(shared_operation_inputs(space).fingerprints(space_sample(space, REFERENCE)))
        return [
            family
            for family, known in sorted(self.fingerprints.items())
            if int(torch.isin(own, known).sum()) > SEEN * min(own.numel(), known.numel())
        ]

    def unbiased(self, space: SearchSpace[Any]) -> PriorEncoder | None:
        r"""Returns the encoder of the most families that has not seen a space; none if all have.

        Example:
            >>> from pyg_nas_np.spaces import NASBench201Space
            >>> space, encoders = NASBench201Space(), shipped_encoders()
            >>> encoders.seen(space)
            ['micro', 'nb201']
            >>> encoders.unbiased(space).card["families"]
            ['accel', 'bert', 'flexi', 'graph', 'gym', 'lts', 'macro', 'nb101']
        """
        seen = set(self.seen(space))
        fit = [prior for prior in self.priors if seen.isdisjoint(prior.card["families"])]
        return max(fit, key=lambda prior: len(prior.card["families"]), default=None)


def short_fingerprints(values: Tensor) -> Tensor:
    r"""Returns the different fingerprints in 31 bits, sorted, int32."""
    short: Tensor = (values % (1 << 31)).to(torch.int32).unique()
    return short


def write_encoders(path: str | os.PathLike[str], encoders: Encoders) -> None:
    r"""Writes encoders as safetensors in half precision, atomically."""
    priors = encoders.priors
    metadata = {
        "format": FORMAT,
        "configs": json.dumps([prior.encoders[0].config for prior in priors]),
        "cards": json.dumps([prior.card for prior in priors]),
        "card": json.dumps(priors[0].card),
    }
    tensors = {f"fingerprints.{family}": values for family, values in encoders.fingerprints.items()}
    for number, prior in enumerate(priors):
        for member, encoder in enumerate(prior.encoders):
            for name, value in encoder.state_dict().items():
                tensors[f"{number}.{member}.{name}"] = value.half()
    write_tensors(path, tensors, metadata)


@fixed_defaults
def read_encoders(path: str | os.PathLike[str]) -> Encoders:
    r"""Reads encoders.

    Raises:
        DataFileError: If the file is missing, corrupt or of another format, or its tensors do not fit its networks.
    """
    metadata, tensors = read_tensors(path, FORMAT, ("configs", "cards"))
    configs, cards = read_json(metadata, "configs", list, path), read_json(metadata, "cards", list, path)
    priors = []
    with foreign_file(path, "a weight file of encoders"):
        for number, (config, card) in enumerate(zip(configs, cards, strict=True)):
            members = []
            for member in range(card["members"]):
                start = f"{number}.{member}."
                own = {name.removeprefix(start): v.float() for name, v in tensors.items() if name.startswith(start)}
                members.append(_with_weights(config, own, path))
            priors.append(PriorEncoder(members, card))
        start = "fingerprints."
        known = {name.removeprefix(start): values for name, values in tensors.items() if name.startswith(start)}
    return Encoders(priors, known)


def _with_weights(
    config: Mapping[str, Any], weights: Mapping[str, Tensor], path: str | os.PathLike[str]
) -> OperationEncoder:
    with torch.device("meta"):
        encoder = OperationEncoder(**config)
    load_module(encoder, weights, path)
    return encoder.eval()


@cache
def shipped_encoders() -> Encoders:
    r"""Returns the encoders that the package ships."""
    return read_encoders(WEIGHTS / f"{UNIVERSAL}.safetensors")


def unbiased_scores(space: SearchSpace[Any]) -> SpaceScores | None:
    r"""Returns the scores of a space by the shipped encoder that has not seen it, kept with it; none where there is no
    such encoder, the space has no graphs, or more than a fifth of its operations are of unknown kinds."""
    return space.keep(_unbiased) if has_graphs(space) else None


def _unbiased(space: SearchSpace[Any]) -> SpaceScores | None:
    if shared_operation_inputs(space).understood < UNDERSTOOD:
        return None
    prior = shipped_encoders().unbiased(space)
    return None if prior is None else SpaceScores(prior, space)
