"""Recipes: what a run depends on survives its file, and two recipes never share a run."""

from dataclasses import replace

import pytest

from inference.models.catalog import MODELS
from inference.training.recipe import Recipe, RunError, read_recipe, recipe_of, write_recipe


@pytest.mark.parametrize("name", [spec.name for spec in MODELS])
def test_each_model_has_a_recipe_that_ends_at_the_serving_size(name):
    assert recipe_of(name).stages[-1][1] == 224


def test_stages_follow_each_other():
    recipe = Recipe(stages=((2, 64), (1, 96)))
    assert [recipe.size(epoch) for epoch in range(4)] == [64, 64, 96, 96]
    assert recipe.epochs == 3


def test_file_gives_back_the_recipe(tmp_path):
    recipe = Recipe(stages=((2, 64),), seed=5)
    write_recipe(tmp_path / "run", recipe)
    assert read_recipe(tmp_path / "run") == recipe
    assert read_recipe(tmp_path / "other") is None


def test_another_recipe_is_refused_by_what_differs_but_threads_may_change(tmp_path):
    recipe = Recipe(stages=((2, 64),))
    write_recipe(tmp_path, recipe)
    write_recipe(tmp_path, replace(recipe, threads=4))
    with pytest.raises(RunError, match=r"stages, seed differ"):
        write_recipe(tmp_path, replace(recipe, seed=1, stages=((3, 64),)))


@pytest.mark.parametrize("text", ['{"sage": 1}', "[]", "nonsense", '{"stages": [[0, 64]]}', '{"batch_size": 0}'])
def test_bad_recipe_files_are_refused(tmp_path, text):
    (tmp_path / "recipe.json").write_text(text)
    with pytest.raises(RunError, match=r"recipe\.json"):
        read_recipe(tmp_path)


def test_stages_too_small_for_the_networks_are_refused():
    with pytest.raises(ValueError, match="32 pixels"):
        Recipe(stages=((1, 16),))
