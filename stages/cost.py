"""What a network costs: parameters and multiply-accumulates."""

import warnings

import torch
from ptflops import get_model_complexity_info
from torch import nn


def parameters_and_gmac(network: nn.Module, inputs: tuple[torch.Tensor, ...]) -> dict[str, int | float]:
    """Parameters, and 10^9 multiply-accumulates of one call with `inputs`, counted on the CPU."""

    class Call(nn.Module):
        """ptflops passes one keyword set; the network takes several tensors."""

        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, inputs):
            return self.network(*inputs)

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        macs, _ = get_model_complexity_info(
            Call().eval(),
            (1,),
            input_constructor=lambda _: {"inputs": inputs},
            as_strings=False,
            print_per_layer_stat=False,
            backend="aten",
        )
    return {"parameters": sum(p.numel() for p in network.parameters()), "gmac": round(float(macs or 0) / 1e9, 4)}
