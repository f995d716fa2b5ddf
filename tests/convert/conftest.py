"""`hub` is a server that takes the place of the Hugging Face Hub and of Google's bucket."""

import pytest
from hub_server import serving

hub = pytest.fixture(serving)
