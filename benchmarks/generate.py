r"""Time of ``pyg-nas-np generate`` from 2,000 images, features included, beside a plain pass of the same network.

Run: ``python benchmarks/generate.py [--threads 2]``; writes ``benchmarks/results/generate.csv``. 20 images of 32 x 32
pixels of each of 100 classes; nothing is cached. The plain pass resizes and describes them in batches of 50 with
PyTorch's own memory layout, as one would without thinking of the processor's cache.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from _timing import RESULTS, Report, Result, in_child, run_child
from torch.nn.functional import interpolate

CLASSES, EACH = 100, 20


def command(args: argparse.Namespace) -> Result:
    torch.set_num_threads(args.threads)
    os.environ["PYG_NAS_NP_CACHE"] = args.cache
    start, used = time.perf_counter(), time.process_time()
    from pyg_nas_np.cli.app import main

    sys.argv = ["pyg-nas-np", "generate", args.images]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        main()
    return {"seconds": time.perf_counter() - start, "cpu": time.process_time() - used}


def features(args: argparse.Namespace) -> Result:
    from pyg_nas_np.metad2a import ImageFeatures

    torch.set_num_threads(args.threads)
    describe = ImageFeatures(cache=args.cache)
    start, used = time.perf_counter(), time.process_time()
    describe(args.images)
    return {"seconds": time.perf_counter() - start, "cpu": time.process_time() - used}


def plain(args: argparse.Namespace) -> Result:
    from pyg_nas_np.metad2a.backbone import EfficientNetLite0

    torch.set_num_threads(args.threads)
    network = EfficientNetLite0()
    with np.load(args.images) as file:
        images = torch.from_numpy(file["images"])
    start, used = time.perf_counter(), time.process_time()
    with torch.no_grad():
        for part in images.split(50):
            pixels = part.movedim(-1, 1).float().div(255)
            network(interpolate(pixels, (128, 128), mode="bilinear", antialias=True))
    return {"seconds": time.perf_counter() - start, "cpu": time.process_time() - used}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    for name in ("step", "images", "cache"):
        parser.add_argument(f"--{name}")
    args = parser.parse_args()
    if args.step:
        return run_child({"command": command, "features": features, "plain": plain}, args)
    torch.set_num_threads(args.threads)
    report = Report()
    with tempfile.TemporaryDirectory() as folder:
        path, rng = Path(folder) / "images.npz", np.random.default_rng(0)
        images = rng.integers(0, 256, (CLASSES * EACH, 32, 32, 3), dtype=np.uint8)
        np.savez(path, images=images, labels=np.repeat(np.arange(CLASSES), EACH))
        given = {"images": path, "threads": args.threads}
        slow = in_child("plain", args.repeats, **given)
        for step, title in (("command", "generate, imports included"), ("features", "features of 2,000 images")):
            found = in_child(step, args.repeats, **given, cache=Path(folder) / (step + "{}"))
            note = f"{found['cpu']:.1f} s of one core"
            if step == "features":
                note += f"; {found['seconds'] / slow['seconds']:.2f} of the plain pass"
            report.add(title, found, 33.0 if step == "command" else None, note)
        report.add("plain pass of the network", slow, note=f"{slow['cpu']:.1f} s of one core")
    report.write(RESULTS / "generate.csv")


if __name__ == "__main__":
    main()
