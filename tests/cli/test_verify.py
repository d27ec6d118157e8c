from __future__ import annotations


def test_made_up_labels_do_not_verify(run, labelled_root):
    # These labels are made up, so that they cannot have the published optimum.
    code, out, _ = run("verify", "--root", labelled_root)
    assert code == 1
    assert "differs" in out
    assert "6466" in out


def test_own_labels_are_checked_for_repeats_that_disagree(run, own):
    rows = own.labelled(30)
    again = [{**row, "acc": row["acc"] + 0.1} for row in rows[:10]]
    args = ("verify", "--target", "acc", "--ignore", "run", "--labels")
    code, out, err = run(*args, own.write("m.csv", rows + again))
    assert code == 0, err
    assert "spread of repeats" in " ".join(out.split())
    again = [{**row, "acc": 152 - row["acc"]} for row in rows]
    code, _, err = run(*args, own.write("m.csv", rows + again))
    assert (code, "spread of repeats" in " ".join(err.split())) == (2, True), err
