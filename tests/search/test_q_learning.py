"""Q-learning over chains of layers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from pyg_nas_np.curves import EarlyStopping, LastSeenValue, RecordedRun, SequentialRegression
from pyg_nas_np.curves.readers import read_baker
from pyg_nas_np.search.layer_strings import parse_net
from pyg_nas_np.search.q_learning import MetaQNNGrammar, QLearningSearch, TabularGrammar, epsilon_schedule
from pyg_nas_np.utils import InvalidArchitectureError

GRAMMAR = MetaQNNGrammar(max_depth=3, filters=(64, 128), sizes=(3,), pools=((2, 2),))


def value(text):
    """More convolutions with many filters are better, and an average at the end helps."""
    return 0.2 + 0.2 * text.count("C(128") + 0.05 * text.count("C(64") + 0.1 * text.count("GAP")


class Live:
    def __init__(self, text, epochs=5):
        self.values = value(text) * (1 - 0.5 ** np.arange(1, epochs + 1))

    def train_to(self, epoch):
        return self.values[:epoch]


def test_it_learns_what_is_good():
    search = QLearningSearch(GRAMMAR, [(1.0, 60), (0.5, 30), (0.1, 60)], learning_rate=0.1, replay=20, random_state=3)
    result = search.search(Live, 5)
    first, last = result.trials[:40], result.trials[-40:]
    assert np.mean([t.reward for t in last]) > np.mean([t.reward for t in first]) + 0.1
    assert result.best == "[C(128,3,1), C(128,3,1), C(128,3,1), GAP(10), SM(10)]"
    assert result.value == pytest.approx(value(result.best) * (1 - 0.5**5))
    greedy = "[" + ", ".join(map(str, search.build(0.0))) + "]"
    assert value(greedy) > 0.6
    # A net is trained once.
    trained = [t.net for t in result.trials if t.epochs]
    assert len(trained) == len(set(trained))
    assert result.epochs == 5 * len(trained)


def test_the_seed_decides():
    runs = [QLearningSearch(GRAMMAR, [(0.5, 20)], replay=3, random_state=s).search(Live, 5).trials for s in (0, 0, 1)]
    assert runs[0] == runs[1] != runs[2]


def test_one_update_by_hand():
    net = parse_net("[GAP(10), SM(10)]")
    search = QLearningSearch(GRAMMAR, [(1.0, 1)], learning_rate=0.1, replay=0)
    search.learn(net, 1.0)
    # The last layer: 0.5 + 0.1 (1 - 0.5); the one before it: 0.5 + 0.1 (max Q of the softmax - 0.5).
    assert search.values[GRAMMAR.state(net[:1]), net[1]] == pytest.approx(0.55)
    assert search.values[GRAMMAR.state(()), net[0]] == pytest.approx(0.505)


def test_the_grammar_holds():
    search = QLearningSearch(MetaQNNGrammar(max_depth=6), [(1.0, 1)])
    for _ in range(200):
        net = search.build(1.0)
        kinds = [layer.kind for layer in net]
        assert parse_net("[" + ", ".join(map(str, net)) + "]") == net
        assert kinds.count("C") + kinds.count("P") <= 6
        assert "PP" not in "".join(kinds)
        if "GAP" in kinds:
            assert kinds[-2:] == ["GAP", "SM"]
    with pytest.raises(ValueError, match="max_depth"):
        MetaQNNGrammar(max_depth=0)


def test_published_nets(shared_data):
    curves = read_baker(shared_data / "curves" / "baker2017" / "metaqnn_cifar10.csv")
    grammar = TabularGrammar(map(parse_net, curves.configs))
    place = {config: i for i, config in enumerate(curves.configs)}
    stopping = EarlyStopping(20, "up", SequentialRegression("ols"), burn_in=60, delta=0.99)
    schedule = epsilon_schedule(250)
    plain, stopped = (
        QLearningSearch(grammar, schedule, replay=5, stopping=rule, random_state=0).search(
            lambda text: RecordedRun(curves, place[text]), 20
        )
        for rule in (None, stopping)
    )
    assert all(trial.net in place for trial in plain.trials)
    assert plain.value == curves.final[place[plain.best]]
    assert stopped.epochs < 0.6 * plain.epochs
    assert stopped.value > plain.value - 0.03
    rewards = {trial.net: trial.reward for trial in stopped.trials if trial.stopped}
    gaps = [abs(rewards[net] - curves.final[place[net]]) for net in rewards]
    assert np.median(gaps) < 0.1


def test_diverged_nets_are_worth_nothing():
    class Lost:
        def train_to(self, epoch):
            return [float("nan")] * epoch

    search = QLearningSearch(GRAMMAR, [(1.0, 5)], replay=0)
    assert {t.reward for t in search.search(lambda text: Lost(), 3).trials} == {0.0}


def test_the_best_prediction_is_found_where_every_net_was_stopped():
    class Short:
        def __init__(self, text):
            self.value = 1 / len(text)

        def train_to(self, epoch):
            return [self.value] * min(epoch, 2)

    search = QLearningSearch(GRAMMAR, [(1.0, 8)], replay=0)
    result = search.search(Short, 5)
    assert all(trial.stopped for trial in result.trials)
    assert result.value == max(trial.reward for trial in result.trials)
    assert result.best in {trial.net for trial in result.trials if trial.reward == result.value}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"discount": 1.5}, "discount"),
        ({"replay": -1}, "replay"),
        ({"schedule": []}, "schedule"),
        ({"schedule": [(2.0, 1)]}, "schedule"),
        ({"stopping": EarlyStopping(5, "down")}, "direction 'up'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        QLearningSearch(GRAMMAR, **arguments)


def test_an_empty_table():
    with pytest.raises(InvalidArchitectureError, match="at least one net"):
        TabularGrammar([])


def test_the_schedule_keeps_its_shares():
    assert sum(n for _, n in epsilon_schedule(2700)) == 2700
    assert epsilon_schedule(2700)[0] == (1.0, 1500)


class SmallNetwork:
    """A chain of layers that is really trained, on the digits of scikit-learn."""

    def __init__(self, text, data):
        self.x, self.y = data
        layers, channels = [], 1
        for layer in parse_net(text):
            numbers = layer.numbers
            if layer.kind == "C":
                layers += [torch.nn.Conv2d(channels, numbers[0], numbers[1], padding="same"), torch.nn.ReLU()]
                channels = numbers[0]
            elif layer.kind == "P":
                layers.append(torch.nn.MaxPool2d(*numbers))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.model = torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.LazyLinear(10))
            self.model(self.x[:1])
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.02)
        self.values = []

    def train_to(self, epoch):
        assert epoch >= len(self.values)
        while len(self.values) < epoch:
            for rows in torch.arange(400).split(50):
                loss = torch.nn.functional.cross_entropy(self.model(self.x[rows]), self.y[rows])
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
            with torch.no_grad():
                self.values.append(float((self.model(self.x[400:]).argmax(1) == self.y[400:]).float().mean()))
        return list(self.values)


def test_live_on_small_networks():
    images, labels = load_digits(return_X_y=True)
    data = torch.tensor(images[:600] / 16.0, dtype=torch.float32).view(-1, 1, 8, 8), torch.tensor(labels[:600])
    grammar = MetaQNNGrammar(max_depth=2, filters=(1, 4), sizes=(1, 3), pools=((2, 2),), image_size=8)
    runs = []

    def start(text):
        runs.append(SmallNetwork(text, data))
        return runs[-1]

    rule = EarlyStopping(4, "up", LastSeenValue(), burn_in=4, delta=0.8)
    result = QLearningSearch(grammar, [(1.0, 10), (0.2, 4)], stopping=rule, replay=5).search(start, 4)
    assert result.epochs == sum(len(run.values) for run in runs) < 4 * len(runs)
    assert result.value == max(run.values[-1] for run in runs if len(run.values) == 4) > 0.7
    assert any(trial.stopped for trial in result.trials)
