import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def cuda():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device, and torch sees none")
