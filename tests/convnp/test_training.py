from __future__ import annotations

import csv
import json
import math
from functools import partial

import lightning
import pytest
import torch
from safetensors import safe_open

from pyg_nas_np import pretrain
from pyg_nas_np.convnp import SyntheticTasks
from pyg_nas_np.convnp.cell_bank import CellBank, bank_groups, bank_moments
from pyg_nas_np.convnp.predictor import process_inputs
from pyg_nas_np.convnp.training import NOISE_SHARE, MetaTraining, negative_log_density, space_tasks
from pyg_nas_np.convnp.weights import read_card, read_weights
from pyg_nas_np.features import shared_descriptors
from pyg_nas_np.nn import ConvNP
from pyg_nas_np.utils import DataFileError, DeviceUnavailableError, InvalidLabelsError

SMALL = {"num_tasks": 6, "batch_size": 2, "max_steps": 8, "progress": False}


@pytest.fixture(autouse=True)
def few_labels(monkeypatch):
    """Tasks of few labels and small banks: the base predictors are most of the time of these tests."""
    original = SyntheticTasks.__init__

    def small(self, *args, num_context, num_target, **kwargs):
        original(self, *args, num_context=(4, 12), num_target=8, **kwargs)

    monkeypatch.setattr(SyntheticTasks, "__init__", small)
    moments = partial(bank_moments, max_iter=5, num_trees=10)
    monkeypatch.setattr("pyg_nas_np.convnp.training.bank_moments", moments)


def make_model(space, seed: int = 0, **kwargs) -> ConvNP:
    descriptors = shared_descriptors(space)
    members = len(CellBank(bank_groups(descriptors)).members)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        sizes = {"num_base": members, "channels": 8, "heads": 2, "dim": 2}
        return ConvNP(len(process_inputs(descriptors)), **(sizes | kwargs))


def train(space, path=None, **kwargs) -> ConvNP:
    return pretrain(space, path, **({"model": make_model(space)} | SMALL | kwargs))


def equal(one: ConvNP, other: ConvNP) -> bool:
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


