"""The slides as a room has them: every slide of every deck in Chromium, on three screens, and all keys."""

import json
import re
import shutil

import nbformat
import pytest
from chromium import launch
from playwright.sync_api import sync_playwright
from typer.testing import CliRunner

from kdcourse.course import cli, editions, printing
from kdcourse.course.lessons import find_lessons

pytestmark = pytest.mark.slow

SCREENS = ((1024, 768), (1920, 1080), (3840, 2160))
CODE, PROSE = 0.024, 0.033
"""Least share of the screen's height."""

MEASURE = """() => {
  document.body.classList.remove("playing");
  const findings = [];
  document.querySelectorAll(".slide").forEach((slide, number) => {
    const say = what => findings.push(`slide ${number + 1}: ${what}`);
    const body = slide.querySelector(".body"), edge = body.getBoundingClientRect();
    body.style.zoom = "";
    if (slide.scrollHeight > slide.clientHeight || slide.scrollWidth > slide.clientWidth) say("the slide scrolls");
    for (const part of [body, ...body.querySelectorAll("pre, .printed, .prose, .column, table, img, math, p")]) {
      const box = part.getBoundingClientRect();
      if (box.bottom > edge.bottom + 1 || box.right > edge.right + 1) say(`${part.tagName} beyond the edge`);
      if (part.scrollHeight > part.clientHeight + 1 && part.clientHeight && getComputedStyle(part).display !== "inline"
          && ["PRE", "TABLE"].includes(part.tagName)) say(`${part.tagName} scrolls`);
    }
    const sizeOf = part => parseFloat(getComputedStyle(part).fontSize) / innerHeight;
    for (const part of body.querySelectorAll("pre, .printed, code"))
      if (sizeOf(part) < CODE) say(`code of ${sizeOf(part)}`);
    for (const part of body.querySelectorAll("p, li, td, th, h1, h2, h3"))
      if (sizeOf(part) < PROSE) say(`prose of ${sizeOf(part)}`);
    const lines = [...body.querySelectorAll(".codeline")].filter(line => line.textContent.trim()).length;
    if (lines > 12) say(`${lines} lines of code`);
    for (const onward of body.querySelectorAll(".onward"))
      if (onward.getBoundingClientRect().top < onward.previousElementSibling.getBoundingClientRect().bottom - 0.5)
        say("a word covers code");
    for (const picture of body.querySelectorAll("img"))
      if (picture.naturalWidth === 0 || picture.getBoundingClientRect().width < 0.2 * edge.width) say("no picture");
    if (body.textContent.match(/\\$\\$|\\\\(frac|sum|log|text)\\b/) && !body.querySelector("pre")) say("raw TeX");
  });
  return findings;
}"""
COUNT = "document.querySelectorAll('.slide').length"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """All decks, as files."""
    out = tmp_path_factory.mktemp("decks")
    for lesson in find_lessons([]):
        page = editions.slides(nbformat.read(lesson.path, as_version=4), lesson)
        (out / f"{lesson.name}.html").write_text(page, encoding="utf-8")
    return out


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        chromium = launch(playwright)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser, folder):
    """A deck that is opened from a file, and says nothing to its console."""
    page = browser.new_page(viewport={"width": 1280, "height": 720})
    said = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto((folder / "03_temperature_and_t_squared.html").as_uri())
    yield page
    page.close()
    assert said == []


def test_every_slide_fits_on_every_screen(browser, folder):
    """A line below the edge; code that the back row cannot read; a slide that scrolls."""
    page, found, slides = browser.new_page(), {}, 0
    for deck in sorted(folder.glob("*.html")):
        page.goto(deck.as_uri())
        slides += page.evaluate(COUNT)
        for width, height in SCREENS:
            page.set_viewport_size({"width": width, "height": height})
            findings = page.evaluate(MEASURE.replace("CODE", str(CODE)).replace("PROSE", str(PROSE)))
            if findings:
                found[deck.stem, width] = findings
    page.close()
    assert slides > 500
    assert found == {}, json.dumps({str(where): what for where, what in found.items()}, indent=1)


def test_a_slide_that_is_overfull_would_be_found(page):
    """A measurement that finds nothing, whatever there is."""
    page.evaluate("document.querySelectorAll('.slide .prose')[3].innerHTML = '<p>Too much. </p>'.repeat(99)")
    page.evaluate("document.querySelectorAll('.slide pre')[2].style.fontSize = '9px'")
    findings = page.evaluate(MEASURE.replace("CODE", str(CODE)).replace("PROSE", str(PROSE)))
    assert any("beyond the edge" in each for each in findings)
    assert any("code of" in each for each in findings)


def test_wider_fonts_cut_nothing(page):
    """Another machine's fonts, and the last line of each slide below the edge."""
    page.add_style_tag(
        content=".slide { --prose: 'DejaVu Sans', Verdana; font-family: 'DejaVu Sans', Verdana !important; }"
    )
    for number in range(page.evaluate(COUNT)):
        page.evaluate(f"show({number})")
        beyond = "(b => b.scrollHeight - b.clientHeight)(document.querySelector('.slide.current .body'))"
        assert page.evaluate(beyond) <= 3, number + 1


def number_of(page):
    """As the page has it: what the driver knows of its address comes a moment later."""
    return int(page.evaluate("location.hash").rpartition("/")[2])


