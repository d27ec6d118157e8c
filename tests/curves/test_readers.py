"""Readers of learning curves, on the published files where they are present."""

from __future__ import annotations

import numpy as np
import pytest

from pyg_nas_np.curves.readers import (
    curves_of,
    from_runs,
    read_baker,
    read_lightning_logs,
    read_long,
    read_naap440,
    read_nasbench201_curves,
)
from pyg_nas_np.datasets import NASBench201
from pyg_nas_np.utils import DataFileError, InvalidCurvesError, MissingLabelsError

INF = float("inf")


@pytest.mark.parametrize(
    ("name", "count", "epochs", "direction", "architecture", "hyperparameters"),
    [
        ("metaqnn_cifar10", 1000, (1, 20), "up", ["num_params", "depth"], ["lr"]),
        ("deep_resnets_cifar10", 486, (0, 49), "up", ["num_params"], ["lr"]),
        (
            "deep_resnets_tinyimagenet",
            651,
            (0, 140),
            "up",
            ["num_blocks", "num_filters", "filter_size", "num_weights"],
            ["lr", "ss"],
        ),
        ("lstm_ptb", 280, (0, 59), "down", ["n_layer", "n_inputs"], ["base_lr", "ss"]),
    ],
)
def test_baker(shared_data, name, count, epochs, direction, architecture, hyperparameters):
    curves = read_baker(shared_data / "curves" / "baker2017" / f"{name}.csv")
    assert len(curves) == count
    assert (curves.epochs[0], curves.epochs[-1]) == epochs
    assert len(curves.epochs) == epochs[1] - epochs[0] + 1
    assert curves.direction == direction
    assert list(curves.architecture) == architecture
    assert list(curves.hyperparameters) == hyperparameters
    assert curves.finished.all()
    assert not curves.looks_reversed


def test_baker_values(shared_data):
    folder = shared_data / "curves" / "baker2017"
    metaqnn = read_baker(folder / "metaqnn_cifar10.csv")
    assert metaqnn.configs[0].startswith("[C(64,1,1), C(128,1,1), D(1,3)")
    assert metaqnn.values[0, [0, 19]].tolist() == [0.3152, 0.5672]
    assert metaqnn.architecture["depth"].min() == 2
    resnets = read_baker(folder / "deep_resnets_cifar10.csv", first_epoch=1)
    assert resnets.final.min() >= 0.647
    assert resnets.epochs == tuple(range(1, 51))
    lstm = read_baker(folder / "lstm_ptb.csv")
    assert (round(lstm.values.min()), round(lstm.values.max())) == (65, 873)


def test_naap440(shared_data):
    path = shared_data / "curves" / "naap440" / "naap440.csv"
    curves = read_naap440(path)
    assert (len(curves), len(read_naap440(path, "test")), len(read_naap440(path, "train"))) == (440, 40, 400)
    assert curves.epochs == tuple(range(1, 91))
    assert curves.architecture["NumParams"].min() == 2566
    assert (round(curves.values.max(1).min(), 3), round(curves.values.max(1).max(), 3)) == (0.529, 0.750)
    with pytest.raises(ValueError, match="'valid'"):
        read_naap440(path, "valid")


def test_nasbench201(shared_data, tmp_path):
    curves = read_nasbench201_curves(shared_data / "nasbench201" / "curves_200.csv")
    assert curves.values.shape == (200, 200)
    assert curves.configs[0].startswith("|")
    raw = tmp_path / "raw"
    raw.mkdir()
    name = "NATS-tss-v1_0-3ffb9-simple"
    (raw / name).symlink_to(shared_data / "nasbench201" / name, target_is_directory=True)
    official = curves_of(NASBench201(str(tmp_path), source="nats-simple"))
    assert official.values.shape == (3, 200)
    assert official.finished.all()
    # Cells 0 and 11 are in both; the table averages over the same seeds.
    place = curves.configs.index(official.configs[0])
    np.testing.assert_allclose(curves.values[place], official.values[0], atol=1e-3)


def test_a_metric_of_one_epoch(labelled_root):
    with pytest.raises(MissingLabelsError, match="recorded at epoch 200 only"):
        curves_of(NASBench201(str(labelled_root), source="compact-table"))


def write(path, text):
    path.write_text(text)
    return path


LONG = "run,step,loss,width\na,1,3.0,8\na,2,2.0,8\nb,1,4.0,16\nb,2,nan,16\nc,2,,4\nc,3,1.0,4\n"


