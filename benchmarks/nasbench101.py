r"""Times of NAS-Bench-101: enumeration, cache, data set, parsing of synthetic files of the official format and size.

    python benchmarks/nasbench101.py                  # everything at full size (10 GB of disk, some 15 minutes)
    python benchmarks/nasbench101.py --cells 20000    # smaller files
    python benchmarks/nasbench101.py --skip-full      # without the 5,083,488-record file

The peer is the TFRecord converter of the package nasbenchapi on a slice of the same bytes. It needs TensorFlow to read
records and the ``nasbench`` package for one protobuf class; both are replaced by stand-ins that cost it less time than
the originals can: records are read without checking any CRC, and the message is taken apart with two ``struct`` calls.
Every measurement runs in a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import binascii
import csv
import importlib.util
import itertools
import json
import os
import platform
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np

RESULTS = Path(__file__).parent / "results" / "nasbench101.csv"
BUDGETS = {"only108": (108,), "full": (4, 12, 36, 108)}
PEER_RECORDS = 300_000


# One evaluation of the metrics message, with its tags: epoch, seconds, three accuracies.
EVALUATION = np.dtype(
    [("head", "u1", 2), *itertools.chain(*(((f"tag{k}", "u1"), (f"value{k}", "<f8")) for k in range(1, 6)))]
)


def write_synthetic(path: Path, budgets: tuple[int, ...], cells: int, seed: int = 0) -> int:
    r"""Writes a file of the official format with the real cells and random measurements; returns its records."""
    from pyg_nas_np.spaces.nasbench101 import NASBench101Space

    space = NASBench101Space()
    hashes = space.batch_canonical()[:cells]
    tails = [b"\x10" + _varint(n) + struct.pack("<Bd", 0x19, 4000.0) for n in space.batch_num_parameters().tolist()]
    rng = np.random.default_rng(seed)
    runs = np.repeat(budgets, 3)
    records = 0
    with open(path, "wb") as file:
        for start in range(0, cells, 5_000):
            index = range(start, min(start + 5_000, cells))
            messages = _evaluations(rng, len(index), runs)
            payloads = []
            for i in index:
                arch = space[i]
                bits = (arch.matrix + 48).tobytes().decode()
                front, ops = f'["{hashes[i]}", ', ",".join(arch.ops)
                for run, budget in enumerate(runs.tolist()):
                    code = binascii.b2a_base64(messages[i - start][run] + tails[i], newline=False).decode()
                    payloads.append(f'{front}{budget}, "{bits}", "{ops}", "{code}"]'.encode())
            file.write(_frames(payloads))
            records += len(payloads)
    return records


def _evaluations(rng: np.random.Generator, cells: int, runs: np.ndarray) -> list[list[bytes]]:
    table = np.zeros((cells, len(runs), 3), dtype=EVALUATION)
    table["head"] = 0x0A, EVALUATION.itemsize - 2
    for k, tag in enumerate(b"\x09\x11\x19\x21\x29", start=1):
        table[f"tag{k}"] = tag
        # float32 values widened to double, as the official files hold them
        table[f"value{k}"] = (rng.integers(998, 9985, table.shape) / 9984).astype(np.float32)
    table["value1"] = runs[:, None] * np.array([0.0, 0.5, 1.0])
    table["value2"] *= 4000
    rows = np.ascontiguousarray(table).view(f"V{3 * EVALUATION.itemsize}")[..., 0]
    return [[bytes(item) for item in row] for row in rows.tolist()]


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _frames(payloads: list[bytes]) -> bytes:
    from pyg_nas_np.datasets.tfrecord import crc32c, masked, windows

    buffer = np.frombuffer(b"".join(payloads), dtype=np.uint8)
    length = np.array([len(p) for p in payloads])
    start = length.cumsum() - length
    crc = np.empty(len(payloads), dtype="<u4")
    for size in np.unique(length).tolist():
        rows = np.flatnonzero(length == size)
        crc[rows] = masked(crc32c(windows(buffer, start[rows], size)))
    headers = length.astype("<u8").view(np.uint8).reshape(-1, 8)
    header_crc = masked(crc32c(headers)).astype("<u4")
    return b"".join(
        headers[i].tobytes() + header_crc[i].tobytes() + payload + crc[i].tobytes()
        for i, payload in enumerate(payloads)
    )


# -- measured steps; each is one process ----------------------------------------------------------------------------


def step_enumerate(_: argparse.Namespace) -> dict[str, float]:
    from pyg_nas_np.spaces._nasbench101_enumeration import enumerate_cells

    start = time.perf_counter()
    enumerate_cells()
    return {"seconds": time.perf_counter() - start}


def step_load_space(_: argparse.Namespace) -> dict[str, float]:
    from pyg_nas_np.spaces.nasbench101 import NASBench101Space

    start = time.perf_counter()
    NASBench101Space()[0]
    return {"seconds": time.perf_counter() - start}


def step_dataset(args: argparse.Namespace) -> dict[str, float]:
    from pyg_nas_np.datasets.nasbench101 import NASBench101

    class Synthetic(NASBench101):
        checksums: ClassVar[dict[str, str]] = {}

    start = time.perf_counter()
    Synthetic(str(args.root))
    return {"seconds": time.perf_counter() - start}


def step_write(args: argparse.Namespace) -> dict[str, float]:
    start = time.perf_counter()
    records = write_synthetic(args.file, BUDGETS[args.kind], args.cells)
    return {"seconds": time.perf_counter() - start, "records": records, "bytes": args.file.stat().st_size}


def step_parse(args: argparse.Namespace) -> dict[str, float]:
    from pyg_nas_np.datasets._nasbench101_records import read_measurements
    from pyg_nas_np.spaces.nasbench101 import NASBench101Space

    space = NASBench101Space()
    space[0]
    start = time.perf_counter()
    tables = read_measurements(args.file, space)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "records": sum(int((~np.isnan(t[..., 1, 0])).sum()) for t in tables.values())}


def step_digest(args: argparse.Namespace) -> dict[str, float]:
    from pyg_nas_np.utils import file_digest

    start = time.perf_counter()
    file_digest(args.file)
    return {"seconds": time.perf_counter() - start}


def step_peer(args: argparse.Namespace) -> dict[str, float]:
    _install_stand_ins()
    path = Path(importlib.util.find_spec("nasbenchapi").origin).parents[1]  # type: ignore[union-attr,arg-type]
    script = path / "scripts" / "convert_nb101_tfrecord_to_pickle.py"
    spec = importlib.util.spec_from_file_location("peer_converter", script)
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        module.convert_nb101_tfrecord_to_pickle(args.file, Path(folder) / "peer.pkl")
        return {"seconds": time.perf_counter() - start, "records": args.records}


def _install_stand_ins() -> None:
    def tf_record_iterator(path: str) -> Iterator[bytes]:
        with open(path, "rb") as file:
            while header := file.read(12):
                payload = file.read(struct.unpack_from("<Q", header)[0])
                file.read(4)
                yield payload

    class ModelMetrics:
        layout = struct.Struct("<" + "2x" + "xdxdxdxdxd")

        @classmethod
        def FromString(cls, message: bytes) -> types.SimpleNamespace:
            fields = cls.layout.unpack_from(message, 2 * cls.layout.size)
            final = types.SimpleNamespace(
                training_time=fields[1],
                train_accuracy=fields[2],
                validation_accuracy=fields[3],
                test_accuracy=fields[4],
            )
            value, position = 0, 3 * cls.layout.size + 1
            for shift in range(0, 35, 7):
                value |= (message[position + shift // 7] & 0x7F) << shift
                if message[position + shift // 7] < 0x80:
                    break
            return types.SimpleNamespace(evaluation_data=(None, None, final), trainable_parameters=value)

    names = ("tensorflow", "nasbench", "nasbench.lib", "nasbench.lib.model_metrics_pb2")
    tensorflow, nasbench, lib, pb2 = (types.ModuleType(name) for name in names)
    reader = types.SimpleNamespace(tf_record_iterator=tf_record_iterator)
    tensorflow.compat = types.SimpleNamespace(v1=types.SimpleNamespace(python_io=reader))  # type: ignore[attr-defined]
    pb2.ModelMetrics = ModelMetrics  # type: ignore[attr-defined]
    lib.model_metrics_pb2 = pb2  # type: ignore[attr-defined]
    nasbench.lib = lib  # type: ignore[attr-defined]
    sys.modules.update(zip(names, (tensorflow, nasbench, lib, pb2), strict=True))


STEPS: dict[str, Callable[[argparse.Namespace], dict[str, float]]] = {
    "enumerate": step_enumerate,
    "load-space": step_load_space,
    "dataset": step_dataset,
    "write": step_write,
    "parse": step_parse,
    "digest": step_digest,
    "peer": step_peer,
}


def measure(step: str, **options: object) -> dict[str, float]:
    command = [sys.executable, __file__, "--step", step]
    for name, value in options.items():
        command += [f"--{name}", str(value)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def slice_records(source: Path, target: Path, count: int) -> int:
    r"""Copies the first records of a file; returns how many."""
    taken = 0
    with open(source, "rb") as reader, open(target, "wb") as writer:
        while taken < count and (header := reader.read(12)):
            writer.write(header + reader.read(struct.unpack_from("<Q", header)[0] + 4))
            taken += 1
    return taken


def main(args: argparse.Namespace) -> None:
    rows: list[dict[str, object]] = []

    def report(name: str, result: dict[str, float], note: str = "") -> None:
        records = int(result.get("records", 0))
        rate = records / result["seconds"] if records else 0.0
        rows.append(
            {
                "step": name,
                "seconds": round(result["seconds"], 3),
                "peak_mib": round(result["peak_mib"]),
                "records": records or "",
                "records_per_second": round(rate) or "",
                "note": note,
            }
        )
        print(
            f"{name:32s} {result['seconds']:9.2f} s {result['peak_mib']:7.0f} MiB {records or '':>10} {note}",
            flush=True,
        )

    report("enumerate (cold, no cache)", measure("enumerate"))
    measure("load-space")
    report("load space from cache", measure("load-space"))
    with tempfile.TemporaryDirectory(dir=args.scratch) as folder:
        root = Path(folder) / "dataset"
        report("build data set, graphs only", measure("dataset", root=root))
        report("load data set, graphs only", measure("dataset", root=root))
        kinds = ["only108"] if args.skip_full else ["only108", "full"]
        for kind in kinds:
            file = Path(folder) / f"nasbench_{kind}.tfrecord"
            report(f"write synthetic {kind}", measure("write", file=file, kind=kind, cells=args.cells))
            report(f"SHA-256 of {kind}", measure("digest", file=file), f"{file.stat().st_size / 1e6:.0f} MB")
            parsed = measure("parse", file=file)
            report(f"parse {kind}", parsed)
            part = Path(folder) / "slice.tfrecord"
            count = slice_records(file, part, PEER_RECORDS)
            peer = measure("peer", file=part, records=count)
            ours = measure("parse", file=part)
            ratio = (ours["records"] / ours["seconds"]) / (count / peer["seconds"])
            report(f"nasbenchapi on a slice of {kind}", peer)
            report(f"parse the same slice of {kind}", ours, f"{ratio:.1f}x the rate of nasbenchapi")
            whole = (parsed["records"] / parsed["seconds"]) / (count / peer["seconds"])
            print(f"{'':32s} parse {kind}: {whole:.1f}x the rate of nasbenchapi")
            rows[-3]["note"] = f"{whole:.1f}x the rate of nasbenchapi"
            raw = root / "raw"
            raw.mkdir(parents=True, exist_ok=True)
            shutil.move(file, raw / file.name)
            report(f"build data set from {kind}", measure("dataset", root=root))
            report(f"load data set from {kind}", measure("dataset", root=root))
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with open(args.output, "w", newline="") as file_out:
        writer = csv.DictWriter(file_out, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}, Python {platform.python_version()}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=423_624, help="cells in the synthetic files")
    parser.add_argument("--skip-full", action="store_true", help="leave out the 5,083,488-record file")
    parser.add_argument("--scratch", type=Path, help="folder for the synthetic files")
    parser.add_argument("--output", type=Path, default=RESULTS, help="table of results")
    for hidden in ("--step", "--kind"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    for hidden in ("--file", "--root"):
        parser.add_argument(hidden, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--records", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step is None:
        main(arguments)
    else:
        outcome = STEPS[arguments.step](arguments)
        outcome["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(outcome))
