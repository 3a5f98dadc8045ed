"""The handout: one sheet of paper that asks no server for anything, and whose code is right."""

import html
import re

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  (the name that everybody knows it by)
from chromium import NoChromiumError, launch
from playwright.sync_api import sync_playwright

from kdcourse import distillation_loss
from kdcourse.course.lessons import course_lessons
from kdcourse.course.workshop.pages import handout_page, lessons_by_number, sheets_page
from kdcourse.course.workshop.symptoms import symptoms_in

PAGE = handout_page(lessons_by_number(course_lessons()))
A4 = (595, 842)
"""Points."""


@pytest.mark.slow
@pytest.mark.parametrize(("text", "sheets"), [(PAGE, 1), (sheets_page(), 2)], ids=["handout", "quizzes"])
def test_it_is_one_page_of_a4(tmp_path, text, sheets):
    """A second sheet with one line on it, for each of forty people; a table that leaves the paper; an exit quiz on the
    back of the entry quiz's last question.
    """
    (tmp_path / "handout.html").write_text(text, encoding="utf-8")
    with sync_playwright() as playwright:
        try:
            browser = launch(playwright)
        except NoChromiumError as error:
            pytest.skip(str(error))
        page = browser.new_page(viewport={"width": 703, "height": 1000})
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto((tmp_path / "handout.html").as_uri())
        page.emulate_media(media="print")
        printed = page.pdf(prefer_css_page_size=True)
        wide = page.evaluate("document.documentElement.scrollWidth")
        browser.close()
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) == sheets
    boxes = re.findall(rb"/MediaBox\s*\[0 0 ([\d.]+) ([\d.]+)\]", printed)
    assert {tuple(round(float(each)) for each in box) for box in boxes} == {A4}
    assert wide <= 703
    assert len(asked) == 1


def test_its_code_is_the_loss_of_the_package():
    """A mistake on every desk."""
    (code,) = re.findall(r"<pre>(.*?)</pre>", PAGE, re.DOTALL)
    scope = {"F": F}
    exec(html.unescape(code), scope)  # noqa: S102  (our own)
    s, t = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = torch.tensor([0, 1, 2, 3, 0, 1])
    for alpha, temperature in [(0.0, 4.0), (0.3, 2.0), (1.0, 1.0)]:
        expected = distillation_loss(s, t, y, alpha=alpha, temperature=temperature).total
        assert torch.isclose(scope["loss"](s, t, y, alpha, temperature), expected)


def test_its_symptoms_are_those_of_lesson_13():
    """A case that the table leaves out; a row that names none."""
    (cases,) = [lesson for lesson in course_lessons() if lesson.number == "13"]
    found = symptoms_in(cases)
    numbers = {int(each.lesson.rpartition(" ")[2]) for each in found if "case" in each.lesson}
    titles = [title for cell in cases.cells for title in re.findall(r"^## Case (\d+)", "".join(cell["source"]), re.M)]
    assert numbers == set(map(int, titles))
    assert {each.lesson for each in found if "case" not in each.lesson} == {"02", "03", "04", "05", "06"}
    for each in found:
        assert html.escape(each.seen.replace("`", "").partition("'")[0]) in re.sub(r"</?(code|em)>", "", PAGE)
