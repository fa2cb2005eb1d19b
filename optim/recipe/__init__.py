"""Recipes: named lists of methods, applied one after another, each result kept by the content of its inputs.

1. A step is a method's config; the class of the config says which method it is.
2. The result of a step is looked up under everything that decides it: the model before it, the config, the teacher and
   the data. A step that was made before is loaded, not made again, also where another recipe shares it.
3. Otherwise it is made in a folder named by the same key, where a killed run goes on.

The recommended order is distil, prune with fine-tuning, quantize: the student first, because the architecture sets what
the others can reach; pruning before quantization, because fine-tuning needs float weights. Any other order is a recipe
too, as long as nothing follows a quantization, whose graph can no longer be trained or pruned. Risk: each step loses a
little, and the losses add up; so a recipe is judged against the original as a whole.
"""

from optim.recipe.method import RECIPES, Recipe, follow, load_recipe, orders

__all__ = ["RECIPES", "Recipe", "follow", "load_recipe", "orders"]
