r"""
Set convolutions of ragged sets
===============================

Three sets of different sizes in one batch, without padding, and what a set convolution sees of each in the plane.
"""

import matplotlib.pyplot as plt
import torch

from pyg_nas_np.nn import SetConv

generator = torch.Generator().manual_seed(0)
sizes = torch.tensor([3, 12, 60])
batch = torch.arange(3).repeat_interleave(sizes)
x = torch.rand(len(batch), 2, generator=generator)
y = torch.sin(6 * x[:, :1]) * torch.cos(4 * x[:, 1:])

side = torch.linspace(0, 1, 60)
where = torch.cartesian_prod(side, side)
conv = SetConv(1, dim=2, lengthscale=0.1)
with torch.no_grad():
    out = conv(x, y, where.repeat(3, 1), batch, torch.arange(3).repeat_interleave(len(where)))
density, signal = out.view(3, 60, 60, 2).unbind(dim=-1)

# %%
# Where the density is small the signal is not to be trusted: that is what the density is for.

figure, axes = plt.subplots(2, 3, figsize=(9, 5.6), sharex=True, sharey=True, layout="constrained")
for i in range(3):
    points = x[batch == i]
    for row, image, limits in ((0, signal[i], (-1, 1)), (1, density[i], (0, None))):
        shown = axes[row, i].imshow(
            image.T, origin="lower", extent=(0, 1, 0, 1), cmap="RdBu_r" if row == 0 else "viridis",
            vmin=limits[0], vmax=limits[1],
        )  # fmt: skip
        axes[row, i].plot(*points.T, "o", color="black", markersize=3)
        figure.colorbar(shown, ax=axes[row, i], shrink=0.8)
    axes[0, i].set_title(f"{int(sizes[i])} points")
axes[0, 0].set_ylabel("signal")
axes[1, 0].set_ylabel("density")
plt.show()
