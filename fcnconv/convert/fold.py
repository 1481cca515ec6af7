"""Folds batch normalisation into the convolution before it.

Each call of a convolution is folded separately, so one convolution with several normalisations (CORnet-S)
becomes several. The proof covers the folded network. Until the proof is complete, a folded convolution
computes its weights from the two layers, in float64 if everything is computed in float64. Afterwards, the
weights are rounded once, to float32.
"""

from __future__ import annotations

import copy

import torch
from torch import fx, nn

from fcnconv.convert.graph import layer_of
from fcnconv.convert.probes import Float64

MOST_KEPT = 200_000_000
"""Maximum number of parameters of a network whose folded weights stay in memory for the proof, at 8 bytes
each.
"""


class FoldedConv(nn.Module):
    """A convolution and the batch normalisation after it, as one convolution.

    Attributes:
        keep: whether its weights in float64 are kept from one run of the proof to the next.
    """

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d, keep: bool):
        super().__init__()
        self.conv, self.norm, self.keep = conv, norm, keep
        self.exact: tuple[torch.Tensor, torch.Tensor] | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weights = self.exact or self.weights()
        if self.keep and weights[0].dtype is torch.float64:
            self.exact = weights
        output: torch.Tensor = self.conv._conv_forward(x, *weights)
        return output

    def weights(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight and bias: with s = weight / sqrt(running_var + eps), w' = s w and b' = bias + s (b −
        running_mean).
        """
        conv, norm = self.conv, self.norm
        assert norm.running_var is not None and norm.running_mean is not None
        scale = torch.rsqrt(norm.running_var + norm.eps)
        if norm.affine:
            scale = scale * norm.weight
        shift = -norm.running_mean if conv.bias is None else conv.bias - norm.running_mean
        bias = shift * scale
        return conv.weight * scale[:, None, None, None], bias + norm.bias if norm.affine else bias

    def rounded(self) -> nn.Conv2d:
        """The convolution with its weights computed in float64 and rounded to float32."""
        conv = self.conv
        with Float64():
            weight, bias = self.exact or self.weights()
        new = copy.copy(conv)
        new._parameters = {}
        new.weight = nn.Parameter(weight.float(), requires_grad=False)
        new.bias = nn.Parameter(bias.float(), requires_grad=False)
        return new.eval()


def fold(network: fx.GraphModule) -> dict[fx.Node, fx.Node]:
    """Folds every batch normalisation that follows a convolution, in place.

    Returns:
        For each node of such a normalisation, the node of the folded convolution.
    """
    keep = sum(parameter.numel() for parameter in network.parameters()) <= MOST_KEPT
    modules, folded = dict(network.named_modules()), dict[fx.Node, fx.Node]()
    for norm_node in list(network.graph.nodes):
        norm = layer_of(norm_node, modules)
        if type(norm) is not nn.BatchNorm2d or norm.running_mean is None or len(norm_node.args) != 1:
            continue
        node = norm_node.args[0]
        conv = layer_of(node, modules)
        if type(conv) is not nn.Conv2d or len(node.users) != 1 or conv._forward_hooks or norm._forward_hooks:
            continue
        name = f"folded_{node.name}"
        network.add_submodule(name, FoldedConv(conv, norm, keep).eval())
        with network.graph.inserting_after(norm_node):
            new = network.graph.call_module(name, node.args)
        new.meta = dict(norm_node.meta)
        folded[norm_node] = new
        norm_node.replace_all_uses_with(new)
        network.graph.erase_node(norm_node)
        network.graph.erase_node(node)
    network.delete_all_unused_submodules()
    network.recompile()
    return folded


def round_folded(network: fx.GraphModule) -> None:
    """Replaces the folded convolutions by ordinary ones, in place."""
    for name, layer in list(network.named_modules()):
        if isinstance(layer, FoldedConv):
            network.add_submodule(name, layer.rounded())
