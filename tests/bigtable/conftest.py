"""Checks of a server of Google's Bigtable API, by Google's own clients.

They run against `diptych up`, which is started from an empty folder, or against whatever BIGTABLE_TEST_ENDPOINT names. Each test has a
table of its own.
"""

import contextlib
import itertools
import json
import os
import pathlib
import signal
import subprocess
import tempfile
import time
import uuid

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROJECT, INSTANCE = "conformance", "suite"
PARENT = f"projects/{PROJECT}/instances/{INSTANCE}"


class Cluster:
    """A cluster of processes on this machine, or an endpoint of somebody else's."""

    def __init__(self, endpoint, folder=None, binary=None):
        self.endpoint, self.folder, self.binary = endpoint, folder, binary

    def processes(self):
        return json.loads((self.folder / "cluster.json").read_text())["processes"]

    def nodes(self):
        return [process for process in self.processes() if process["role"] == "node"]

    def command(self, *words, check=True):
        words = [self.binary, *words, "--endpoint", self.endpoint]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60)
        if check and done.returncode != 0:
            raise AssertionError(f"{words}: {done.stdout} {done.stderr}")
        return done.stdout


@contextlib.contextmanager
def started(*more):
    binary = os.environ.get("DIPTYCH", str(ROOT / "target/debug/diptych"))
    with tempfile.TemporaryDirectory(prefix="bigtable-") as name:
        folder = pathlib.Path(name) / "data"
        words = [binary, "up", "--data", str(folder), "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0", *more]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            for line in process.stdout:
                if line.strip().startswith("gRPC"):
                    endpoint = line.split()[1]
                    break
            else:
                raise AssertionError("`diptych up` ended before it was up")
            yield Cluster(endpoint, folder, binary)
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture(scope="session")
def cluster():
    endpoint = os.environ.get("BIGTABLE_TEST_ENDPOINT")
    if endpoint:
        os.environ["BIGTABLE_EMULATOR_HOST"] = endpoint
        yield Cluster(endpoint)
        return
    with started() as cluster:
        os.environ["BIGTABLE_EMULATOR_HOST"] = cluster.endpoint
        yield cluster


@pytest.fixture(scope="session")
def own(cluster):
    """A cluster whose nodes a test may hurt."""
    if cluster.folder is None:
        pytest.skip("BIGTABLE_TEST_ENDPOINT is somebody else's server: no process of it is hurt")
    return cluster


@pytest.fixture(scope="session")
def classic(cluster):
    from google.cloud import bigtable

    return bigtable.Client(project=PROJECT, admin=True).instance(INSTANCE)


@pytest.fixture(scope="session")
def data(cluster):
    from google.cloud.bigtable.data import BigtableDataClient

    with BigtableDataClient(project=PROJECT) as client:
        yield client


@pytest.fixture(scope="session")
def raw(cluster):
    """Calls without a client's own checks: raw(service, method, request, response type)."""
    import grpc

    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(cluster.endpoint, options) as channel:

        def call(method, request, answer, metadata=(), stream=False):
            make = channel.unary_stream if stream else channel.unary_unary
            stub = make(
                method,
                request_serializer=lambda message: message if isinstance(message, bytes) else type(message).serialize(message),
                response_deserializer=answer.deserialize if answer else (lambda data: data),
            )
            found = stub(request, metadata=metadata, timeout=30)
            return list(found) if stream else found

        yield call


@pytest.fixture(scope="session")
def tables(cluster):
    """The client of the table admin API as it is generated."""
    import grpc
    from google.cloud.bigtable_admin_v2 import BigtableTableAdminClient
    from google.cloud.bigtable_admin_v2.services.bigtable_table_admin.transports import BigtableTableAdminGrpcTransport

    channel = grpc.insecure_channel(cluster.endpoint)
    return BigtableTableAdminClient(transport=BigtableTableAdminGrpcTransport(channel=channel))


def code(call, *args, **kwargs):
    """The name of the code with which a call fails."""
    import grpc

    with pytest.raises(grpc.RpcError) as raised:
        call(*args, **kwargs)
    assert raised.value.details(), "an error says what is wrong"
    return raised.value.code().name


numbers = itertools.count()


@pytest.fixture
def table_id():
    return f"t{next(numbers)}-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def table(classic, table_id):
    """A table with the families f and g, as the classic client sees it."""
    table = classic.table(table_id)
    table.create(column_families={"f": None, "g": None})
    yield table
    with contextlib.suppress(Exception):
        table.delete()


@pytest.fixture
def rows(data, table):
    """The same table, as the data client sees it."""
    with data.get_table(INSTANCE, table.table_id) as rows:
        yield rows


def wait_until(what, seconds=30):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if what():
            return
        time.sleep(0.2)
    raise AssertionError(f"not within {seconds} s: {what}")
