"""Servers that a test starts and need not end, with the built-in store or, where a test says so, with each."""

import pytest
from table_servers import Servers


@pytest.fixture
def servers(request):
    kind = getattr(request, "param", "built-in")
    etcd = request.getfixturevalue("etcd") if kind == "etcd" else None
    made = []

    def make(layout, **options):
        made.append(Servers(layout, etcd=etcd, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()