def read(path, **kwargs):
    names = {"config": "run", "epoch": "step", "value": "loss", "architecture": ["width"]}
    return read_long(path, "down", **{**names, **kwargs})


def test_long_csv(tmp_path):
    curves = read(write(tmp_path / "t.csv", LONG))
    nan = float("nan")
    np.testing.assert_array_equal(curves.values, [[3, 2, nan], [4, INF, nan], [nan, nan, 1]])
    assert curves.configs == ("a", "b", "c")
    assert curves.architecture["width"].tolist() == [8, 16, 4]
    assert curves.diverged.tolist() == [False, True, False]


def test_long_parquet(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    columns = {"run": ["a", "a", "b"], "step": [1, 2, 1], "loss": [3.0, None, 0.1], "width": [8, 8, 16]}
    pyarrow.parquet.write_table(arrow.table(columns), tmp_path / "t.parquet")
    curves = read(tmp_path / "t.parquet")
    np.testing.assert_array_equal(curves.values, [[3.0, float("nan")], [0.1, float("nan")]])
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(DataFileError, match="corrupt or not"):
        read(tmp_path / "bad.parquet")


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("", DataFileError, "is empty"),
        ("run,step,loss,width\n", DataFileError, "has a header but no rows"),
        ("run,step,value,width\na,1,2,3\n", DataFileError, "has no column 'loss'"),
        ("run,step,loss,width\na,1,2\n", DataFileError, "line 2: 3 cells, the header has 4"),
        ("run,step,loss,width\na,1,two,3\n", DataFileError, "line 2, column 'loss': 'two' is not a number"),
        ("run,step,loss,width\na,1.5,2,3\n", DataFileError, "line 2: epoch 1.5 is not a whole number"),
        ("run,step,loss,width\na,2,2,3\na,1,2,3\n", InvalidCurvesError, "line 3: epoch 1 .* follows epoch 2"),
        ("run,step,loss,width\na,1,2,3\na,1,2,3\n", InvalidCurvesError, "line 3: epoch 1 .* follows epoch 1"),
        ("run,step,loss,width\na,1,2,3\na,2,2,4\n", InvalidCurvesError, "line 3: a feature .* differs"),
    ],
)
def test_malformed_long_tables(tmp_path, text, error, message):
    with pytest.raises(error, match=message):
        read(write(tmp_path / "t.csv", text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr\n0.1\n", "has no columns acc_1"),
        ("acc_1,acc_3\n0.1,0.2\n", "must be consecutive"),
        ("acc_2,acc_1\n0.1,0.2\n", "must be consecutive"),
        ("acc_1,ep_2\n0.1,0.2\n", "of one kind"),
        ("acc_1,acc_2\n0.1,high\n", "line 2, column 'acc_2': 'high' is not a number"),
    ],
)
def test_malformed_baker_tables(tmp_path, text, message):
    with pytest.raises(DataFileError, match=message):
        read_baker(write(tmp_path / "t.csv", text))


def test_lightning_logs(tmp_path):
    for number, end in enumerate((0.7, 0.8)):
        folder = tmp_path / f"version_{number}"
        folder.mkdir()
        write(
            folder / "metrics.csv",
            f"epoch,step,train_loss,val_acc\n0,5,1.0,\n0,9,,0.5\n1,15,0.9,\n1,19,,{end - 0.1}\n1,20,,{end}\n",
        )
        write(folder / "hparams.yaml", f"lr: 0.{number + 1}\nname: net\nbias: true\n")
    folders = [tmp_path / "version_0", tmp_path / "version_1"]
    curves = read_lightning_logs(folders, "val_acc", "up")
    assert curves.values.tolist() == [[0.5, 0.7], [0.5, 0.8]]
    assert curves.epochs == (0, 1)
    assert curves.hyperparameters["lr"].tolist() == [0.1, 0.2]
    assert curves.hyperparameters["bias"].tolist() == [1.0, 1.0]
    with pytest.raises(DataFileError, match="has no column 'val_loss'"):
        read_lightning_logs(folders, "val_loss", "down")
    with pytest.raises(InvalidCurvesError, match="given twice"):
        read_lightning_logs([folders[0], folders[0]], "val_acc", "up")
    write(folders[0] / "hparams.yaml", "lr: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(DataFileError, match="not plain YAML"):
        read_lightning_logs(folders, "val_acc", "up")


def test_no_runs():
    with pytest.raises(InvalidCurvesError, match="no configuration has a value"):
        from_runs({}, "up")
