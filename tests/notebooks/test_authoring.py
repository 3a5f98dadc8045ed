"""Rules that every notebook of the course keeps; each prevents a way in which notebooks go wrong unseen."""

import ast
import itertools
import re

import nbformat
import pytest
from cells import code_cells, prose_cells, tags
from prose_numbers import unbacked_numbers

from kdcourse.course import not_compared
from kdcourse.course.claims import claims_of
from kdcourse.course.exercises import all_exercises
from kdcourse.course.exercises.kinds.repairs import RepairARun
from kdcourse.course.expectations import expectations_path, read_expectations
from kdcourse.course.formulas import mathml
from kdcourse.course.lessons import all_lessons
from kdcourse.course.store import write_as_jupyterlab

EXERCISES = all_exercises()


def test_there_are_lessons():
    """A folder that was not found, and rules that hold for none."""
    assert all_lessons()


def test_it_is_a_valid_notebook_for_any_kernel_named_python3(notebook):
    """A kernelspec of one machine."""
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    ids = [cell.id for cell in notebook.cells]
    assert len(ids) == len(set(ids))


def test_one_cell_holds_the_parameters(notebook):
    """papermill only warns about a parameter that the notebook does not know."""
    (cell,) = [cell for cell in notebook.cells if "parameters" in tags(cell)]
    assert 'PROFILE = "quick"' in cell.source


def test_the_header_tells_what_to_expect(lesson, notebook):
    """A lesson that does not say what it is for and how long it takes."""
    header = notebook.cells[0].source
    assert lesson.title.startswith(f"{lesson.number} · ")
    assert lesson.question.endswith("?")
    assert re.search(r"\d+ minutes", header)
    assert "Prerequisites" in header


def test_every_cell_is_stored_as_it_ran(notebook):
    """A stripped cell: nbval passes it without comparing anything."""
    assert [cell.execution_count for cell in code_cells(notebook)] == list(range(1, len(code_cells(notebook)) + 1))
    for cell in code_cells(notebook):
        assert not any(output.output_type == "error" for output in cell.outputs), cell.source


def test_most_outputs_are_compared(notebook):
    """A notebook that is exempt from its own test; below 60% it checks too little."""
    assert not_compared.compared_share(notebook) >= 0.6


def test_what_is_not_compared_says_why(notebook):
    """A cell that was made exempt because it failed."""
    for cell in code_cells(notebook):
        assert not_compared.is_not_compared(cell) == (not_compared.reason_of(cell) in not_compared.REASONS), cell.source


def test_no_tag_of_one_tool_means_the_opposite_to_another(notebook):
    """papermill fails on raises-exception; skip-execution is unknown to nbval."""
    for cell in notebook.cells:
        assert "raises-exception" not in tags(cell)
        assert ("skip-execution" in tags(cell)) == ("nbval-skip" in tags(cell))


def test_every_picture_has_an_alt_text(notebook):
    """A reader who cannot see the plot, and a plot that nobody described."""
    for cell in code_cells(notebook):
        for output in cell.outputs:
            if "image/png" in output.get("data", {}):
                assert len(output.metadata.get("image/png", {}).get("alt", "")) > 40, cell.source


def test_outputs_hold_no_warning_and_no_path(notebook):
    """Somebody's home folder, or a warning that readers learn to skip."""
    for cell in code_cells(notebook):
        for output in cell.outputs:
            assert output.get("name") != "stderr", output.text
            text = str(output.get("text", "")) + str(output.get("data", {}).get("text/plain", ""))
            assert not re.search(r"(/home/|/root/|/Users/|/tmp/|[A-Z]:\\)", text), text


def test_no_semicolon_hides_a_value(notebook):
    """nbval shows what a trailing semicolon hides, and then they differ."""
    for cell in code_cells(notebook):
        assert not cell.source.rstrip().endswith(";"), cell.source


def test_the_prose_loads_nothing_from_elsewhere(notebook):
    """A picture that is missing in a room without network."""
    for cell in prose_cells(notebook):
        assert not re.search(r"!\[[^\]]*\]\(http|<(img|script|iframe)[^>]+http", cell.source), cell.source


def lessons_with_exercises():
    return [lesson for lesson in all_lessons() if lesson.number in {exercise.lesson for exercise in EXERCISES.values()}]


