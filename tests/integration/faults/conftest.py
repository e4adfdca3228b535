"""The lab, which makes each undisturbed run once."""

import pytest
from integration.faults.lab import Lab


@pytest.fixture(scope="session")
def lab(tmp_path_factory) -> Lab:
    return Lab(tmp_path_factory.mktemp("lab"))
