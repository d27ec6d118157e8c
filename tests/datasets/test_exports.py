"""Tables that other tools export, made by the tools themselves where they are installed."""

from __future__ import annotations

import math

import pytest

from pyg_nas_np.datasets import read_measurements
from pyg_nas_np.datasets.exports import recognised
from pyg_nas_np.utils import DataFileError, InvalidLabelsError


@pytest.fixture
def study(tmp_path):
    """A study with four complete trials, a pruned one, a failed one that chose one of its parameters, one that runs and
    one that waits; and the address of its storage."""
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    address = f"sqlite:///{tmp_path}/study.db"
    study = optuna.create_study(
        storage=address, study_name="first", direction="minimize", sampler=optuna.samplers.RandomSampler(seed=0)
    )

    def objective(trial):
        lr = trial.suggest_float("lr", 1e-4, 1e-1, log=True)
        if trial.number == 5:
            raise ValueError
        if trial.suggest_categorical("optimizer", ["sgd", "adam"]) == "sgd":
            trial.suggest_float("momentum", 0.0, 0.9)
        trial.set_user_attr("flops", 10.0 * trial.number)
        trial.report(lr, 0)
        if trial.number == 4:
            raise optuna.TrialPruned
        return 1.0 + lr

    for optimizer in ("sgd", "adam", "sgd", "adam", "adam"):
        study.enqueue_trial({"optimizer": optimizer})
    study.optimize(objective, n_trials=6, catch=ValueError)
    study.ask()
    study.enqueue_trial({"lr": 0.01})
    return study, address


def numbers(cell):
    return math.nan if cell is None else cell


def test_a_study_an_address_a_frame_and_a_file_of_optuna_are_one(study, tmp_path):
    pytest.importorskip("pandas")
    live, address = study
    frame = live.trials_dataframe()
    frame.to_csv(tmp_path / "trials.csv", index=False)
    wanted = read_measurements(live)
    assert wanted.maximize is False
    assert wanted.rows == [0, 1, 2, 3, 4]
    assert wanted.labels[:4].tolist() == [trial.value for trial in live.trials[:4]]
    assert math.isnan(wanted.labels[4])
    assert set(wanted.records[0]) == {"lr", "optimizer", "momentum"}
    assert wanted.records[1]["momentum"] is None
    assert wanted.columns["user_attrs_flops"][:2] == [0.0, 10.0]
    assert wanted.notes == [
        "Optuna study 'first': 3 parameters params_*, label 'value', smaller is better",
        "1 PRUNED and 1 FAIL and 1 RUNNING and 1 WAITING rows are no labels",
        "3 rows without parameters, or only some, left out",
        "1 of 5 rows without a label",
    ]
    for source in (address, f"{address}#first", frame, tmp_path / "trials.csv", str(tmp_path / "trials.csv")):
        found = read_measurements(source)
        assert found.rows == wanted.rows
        assert found.labels[:4].tolist() == pytest.approx(wanted.labels[:4].tolist())
        assert [record["optimizer"] for record in found.records] == ["sgd", "adam", "sgd", "adam", "adam"]
        for name in ("lr", "momentum"):
            ours, theirs = ([numbers(record[name]) for record in part.records] for part in (found, wanted))
            assert ours == pytest.approx(theirs, nan_ok=True)
    # A frame does not tell the direction.
    assert read_measurements(frame).maximize is None
    assert read_measurements(frame, minimize=True).maximize is False


def test_a_direction_that_contradicts_the_study_is_said(study):
    found = read_measurements(study[0], minimize=False)
    assert found.maximize is True
    assert "the table says that smaller values of 'value' are better" in found.notes


def test_storages_that_do_not_tell_the_study(study, tmp_path):
    optuna = pytest.importorskip("optuna")
    _, address = study
    optuna.create_study(storage=address, study_name="second")
    with pytest.raises(DataFileError, match="several studies; add one of #first, #second"):
        read_measurements(address)
    with pytest.raises(DataFileError, match="no study 'third'; its studies are: first, second"):
        read_measurements(f"{address}#third")
    with pytest.raises(InvalidLabelsError, match="'second' has no trial"):
        read_measurements(f"{address}#second")
    with pytest.raises(DataFileError, match=r"none\.db' is missing"):
        read_measurements(f"sqlite:///{tmp_path}/none.db")
    assert not (tmp_path / "none.db").exists()
    (tmp_path / "text.db").write_text("no database")
    with pytest.raises(DataFileError, match="cannot be read as an Optuna storage"):
        read_measurements(f"sqlite:///{tmp_path}/text.db")


