"""Colours of the site's code are told apart from their background by most eyes."""

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "docs"))

from coursesite.colours import DARK, LIGHT, Dark, Light  # noqa: E402  (docs/ is no package of the path)

CSS = (ROOT / "docs" / "_static" / "course.css").read_text(encoding="utf-8")


def luminance(colour):
    """Relative luminance, as WCAG 2.2 defines it."""
    channels = [int(colour.lstrip("#")[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    darker, lighter = sorted(map(luminance, (one, other)))
    return (lighter + 0.05) / (darker + 0.05)


def test_contrast_is_that_of_the_standard():
    """A formula that calls every pair readable; the two values are those of published calculators."""
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize(("style", "background"), [(Light, LIGHT), (Dark, DARK)])
def test_code_can_be_read(style, background):
    """Comments in a grey that only the author sees."""
    faint = {
        str(token): look["color"]
        for token, look in style
        if look["color"] and contrast(look["color"], background) < 4.5
    }
    assert faint == {}


@pytest.mark.parametrize("background", [LIGHT, DARK])
def test_the_style_sheet_has_the_same_backgrounds(background):
    """Colours that were chosen for another background than they stand on."""
    assert re.search(rf"--color-code-background: {background};", CSS)
