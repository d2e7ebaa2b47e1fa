"""The scenes, how their clusters are judged, and the checkpoints trained on them."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

SHAPES = Path(__file__).parents[2] / "examples" / "shapes"
sys.path.append(str(SHAPES))

import evaluate  # noqa: E402 - scripts of the example, found by the line above
import scenes  # noqa: E402
import train  # noqa: E402

LARGEST_CHECKPOINT = 2_000_000  # bytes
FLOOR = 0.95  # of the accuracy on 200 scenes; 97 % is promised of thousands


# --- Scenes


def test_a_scene_is_the_same_in_any_batch_and_order() -> None:
    indices = [31, 4, 17]
    images, masks, labels = scenes.draw_many(5, indices)
    for at, index in enumerate(indices):
        alone = scenes.draw(5, index)
        assert np.array_equal(images[at], alone.image)
        assert np.array_equal(masks[at], alone.mask)
        assert labels[at] == alone.label


def test_seeds_and_indices_give_different_scenes() -> None:
    some = [scenes.draw(1, 0), scenes.draw(2, 0), scenes.draw(1, 10)]
    for i in range(3):
        assert some[i].label == some[0].label
        assert (some[i].image != some[i - 1].image).mean() > 0.5


def test_every_ten_scenes_hold_every_kind() -> None:
    labels = scenes.draw_many(3, range(7, 27))[2]
    assert np.bincount(labels).tolist() == [2] * 10
    assert len(set(scenes.CLASSES)) == 10


def test_masks_are_of_the_object(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without texture and noise a scene has two colours, mixed on the outline: the mask is where the object's wins."""
    monkeypatch.setattr(scenes, "SPREAD", 0.0)
    monkeypatch.setattr(scenes, "NOISE", 0.0)
    for index in range(30):
        scene = scenes.draw(6, index)
        colours, counts = np.unique(scene.image[scene.mask], axis=0, return_counts=True)
        thing, ground = colours[counts.argmax()].astype(float), scene.image[0, 0].astype(float)
        share = (scene.image - ground) @ (thing - ground) / np.square(thing - ground).sum()
        assert ((share >= 0.5) == scene.mask)[np.abs(share - 0.5) > 0.01].all(), scenes.CLASSES[scene.label]
        assert ((share < 0.01) | (share > 0.99)).mean() > 0.9


def test_objects_lie_within_the_margin() -> None:
    masks = scenes.draw_many(8, range(200))[1]
    margin = int(scenes.MARGIN)
    masks[:, margin:-margin, margin:-margin] = False
    assert not masks.any()


def test_outlines_differ_as_their_names_say() -> None:
    def covered(kind: str, u: float, v: float) -> bool:
        return bool(scenes._OUTLINES[kind](np.float32([u]), np.float32([v]))[0] < 0)

    middle = {kind for kind in scenes.CLASSES if covered(kind, 0, 0)}
    assert middle == set(scenes.CLASSES) - {"ring", "moon"}
    assert covered("ring", 0.7, 0) and covered("moon", -0.8, 0)
    assert covered("star", 0.9, 0) and not covered("star", -0.9, 0)
    assert covered("cross", 0.9, 0) and not covered("cross", 0.6, 0.6)
    assert covered("square", 0.6, 0.6) and not covered("square", 0.9, 0)


def test_nothing_but_the_outline_depends_on_the_kind() -> None:
    """Whatever the kind, as many random numbers are drawn for it: colours and textures after it are the same."""
    after = set()
    for kind in scenes.CLASSES:
        rng = np.random.default_rng(4)
        scenes._cover(kind, rng)
        after.add(rng.random())
    assert len(after) == 1


# --- Agreement of clusters and masks


def test_agreement_counts_pixels() -> None:
    mask = np.zeros((1, 4, 4), bool)
    mask[0, :2, :3] = True  # 6 pixels: all of the cell at the upper left, half of the one at its right
    ids = np.array([[[[0, 1], [2, 2]], [[0, 0], [0, 0]]]])  # points of 2x2 pixels; two heads
    found = evaluate.agreement(ids, mask)
    assert found.purity.tolist() == [[14 / 16, 10 / 16]]
    assert found.joined.tolist() == [[4 / 6, 0]]  # a cluster that is half ground is not the object's
    assert found.single.tolist() == [[4 / 6, 6 / 16]]


def test_segments_follow_the_pools() -> None:
    first = np.array([[[[0, 1, 1, 3], [2, 2, 3, 0]]]])
    second = np.array([[[[1, 0], [0, 1]]]])  # of the points 0 to 3
    assert evaluate.segments_of([first, second]).tolist() == [[[[1, 0, 0, 1], [0, 0, 1, 1]]]]


def test_cells_of_a_regular_grid() -> None:
    assert evaluate.cells(4, 6, (2, 3))[0, 0].tolist() == [[0, 0, 1, 1, 2, 2]] * 2 + [[3, 3, 4, 4, 5, 5]] * 2


# --- Training


@pytest.mark.parametrize("name", ["fec", "icasc"])
def test_an_interrupted_training_ends_as_one_in_one_go(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "BATCH", 4)
    recipe = replace(train.RECIPES[name], steps=3)
    whole = train.train(name, recipe, tmp_path / "whole", every=1)

    def interrupted(seed: int, indices: range) -> object:
        if indices.start >= 8:
            raise KeyboardInterrupt
        return scenes.draw_many(seed, indices)

    with monkeypatch.context() as patched:
        patched.setattr(train, "draw_many", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train.train(name, recipe, tmp_path / "parts", every=1)
    parts = train.train(name, recipe, tmp_path / "parts", every=1)
    for key, value in whole.state_dict().items():
        assert torch.equal(value, parts.state_dict()[key]), key


# --- Checkpoints


def test_every_recipe_has_its_checkpoint() -> None:
    assert {path.stem for path in train.CHECKPOINTS.glob("*.pt")} == set(train.RECIPES)


@pytest.mark.parametrize("name", train.RECIPES)
def test_checkpoint(name: str) -> None:
    path = train.CHECKPOINTS / f"{name}.pt"
    assert path.stat().st_size < LARGEST_CHECKPOINT
    model, size = evaluate.load(path)
    wanted = train.RECIPES[name].config
    assert replace(model.config, size=wanted.size) == wanted  # told from names and shapes alone
    assert evaluate.accuracy(model, size, seed=7, count=200) >= FLOOR