def test_of_several_objectives_one_must_be_named():
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(directions=["maximize", "minimize"])
    study.optimize(lambda trial: (trial.suggest_int("depth", 1, 10**6), trial.number), n_trials=5)
    for source in (study, study.trials_dataframe()):
        with pytest.raises(InvalidLabelsError, match="name one as target: values_0, values_1"):
            read_measurements(source)
        assert read_measurements(source, "values_1").labels.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
        assert read_measurements(source, "1").target == "values_1"
    assert read_measurements(study, "values_1").maximize is False
    assert read_measurements(study, "values_0").maximize is True
    study.set_metric_names(["accuracy", "latency"])
    assert read_measurements(study, "latency").target == "values_latency"


def test_results_of_scikit_learn():
    pandas = pytest.importorskip("pandas")
    from sklearn.datasets import make_regression
    from sklearn.model_selection import GridSearchCV
    from sklearn.tree import DecisionTreeRegressor

    grid = [{"max_depth": [1, 2, 3]}, {"criterion": ["squared_error", "absolute_error"], "max_depth": [4]}]
    search = GridSearchCV(DecisionTreeRegressor(random_state=0), grid, cv=3).fit(
        *make_regression(60, 4, random_state=0)
    )
    for source in (search.cv_results_, pandas.DataFrame(search.cv_results_)):
        found = read_measurements(source)
        assert found.labels.tolist() == search.cv_results_["mean_test_score"].tolist()
        assert found.noise.tolist() == search.cv_results_["std_test_score"].tolist()
        assert found.maximize is True
        assert [record["max_depth"] for record in found.records] == [1, 2, 3, 4, 4]
        assert set(found.records[0]) == {"max_depth", "criterion"}
        assert {"rank_test_score", "mean_fit_time", "split0_test_score", "params"} <= found.columns.keys()
        what = "2 parameters param_*, label 'mean_test_score', noise 'std_test_score', larger is better"
        assert found.notes == [f"scikit-learn cv_results_: {what}"]
    several = GridSearchCV(DecisionTreeRegressor(), grid, cv=2, scoring=["r2", "neg_max_error"], refit=False)
    several.fit(*make_regression(60, 4, random_state=0))
    with pytest.raises(InvalidLabelsError, match="name one as target: mean_test_r2, mean_test_neg_max_error"):
        read_measurements(several.cv_results_)
    assert read_measurements(several.cv_results_, "r2").target == "mean_test_r2"


RAY = {
    "val_acc": [0.8, 0.9, 0.7],
    "val_loss": [0.4, 0.3, 0.6],
    "training_iteration": [10, 10, 10],
    "time_total_s": [1.0, 2.0, 3.0],
    "timestamp": [1, 2, 3],
    "date": ["2026-01-01_00-00-00"] * 3,
    "trial_id": ["a", "b", "c"],
    "pid": [1, 2, 3],
    "done": [True] * 3,
    "hostname": ["h"] * 3,
    "checkpoint_dir_name": [None] * 3,
    "config/depth": [2, 4, 8],
    "config/opt/name": ["sgd", "adam", "sgd"],
    "logdir": ["x", "y", "z"],
}


def test_results_of_ray_tune():
    class ResultGrid:
        def get_dataframe(self):
            return pytest.importorskip("pandas").DataFrame(RAY)

    with pytest.raises(InvalidLabelsError, match="name one as target: val_acc, val_loss"):
        read_measurements(RAY)
    for source in (RAY, ResultGrid()):
        found = read_measurements(source, "val_acc")
        assert found.records == [{"depth": d, "opt/name": o} for d, o in ((2, "sgd"), (4, "adam"), (8, "sgd"))]
        assert found.columns["val_loss"] == [0.4, 0.3, 0.6]
        assert found.notes == ["Ray Tune results: 2 parameters config/*, label 'val_acc'"]
    alone = {name: column for name, column in RAY.items() if name != "val_loss"}
    assert read_measurements(alone).target == "val_acc"


