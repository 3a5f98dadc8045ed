"""Each lesson of the course in turn, for the rules that all of them keep."""

import nbformat
import pytest

from kdcourse.course.lessons import all_lessons


@pytest.fixture(params=all_lessons(), ids=lambda lesson: lesson.name)
def lesson(request):
    return request.param


@pytest.fixture
def notebook(lesson):
    return nbformat.read(lesson.path, as_version=4)