class PowerCut(lightning.Callback):
    """Ends the training at a step, before that step's checkpoint."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer, *args) -> None:
        if trainer.global_step == self.step:
            raise ConnectionError("power cut")


def test_training_is_seeded_changes_every_part_and_tells_of_itself(tmp_path, toy_space):
    path = tmp_path / "toy.safetensors"
    first, second = train(toy_space, path, seed=3), train(toy_space, seed=3)
    assert equal(first, second)
    assert not equal(first, train(toy_space, seed=4))
    assert not first.training
    start = make_model(toy_space)
    for (name, a), b in zip(first.named_parameters(), start.parameters(), strict=True):
        assert a.isfinite().all(), name
        assert not torch.equal(a, b), name
    assert [p.name for p in tmp_path.iterdir()] == ["toy.safetensors"]
    assert equal(read_weights(path, toy_space), first)
    card = read_card(path)
    assert (card["space"], card["seed"], card["steps"], card["tables"]) == ("toy", 3, 8, "none")
    assert (card["tasks"], card["batch_size"], card["objective"], card["target"]) == (6, 2, "ml", "")
    assert math.isfinite(card["final_nll"])


def test_default_process_is_seeded_too(toy_space):
    models = [pretrain(toy_space, **(SMALL | {"max_steps": 1}), seed=seed) for seed in (5, 5, 6)]
    assert equal(models[0], models[1])
    assert not equal(models[0], models[2])
    assert models[0].form == "hybrid"


@pytest.mark.parametrize("kwargs", [{}, {"form": "on-grid", "latent_channels": 2}])
def test_training_resumes_bit_exactly(tmp_path, toy_space, kwargs):
    whole = train(toy_space, model=make_model(toy_space, **kwargs))
    with pytest.raises(ConnectionError, match="power cut"):
        train(toy_space, model=make_model(toy_space, **kwargs), root=tmp_path, callbacks=[PowerCut(5)])
    files = {p.name for p in tmp_path.iterdir()}
    assert {"tasks.pt", "last.ckpt", "logs"} <= files
    # Other initial weights: all that counts is in the checkpoint.
    resumed = train(toy_space, model=make_model(toy_space, seed=9, **kwargs), root=tmp_path)
    assert equal(resumed, whole)
    # What has ended does not go on, and may still be written.
    again = train(toy_space, tmp_path / "w.safetensors", model=make_model(toy_space, seed=9, **kwargs), root=tmp_path)
    assert equal(again, whole)
    assert read_card(tmp_path / "w.safetensors")["steps"] == 8


class Diary(lightning.Callback):
    """Where the process was trained."""

    def on_train_start(self, trainer, module) -> None:
        self.device = module.device.type


def test_training_runs_where_it_is_told(tmp_path, toy_space, device):
    diary = Diary()
    path = tmp_path / "toy.safetensors"
    model = train(toy_space, path, root=tmp_path, accelerator=device, callbacks=[diary], max_steps=4)
    assert diary.device == device
    assert read_card(path)["accelerator"] == device
    assert not any(value.is_cuda for value in model.state_dict().values())


def test_accelerators_that_do_not_exist_are_told(tmp_path, toy_space):
    with pytest.raises(ValueError, match="accelerator must be one of auto, cpu, cuda, got 'tpu'"):
        train(toy_space, root=tmp_path, accelerator="tpu")
    if not torch.cuda.is_available():
        with pytest.raises(DeviceUnavailableError, match="'cuda' was asked for, but PyTorch finds no CUDA device"):
            train(toy_space, root=tmp_path, accelerator="cuda")
        diary = Diary()
        train(toy_space, callbacks=[diary], max_steps=1)
        assert diary.device == "cpu"
    else:
        with pytest.raises(DeviceUnavailableError, match="devices=100 were asked for"):
            train(toy_space, root=tmp_path, devices=100)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kwargs", [{}, {"form": "on-grid", "latent_channels": 2}])
@pytest.mark.parametrize("first", ["cpu", "cuda"])
def test_checkpoints_of_one_device_resume_on_another(tmp_path, toy_space, cuda, first, kwargs):
    second = "cpu" if first == cuda else cuda
    whole = train(toy_space, model=make_model(toy_space, **kwargs), accelerator=first)
    started = make_model(toy_space, **kwargs)
    with pytest.raises(ConnectionError, match="power cut"):
        train(toy_space, model=started, root=tmp_path, accelerator=first, callbacks=[PowerCut(5)])
    assert "cuda" not in str(torch.load(tmp_path / "last.ckpt", weights_only=True))
    resumed = train(toy_space, model=make_model(toy_space, seed=9, **kwargs), root=tmp_path, accelerator=second)
    for name, value in resumed.state_dict().items():
        torch.testing.assert_close(value, whole.state_dict()[name], rtol=1e-2, atol=1e-3, msg=name)


def test_every_tensor_of_a_checkpoint_is_moved(toy_space):
    # Tensors without values cannot be moved to the CPU, so each one that is reached raises.
    training, elsewhere = MetaTraining(make_model(toy_space)), torch.ones(2, device="meta")
    for checkpoint in (
        {"state_dict": {"w": elsewhere}},
        {"optimizer_states": [{"state": {0: {"exp_avg": elsewhere}}}]},
        {"callbacks": {"best": elsewhere}},
    ):
        with pytest.raises(NotImplementedError, match="meta"):
            training.on_save_checkpoint(checkpoint)


@pytest.mark.parametrize("objective", ["ml", "elbo"])
def test_losses_follow_the_device_of_their_tasks(toy_space, objective):
    model = make_model(toy_space, form="on-grid", latent_channels=2).to("meta")
    tasks = space_tasks(toy_space, batch_size=2).batch(0).to("meta")
    loss = negative_log_density(model, tasks, objective, 2, torch.Generator())
    assert loss.is_meta
    assert loss.shape == ()
    loss.backward()
    assert all(parameter.grad.is_meta for parameter in model.parameters())


def test_training_logs_to_csv(tmp_path, toy_space):
    train(toy_space, root=tmp_path, max_steps=20)
    with open(tmp_path / "logs" / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [9, 19]
    assert all(math.isfinite(float(row["train/nll"])) for row in rows)


def test_time_limit_ends_training(tmp_path, toy_space):
    path = tmp_path / "toy.safetensors"
    train(toy_space, path, max_steps=10_000, max_minutes=0.5 / 60)
    assert 0 < read_card(path)["steps"] < 10_000


def test_a_pool_of_another_training_is_refused(tmp_path, toy_space):
    train(toy_space, root=tmp_path, max_steps=1)
    with pytest.raises(DataFileError, match="holds 3 batches, 5 are wanted"):
        train(toy_space, root=tmp_path, num_tasks=10)
    with pytest.raises(DataFileError, match="holds other tasks"):
        train(toy_space, root=tmp_path, seed=1)


class RankDiary(lightning.Callback):
    """Writes what a rank has seen, and its weights at the end."""

    def __init__(self, folder):
        self.folder, self.seen = folder, []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.seen.append(float(batch.z_target.sum()))

    def on_train_end(self, trainer, module):
        found = {"world": trainer.world_size, "seen": self.seen, "state": module.model.state_dict()}
        torch.save(found, self.folder / f"rank{trainer.global_rank}.pt")


@pytest.mark.slow
def test_two_processes_train_together(tmp_path, toy_space, processes, monkeypatch):
    start, method = torch.multiprocessing.start_processes, {"start_method": processes.get_start_method()}
    monkeypatch.setattr(torch.multiprocessing, "start_processes", lambda *args, **kw: start(*args, **{**kw, **method}))
    path = tmp_path / "toy.safetensors"
    sizes = {"num_tasks": 12, "batch_size": 1, "max_steps": 6}
    train(toy_space, path, devices=2, callbacks=[RankDiary(tmp_path)], seed=2, **sizes)
    ranks = [torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2)]
    assert [rank["world"] for rank in ranks] == [2, 2]
    assert not set(ranks[0]["seen"]) & set(ranks[1]["seen"])  # twelve batches, six steps: one pass
    for name, value in read_weights(path, toy_space).state_dict().items():
        assert value.isfinite().all(), name
        assert torch.equal(ranks[0]["state"][name], value), name
        assert torch.equal(ranks[1]["state"][name], value), name
    card = read_card(path)
    assert card["steps"] == 6
    assert math.isfinite(card["final_nll"])
    assert not (tmp_path / "tasks.pt").exists()


@pytest.fixture(scope="module")
def batch(toy_space):
    return space_tasks(toy_space, batch_size=3, seed=1).batch(0)


def latent_model(space, std: float = 0.3) -> ConvNP:
    model = make_model(space, form="on-grid", latent_channels=2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        torch.nn.init.normal_(model.head.weight, std=std)
    return model


def test_density_of_a_deterministic_process(toy_space, batch):
    model = make_model(toy_space)
    mean, std = model(batch)
    expected = -torch.distributions.Normal(mean, std).log_prob(batch.z_target).mean()
    torch.testing.assert_close(negative_log_density(model, batch), expected)


def test_density_with_a_latent_path_is_that_of_the_mixture_of_its_samples(toy_space, batch):
    model = latent_model(toy_space)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        loss = negative_log_density(model, batch, "ml", 5, generator)
        generator = torch.Generator().manual_seed(0)
        draws = [torch.distributions.Normal(*model(batch, None, generator)) for _ in range(5)]
        log = torch.stack([draw.log_prob(batch.z_target) for draw in draws])
        expected = []
        for start, stop in zip(batch.ptr_target[:-1].tolist(), batch.ptr_target[1:].tolist(), strict=True):
            joint = log[:, start:stop].double().sum(dim=1).exp().mean().log()
            expected.append(-joint / (stop - start))
    torch.testing.assert_close(loss, torch.stack(expected).mean().float(), rtol=1e-4, atol=1e-4)


def test_bound_is_the_expected_density_less_the_divergence(toy_space, batch):
    model = latent_model(toy_space)
    with torch.no_grad():
        prior, posterior = model.latent(batch), model.latent(batch.with_targets_as_context())
        loss = negative_log_density(model, batch, "elbo", 4, torch.Generator().manual_seed(0))
        generator = torch.Generator().manual_seed(0)
        draws = [torch.distributions.Normal(*model(batch, posterior, generator)) for _ in range(4)]
        log = torch.stack([draw.log_prob(batch.z_target) for draw in draws]).mean(dim=0)
        p, q = (torch.distributions.Normal(mean, log_std.exp()) for mean, log_std in (prior, posterior))
        divergence = torch.distributions.kl_divergence(q, p).flatten(1).sum(dim=1)
        per_task = torch.stack([part.sum() for part in log.split(batch.ptr_target.diff().tolist())])
    expected = -((per_task - divergence) / batch.ptr_target.diff()).mean()
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_bound_lies_below_the_density(toy_space, batch):
    # Where the output does not depend on the latent, the density is exact and the gap is the divergence.
    model = latent_model(toy_space, std=0.0)
    losses = [negative_log_density(model, batch, objective, 2) for objective in ("ml", "elbo")]
    assert losses[1] > losses[0]
    model = latent_model(toy_space, std=0.1)
    generator = torch.Generator().manual_seed(0)
    losses = [negative_log_density(model, batch, objective, 64, generator) for objective in ("ml", "elbo")]
    assert losses[1] > losses[0] - 0.02


@pytest.mark.parametrize(
    ("form", "objective"),
    [("hybrid", "ml"), ("off-grid", "ml"), ("on-grid", "ml"), ("on-grid latent", "ml"), ("on-grid latent", "elbo")],
)
def test_losses_decrease(toy_space, batch, form, objective):
    kwargs = {"form": form.split()[0], "latent_channels": 2 * ("latent" in form)}
    training = MetaTraining(make_model(toy_space, **kwargs), objective=objective)
    optimizer = torch.optim.Adam(training.model.parameters(), lr=1e-2)
    losses = []
    for step in range(25):
        generator = torch.Generator().manual_seed(step)
        loss = negative_log_density(training.model, batch, objective, 2, generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert all(map(math.isfinite, losses))
    assert sum(losses[-3:]) < sum(losses[:3])


def test_impossible_objectives(toy_space):
    with pytest.raises(ValueError, match="one of ml, elbo, got 'map'"):
        MetaTraining(make_model(toy_space), objective="map")
    with pytest.raises(ValueError, match="needs a process with a latent path"):
        train(toy_space, objective="elbo")


def test_learning_rate_rises_and_falls_to_zero(toy_space):
    configured = MetaTraining(make_model(toy_space), lr=0.1, max_steps=100).configure_optimizers()
    (factor,) = configured["lr_scheduler"]["scheduler"].lr_lambdas
    assert factor(0) == pytest.approx(0.2)
    assert max(range(100), key=factor) == 4
    assert factor(100) == pytest.approx(0)
    assert factor(1000) == pytest.approx(0)


def test_tables_of_the_target_are_refused(toy_space):
    labels = {"cifar10/valid": torch.arange(128.0)}
    with pytest.raises(InvalidLabelsError, match="'cifar10/valid' is of 'CIFAR-10'"):
        train(toy_space, labels=labels, target="CIFAR-10")


def test_tables_change_the_tasks_and_stand_in_the_card(tmp_path, toy_space):
    path = tmp_path / "toy.safetensors"
    labels = {"cifar100/valid": torch.randn(128, generator=torch.Generator().manual_seed(0))}
    model = train(toy_space, path, labels=labels, target="cifar10", max_steps=2)
    assert not equal(model, train(toy_space, max_steps=2))
    with safe_open(path, framework="pt") as file:
        card = json.loads(file.metadata()["card"])
    assert (card["tables"], card["target"]) == ("cifar100/valid", "cifar10")


def test_checkpoints_that_are_damaged_foreign_or_run_code_are_refused(tmp_path, toy_space):
    train(toy_space, root=tmp_path, max_steps=2)
    path = tmp_path / "last.ckpt"
    state = torch.load(path, weights_only=True)
    weights = state["state_dict"]
    name = next(iter(weights))
    without = {key: value for key, value in weights.items() if key != name}

    class Payload:
        def __reduce__(self):
            return (tmp_path / "owned").mkdir, ()

    for foreign in (
        {},
        5,
        {key: value for key, value in state.items() if key != "optimizer_states"},
        state | {"state_dict": without},
        state | {"state_dict": weights | {"more": torch.ones(1)}},
        state | {"state_dict": weights | {name: torch.full_like(weights[name], float("nan"))}},
        state | {"callbacks": {"mine": Payload()}},
    ):
        torch.save(foreign, path)
        with pytest.raises(DataFileError, match=r"last\.ckpt.*delete it to start anew"):
            train(toy_space, root=tmp_path, max_steps=3)
    for content in (b"", b"no checkpoint"):
        path.write_bytes(content)
        with pytest.raises(DataFileError, match=r"last\.ckpt.*delete it to start anew"):
            train(toy_space, root=tmp_path, max_steps=3)
    assert not (tmp_path / "owned").exists()


def test_large_spaces_give_a_part_of_their_cells(toy_space, monkeypatch):
    monkeypatch.setattr("pyg_nas_np.convnp.training.POOL_CELLS", 64)
    labels = {"cifar100/valid": torch.randn(128, generator=torch.Generator().manual_seed(0))}
    tasks = space_tasks(toy_space, labels=labels, target="cifar10")
    assert tasks.table.size(0) == 64
    assert tasks.batch(0).z_target.isfinite().all()


def test_a_process_with_the_channel_is_trained_on_noise(tmp_path, toy_space):
    path = tmp_path / "toy.safetensors"
    model = train(toy_space, path, model=make_model(toy_space, noise_channel=True), root=tmp_path)
    start = make_model(toy_space, noise_channel=True)
    for value, before in ((model.embed_context, start.embed_context), (model.weigh[0], start.weigh[0])):
        assert bool((value.weight != before.weight).any(dim=0).all())
    again = read_weights(path, toy_space)
    assert equal(again, model)
    assert again.noise_channel
    assert read_card(path)["noise_share"] == NOISE_SHARE
    # The file of tasks holds their noise.
    resumed = train(toy_space, model=make_model(toy_space, noise_channel=True), root=tmp_path)
    assert equal(resumed, model)
    made = pretrain(toy_space, process={"noise_channel": True}, **(SMALL | {"max_steps": 1}))
    assert made.noise_channel


def test_the_share_of_noisy_tasks_can_be_chosen(tmp_path, toy_space):
    quiet = train(toy_space, tmp_path / "w.safetensors")
    assert read_card(tmp_path / "w.safetensors")["noise_share"] == 0.0
    assert not equal(train(toy_space, noise_share=1.0), quiet)
    assert space_tasks(toy_space, noise_share=1.0, batch_size=2).batch(0).noise is not None
    with pytest.raises(ValueError, match="noise_share must lie between 0 and 1, got 2"):
        train(toy_space, noise_share=2.0)