def test_runs_of_mlflow_are_text_with_types():
    runs = {
        "run_id": ["a", "b", "c", "d"],
        "experiment_id": ["0"] * 4,
        "status": ["FINISHED", "FINISHED", "FAILED", "RUNNING"],
        "start_time": [None] * 4,
        "metrics.acc": [0.8, 0.9, math.nan, 0.1],
        "params.depth": ["2", "4", "8", None],
        "params.bn": ["True", "False", "True", None],
        "params.drop": ["None", "0.5", "0.25", None],
        "params.act": ["relu", "gelu", "relu", None],
        "tags.mlflow.user": ["u"] * 4,
    }
    found = read_measurements(runs)
    assert found.records == [
        {"depth": 2, "bn": True, "drop": None, "act": "relu"},
        {"depth": 4, "bn": False, "drop": 0.5, "act": "gelu"},
        {"depth": 8, "bn": True, "drop": 0.25, "act": "relu"},
    ]
    assert found.labels.isnan().tolist() == [False, False, True]
    assert found.target == "metrics.acc"
    assert read_measurements(runs, "acc", ignore=["act"]).records[0] == {"depth": 2, "bn": True, "drop": None}
    assert found.notes[1] == "1 FAILED and 1 RUNNING rows are no labels"


def test_runs_of_wandb(tmp_path):
    path = tmp_path / "wandb_export.csv"
    path.write_text(
        '"Name","State","Notes","User","Tags","Created","Runtime","Sweep","depth","act","val/acc"\n'
        '"sunny-1","finished","","u","","2026-01-01T00:00:00.000Z","10","","2","relu","0.8"\n'
        '"sunny-2","finished","","u","","2026-01-01T00:00:00.000Z","11","","4","gelu","0.9"\n'
        '"sunny-3","crashed","","u","","2026-01-01T00:00:00.000Z","1","","8","relu","0.1"\n'
        '"sunny-4","running","","u","","2026-01-01T00:00:00.000Z","1","","6","relu",""\n'
    )
    with pytest.raises(InvalidLabelsError, match=r"Weights & Biases runs have several .*: depth, act, val/acc"):
        read_measurements(path)
    found = read_measurements(path, "val/acc")
    assert found.records == [{"depth": d, "act": a} for d, a in ((2, "relu"), (4, "gelu"), (8, "relu"), (6, "relu"))]
    assert found.labels.isnan().tolist() == [False, False, True, True]
    assert found.notes[:2] == [
        "Weights & Biases runs: 2 parameters (depth, act), label 'val/acc'",
        "1 crashed and 1 running rows are no labels",
    ]
    history = {"_step": [1, 2], "_runtime": [3, 4], "_timestamp": [5, 6], "depth": [2, 4], "acc": [0.1, 0.2]}
    assert read_measurements(history, "acc").records == [{"depth": 2}, {"depth": 4}]


def test_runs_of_wandb_as_its_manual_exports_them(tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        {
            "summary": [{"_step": 9, "acc": 0.8, "_wandb": {"runtime": 3}}, {"_step": 9, "acc": 0.9}],
            "config": [{"depth": 2, "act": "relu"}, {"depth": 4, "act": "gelu"}],
            "name": ["sunny-1", "sunny-2"],
        }
    )
    frame.to_csv(tmp_path / "project.csv")
    for source in (frame, tmp_path / "project.csv"):
        found = read_measurements(source)
        assert found.records == [{"depth": 2, "act": "relu"}, {"depth": 4, "act": "gelu"}]
        assert found.labels.tolist() == [0.8, 0.9]
        assert found.target == "summary.acc"


@pytest.mark.parametrize(
    "columns",
    [
        {"params_a": [1], "b": [2]},
        {"value": [1], "b": [2]},
        {"param_a": [1], "acc": [2]},
        {"params.a": [1], "acc": [2]},
        {"Name": ["a"], "State": ["b"]},
        {"config": ["a"], "summary": ["b"]},
        {},
    ],
)
def test_what_no_tool_exported_is_plain(columns):
    assert recognised(columns).title == ""
