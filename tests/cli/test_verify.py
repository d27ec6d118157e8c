from __future__ import annotations


def test_made_up_labels_do_not_verify(run, labelled_root):
    # These labels are made up, so that they cannot have the published optimum.
    code, out, _ = run("verify", "--root", labelled_root)
    assert code == 1
    assert "differs" in out
    assert "6466" in out
