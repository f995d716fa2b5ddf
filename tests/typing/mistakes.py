"""What mypy --strict and pyright refuse: each line that ends in `# wrong`, and no other."""

import mixer_mlx
from mixer_mlx import Classifier, MlpMixer, Preprocess, Recipe, State, find_images

mixer_mlx.laod("cifar10")  # wrong
mixer_mlx.load(3)  # wrong
mixer_mlx.load("cifar10", dtype="float8")  # wrong
mixer_mlx.load("cifar10", device="tpu")  # wrong
Recipe(epochs=1, optimizer="adam")  # wrong
Recipe(epochs=1, loss="hinge")  # wrong
Recipe(epochs=1, learning_rate=1e-3)  # wrong
Preprocess((8, 8), resize_mode="longer")  # wrong
find_images([3])  # wrong


def classify(classifier: Classifier, model: MlpMixer) -> None:
    classifier([3])  # wrong
    classifier("cat.png", top=3)  # wrong
    print(classifier("cat.png")[0].name)  # wrong
    print(classifier(["cat.png"])[0].label)  # wrong
    classifier.model = model  # wrong
    classifier.info = classifier.info  # wrong
    State.load(None, model)  # wrong
    State.load("state", model).fill(model, "average")  # wrong


def misspelt(classifier: mixer_mlx.Clasifier) -> None:  # wrong
    """A name that the package doesn't export."""
