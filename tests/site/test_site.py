"""The site as a reader has it: built once, and opened in Chromium with every other server out of reach.

`KDCOURSE_SITE=build/site` looks at one that is built already.
"""

import functools
import http.server
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin

import pytest
from bs4 import BeautifulSoup
from chromium import NODE_MODULES, ROOT, NoChromiumError, launch
from playwright.sync_api import sync_playwright

from kdcourse.course.lessons import course_lessons
from kdcourse.divergence import forward_kl, reverse_kl
from kdcourse.labs.metrics import CalibrationError
from kdcourse.labs.verdict import compare_paired
from kdcourse.loss import distillation_loss
from kdcourse.topk import bucket_log_probs, top_k

pytestmark = pytest.mark.slow

LAPTOP, PHONE = {"width": 1440, "height": 900}, {"width": 390, "height": 844}
FIRST_LOAD, LATER_PAGE = 2.5e6, 1e6
LESSON = "notebooks/03_temperature_and_t_squared.html"
KINDS = (
    "index.html", LESSON, "notebooks/07_capstone_sst2.html", "notebooks/README.html", "docs/glossary.html",
    "reference/kdcourse.loss.html", "reference/turns.html", "reference/symptoms.html", "reference/command-line.html",
)  # fmt: skip
"""One page of each kind."""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the built site."""
    if built := os.environ.get("KDCOURSE_SITE"):
        return Path(built).resolve()
    out = tmp_path_factory.mktemp("built") / "site"
    done = subprocess.run(
        [sys.executable, "docs/make_site.py", "--out", out], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return out


@pytest.fixture(scope="module")
def pages(site):
    """The pages by their path, parsed, but for the slides, which have tests of their own."""
    paths = [path for path in site.rglob("*.html") if "editions" not in path.parts]
    return {path.relative_to(site).as_posix(): BeautifulSoup(path.read_bytes(), "html.parser") for path in paths}


@pytest.fixture(scope="module")
def address(site):
    """Where a server of this machine shows the site."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, request, client_address):
            # A page that is left, or a browser that is closed, hangs up on what it had asked for: no error of the site.
            if not isinstance(sys.exception(), ConnectionError):
                super().handle_error(request, client_address)

    with Server(("127.0.0.1", 0), functools.partial(Quiet, directory=site)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        try:
            opened = launch(playwright)
        except NoChromiumError as error:
            assert "CI" not in os.environ, str(error)
            pytest.skip(str(error))
        yield opened
        opened.close()


@pytest.fixture
def visit(browser, address):
    """Open a page; what it complains of, and what it asks of others, fails the test at its end."""
    contexts, problems = [], []

    def note_request(request):
        if not request.url.startswith((address, "data:")):
            problems.append(f"asks for {request.url}")

    def note_failure(request):
        if request.failure != "net::ERR_ABORTED":  # a page that is left while it loads asks for nothing more
            problems.append(f"{request.url} failed: {request.failure}")

    def opened(path="index.html", **settings):
        context = browser.new_context(viewport=settings.pop("viewport", LAPTOP), **settings)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda said: problems.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", note_request)
        page.on("requestfailed", note_failure)
        page.on("response", lambda got: problems.append(f"{got.url}: {got.status}") if got.status >= 400 else None)
        page.goto(address + path)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert problems == []


def lesson_pages(pages):
    return {path: page for path, page in pages.items() if re.match(r"notebooks/\d\d_", path)}


# ---------------------------------------------------------------------------------------------------------------------
# What needs no browser


def test_every_lesson_has_its_page_and_its_card(pages):
    """A new lesson that is built, and that nobody finds."""
    names = [f"notebooks/{lesson.name}.html" for lesson in course_lessons()]
    assert sorted(lesson_pages(pages)) == sorted(names)
    assert [link["href"] for link in pages["index.html"].select(".cards h3 a")] == names


def test_every_link_leads_somewhere(pages, site):
    """A question whose answer is a cell that was renamed; an edition that was not built."""
    broken, known = [], {path: {each["id"] for each in page.select("[id]")} for path, page in pages.items()}
    for path, page in pages.items():
        for link in page.select("a[href]"):
            target, anchor = urldefrag(urljoin(path, unquote(link["href"])))
            if re.match(r"[a-z]+:", target):
                continue
            if not (site / target).is_file() or (anchor and anchor not in known.get(target, {anchor})):
                broken.append((path, link["href"]))
    assert broken == []


def test_questions_lead_to_cells(pages):
    """Fifty questions, named by cell ids that nobody can click."""
    links = [link["href"] for link in pages["notebooks/README.html"].select("article td a[href*='#cell-']")]
    assert len(links) > 100
    codes = [
        code
        for code in pages["notebooks/README.html"].select("article td:last-child code")
        if not code.find_parent("a")
    ]
    assert codes == []


def test_modules_in_texts_are_links(pages):
    """The name of a module, and a page of its own, and no way from one to the other."""
    known = {Path(path).stem for path in pages if path.startswith("reference/kdcourse.")}
    loose = [
        (path, code.get_text())
        for path, page in pages.items()
        for code in page.select("article :is(p, li) > code")
        if code.get_text() in known - {Path(path).stem}
    ]
    assert loose == []
    assert pages["reference/kdcourse.loss.html"].select("article li a[href='kdcourse.topk.html']")


def test_ids_are_unique(pages):
    """A link to a cell that ends at a heading of the same name."""
    twice = {}
    for path, page in pages.items():
        ids = [each["id"] for each in page.select("[id]")]
        if repeated := {each for each in ids if ids.count(each) > 1}:
            twice[path] = repeated
    assert twice == {}


def test_every_picture_has_words(pages):
    """A plot that a screen reader calls by its file name."""
    for path, page in lesson_pages(pages).items():
        for picture in page.select("article img"):
            assert len(picture["alt"]) > 20, path
    assert all(picture.has_attr("alt") for page in pages.values() for picture in page.select("img"))


def test_pages_are_light(pages, site):
    """A first page of megabytes on a train."""
    for path, page in pages.items():
        own = {path, *(urljoin(path, picture["src"]) for picture in page.select("img[src]"))}
        once = {
            urljoin(path, link.get("src") or link.get("href"))
            for link in page.select("script[src], link[rel=stylesheet]")
        }
        size = sum((site / name.partition("?")[0]).stat().st_size for name in own)
        assert size <= LATER_PAGE, path
        assert size + sum((site / name.partition("?")[0]).stat().st_size for name in once) <= FIRST_LOAD, path


def test_solutions_and_plumbing_are_folded(pages):
    """A solution that is read before the exercise is tried; forty lines of imports before the first sentence."""
    for path, page in lesson_pages(pages).items():
        lesson = next(each for each in course_lessons() if each.name == Path(path).stem)
        folds = [fold.find("summary").get_text(" ", strip=True) for fold in page.select("details.hide")]
        assert sum("Solution" in name for name in folds) == len(lesson.exercises), path
        assert any("Imports" in name for name in folds), path
        assert all(not fold.has_attr("open") for fold in page.select("article details")), path
        solved = [code for code in page.select(".highlight") if "exercises.verify(" in code.get_text()]
        assert all(code.find_parent("details") for code in solved), path


def test_nothing_is_left_of_tex(pages):
    """A formula that waits for a script from elsewhere."""
    for path, page in lesson_pages(pages).items():
        for each in page.select("code, pre, annotation, script"):
            each.extract()
        assert not re.search(r"\\(frac|sum|log|mathrm|text)\b|\$\$", page.get_text()), path


# ---------------------------------------------------------------------------------------------------------------------
# In the browser


def test_every_page_is_quiet_and_fits_a_phone(visit, pages, address):
    """An error that only the console knows; a page that moves sideways under the thumb."""
    page = visit(viewport=PHONE)
    too_wide = []
    for path in pages:
        page.goto(address + path)
        if page.evaluate("document.documentElement.scrollWidth") > PHONE["width"]:
            too_wide.append(path)
    assert too_wide == []


def axe():
    source = NODE_MODULES / "axe-core" / "axe.min.js"
    if not source.is_file():
        assert "CI" not in os.environ
        pytest.skip("axe-core is missing: run `make test`, or name its folder in KDCOURSE_NODE_MODULES")
    return source.read_text(encoding="utf-8")


def barriers(page):
    """What axe finds serious, with the first three places of each."""
    result = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    serious = [problem for problem in result["violations"] if problem["impact"] in ("serious", "critical")]
    return {problem["id"]: [node["html"][:150] for node in problem["nodes"]][:3] for problem in serious}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_barrier(visit, address, scheme):
    """Grey on grey; a control without a name; a region that no key can scroll."""
    script, found = axe(), {}
    # MyST-NB lets a fold fade in, and what is half there has half its contrast. With less motion it is there at once.
    page = visit(color_scheme=scheme, reduced_motion="reduce")
    for path in KINDS:
        page.goto(address + path)
        page.evaluate("for (const fold of document.querySelectorAll('article details')) fold.open = true")
        page.evaluate(script)
        if there := barriers(page):
            found[path] = there
    assert found == {}


@pytest.mark.parametrize(
    ("words", "there"),
    [
        ("temperature", "03 · Temperature and T²"),
        ("why does the loss become NaN with zero probabilities", "02 · The log-input convention"),
        ("why multiply by T squared", "4 · T², and where it holds"),
        ("loss is negative", "2 · What else could you have passed?"),
        ("gpu out of memory", "Case 19 · Out of memory at the first step"),
        ("nan", "A loss of NaN"),
        ("vocab mismatch", "The package › What is refused"),
        ("how long does it take", "What the computer takes"),
        ("is it significant", "Exercise 07.interval"),
        ("which temperature should I use", "5 · Choosing alpha, temperature and learning rate"),
        ("KL direction", "4 · Two directions"),
        ("student worse than teacher's label", "12 · Does it help?"),
    ],
)
def test_search_finds(visit, words, there):
    """A search that is there and finds nothing, or only what is asked in the page's own words."""
    page = visit(f"search.html?q={words.replace(' ', '+')}")
    page.wait_for_selector("#search-results li a", timeout=20_000)
    found = page.locator("#search-results li a").all_inner_texts()
    assert any(there in text for text in found[:5])
    assert page.locator("h1").inner_text() == "Search"


def test_a_word_that_every_object_of_the_language_has_is_looked_for(visit):
    """A search that throws: in JavaScript, an empty object has a `constructor`."""
    page = visit("search.html?q=constructor+temperature")
    page.wait_for_selector("#search-results li a", timeout=20_000)


def test_lines_are_for_reading(visit):
    """Lines of 125 characters in 14 pixels."""
    page = visit(LESSON)
    size, width = page.evaluate(
        """() => {
          const long = (each) => each.textContent.length > 300;
          const text = [...document.querySelectorAll('article section p')].find(long);
          const style = getComputedStyle(text);
          const probe = document.createElement('canvas').getContext('2d');
          probe.font = `${style.fontSize} ${style.fontFamily}`;
          const letters = text.textContent;
          return [parseFloat(style.fontSize), text.clientWidth / (probe.measureText(letters).width / letters.length)];
        }"""
    )
    assert size >= 17
    assert 60 <= width <= 85


def test_a_guess_is_kept_by_keyboard_and_held_against_the_answer(visit, address):
    """A form that only a mouse can fill in; a guess that is gone with the page."""
    page = visit(LESSON)
    first = page.locator(".kdcourse-predict input").first
    name = first.get_attribute("name")
    first.focus()
    page.keyboard.press("ArrowDown")
    chosen = page.locator(f'input[name="{name}"]:checked').get_attribute("value")
    answer = page.locator(f'.kdcourse-reveal[data-prediction="{name}"]')
    assert f"You said {chosen}" in answer.inner_text()
    page.locator(".kdcourse-predict .kept a").first.press("Enter")
    assert page.evaluate("location.hash") == f"#answer-{name}"
    page.reload()
    assert f"You said {chosen}" in answer.inner_text()
    page.goto(address)
    assert "1 of " in page.locator('.cards li[data-lesson="03"] .progress').inner_text()


def test_a_fold_opens_by_keyboard(visit):
    """A solution that nobody without a mouse can read."""
    page = visit(LESSON)
    fold = page.locator("details.hide", has_text="Solution").first
    fold.locator("summary").focus()
    page.keyboard.press("Enter")
    assert fold.locator("pre").first.is_visible()


def test_drawers_open_by_keyboard(visit):
    """A page at 200% whose menu needs a mouse, and whose focus walks through sixty links that nobody sees."""
    page = visit(LESSON, viewport={"width": 640, "height": 600})
    focused = "document.activeElement"
    seen = f"(() => {{ const {{left, right}} = {focused}.getBoundingClientRect(); return right > 0 && left < 640; }})()"
    for _ in range(12):
        page.keyboard.press("Tab")
        assert page.evaluate(seen), page.evaluate(f"{focused}.outerHTML")
    for icon, drawer in ((".nav-overlay-icon", ".sidebar-drawer"), (".toc-header-icon", ".toc-drawer")):
        label = page.locator(icon)
        assert "sidebar" in label.get_attribute("aria-label")
        label.focus()
        page.keyboard.press("Enter")
        assert page.evaluate(f"document.querySelector('{drawer}').contains({focused})")
        assert label.get_attribute("aria-expanded") == "true"
        page.keyboard.press("Escape")
        assert page.evaluate(f"document.querySelector('{icon}') === {focused}")
        assert label.get_attribute("aria-expanded") == "false"
        assert not page.locator(drawer).locator("a").first.is_visible()


def test_next_and_previous_and_contents(visit):
    """A lesson that is a dead end."""
    page = visit(LESSON)
    before, after = page.locator(".related-pages a.prev-page"), page.locator(".related-pages a.next-page")
    assert "02" in before.inner_text()
    assert "04" in after.inner_text()
    assert page.locator(".toc-tree a").count() > 5


def test_figures_fit_the_dark(visit):
    """White rectangles at night."""
    page = visit(LESSON, color_scheme="dark")
    assert "invert" in page.locator("img.picture").first.evaluate("each => getComputedStyle(each).filter")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"


def test_nothing_is_clipped_on_paper(visit):
    """A handout whose code ends at the margin."""
    page = visit(LESSON, viewport={"width": 700, "height": 900})
    page.emulate_media(media="print")
    clipped = page.evaluate(
        """() => [...document.querySelectorAll('article pre, article table')]
          .filter((each) => each.offsetWidth && each.scrollWidth > each.clientWidth + 1)
          .map((each) => each.textContent.slice(0, 60))"""
    )
    assert clipped == []
    printed = "each => each.checkVisibility()"
    for around in (".skip-to-content", ".sidebar-drawer", ".toc-drawer", ".lesson-bar", "details:not([open])"):
        assert not page.locator(around).first.evaluate(printed), around
    assert page.locator(".kdcourse-predict").first.evaluate(printed)


# ---------------------------------------------------------------------------------------------------------------------
# Things to turn


def test_each_thing_turns_by_keyboard(visit):
    """A slider that moves and changes nothing."""
    page = visit("reference/turns.html")
    names = page.eval_on_selector_all("[data-turn]", "all => all.map((each) => each.dataset.turn)")
    assert len(names) == 6
    for name in names:
        place = page.locator(f'[data-turn="{name}"]')
        before = place.locator(".said").inner_text(), place.locator("svg").get_attribute("aria-label")
        control = place.locator("input, button").first
        control.focus()
        page.keyboard.press("Enter" if control.evaluate("each => each.tagName") == "BUTTON" else "ArrowRight")
        after = place.locator(".said").inner_text(), place.locator("svg").get_attribute("aria-label")
        assert before[0] != after[0], name
        assert before[1] != after[1], name


def test_peaks_are_dragged_by_mouse_and_by_thumb(visit):
    """A picture that says "drag", and only its sliders move; one on which a thumb cannot scroll the page."""
    page = visit("reference/turns.html", viewport=PHONE, has_touch=True)
    place = page.locator('[data-turn="directions"]')
    svg, said = place.locator("svg"), place.locator(".said")
    svg.scroll_into_view_if_needed()
    box = svg.bounding_box()

    def at(value):
        return box["x"] + box["width"] * (value + 6) / 12, box["y"] + box["height"] / 2

    def sliders():
        return [float(each.input_value()) for each in place.locator("input").all()]

    assert sliders() == [-2, 2, 0, 1]
    before = said.inner_text()
    page.mouse.move(*at(2))
    page.mouse.down()
    page.mouse.move(*at(3.5), steps=4)
    page.mouse.up()
    page.mouse.move(*at(-5))
    assert sliders() == pytest.approx([-2, 3.5, 0, 1], abs=0.11)
    dragged = said.inner_text()
    assert dragged != before

    # Playwright taps with a finger, and does not drag with one; Chromium's own protocol does.
    finger = page.context.new_cdp_session(page)
    touch = lambda kind, *points: finger.send(  # noqa: E731  (three kinds of one call)
        "Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y} for x, y in points]}
    )
    touch("touchStart", at(-2))
    for value in (-2.5, -3, -4):
        touch("touchMove", at(value))
    touch("touchEnd")
    assert sliders() == pytest.approx([-4, 3.5, 0, 1], abs=0.11)
    assert said.inner_text() != dragged
    scrolls = "each => getComputedStyle(each).touchAction"
    assert svg.evaluate(scrolls) == "pan-y"
    assert page.locator('[data-turn="temperature"] svg').evaluate(scrolls) == "auto"


def test_sliders_and_buttons_answer_to_a_tap(visit):
    """A control that waits for a mouse."""
    page = visit("reference/turns.html", viewport=PHONE, has_touch=True)
    for place in page.locator("[data-turn]").all():
        before = place.locator(".said").inner_text()
        control = place.locator("input, button").first
        box = control.bounding_box()
        assert box["height"] >= 24  # WCAG 2.2, target size
        control.tap(position={"x": box["width"] * 0.9, "y": box["height"] / 2})
        assert place.locator(".said").inner_text() != before


def test_nothing_moves_for_whoever_asks_for_less_motion(visit):
    """A fold that fades in although the reader's system says not to."""
    moving = """() => [...document.querySelectorAll('*')].flatMap((each) => each.getAnimations())
      .filter((each) => each.effect.getComputedTiming().duration > 0).length"""
    counts = []
    for motion in ("no-preference", "reduce"):
        page = visit(LESSON, reduced_motion=motion)
        counts.append(
            page.evaluate(f"() => {{ document.querySelector('div.cell details').open = true; return ({moving})(); }}")
        )
    assert counts[0] > 0
    assert counts[1] == 0


def test_tables_of_sentences_become_lists_on_a_phone(visit):
    """A meaning in a column of nine letters; a cell whose column nobody can name."""
    page = visit("docs/glossary.html", viewport=PHONE)
    cell = page.locator("table.prose tbody td").nth(1)
    assert cell.evaluate("each => getComputedStyle(each).display") == "block"
    label = cell.locator(".label").evaluate("each => getComputedStyle(each, '::before').content")
    assert "meaning" in label
    assert cell.evaluate("each => each.clientWidth") > 300


@pytest.mark.parametrize("place", [".cell-anchor:nth-of-type(n+2)", "article section section"])
def test_on_a_phone_a_link_leads_below_the_header(visit, place):
    """A question whose answer is hidden behind the page's own bar."""
    page = visit(LESSON, viewport=PHONE)
    below = page.evaluate(
        """async place => {
            const target = document.querySelector(place);
            location.hash = target.id;
            const top = () => target.getBoundingClientRect().top;
            for (let before = null; before !== top(); await new Promise(done => setTimeout(done, 300))) before = top();
            return top() - document.querySelector(".mobile-header").getBoundingClientRect().bottom;
        }""",
        place,
    )
    assert 0 <= below < 60


def test_what_is_wider_than_its_box_says_so(visit):
    """Code that ends at the edge of a phone as if that were its end."""
    page = visit(LESSON, viewport=PHONE)
    code = page.locator("article pre.more:visible").first.element_handle()
    assert code.evaluate("each => getComputedStyle(each).boxShadow") != "none"
    code.evaluate("each => { each.scrollLeft = each.scrollWidth; }")
    page.wait_for_function("each => !each.classList.contains('more')", arg=code, timeout=10_000)


@pytest.mark.parametrize("width", [320, 390])
def test_no_label_of_a_picture_is_cut(visit, width):
    """An axis that begins with ".00%"; two labels that are one blot, at an end of a slider."""
    page = visit("reference/turns.html", viewport={"width": width, "height": 800})
    wrong = """() => [...document.querySelectorAll('.turn svg')].flatMap((svg) => {
      const box = svg.getBoundingClientRect();
      const labels = [...svg.querySelectorAll('text')].map((each) => [each.textContent, each.getBoundingClientRect()]);
      const within = (one, other) => one.left >= other.left - 0.5 && one.right <= other.right + 0.5
        && one.top >= other.top - 0.5 && one.bottom <= other.bottom + 0.5;
      const meet = (one, other) => one.left < other.right - 0.5 && other.left < one.right - 0.5
        && one.top + 2 < other.bottom - 2 && other.top + 2 < one.bottom - 2;
      return [...labels.filter(([, place]) => !within(place, box)).map(([words]) => `${words} is cut`),
        ...labels.flatMap(([words, place], at) => labels.slice(at + 1)
          .filter(([, other]) => meet(place, other)).map(([others]) => `${words} on ${others}`))];
    })"""
    for end in ("value", "min", "max"):
        page.eval_on_selector_all(
            ".turn input",
            "(all, end) => all.forEach((each) => { each.value = each[end]; each.dispatchEvent(new Event('input')); })",
            end,
        )
        assert page.evaluate(wrong) == [], end


def test_on_a_phone_a_derivation_has_its_reasons_beneath_its_lines(visit):
    """A reason past the edge of the screen; on a laptop, one that is there twice."""
    for viewport, shown, hidden in ((PHONE, ".beneath", ".beside"), (LAPTOP, ".beside", ".beneath")):
        formula = visit("notebooks/02_log_input_convention.html", viewport=viewport).locator(".formula").first
        assert formula.locator(shown).first.evaluate("each => getComputedStyle(each).display") != "none"
        assert formula.locator(hidden).first.evaluate("each => getComputedStyle(each).display") == "none"
        assert formula.evaluate("each => each.scrollWidth <= each.clientWidth + 1")


def test_a_filter_says_how_much_is_left(visit):
    """A table that is empty, and nothing to tell why or where to go on."""
    page = visit("reference/symptoms.html")
    rows, said = page.locator("article tbody tr:visible"), page.locator("article [role=status]")
    page.locator(".filter input").fill("nan")
    assert said.inner_text().startswith(f"{rows.count()} of ")
    page.locator(".filter input").fill("nan zebra")
    assert rows.count() == 0
    assert said.locator("a").get_attribute("href").endswith("search.html?q=nan%20zebra")
    page.locator(".filter input").fill("")
    assert said.inner_text() == ""


def test_what_is_to_be_touched_is_large_enough(visit, address):
    """A fold of 20 pixels beside one of 36; a button that a thumb misses."""
    page = visit(viewport=PHONE)
    for path in KINDS:
        page.goto(address + path)
        small = page.eval_on_selector_all(
            "button, summary, label, select, input:not([type=radio]), .brand, .bottom-of-page a",
            """all => all.filter((each) => each.checkVisibility({visibilityProperty: true}))
              .map((each) => [each.className || each.tagName, each.getBoundingClientRect()])
              .filter(([, {width, height, left}]) => width && left >= 0 && (width < 23.9 || height < 23.9))
              .map(([name]) => name)""",
        )
        assert small == [], path


def test_without_scripts_all_is_there(browser, address):
    """Code that ends at the edge and says nothing of it; a solution in the open; a filter that filters nothing."""
    context = browser.new_context(viewport=PHONE, java_script_enabled=False)
    page = context.new_page()
    page.goto(address + LESSON)
    code = page.locator("article .cell_input pre:visible").first
    box, within = code.bounding_box(), page.locator("article").bounding_box()
    assert box["width"] <= within["width"]
    assert code.evaluate("each => each.scrollWidth <= each.clientWidth + 1")
    solution = page.locator("details.hide", has_text="Solution").first
    assert not solution.locator("pre").first.is_visible()
    solution.locator("summary").click()
    assert solution.locator("pre").first.is_visible()
    page.goto(address + "reference/symptoms.html")
    assert not page.locator(".filter").is_visible()
    context.close()


def test_a_reader_s_own_colours_reach_pictures_and_marks(visit):
    """Grey on black in Windows' high contrast; cut code whose only sign is a shadow, which is not drawn."""
    page = visit("reference/turns.html", forced_colors="active", color_scheme="dark")
    paint = page.locator(".turn svg text.quiet").first.evaluate("each => getComputedStyle(each).fill")
    assert paint == page.evaluate("getComputedStyle(document.body).color")
    lesson = visit(LESSON, forced_colors="active", viewport=PHONE)
    assert lesson.locator("pre.more:visible").first.evaluate("e => getComputedStyle(e).borderRightStyle") == "dashed"


def test_a_link_to_a_cell_leads_there_at_once(visit):
    """A page that flies past under the reader's eyes, and then covers the answer with "Back to top"."""
    page = visit("notebooks/07_capstone_sst2.html#cell-forest", viewport=PHONE)
    page.wait_for_timeout(300)
    assert 0 <= page.evaluate("document.querySelector(location.hash).getBoundingClientRect().top") < 120
    assert not page.locator(".back-to-top").is_visible()


def test_a_question_stands_above_the_cell_that_asks_it(visit):
    """Code before its reason."""
    page = visit(LESSON)
    cell = page.locator(".tag_prediction").first
    question, code = cell.locator("form").bounding_box(), cell.locator("details").bounding_box()
    assert question["y"] + question["height"] <= code["y"]


def test_they_compute_what_the_package_computes(visit):
    """A picture of another formula than the one that trains."""
    import numpy as np
    import torch
    import torch.nn.functional as F  # noqa: N812

    page = visit("reference/turns.html")

    def js(call, *arguments):
        return page.evaluate(
            f"arguments_ => {{ const t = kdcourse.turns; return t.{call}(...arguments_); }}", list(arguments)
        )

    generator = torch.Generator().manual_seed(0)
    for temperature in (0.5, 1.0, 3.0):
        student, teacher = (2 * torch.randn(2, 1, 7, generator=generator, dtype=torch.float64)).requires_grad_()
        one, other = student[0].tolist(), teacher[0].tolist()
        loss = distillation_loss(student, teacher.detach(), torch.tensor([2]), alpha=0.3, temperature=temperature)
        got = js("balance.loss", one, other, 2, 0.3, temperature)
        assert [got["hard"], got["soft"], got["total"]] == pytest.approx(
            [loss.hard.item(), loss.soft.item(), loss.total.item()]
        )
        (gradient,) = torch.autograd.grad(loss.soft, student)
        assert js("temperature.gradient", one, other, temperature) == pytest.approx(gradient[0].tolist())
        entropy = torch.distributions.Categorical(logits=teacher / temperature).entropy().item()
        assert js("temperature.entropy", other, temperature) == pytest.approx(entropy)
        p, q = F.log_softmax(student, -1), F.log_softmax(teacher, -1)
        assert js("directions.forward", p[0].tolist(), q[0].tolist()) == pytest.approx(forward_kl(p, q).item())
        assert js("directions.reverse", p[0].tolist(), q[0].tolist()) == pytest.approx(reverse_kl(p, q).item())
        for k in (1, 3, 7):
            cut = forward_kl(*bucket_log_probs(p, top_k(teacher, k, 1.0), 1.0)).item()
            assert js("topk.divergence", one, other, k) == pytest.approx(cut)
    first, second = [77.0, 76.5, 78.0, 77.7, 76.9], [79.9, 80.2, 79.0, 80.5, 81.0]
    for pair in ((first, second), (second, first), (first, [77.1, 76.3, 78.2, 77.5, 77.0])):
        verdict, got = compare_paired(*pair), js("seeds.compare", *pair)
        assert [got[name] for name in ("difference", "low", "high")] == pytest.approx(
            [verdict.difference, verdict.low, verdict.high]
        )
        assert got["word"] == verdict.word
    rows = page.evaluate("kdcourse.turns.calibration.rows")
    for temperature in (1.0, 2.0):
        logits = torch.tensor([row[0] for row in rows], dtype=torch.float64) / temperature
        labels = np.array([row[1] for row in rows])
        error = CalibrationError().value(logits.log_softmax(-1).numpy(), labels)
        assert js("calibration.error", rows, 15, temperature) == pytest.approx(error)
