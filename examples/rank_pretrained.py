r"""Predicts how long networks of Hugging Face or timm take on this machine, from a dozen measured ones.

Configurations of a ``transformers`` model are a space with parameters, names of ``timm`` models a list of networks.
Neither allocates a weight until a network is measured:

    python examples/rank_pretrained.py --source transformers
    python examples/rank_pretrained.py --source timm --pattern "resnet*"
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from pyg_nas_np import ConvNPPredictor
from pyg_nas_np.spaces import Integer, ModuleSpace, ParameterSpace, SearchSpace

PARAMETERS = {
    "num_hidden_layers": Integer(1, 6),
    "num_attention_heads": [2, 4, 8],
    "hidden_size": Integer(64, 256, step=64),
    "intermediate_size": Integer(64, 1024, step=64),
    "hidden_act": ["gelu", "relu"],
}


def build_bert(**config: Any) -> nn.Module:
    r"""Builds the encoder of a configuration, without its pooler."""
    from transformers import BertConfig, BertModel

    return BertModel(BertConfig(vocab_size=1000, **config), add_pooling_layer=False)


class Candidates(NamedTuple):
    r"""Networks of a space: their architectures and names, what builds them, and what they are called with."""

    space: SearchSpace[Any]
    archs: Sequence[Any]
    names: list[str]
    builders: list[Callable[[], nn.Module]]
    inputs: Tensor


def transformers_candidates(count: int) -> Candidates:
    r"""Draws configurations."""
    tokens = torch.zeros(1, 64, dtype=torch.long)
    space = ModuleSpace.built(build_bert, ParameterSpace(PARAMETERS), tokens)
    archs = space.sample(count, torch.Generator().manual_seed(0))
    return Candidates(space, archs, list(map(str, archs)), [partial(build_bert, **arch) for arch in archs], tokens)


def timm_candidates(count: int, pattern: str) -> Candidates:
    r"""Lists models whose names match."""
    import timm

    names = timm.list_models(pattern)[:count]
    builders = [partial(timm.create_model, name, num_classes=10) for name in names]
    image = torch.zeros(1, 3, 64, 64)
    space = ModuleSpace(builders, image)
    return Candidates(space, [space[i] for i in range(space.size)], names, builders, image)


def milliseconds(build: Callable[[], nn.Module], inputs: Tensor, repeats: int = 7) -> float:
    r"""Shortest time of a forward pass; longer ones are the machine's other work."""
    network = build().eval()
    times = []
    with torch.no_grad():
        for _ in range(repeats):
            started = time.perf_counter()
            network(inputs)
            times.append(1e3 * (time.perf_counter() - started))
    return min(times)


def main(arguments: Sequence[str] | None = None) -> None:
    r"""Measures some networks, predicts the others, and measures these too in order to tell how good that was."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", choices=("transformers", "timm"), default="transformers")
    parser.add_argument("--pattern", default="resnet*", help="names of timm models")
    parser.add_argument("--count", type=int, default=60, help="networks in all")
    parser.add_argument("--measured", type=int, default=12, help="networks whose times the predictor is given")
    args = parser.parse_args(arguments)
    found = (
        transformers_candidates(args.count)
        if args.source == "transformers"
        else timm_candidates(args.count, args.pattern)
    )
    taken = torch.tensor([milliseconds(build, found.inputs) for build in found.builders], dtype=torch.float64)
    predictor = ConvNPPredictor(found.space, maximize=False).fit(found.archs[: args.measured], taken[: args.measured])
    mean, std = predictor.predict(found.archs[args.measured :], return_std=True)
    print(f"{len(found.archs)} networks of {args.source}, {args.measured} measured")
    print("predicted, measured [ms]:")
    rest = taken[args.measured :]
    for i in mean.argsort()[:5].tolist():
        print(f"  {mean[i]:6.2f} ± {std[i]:.2f}  {rest[i]:6.2f}  {found.names[args.measured + i]}")
    print(f"Spearman correlation on the {len(rest)} others: {spearmanr(mean, rest).statistic:.3f}")


if __name__ == "__main__":
    main()
