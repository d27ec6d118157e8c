r"""Times the rank correlations on whole benchmarks, and torchmetrics' Kendall correlation.

Run: ``python benchmarks/metrics.py [--threads 1]``
"""

from __future__ import annotations

import argparse

import torch
from _timing import machine, seconds
from torchmetrics.functional import kendall_rank_corrcoef, spearman_corrcoef

from pyg_nas_np.metrics.functional import kendall_tau, n_at_k, precision_at_k, regret_at_k, spearman_rho

SIZES = {"NAS-Bench-201": 15_625, "NAS-Bench-Graph": 26_206, "NAS-Bench-101": 423_624}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    torch.set_num_threads(parser.parse_args().threads)
    generator = torch.Generator().manual_seed(0)
    for name, size in SIZES.items():
        target = torch.randn(size, generator=generator)
        # Two decimals, as measured accuracies have: ties on both sides.
        preds = (target + torch.randn(size, generator=generator)).mul(100).round() / 100
        print(f"{name}: {size:,} values")
        for function in (kendall_tau, spearman_rho, n_at_k, precision_at_k, regret_at_k):
            best = min(seconds(function, preds, target, repeats=5))
            print(f"  {function.__name__:<16} {1e3 * best:9.2f} ms")
        if size <= 15_625:
            # The peer's Kendall correlation takes minutes on the larger spaces.
            for ours, peer in ((kendall_tau, kendall_rank_corrcoef), (spearman_rho, spearman_corrcoef)):
                a, b = ours(preds, target).item(), peer(preds, target).item()
                assert abs(a - b) < 1e-4, f"{ours.__name__}: {a} against {b}"
                mine, theirs = (min(seconds(f, preds, target)) for f in (ours, peer))
                print(
                    f"  {ours.__name__}: {1e3 * mine:.2f} ms, torchmetrics {1e3 * theirs:.2f} ms, "
                    f"ratio {theirs / mine:.1f}x"
                )
    print(machine())


if __name__ == "__main__":
    main()
