from __future__ import annotations


def test_info(run):
    code, out, _ = run("info")
    assert code == 0
    for word in ("nasbench201", "nasbench101", "nasbench-graph", "convnp", "shipped weights"):
        assert word in out
