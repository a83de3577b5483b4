"""Servers that a test starts and need not end."""

import pytest
from table_servers import Servers


@pytest.fixture
def servers(tmp_path):
    made = []

    def make(layout, **options):
        made.append(Servers(layout, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()
