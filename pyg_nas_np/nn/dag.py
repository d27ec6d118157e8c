r"""Asynchronous message passing on DAGs, batched over graphs: an encoder, and a decoder that generates graphs."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot

from pyg_nas_np.spaces.dense import DenseGraphs
from pyg_nas_np.spaces.graph_codec import END, START, GraphCodec


class GatedSum(nn.Module):
    r"""The message of a vertex, :math:`\sigma(W_g [h, e_v] + b) \odot W_m [h, e_v]`; neighbours receive sums of them.

    :math:`e_v` is the one-hot number of the vertex, which distinguishes vertices of equal type and state.

    Args:
        channels: Width of the states.
        num_vertices: Number of vertices that a graph may have.
    """

    def __init__(self, channels: int, num_vertices: int) -> None:
        super().__init__()
        self.gate = nn.Linear(channels + num_vertices, channels)
        self.mapper = nn.Linear(channels + num_vertices, channels, bias=False)
        self.num_vertices = num_vertices

    def reset_parameters(self) -> None:
        r"""Draws new weights."""
        self.gate.reset_parameters()
        self.mapper.reset_parameters()

    def forward(self, h: Tensor, vertex: int) -> Tensor:
        r"""Returns the message ``[B, channels]`` of vertex number :obj:`vertex` in state ``h`` ``[B, channels]``."""
        number = one_hot(torch.tensor(vertex, device=h.device), self.num_vertices).to(h.dtype)
        joined = torch.cat([h, number.expand(h.size(0), -1)], dim=1)
        message: Tensor = torch.sigmoid(self.gate(joined)) * self.mapper(joined)
        return message


class DAGEncoder(nn.Module):
    r"""Encodes labelled DAGs in the order of their computation, as in `D-VAE <https://arxiv.org/abs/1904.11088>`_.

    A vertex is visited after all its predecessors: a gated recurrent unit takes its type as input and the gated sum of
    the predecessors' states as hidden state. A second pass goes against the edges. The result is a linear map of the
    concatenated states of the last vertex in the first pass and of the first vertex in the second.

    The loop is over vertices, with all graphs in a batch. The message of each vertex is computed once.

    Args:
        num_types: Number of operation ids.
        num_vertices: Number of vertices that a graph may have.
        channels: Width of the states.
        out_channels: Width of the result. (default: :obj:`channels`)

    Shapes:
        - **input:** :class:`~pyg_nas_np.spaces.dense.DenseGraphs` of ``B`` graphs with at most ``num_vertices``
          vertices, in topological order.
        - **output:** ``[B, out_channels]``.

    Example:
        >>> from pyg_nas_np.spaces.graph_codec import NASBench201GraphCodec
        >>> codec = NASBench201GraphCodec()
        >>> encoder = DAGEncoder(codec.num_types, codec.num_vertices, channels=16)
        >>> encoder
        DAGEncoder(7, 8, channels=16, out_channels=16)
        >>> encoder(codec.graphs(torch.arange(5))).shape
        torch.Size([5, 16])
    """

    def __init__(self, num_types: int, num_vertices: int, channels: int = 56, out_channels: int | None = None) -> None:
        super().__init__()
        self.num_types, self.num_vertices, self.channels = num_types, num_vertices, channels
        self.out_channels = channels if out_channels is None else out_channels
        self.units = nn.ModuleList(nn.GRUCell(num_types, channels) for _ in range(2))
        self.messages = nn.ModuleList(GatedSum(channels, num_vertices) for _ in range(2))
        self.join = nn.Linear(2 * channels, self.out_channels)

    def reset_parameters(self) -> None:
        r"""Draws new weights."""
        for module in (*self.units, *self.messages, self.join):
            module.reset_parameters()

    def forward(self, graphs: DenseGraphs) -> Tensor:
        r"""Encodes graphs.

        Raises:
            ValueError: If a graph has more vertices or other types than the encoder allows, or a backward edge.
        """
        size = graphs.ops.size(1)
        if size > self.num_vertices:
            raise ValueError(f"the encoder was built for {self.num_vertices} vertices, got graphs of {size}")
        if graphs.ops.numel() and int(graphs.ops.max()) >= self.num_types:
            raise ValueError(f"type {int(graphs.ops.max())} is none of the encoder's {self.num_types}")
        if bool(graphs.adjacency.tril().any()):
            raise ValueError("an edge leads back: vertices must be in topological order")
        last = (graphs.num_nodes - 1).clamp_min(0)
        rows = torch.arange(last.numel(), device=last.device)
        forward = self._pass(graphs, 0, list(range(size)))[rows, last]
        backward = self._pass(graphs, 1, list(range(size - 1, -1, -1)))[:, 0]
        return self.join(torch.cat([forward, backward], dim=1))  # type: ignore[no-any-return]

    def _pass(self, graphs: DenseGraphs, direction: int, order: list[int]) -> Tensor:
        """States [B, V, C] of a pass along (0) or against (1) the edges."""
        unit, message = self.units[direction], self.messages[direction]
        dtype = self.join.weight.dtype
        adjacency = (graphs.adjacency if direction == 0 else graphs.adjacency.mT).to(dtype)
        x = one_hot(graphs.ops.clamp_min(0), self.num_types).to(dtype) * graphs.node_mask.unsqueeze(2)
        states: dict[int, Tensor] = {}
        sent: list[Tensor] = []
        for position, v in enumerate(order):
            received = x.new_zeros(x.size(0), self.channels)
            if position:
                weights = adjacency[:, order[:position], v]
                received = (weights.unsqueeze(1) @ torch.stack(sent, dim=1)).squeeze(1)
            states[v] = unit(x[:, v], received)
            sent.append(message(states[v], v))
        return torch.stack([states[v] for v in range(len(order))], dim=1)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.num_types}, {self.num_vertices}, channels={self.channels}, "
            f"out_channels={self.out_channels})"
        )


class Partial(NamedTuple):
    r"""State of the decoder after ``v`` vertices.

    Shapes:
        - **types:** ``[B, v]`` int64.
        - **state:** ``[B, C]``, state of the last vertex, which determines the next type.
        - **sent:** ``[B, v, C]``, messages of the vertices.
    """

    types: Tensor
    state: Tensor
    sent: Tensor

    def select(self, rows: Tensor) -> Partial:
        r"""Returns the graphs at :obj:`rows`."""
        return Partial(self.types[rows], self.state[rows], self.sent[rows])


class Samples(NamedTuple):
    r"""Distinct graphs that were drawn.

    Shapes:
        - **types:** ``[N, V]`` int64.
        - **log_prob:** ``[N]`` float64, log probability of each under the tempered, constrained decoder.
    """

    types: Tensor
    log_prob: Tensor


class DAGDecoder(nn.Module):
    r"""Generates DAGs vertex by vertex from a latent vector, as in `D-VAE <https://arxiv.org/abs/1904.11088>`_.

    The latent vector determines the state of the start. For each further vertex, one perceptron predicts the type from
    the state of the previous vertex. Another one predicts, from the latest to the first vertex, whether there is an
    edge from it; the state of the new vertex is updated after each edge.

    All graphs of a codec have the same edges, so only types are free. Constrained decoding takes the edges from the
    :class:`~pyg_nas_np.spaces.graph_codec.GraphCodec` and gives forbidden types probability zero: every sample is an
    architecture. Free decoding draws types and edges as in the paper; its last vertex is the end, to which every vertex
    without a successor is connected.

    Args:
        codec: Graph codec of the space.
        in_channels: Width of the latent vector, including conditions.
        channels: Width of the states.

    Shapes:
        - **input:** ``z`` ``[B, in_channels]``.
        - **output:** types ``[B, V]``, graphs, or log probabilities ``[B]``.

    Example:
        >>> from pyg_nas_np.spaces.graph_codec import NASBench201GraphCodec
        >>> codec = NASBench201GraphCodec()
        >>> decoder = DAGDecoder(codec, in_channels=4, channels=16)
        >>> draw = torch.Generator().manual_seed(0)
        >>> bool(codec.obeys(decoder.sample(torch.randn(3, 4, generator=draw), generator=draw)).all())
        True
        >>> decoder.sample_distinct(torch.zeros(4), 500, generator=draw).types.unique(dim=0).shape
        torch.Size([500, 8])
    """

    def __init__(self, codec: GraphCodec[Any], in_channels: int, channels: int = 56) -> None:
        super().__init__()
        self.codec, self.in_channels, self.channels = codec, in_channels, channels
        self.start = nn.Linear(in_channels, channels)
        self.unit = nn.GRUCell(codec.num_types, channels)
        self.message = GatedSum(channels, codec.num_vertices)
        self.type_head = nn.Sequential(
            nn.Linear(channels, 2 * channels), nn.ReLU(), nn.Linear(2 * channels, codec.num_types)
        )
        self.edge_head = nn.Sequential(nn.Linear(2 * channels, 4 * channels), nn.ReLU(), nn.Linear(4 * channels, 1))

    def reset_parameters(self) -> None:
        r"""Draws new weights."""
        for module in (self.start, self.unit, self.message, *self.type_head, *self.edge_head):
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()

    # -- likelihood -------------------------------------------------------------------------------------------------

    def loss(self, z: Tensor, types: Tensor) -> Tensor:
        r"""Negative log likelihood of graphs of the codec under free decoding, ``[B]``: types, then edges.

        Args:
            z: ``[B, in_channels]``.
            types: ``[B, V]``; their edges are those of the codec.
        """
        size = self.codec.num_vertices
        adjacency = self.codec.adjacency.to(z.device)
        partial, states = self._begin(z), []
        total = z.new_zeros(z.size(0))
        for v in range(1, size):
            log_p = self.type_head(partial.state).log_softmax(dim=1)
            total = total - log_p.gather(1, types[:, v : v + 1]).squeeze(1)
            states.append(partial.state)
            if v < size - 1:
                # The state before each decision includes the edges decided so far, from the latest vertex backwards.
                taken = torch.stack(
                    [adjacency[:v, v] & (torch.arange(v, device=z.device) > u) for u in range(v - 1, -1, -1)]
                )
                received = torch.einsum("ku,buc->bkc", taken.to(z.dtype), partial.sent)
                x = self._one_hot(types[:, v]).unsqueeze(1).expand(-1, v, -1)
                states_now = self.unit(x.flatten(0, 1), received.flatten(0, 1)).view(-1, v, self.channels)
                before = torch.stack(states[::-1], dim=1)
                logits = self.edge_head(torch.cat([states_now, before], dim=2)).squeeze(2)
                target = adjacency[:v, v].flip(0).to(z.dtype).expand_as(logits)
                total = total + binary_cross_entropy_with_logits(logits, target, reduction="none").sum(dim=1)
            partial = self._advance(partial, types[:, v], adjacency[:v, v].expand(z.size(0), v))
        return total

    def log_prob(self, z: Tensor, types: Tensor, temperature: float = 1.0) -> Tensor:
        r"""Log probability of architectures under constrained decoding, ``[B]``; normalised over the space.

        Args:
            z: ``[B, in_channels]``.
            types: ``[B, V]``.
            temperature: As in :meth:`sample`.
        """
        partial = self._begin(z)
        total = z.new_zeros(z.size(0))
        for v in range(1, self.codec.num_vertices):
            log_p = self._constrained(partial, temperature)
            total = total + log_p.gather(1, types[:, v : v + 1]).squeeze(1)
            partial = self._follow(partial, types[:, v])
        return total

    # -- sampling ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(self, z: Tensor, temperature: float = 1.0, generator: torch.Generator | None = None) -> Tensor:
        r"""Draws one architecture for each row of :obj:`z`, independently; types ``[B, V]``.

        Args:
            z: ``[B, in_channels]``.
            temperature: Divides the logits of types: below 1 sharpens the distribution, above 1 flattens it.
            generator: Source of randomness.

        Raises:
            ValueError: If :obj:`temperature` is not positive.
        """
        _check_temperature(temperature)
        partial = self._begin(z)
        for _ in range(1, self.codec.num_vertices):
            probabilities = self._constrained(partial, temperature).exp()
            partial = self._follow(partial, torch.multinomial(probabilities, 1, generator=generator).squeeze(1))
        return partial.types

    @torch.no_grad()
    def sample_distinct(
        self, z: Tensor, n: int, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Samples:
        r"""Draws :obj:`n` different architectures for one latent vector: exact sampling without replacement.

        A `stochastic beam search <https://arxiv.org/abs/1903.06059>`_: each architecture's log probability gets Gumbel
        noise, and those with the largest sums are found top-down with a beam of :obj:`n`. The first ``m`` of the result
        are a sample of size ``m``.

        Args:
            z: ``[in_channels]``.
            n: Number of architectures; fewer are returned only if the space has fewer.
            temperature: As in :meth:`sample`.
            generator: Source of randomness.

        Raises:
            ValueError: If :obj:`n` or :obj:`temperature` is not positive, or :obj:`z` is not one vector.
        """
        _check_temperature(temperature)
        if n < 1 or z.dim() != 1:
            raise ValueError(f"n must be at least 1 and z one vector, got n={n} and z {list(z.shape)}")
        partial = self._begin(z.unsqueeze(0))
        log_prob = perturbed = torch.zeros(1, dtype=torch.float64, device=z.device)
        for _ in range(1, self.codec.num_vertices):
            step = self._constrained(partial, temperature).double()
            child = log_prob.unsqueeze(1) + step
            noise = torch.rand(child.shape, generator=generator, dtype=torch.float64, device=z.device)
            noisy = child - (-noise.clamp(1e-300, 1 - 1e-16).log()).log()
            key = _given_maximum(noisy, perturbed.unsqueeze(1))
            best = key.flatten().topk(min(n, int(torch.isfinite(child).sum()))).indices
            parent, kind = best // child.size(1), best % child.size(1)
            log_prob, perturbed = child[parent, kind], key[parent, kind]
            partial = self._follow(partial.select(parent), kind)
        return Samples(partial.types, log_prob)

    @torch.no_grad()
    def sample_free(self, z: Tensor, temperature: float = 1.0, generator: torch.Generator | None = None) -> DenseGraphs:
        r"""Draws types and edges of one graph for each row of :obj:`z`, without constraints; see the class."""
        _check_temperature(temperature)
        size, count = self.codec.num_vertices, z.size(0)
        partial, states = self._begin(z), []
        adjacency = torch.zeros(count, size, size, dtype=torch.bool, device=z.device)
        for v in range(1, size - 1):
            logits = self.type_head(partial.state) / temperature
            kind = torch.multinomial(logits.softmax(dim=1), 1, generator=generator).squeeze(1)
            states.append(partial.state)
            for u in range(v - 1, -1, -1):
                state = self._state(kind, adjacency[:, :v, v], partial.sent)
                logit = self.edge_head(torch.cat([state, states[u]], dim=1)).squeeze(1) / temperature
                draw = torch.rand(count, generator=generator, dtype=z.dtype, device=z.device)
                adjacency[:, u, v] = draw < torch.sigmoid(logit)
            partial = self._advance(partial, kind, adjacency[:, :v, v])
        adjacency[:, : size - 1, size - 1] = ~adjacency[:, : size - 1].any(dim=2)
        end = torch.full((count, 1), END, device=z.device)
        return DenseGraphs(
            adjacency, torch.cat([partial.types, end], dim=1), torch.full((count,), size, device=z.device)
        )

    # -- steps ------------------------------------------------------------------------------------------------------

    def _begin(self, z: Tensor) -> Partial:
        if z.dim() != 2 or z.size(1) != self.in_channels:
            raise ValueError(f"z must have shape [num_graphs, {self.in_channels}], got {list(z.shape)}")
        types = torch.full((z.size(0), 1), START, device=z.device)
        state = self.unit(self._one_hot(types[:, 0]), torch.tanh(self.start(z)))
        return Partial(types, state, self.message(state, 0).unsqueeze(1))

    def _advance(self, partial: Partial, kind: Tensor, predecessors: Tensor) -> Partial:
        """Adds a vertex of a type [B], fed by predecessors [B, v]."""
        state = self._state(kind, predecessors, partial.sent)
        sent = self.message(state, partial.types.size(1)).unsqueeze(1)
        types = torch.cat([partial.types, kind.unsqueeze(1)], dim=1)
        return Partial(types, state, torch.cat([partial.sent, sent], dim=1))

    def _follow(self, partial: Partial, kind: Tensor) -> Partial:
        v = partial.types.size(1)
        return self._advance(partial, kind, self.codec.adjacency[:v, v].to(kind.device).expand(kind.size(0), v))

    def _state(self, kind: Tensor, predecessors: Tensor, sent: Tensor) -> Tensor:
        received = (predecessors.to(sent.dtype).unsqueeze(1) @ sent).squeeze(1)
        return self.unit(self._one_hot(kind), received)  # type: ignore[no-any-return]

    def _constrained(self, partial: Partial, temperature: float) -> Tensor:
        """Log probabilities [B, T] of the next type, among those allowed."""
        logits = self.type_head(partial.state) / temperature
        forbidden = ~self.codec.allowed(partial.types)
        return logits.masked_fill(forbidden, -torch.inf).log_softmax(dim=1)  # type: ignore[no-any-return]

    def _one_hot(self, types: Tensor) -> Tensor:
        return one_hot(types, self.codec.num_types).to(self.start.weight.dtype)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.codec}, {self.in_channels}, channels={self.channels})"


def _given_maximum(noisy: Tensor, maximum: Tensor) -> Tensor:
    """Conditions Gumbel variables [B, T] on their maximum [B, 1] over the last dimension (Kool et al. 2019, app. B)."""
    top = noisy.amax(dim=1, keepdim=True)
    v = maximum - noisy + torch.log1p(-torch.exp(noisy - top))
    key = maximum - v.clamp_min(0) - torch.log1p(torch.exp(-v.abs()))
    return key.masked_fill(torch.isneginf(noisy), -torch.inf)


def _check_temperature(temperature: float) -> None:
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
