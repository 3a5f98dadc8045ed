"""Colours of code: each has a contrast of 4.5 or more with its background; `tests/site/test_colours.py` computes it."""

from pygments.style import Style
from pygments.token import Comment, Error, Generic, Keyword, Name, Number, Operator, Punctuation, String, Token

LIGHT, DARK = "#f6f7f9", "#1d2025"
"""The backgrounds, as in `_static/course.css`."""


def _style(text: str, comment: str, keyword: str, name: str, string: str, number: str) -> dict[object, str]:
    return {
        Token: text,
        Error: text,
        Punctuation: text,
        Operator: text,
        Operator.Word: f"bold {keyword}",
        Comment: f"italic {comment}",
        Keyword: f"bold {keyword}",
        Keyword.Constant: f"nobold {number}",
        Name: text,
        Name.Function: name,
        Name.Class: f"bold {name}",
        Name.Decorator: name,
        Name.Builtin: name,
        Name.Exception: name,
        String: string,
        String.Interpol: number,
        String.Escape: number,
        Number: number,
        Generic.Prompt: comment,
        Generic.Output: text,
    }


class Light(Style):
    """On a light background."""

    background_color = LIGHT
    styles = _style("#1f2328", "#59636e", "#8a2c5b", "#0a4f9e", "#1a6334", "#8a4500")


class Dark(Style):
    """On a dark background."""

    background_color = DARK
    styles = _style("#e6e8eb", "#a5adb8", "#ff9ec7", "#8cc4ff", "#8fdca8", "#ffc27a")
