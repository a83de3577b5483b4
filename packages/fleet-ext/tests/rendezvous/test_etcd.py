"""What only the store in etcd has: members, users, certificates, compaction."""

import json
import threading
import time
import urllib.request

import pytest

from oarlock.fleet_ext.rendezvous import EtcdStore, Outdated, StoreError, Unreachable
from oarlock.fleet_ext.rendezvous.gateway import coded
from oarlock.fleet_ext.transport import wire


@pytest.mark.parametrize("wrong, why", [
    ({"endpoints": "10.0.0.1:2379"}, "endpoints must"), ({"endpoints": []}, "endpoints must"),
    ({"namespace": "a/b"}, "namespace must"), ({"namespace": ""}, "namespace must"),
    ({"user": "u"}, "go together"), ({"timeout": 1e9}, "timeout must"),
])  # fmt: skip
def test_bad_arguments(wrong, why):
    with pytest.raises(ValueError, match=why):
        EtcdStore(**{"endpoints": "http://127.0.0.1:1", "namespace": "n", **wrong})


def post(server, path, **body):
    request = urllib.request.Request(f"{server.url}/v3/{path}", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=5.0) as reply:
        return json.load(reply)


def test_namespaces_do_not_see_each_other(etcd):
    with EtcdStore(etcd.url, namespace="job") as one, EtcdStore(etcd.url, namespace="job2") as two:
        one.set("k", b"1")
        since, _ = two.read("")
        one.set("k", b"2")
        assert two.keys("") == [] and two.get("k") is None
        assert two.watch("", since, 0.3)[1] == []
        assert one.read("")[1] == {"k": b"2"}


def test_a_member_that_is_gone_is_passed_over(etcd):
    with EtcdStore(["http://127.0.0.1:1", etcd.url], namespace="members") as store:
        for number in range(4):
            store.set("k", str(number).encode())
        since, _ = store.read("")
        store.set("k", b"x")
        store._gateway._current = 0
        assert [one.value for one in store.watch("k", since, 3.0)[1]] == [b"x"]


def test_compacted_changes_are_refused(etcd):
    with EtcdStore(etcd.url, namespace="compacted") as store:
        store.set("k", b"1")
        since, _ = store.read("")
        for number in range(3):
            store.set("k", str(number).encode())
        revision, _ = store.read("")
        post(etcd, "kv/compaction", revision=str(revision))
        with pytest.raises(Outdated, match="changes are known since"):
            store.watch("k", since, 2.0)
        store.set("k", b"after")
        assert [one.value for one in store.watch("k", revision, 2.0)[1]] == [b"after"]


def test_a_wait_goes_on_when_changes_are_compacted(etcd):
    with EtcdStore(etcd.url, namespace="waiting") as store:
        found = []
        thread = threading.Thread(target=lambda: found.append(store.wait(["a", "b"], 10.0)))
        thread.start()
        store.set("a", b"1")
        time.sleep(0.3)
        revision, _ = store.read("")
        post(etcd, "kv/compaction", revision=str(revision))
        store.set("b", b"2")
        thread.join()
        assert found == [{"a": b"1", "b": b"2"}]


def test_a_lost_lease_of_marks_is_granted_again(etcd):
    with EtcdStore(etcd.url, namespace="marks") as store:
        store.set("k", b"1")
        lease = store._marks._lease
        post(etcd, "lease/revoke", ID=lease)
        store.set("k", b"2")
        assert store.get("k") == b"2" and store._marks._lease != lease
        post(etcd, "lease/revoke", ID=store._marks._lease)
        store.set("k", b"3", lease=store.lease(5.0))
        assert store.add("n", 1) == 1


def test_users(start_etcd):
    server = start_etcd()
    post(server, "auth/user/add", name="root", password="r")
    post(server, "auth/user/grant", user="root", role="root")
    post(server, "auth/role/add", name="job")
    permission = {"permType": "READWRITE", "key": coded("job/"), "range_end": coded("job0")}
    post(server, "auth/role/grant", name="job", perm=permission)
    post(server, "auth/user/add", name="trainer", password="secret")
    post(server, "auth/user/grant", user="trainer", role="job")
    post(server, "auth/enable")
    store = EtcdStore(server.url, namespace="job", user="trainer", password="secret", timeout=20.0)
    lease = store.lease(60.0)
    store.set("node", b"", lease=lease)
    assert store.add("n", 1) == 1
    since, _ = store.read("")
    store.add("n", 1)
    assert [one.value for one in store.watch("n", since, 2.0)[1]] == [b"2"]
    for wrong in ({"namespace": "other"}, {"password": "guess"}, {"user": None, "password": None}):
        options = {"namespace": "job", "user": "trainer", "password": "secret", **wrong}
        with EtcdStore(server.url, timeout=1.0, **options) as stranger:
            for call in (lambda: stranger.set("k", b""), lambda: stranger.watch("", since, 1.0)):
                with pytest.raises(StoreError) as failure:
                    call()
                assert not isinstance(failure.value, Unreachable), failure.value
    server.stop()
    server.start()  # its tokens are of no more use
    assert [one.value for one in store.watch("n", since, 2.0)[1]] == [b"2"]
    assert store.add("n", 1) == 3
    lease.release()
    store.close()


def test_tls(start_etcd, certificates):
    def tls(name):
        return wire.Tls(certificate=certificates / f"{name}.pem", key=certificates / f"{name}.key",
                        authority=certificates / f"{name}-authority.pem")  # fmt: skip

    server = start_etcd(scheme="https", arguments=[
        "--cert-file", str(certificates / "ours.pem"), "--key-file", str(certificates / "ours.key"),
        "--trusted-ca-file", str(certificates / "ours-authority.pem"), "--client-cert-auth",
    ])  # fmt: skip
    with EtcdStore(server.url, namespace="job", tls=tls("ours")) as store:
        assert store.add("n", 1) == 1
        assert store.wait(["n"], 5.0) == {"n": b"1"}
    for wrong in (tls("theirs"), None):
        with EtcdStore(server.url, namespace="job", tls=wrong, timeout=0.5) as stranger:
            with pytest.raises(Unreachable):
                stranger.get("n")
