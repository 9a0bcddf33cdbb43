"""Fixtures of the tests that need a GPU. All tests in this folder are marked ``gpu`` and use no mocks."""

import random

import pytest
import torch

from nemo_embed_dask import runtimes
from nemo_embed_dask.device import release_memory

from .device import DEVICE, REHEARSAL


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.parent.name == "gpu":
            item.add_marker(pytest.mark.gpu)
            # We cannot fix deprecations inside RAPIDS; our own are errors in the tests on a CPU.
            item.add_marker(pytest.mark.filterwarnings("default"))


@pytest.fixture(scope="session")
def texts(request):
    """Return 500 real rows if the corpora are there, else random sentences from a fixed seed; a few to rehearse."""
    try:
        some = request.getfixturevalue("real_texts")[::4]
    except FileNotFoundError:
        words = [f"word{n}" for n in range(40)]
        pick = random.Random(7)
        some = [" ".join(pick.choices(words, k=pick.randint(1, 300))) for _ in range(500)]
    return [text[:1000] for text in some[::50]] if REHEARSAL else some


@pytest.fixture(scope="session")
def on_cpu(minilm, texts):
    """The reference: the plain model, one text at a time, float32, on the CPU; mean and last token, normalized."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm)
    model = transformers.AutoModel.from_pretrained(minilm).eval()
    rows = {"mean_pooling": [], "last_token": []}
    with torch.inference_mode():
        for text in texts:
            ids = tokenizer(
                [text[:20_000]], truncation=True, max_length=256, return_tensors="pt", padding=False
            )
            states = model(**ids)[0][0]
            rows["mean_pooling"].append(states.mean(0))
            rows["last_token"].append(states[-1])
    return {name: torch.nn.functional.normalize(torch.stack(found), dim=1) for name, found in rows.items()}


@pytest.fixture
def fresh():
    """Unload all models after the test, and give their memory back."""
    yield
    runtimes.unload()
    release_memory(DEVICE)
