"""Augmentation changes pictures, keeps anatomy and boxes together, and never inverts."""

import numpy as np

from inference.training.augment import augment

BOX = ((0.55, 0.3, 0.25, 0.3),)


def _picture():
    """Dark, with a white rectangle exactly in the box."""
    picture = np.full((96, 96), 30, dtype=np.uint8)
    picture[round(0.3 * 96) : round(0.6 * 96), round(0.55 * 96) : round(0.8 * 96)] = 220
    return picture


def test_same_state_same_picture_other_state_another():
    first, mask = augment(_picture(), BOX, np.random.default_rng(4))
    again, same_mask = augment(_picture(), BOX, np.random.default_rng(4))
    other, _ = augment(_picture(), BOX, np.random.default_rng(5))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(mask, same_mask)
    assert not np.array_equal(first, other)


def test_picture_is_not_changed_in_place():
    picture = _picture()
    augment(picture, BOX, np.random.default_rng(6))
    np.testing.assert_array_equal(picture, _picture())


def test_mask_follows_what_was_boxed_and_light_stays_light():
    """In nearly every draw the boxed rectangle is lighter than the rest, and it is never lost."""
    lighter = 0
    for seed in range(200):
        picture, mask = augment(_picture(), BOX, np.random.default_rng(seed))
        assert picture.shape == mask.shape == (96, 96)
        assert picture.dtype == np.uint8
        assert 0 <= mask.min() <= mask.max() <= 1
        assert mask.sum() > 0.3 * 0.25 * 0.3 * 96 * 96
        lighter += np.median(picture[mask > 0.9]) > np.median(picture[mask < 0.1])
    assert lighter >= 194


def test_without_boxes_the_mask_is_empty():
    _, mask = augment(_picture(), (), np.random.default_rng(7))
    assert not mask.any()
