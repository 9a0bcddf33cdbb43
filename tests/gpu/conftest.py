"""What only a card can show. Every test in this folder is marked ``gpu``, and none has been near a mock."""

import pytest


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.parent.name == "gpu":
            item.add_marker(pytest.mark.gpu)
            # Deprecations inside RAPIDS are not ours to mend; on a CPU our own are errors.
            item.add_marker(pytest.mark.filterwarnings("default"))


@pytest.fixture(scope="session")
def texts(request):
    """500 real rows where the corpora are, else sentences of every length from a fixed seed."""
    try:
        return request.getfixturevalue("real_texts")[::4]
    except FileNotFoundError:
        import random

        words = [f"word{n}" for n in range(40)]
        pick = random.Random(7)
        return [" ".join(pick.choices(words, k=pick.randint(1, 300))) for _ in range(500)]
