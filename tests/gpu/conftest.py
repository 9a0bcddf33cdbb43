"""Fixtures of the tests that need a GPU. All tests in this folder are marked ``gpu`` and use no mocks."""

import pytest


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.parent.name == "gpu":
            item.add_marker(pytest.mark.gpu)
            # We cannot fix deprecations inside RAPIDS; our own are errors in the tests on a CPU.
            item.add_marker(pytest.mark.filterwarnings("default"))


@pytest.fixture(scope="session")
def texts(request):
    """Return 500 real rows if the corpora are there, else random sentences from a fixed seed."""
    try:
        return request.getfixturevalue("real_texts")[::4]
    except FileNotFoundError:
        import random

        words = [f"word{n}" for n in range(40)]
        pick = random.Random(7)
        return [" ".join(pick.choices(words, k=pick.randint(1, 300))) for _ in range(500)]