def test_every_key_does_what_the_list_says(page):
    """A presenter who presses the key that works everywhere else."""
    last = page.evaluate(COUNT)
    steps = {
        "Space": 2, "ArrowRight": 3, "ArrowDown": 4, "PageDown": 5, "ArrowLeft": 4, "ArrowUp": 3, "PageUp": 2,
        "End": last, "Shift+Space": last - 1, "Home": 1,
    }  # fmt: skip
    for key, number in steps.items():
        page.keyboard.press(key)
        assert number_of(page) == number, key
        assert page.locator(".slide:visible").count() == 1
    for key in ("ArrowLeft", "PageUp"):  # there is nothing before the first
        page.keyboard.press(key)
        assert number_of(page) == 1
    for _ in range(last):
        page.keyboard.press("Space")
    assert number_of(page) == last
    page.keyboard.press("?")
    assert page.locator("dialog").is_visible()
    assert all(word in page.locator("dialog").inner_text() for word in ("Home", "End", "F", "O", "Esc", "S", "Space"))
    page.keyboard.press("Escape")
    assert not page.locator("dialog").is_visible()
    assert page.locator(".slide:visible").count() == 1
    page.keyboard.press("f")
    page.wait_for_function("document.fullscreenElement !== null")
    page.keyboard.press("f")
    page.wait_for_function("document.fullscreenElement === null")


def test_a_reload_stays_on_its_slide(page):
    """The whole lesson again, from its title, after a power cut."""
    page.goto(f"{page.url.partition('#')[0]}#/12")
    page.reload()
    assert page.locator(".slide:visible .strip").inner_text().endswith(f"12 / {page.evaluate(COUNT)}")


def test_the_overview_leads_to_a_slide(page):
    """Forty clicks back to the figure that somebody asks about."""
    for key in ("o", "Escape"):
        page.keyboard.press(key)
        assert page.locator(".slide:visible").count() == page.evaluate(COUNT)
        page.keyboard.press(key)
        assert page.locator(".slide:visible").count() == 1
    page.keyboard.press("o")
    assert page.locator(".slide").nth(7).bounding_box()["width"] < 1280 / 4
    page.locator(".slide").nth(7).click()
    assert number_of(page) == 8
    assert page.locator(".slide:visible").count() == 1


def test_a_swipe_turns_the_page(browser, folder):
    """A tablet without keys."""
    context = browser.new_context(viewport={"width": 1024, "height": 768}, has_touch=True)
    page = context.new_page()
    page.goto((folder / "03_temperature_and_t_squared.html").as_uri())
    swipe = """([from, to]) => {
      const touch = clientX => new Touch({ identifier: 1, target: document.body, clientX });
      const send = (kind, x, touches) => document.body.dispatchEvent(
        new TouchEvent(kind, { touches, changedTouches: [touch(x)], bubbles: true }));
      send("touchstart", from, [touch(from)]);
      send("touchend", to, []);
    }"""
    for ends, number in (([800, 300], 2), ([800, 300], 3), ([300, 800], 2), ([300, 310], 2)):
        page.evaluate(swipe, ends)
        assert number_of(page) == number
    context.close()


def test_the_speaker_sees_notes_and_both_windows_turn_together(page):
    """Notes for the speaker on the projector; two windows that drift apart."""
    with page.expect_popup() as opened:
        page.keyboard.press("s")
    speaker = opened.value
    asks = page.evaluate("slides.findIndex(slide => slide.querySelector('.question')) + 1")
    page.evaluate(f"show({asks} - 1)")
    speaker.wait_for_url(f"**/{asks}")
    said = speaker.locator(".said").inner_text()
    assert re.search(r"Minute \d+ of 45", said)
    assert "Many say" in said
    assert "min since" in said
    assert speaker.locator(".slide:visible").count() == 2
    assert not page.locator(".said").is_visible()
    assert not page.locator(".notes").first.is_visible()
    speaker.keyboard.press("Home")
    page.wait_for_url("**/1")
    speaker.close()


def test_a_room_may_be_dark_or_light(browser, folder):
    """White walls of light in a dark room; a picture or a line of code that is not seen there."""
    page = browser.new_page(color_scheme="dark", reduced_motion="reduce")
    page.goto((folder / "03_temperature_and_t_squared.html").as_uri())
    colours = "(s => [s.backgroundColor, s.color])(getComputedStyle(document.body))"
    dark = page.evaluate(colours)
    page.keyboard.press("d")
    light = page.evaluate(colours)
    assert [sum(map(int, re.findall(r"\d+", each))) > 380 for each in (*dark, *light)] == [False, True, True, False]
    page.close()


@pytest.mark.skipif(not any(map(shutil.which, printing.NAMES)), reason="no Chromium that can be started by its name")
def test_a_pdf_has_a_page_for_each_slide(tmp_path):
    """A handout in which every second page is blank."""
    result = CliRunner().invoke(cli.app, ["editions", "10", "--pdf", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    (deck,) = (tmp_path / "slides").glob("10_*.html")
    pdf = deck.with_suffix(".pdf").read_bytes()
    assert len(re.findall(rb"/Type /Page\b", pdf)) == deck.read_text(encoding="utf-8").count('<section class="slide"')
    assert set(re.findall(rb"/MediaBox \[0 0 (\d+ \d+)\]", pdf)) == {b"960 540"}
    assert f'href="{deck.stem}.pdf"' in (tmp_path / "slides" / "index.html").read_text(encoding="utf-8")


def test_without_a_browser_it_is_said_how_to_print(tmp_path, monkeypatch):
    """An error instead of decks, or no word about the PDF that is not there."""
    monkeypatch.setattr(printing, "find_browser", lambda: None)
    result = CliRunner().invoke(cli.app, ["editions", "10", "--pdf", "--out", str(tmp_path)])
    assert result.exit_code == 0
    assert "print it to a file" in " ".join(result.output.split())
