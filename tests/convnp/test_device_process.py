import pytest
import torch
from torch.testing import assert_close

from pyg_nas_np.convnp.device_process import NOISES, SCALES, DeviceProcess, grid_chances


@pytest.fixture
def known():
    generator = torch.Generator().manual_seed(0)
    common = torch.randn(60, 1, generator=generator, dtype=torch.float64)
    own = torch.randn(60, 4, generator=generator, dtype=torch.float64)
    values = common + 0.5 * own
    return values - values.mean(dim=0)


def test_the_posterior_is_that_of_the_joint_normal(known):
    """One cell of the grid, against dense linear algebra with a level of very large variance."""
    scale, noise = float(torch.tensor(SCALES[4]).exp()), float(torch.tensor(float(NOISES[6])).exp())
    chances = torch.zeros(len(SCALES) * len(NOISES), dtype=torch.float64)
    chances[4 * len(NOISES) + 6] = 1.0
    spreads = known.std(dim=0)
    y = 3 + known[:12, 0] + 0.1 * known[:12, 1].sin()
    mean, variance = DeviceProcess(spreads, chances).fit(known[:12], y).predict(known[12:])

    features = known / (spreads * 2.0)
    kernel = scale * features @ features.T + 1e6
    shown = kernel[:12, :12] + noise * torch.eye(12, dtype=torch.float64)
    gain = torch.linalg.solve(shown, kernel[:12, 12:]).T
    average = known.mean(dim=1)
    assert_close(mean, average[12:] + gain @ (y - average[:12]), rtol=1e-4, atol=1e-5)
    expected = (kernel[12:, 12:] - gain @ kernel[:12, 12:]).diagonal() + noise
    assert_close(variance, expected, rtol=1e-3, atol=1e-5)


def test_errors_of_the_known_devices_widen(known):
    process = DeviceProcess(known.std(dim=0), grid_chances(known)).fit(known[:10], known[:10, 1])
    mean, variance = process.predict(known[10:])
    same, wider = process.predict(known[10:], torch.full_like(known[10:], 0.04))
    assert_close(mean, same)
    assert bool((wider > variance).all())


def test_known_devices_set_the_noise(known):
    noisy = known + 0.3 * torch.randn(known.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    exact = known[:, :1] * torch.tensor([1.0, 0.5, 2.0, 1.5], dtype=torch.float64)

    def expected_noise(values):
        noises = torch.tensor(NOISES, dtype=torch.float64)
        return float(grid_chances(values).view(len(SCALES), len(NOISES)).sum(dim=0) @ noises)

    assert expected_noise(exact) < expected_noise(noisy) - 2


def test_few_known_devices_say_nothing(known):
    chances = grid_chances(known[:, :2])
    assert_close(chances, torch.full_like(chances, 1 / chances.numel()))
    assert_close(grid_chances(known).sum(), torch.tensor(1.0, dtype=torch.float64))