@pytest.mark.parametrize("lesson", lessons_with_exercises(), ids=lambda lesson: lesson.name)
def test_every_exercise_is_whole(lesson):
    """An exercise without task, minutes, stub, hint or solution, or one that the notebook forgot."""
    notebook = nbformat.read(lesson.path, as_version=4)
    cells = {cell.id: cell for cell in notebook.cells}
    order = list(cells)
    stubs = [cell for cell in code_cells(notebook) if "exercise" in tags(cell)]
    names = [re.findall(r'exercises\.check\("([\w.]+)", \w+\)$', cell.source) for cell in stubs]
    assert {name for (name,) in names} == {name for name in EXERCISES if name.startswith(f"{lesson.number}.")}
    for cell, (name,) in zip(stubs, names, strict=True):
        place = order.index(cell.id)
        task, hints, solution = (cells[order[place + step]] for step in (-1, 1, 2))
        exercise = EXERCISES[name]
        assert f"### Exercise {name} · {exercise.title}\n" in task.source
        stars = f"{'★' * exercise.difficulty}☆*"
        assert re.search(rf"^{stars} · {exercise.minutes} minutes", task.source, re.MULTILINE)
        assert "raise NotImplementedError" in cell.source or isinstance(exercise, RepairARun)
        assert "not attempted yet" in str(cell.outputs)
        assert "<details><summary>Hint 1</summary>" in hints.source
        assert "solution" in tags(solution)
        assert solution.metadata.jupyter.source_hidden
        assert f'exercises.verify("{name}", ' in solution.source


def test_later_cells_do_not_depend_on_an_answer(notebook):
    """A lesson that cannot go on until an exercise is solved."""
    answers = set()
    for cell in code_cells(notebook):
        defined, named = names_in(cell.source)
        if "exercise" in tags(cell):
            answers |= defined
        else:
            assert not answers & (named - defined), cell.source
            answers -= defined


def names_in(source):
    """The names that a cell gives a meaning, and all that it mentions."""
    nodes = list(ast.walk(ast.parse(source)))
    names = [node for node in nodes if isinstance(node, ast.Name)]
    defined = {node.id for node in names if not isinstance(node.ctx, ast.Load)}
    defined |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    defined |= {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    return defined, {node.id for node in names}


def test_headings_follow_one_another(notebook):
    """A jump from a title to a subsubsection, or a second title."""
    prose = "\n".join(cell.source for cell in prose_cells(notebook))
    levels = [
        len(marks) for marks in re.findall(r"^(#+) ", re.sub(r"```.*?```", "", prose, flags=re.DOTALL), re.MULTILINE)
    ]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_a_lesson_states_claims(lesson, notebook):
    """A lesson whose numbers nobody holds against anything; two claims of one name, which a comparison would mix up."""
    names = [claim["name"] for claim in claims_of(notebook)]
    assert len(names) == len(set(names))
    assert len(read_expectations(expectations_path(lesson.number, lesson.path.parent)).claims) >= 10


def test_what_is_expected_does_not_stand_in_the_code(notebook):
    """The answer to a prediction, typed into the next cell."""
    for cell in code_cells(notebook):
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "claim":
                assert len(node.args) <= 2, cell.source
                assert {keyword.arg for keyword in node.keywords} <= {"spread"}, cell.source


def test_no_result_is_typed_into_prose_by_hand(lesson, notebook):
    """A number that stays in the text when the measurement changes."""
    expectations = read_expectations(expectations_path(lesson.number, lesson.path.parent))
    assert unbacked_numbers(notebook, expectations) == []


def test_no_text_announces_what_a_learner_does_not_get(notebook):
    """ "A solution is folded below", in an edition that has none."""
    for cell in prose_cells(notebook):
        assert not re.search(r"solution (is|stands|follows|below)", cell.source), cell.source


def test_it_is_stored_as_jupyterlab_saves_it(lesson, notebook, tmp_path):
    """A lesson that counts as modified when somebody has opened and saved it."""
    write_as_jupyterlab(notebook, tmp_path / "saved.ipynb")
    assert (tmp_path / "saved.ipynb").read_bytes() == lesson.path.read_bytes()


def test_every_formula_can_be_shown_without_a_script(notebook):
    """A command of TeX that a page shows as its source."""
    for cell in prose_cells(notebook):
        prose = re.sub(r"```.*?```|`[^`]*`", "", cell.source, flags=re.DOTALL)
        for formula in re.findall(r"\$\$(.+?)\$\$|\$([^$\n]+)\$", prose, re.DOTALL):
            shown = mathml("".join(formula), "block")
            assert "\\" not in shown, formula
            assert "<mi>&" not in shown.replace("<mi>&#", ""), formula
