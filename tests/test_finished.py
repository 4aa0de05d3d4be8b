"""A training that another run has finished is taken from there, and from nowhere else."""

import logging

import pytest
import torch
from test_training import RECIPE, bright_and_dark, build, same

from convergent.nets import recipe, training
from convergent.nets.finished import take_finished

KEY = "0123456789abcdef"


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return bright_and_dark(tmp_path_factory.mktemp("images") / "images.npz")


def folder(results, run="first", net="net1"):
    return results / run / "nets" / net / "checkpoints"


def train(images, checkpoints, epochs=RECIPE["epochs"], snapshots=()):
    """Train as the job does, with snapshots beside the checkpoint."""

    def keep(epoch, weights):
        path = checkpoints / KEY / recipe.snapshot_file(epoch)
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(weights, path)

    checkpoint = checkpoints / f"{KEY}.pt"
    steps = RECIPE | {"epochs": epochs}
    return training.train(
        build, *images, seed=1, checkpoint=checkpoint, snapshots=snapshots, keep=keep, **steps
    )


def test_a_finished_training_is_taken_and_not_trained_again(images, tmp_path, caplog):
    weights, history = train(images, folder(tmp_path), snapshots=[0, 1])
    here = folder(tmp_path, "second", "plain_1")
    caplog.set_level(logging.INFO)
    taken = take_finished(here, KEY, RECIPE["epochs"])
    assert taken == folder(tmp_path) / f"{KEY}.pt"
    assert "weights are taken from there" in caplog.text
    # Training images that cannot be read: no epoch is left to train.
    again, same_history = train((range(64), images[1]), here)
    assert same(weights, again)
    assert same_history == history
    assert sorted(path.name for path in (here / KEY).iterdir()) == ["0.pt", "1.pt"]
    # Whoever trains on does not change the other run's file.
    before = taken.read_bytes()
    torch.save({"history": []}, here / "scratch")
    (here / "scratch").replace(here / f"{KEY}.pt")
    assert taken.read_bytes() == before


def test_what_is_here_already_stays(images, tmp_path):
    train(images, folder(tmp_path))
    here = folder(tmp_path, "second")
    train(images, here, epochs=2)
    before = (here / f"{KEY}.pt").read_bytes()
    assert take_finished(here, KEY, RECIPE["epochs"]) is None
    assert (here / f"{KEY}.pt").read_bytes() == before


def test_half_made_and_damaged_files_and_other_keys_are_passed_over(images, tmp_path, caplog):
    train(images, folder(tmp_path, "a_half"), epochs=2)
    damaged = folder(tmp_path, "b_damaged") / f"{KEY}.pt"
    damaged.parent.mkdir(parents=True)
    whole = (folder(tmp_path, "a_half") / f"{KEY}.pt").read_bytes()
    damaged.write_bytes(whole[: len(whole) // 2])
    other = folder(tmp_path, "c_other") / f"{KEY[::-1]}.pt"
    other.parent.mkdir(parents=True)
    other.write_bytes(whole)
    here = folder(tmp_path, "second")
    assert take_finished(here, KEY, RECIPE["epochs"]) is None
    assert not here.exists()
    assert str(damaged) in caplog.text
    train(images, folder(tmp_path, "d_whole"))
    taken = take_finished(here, KEY, RECIPE["epochs"])
    assert taken == folder(tmp_path, "d_whole") / f"{KEY}.pt"


def test_files_are_copied_where_there_are_no_links(images, tmp_path, monkeypatch):
    train(images, folder(tmp_path), epochs=1)

    def no_links(*_):
        raise OSError("no links here")

    monkeypatch.setattr("os.link", no_links)
    here = folder(tmp_path, "second")
    assert take_finished(here, KEY, 1) is not None
    first, second = (path / f"{KEY}.pt" for path in (folder(tmp_path), here))
    assert first.read_bytes() == second.read_bytes()
    assert first.stat().st_ino != second.stat().st_ino
