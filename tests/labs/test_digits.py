"""The digits of lesson 03: the same for everybody, and a teacher that knows them."""

import torch

from kdcourse.labs import digits


def test_everybody_has_the_same_digits_in_the_same_order():
    """A lesson that speaks of row 1027, and another picture there."""
    images, labels = digits.load()
    assert images.shape == (1797, 64)
    assert (images.min(), images.max()) == (0, 1)
    assert labels.bincount().min() > 170
    again, _ = digits.load()
    assert torch.equal(images, again)
    assert not labels[:20].equal(labels[:20].sort().values)


def test_a_model_is_fitted_to_the_rows_it_is_given_and_to_no_others():
    """A student that sees the digit that was taken out."""
    images, labels = digits.load()
    shown = set()

    def loss(logits, rows):
        shown.update(rows.tolist())
        return torch.nn.functional.cross_entropy(logits, labels[rows])

    rows = torch.arange(0, 200, 2)
    model = digits.fit(digits.network(16, seed=0), images, rows, loss, seed=0, steps=60, rate=0.01)
    assert shown == set(rows.tolist())
    with torch.no_grad():
        assert (model(images[rows]).argmax(-1) == labels[rows]).double().mean() > 0.8
    other = digits.fit(digits.network(16, seed=0), images, rows, loss, seed=1, steps=60, rate=0.01)
    assert not torch.equal(model[0].weight, other[0].weight)
