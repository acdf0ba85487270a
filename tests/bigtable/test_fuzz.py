"""Messages as no client sends them, to every method that is served: each is answered, and the server is as it was afterwards.

Random bytes; random messages, whose fields have values near what is right; the same with bytes changed; and messages that are deep, wide
or large. BIGTABLE_SEED changes what is sent, BIGTABLE_FUZZ is how many messages of each kind every method gets.
"""

import contextlib
import os
import pathlib
import random

import grpc
import pytest
from google.cloud.bigtable.data import ReadRowsQuery, SetCell
from google.cloud.bigtable_admin_v2 import types as admin
from google.longrunning import operations_pb2
from google.cloud.bigtable_v2 import types as v2
from google.protobuf.descriptor import FieldDescriptor as Field

SEED = int(os.environ.get("BIGTABLE_SEED", "1"))
COUNT = int(os.environ.get("BIGTABLE_FUZZ", "150"))
PARENT = "projects/fuzz/instances/fuzz"
TABLE = PARENT + "/tables/fuzz"
DATA, TABLES, INSTANCES = (
    "/google.bigtable." + service + "/" for service in ("v2.Bigtable", "admin.v2.BigtableTableAdmin", "admin.v2.BigtableInstanceAdmin")
)
OPERATIONS = "/google.longrunning.Operations/"
SERVED = [
    *((DATA, v2, name) for name in (
        "ReadRows", "SampleRowKeys", "MutateRow", "MutateRows", "CheckAndMutateRow", "ReadModifyWriteRow", "PingAndWarm")),
    *((TABLES, admin, name) for name in (
        "CreateTable", "ListTables", "GetTable", "DeleteTable", "ModifyColumnFamilies", "DropRowRange", "GenerateConsistencyToken",
        "CheckConsistency", "UpdateTable", "UndeleteTable", "CreateAuthorizedView", "GetAuthorizedView", "ListAuthorizedViews",
        "UpdateAuthorizedView", "DeleteAuthorizedView")),
    *((INSTANCES, admin, name) for name in (
        "CreateInstance", "GetInstance", "ListInstances", "GetCluster", "ListClusters", "GetAppProfile", "ListAppProfiles",
        "UpdateInstance", "PartialUpdateInstance", "DeleteInstance", "UpdateCluster", "PartialUpdateCluster", "CreateAppProfile",
        "UpdateAppProfile", "DeleteAppProfile")),
    *((OPERATIONS, operations_pb2, name) for name in ("ListOperations", "GetOperation", "DeleteOperation")),
]  # fmt: skip
REQUESTS = {"UpdateInstance": "Instance", "UpdateCluster": "Cluster"}
STREAMS = ("ReadRows", "SampleRowKeys", "MutateRows")
# A server that says one of these has not understood that it is the request that is wrong, or is gone.
NO_ANSWER = {"INTERNAL", "UNKNOWN", "UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED"}
# What gRPC's libraries say of bytes that are no message of the type.
UNREADABLE = {"INTERNAL"}

STRINGS = ["", "f", "g", "new", "fuzz", TABLE, PARENT, "projects/fuzz", PARENT + "/clusters/diptych", PARENT + "/appProfiles/default", ".*", "(", "é", "x" * 300]
BYTES = [b"", b"a", b"q", b"r1", b"\xff\xff", b"(a", b"[^a]*", b"\\C+", b"\x00" * 8, b"12345678", b"k" * 5000]
NUMBERS = [0, 1, 2, -1, -2, 7, 999, 1000, 1_000_000, 2**31 - 1, -(2**31)]
LARGE = [2**63 - 1, -(2**63), 2**53, 9_223_372_036_854_775_000]


# What is right in a field of this name, so that most messages get past the first look at them.
RIGHT = {
    "table_name": [TABLE],
    "authorized_view_name": [""],
    "authorized_view_id": ["view"],
    "app_profile_id": ["", "default", "made"],
    "cluster_id": ["diptych"],
    "etag": [""],
    "paths": ["deletion_protection", "description", "display_name", "subset_view", "labels"],
    "row_prefixes": [b"r", b""],
    "deletion_protection": [False],
    "materialized_view_name": [""],
    "row_key": [b"r1", b"r2"],
    "row_keys": [b"r1", b"r2"],
    "family_name": ["f", "g"],
    "timestamp_micros": [0, 1000, -1, 7_000_000],
    "start_timestamp_micros": [0, 1000],
    "end_timestamp_micros": [0, 5000],
    "rows_limit": [0, 3],
    "table_id": ["new"],
    "instance_id": ["made"],
    "granularity": [0, 1],
    "max_num_versions": [1, 3],
    "page_size": [0, 2],
    "page_token": [""],
    "row_key_prefix": [b"r", b"z"],
    "id": ["f", "g", "new"],
    "consistency_token": ["made up"],
}
PARENTS = {
    "ListInstances": "projects/fuzz",
    "CreateInstance": "projects/fuzz",
    **dict.fromkeys(("CreateAuthorizedView", "ListAuthorizedViews"), TABLE),
}
VIEW, PROFILE = TABLE + "/authorizedViews/view", PARENT + "/appProfiles/made"
NAMES = {
    "PingAndWarm": PARENT,
    "GetInstance": PARENT,
    "GetCluster": PARENT + "/clusters/diptych",
    **dict.fromkeys(("GetAppProfile", "DeleteAppProfile", "UpdateAppProfile"), PROFILE),
    **dict.fromkeys(("GetAuthorizedView", "DeleteAuthorizedView", "UpdateAuthorizedView"), VIEW),
    **dict.fromkeys(("UpdateInstance", "PartialUpdateInstance", "DeleteInstance"), PARENT),
    **dict.fromkeys(("UpdateCluster", "PartialUpdateCluster"), PARENT + "/clusters/diptych"),
    **dict.fromkeys(("ListOperations", "GetOperation", "DeleteOperation"), "operations/" + TABLE),
}


def value(rng, field, depth):
    kind = field.type
    if field.name in RIGHT and rng.random() < 0.85 and field.containing_type.name != "Value":
        return rng.choice(RIGHT[field.name])
    if kind == Field.TYPE_MESSAGE:
        return None if depth == 0 else message(rng, field.message_type._concrete_class, depth - 1)
    if kind == Field.TYPE_STRING:
        return rng.choice(STRINGS)
    if kind == Field.TYPE_BYTES:
        return rng.choice(BYTES) if rng.random() < 0.8 else rng.randbytes(rng.randrange(30))
    if kind == Field.TYPE_BOOL:
        return rng.random() < 0.7
    if kind == Field.TYPE_ENUM:
        return rng.choice([*range(6), 99])
    if kind in (Field.TYPE_DOUBLE, Field.TYPE_FLOAT):
        return rng.choice([0.0, 0.5, 1.0, -1.0, float("nan"), float("inf"), 1e-300])
    return rng.choice(NUMBERS if kind in (Field.TYPE_INT32, Field.TYPE_UINT32) else NUMBERS + LARGE)


def message(rng, kind, depth=6):
    """A message with some of its fields."""
    made = kind()
    for field in kind.DESCRIPTOR.fields:
        if rng.random() < (0.5 if field.name not in RIGHT else 0.1):
            continue
        if field.message_type and field.message_type.GetOptions().map_entry:
            entry, place = field.message_type.fields_by_name, getattr(made, field.name)
            key = value(rng, entry["key"], 0) or "f"
            found = value(rng, entry["value"], depth - 1)
            if entry["value"].type != Field.TYPE_MESSAGE:
                place[key] = found
            elif found is not None:
                place[key].CopyFrom(found)
        elif field.is_repeated:
            found = [value(rng, field, depth) for _ in range(rng.randint(0, 3))]
            getattr(made, field.name).extend(one for one in found if one is not None)
        else:
            found = value(rng, field, depth)
            if field.type != Field.TYPE_MESSAGE:
                setattr(made, field.name, found)
            elif found is not None:
                getattr(made, field.name).CopyFrom(found)
    return made


def request(rng, kind, method):
    """A message for a method, which mostly names what is there."""
    made = message(rng, kind)
    for field in ("table", "authorized_view", "app_profile", "instance", "cluster"):
        if method.startswith(("Update", "Partial")) and field in kind.DESCRIPTOR.fields_by_name and rng.random() < 0.95:
            getattr(made, field).name = NAMES.get(method, TABLE)
    for name, right in (("table_name", TABLE), ("name", NAMES.get(method, TABLE)), ("parent", PARENTS.get(method, PARENT))):
        if name in kind.DESCRIPTOR.fields_by_name and rng.random() < 0.95:
            setattr(made, name, right)
    return made


def changed(rng, data):
    """The bytes with some of them changed, taken out, or put in."""
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 4])):
        at = rng.randrange(len(data) + 1)
        what = rng.randrange(4)
        if what == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif what == 1:
            data[at:at] = rng.randbytes(rng.randint(1, 3))
        elif what == 2:
            del data[at : at + rng.randint(1, 3)]
        elif len(data) > 1 and rng.random() < 0.3:
            del data[at:]
    return bytes(data)


def answer(raw, method, data, stream):
    """The code of the answer's status."""
    try:
        raw(method, data, None, stream=stream)
        return "OK"
    except grpc.RpcError as error:
        assert error.details(), "an error says what is wrong"
        return error.code().name


def resident(pid):
    [line] = [line for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) // 1024


def processes(cluster):
    """The memory of each process of a cluster, in MiB; nothing of somebody else's."""
    if cluster.folder is None:
        return {}
    pids = [process["pid"] for process in cluster.processes()]
    [up] = {int(pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")")[-1].split()[1]) for pid in pids}
    return {pid: resident(pid) for pid in [up, *pids]}


@pytest.fixture
def unhurt(cluster, rows):
    """After what is done within, the server has the same processes and rows, and no 100 MiB more in memory."""

    @contextlib.contextmanager
    def within():
        rows.mutate_row(b"kept", SetCell("f", b"q", b"value", timestamp_micros=0))
        before = processes(cluster)
        yield
        assert [row.row_key for row in rows.read_rows(ReadRowsQuery())] == [b"kept"]
        rows.mutate_row(b"kept", SetCell("f", b"q", b"again", timestamp_micros=0))
        after = processes(cluster)
        assert after.keys() == before.keys(), "a process has ended"
        grown = sum(after.values()) - sum(before.values())
        assert grown < 100, f"{grown} MiB more: {before} {after}"

    return within


@pytest.fixture(scope="module", autouse=True)
def cleaned(raw):
    yield
    listed = raw(TABLES + "ListTables", admin.ListTablesRequest(parent=PARENT), admin.ListTablesResponse)
    for table in listed.tables:
        free = admin.UpdateTableRequest(table={"name": table.name}, update_mask={"paths": ["deletion_protection"]})
        raw(TABLES + "UpdateTable", free, None)
        views = raw(TABLES + "ListAuthorizedViews", admin.ListAuthorizedViewsRequest(parent=table.name), admin.ListAuthorizedViewsResponse)
        for view in views.authorized_views:
            free = admin.UpdateAuthorizedViewRequest(authorized_view={"name": view.name}, update_mask={"paths": ["deletion_protection"]})
            raw(TABLES + "UpdateAuthorizedView", free, None)
        raw(TABLES + "DeleteTable", admin.DeleteTableRequest(name=table.name), None)


def make_table(raw):
    """The table that the messages are about; some of them delete it."""
    wanted = admin.CreateTableRequest(parent=PARENT, table_id="fuzz", table={"column_families": {"f": {}, "g": {}}})
    answer(raw, TABLES + "CreateTable", admin.CreateTableRequest.serialize(wanted), False)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("service, types, name", SERVED, ids=[name for _, _, name in SERVED])
def test_any_message_is_answered(raw, unhurt, service, types, name):
    wrapper = getattr(types, REQUESTS.get(name, name + "Request"))
    kind = wrapper.pb(wrapper()).__class__ if hasattr(wrapper, "pb") else wrapper
    rng, codes = random.Random(f"{SEED} {name}"), set()
    with unhurt():
        for n in range(COUNT):
            if n % 10 == 0:
                make_table(raw)
            whole = request(rng, kind, name).SerializeToString()
            for data in (whole, changed(rng, whole), rng.randbytes(rng.randrange(60))):
                code = answer(raw, service + name, data, name in STREAMS)
                codes.add(code)
                assert code not in (NO_ANSWER if data is whole else NO_ANSWER - UNREADABLE), f"{name} {data!r}: {code}"
    # Otherwise nothing but the first look at a message would be tried.
    assert len(codes) > 1, codes


def field(number, *inner):
    """A field of bytes, as it goes over the wire."""
    data = b"".join(inner)
    size, length = len(data), b""
    while True:
        length += bytes([size & 127 | (128 if size > 127 else 0)])
        size >>= 7
        if size == 0:
            return bytes([number << 3 | 2]) + length + data


def nested(depth, wrap, inner):
    for _ in range(depth):
        inner = wrap(inner)
    return inner


NAME = field(1, TABLE.encode())
PASS = b"\x88\x01\x01"
MUCH = {
    "a filter 30 deep": ("ReadRows", NAME + field(3, nested(30, lambda inner: field(1, field(1, inner), field(1, PASS)), PASS))),
    "a filter 5,000 deep": ("ReadRows", NAME + field(3, nested(5_000, lambda inner: field(1, field(1, inner)), PASS))),
    "a filter of 100,000 parts": ("ReadRows", NAME + field(3, field(1, field(1, PASS) * 100_000))),
    "an expression of 10 GB": ("ReadRows", NAME + field(3, field(9, b"(((a{1000}){1000}){1000}){10}"))),
    "an expression of 10,000 brackets": ("ReadRows", NAME + field(3, field(9, b"(" * 10_000 + b")" * 10_000))),
    "500,000 keys": ("ReadRows", NAME + field(2, field(1, b"a") * 500_000)),
    "200,000 ranges": ("ReadRows", NAME + field(2, field(2, field(1, b"a"), field(3, b"b")) * 200_000)),
    "100,001 mutations of nothing": ("MutateRow", NAME + field(2, b"r") + field(3, b"") * 100_001),
    "1,000,000 mutations of nothing": ("MutateRow", NAME + field(2, b"r") + field(3, b"") * 1_000_000),
    "300,000 entries of nothing": ("MutateRows", NAME + field(2, b"") * 300_000),
    "300,000 rules of nothing": ("ReadModifyWriteRow", NAME + field(2, b"r") + field(3, b"") * 300_000),
    "an increment of a long name": ("ReadModifyWriteRow", NAME + field(2, b"r") + field(3, field(1, b"f"), field(2, b"q" * 20_000_000), b"\x20\x01")),
    "a rule 5,000 deep": ("ModifyColumnFamilies", NAME + field(2, field(1, b"new"), field(2, field(1, nested(5_000, lambda inner: field(3, field(1, inner)), b"\x08\x01"))))),
    "a rule of 100,000 parts": ("ModifyColumnFamilies", NAME + field(2, field(1, b"new"), field(2, field(1, field(4, field(1, b"\x08\x01") * 100_000))))),
    "100,000 families": ("CreateTable", field(1, PARENT.encode()) + field(2, b"wide") + field(3, b"".join(field(3, field(1, b"f%d" % n), field(2)) for n in range(100_000)))),
    "100,000 splits": ("CreateTable", field(1, PARENT.encode()) + field(2, b"split") + b"".join(field(4, field(1, b"%06d" % n)) for n in range(100_000))),
    "a length of 4 GB that is not there": ("MutateRow", NAME + b"\x12\xff\xff\xff\xff\x0f"),
}  # fmt: skip


@pytest.mark.timeout(300)
@pytest.mark.parametrize("what", MUCH)
def test_a_message_that_is_too_much_is_answered(raw, unhurt, what):
    make_table(raw)
    name, data = MUCH[what]
    [service] = [service for service, _, served in SERVED if served == name]
    with unhurt():
        code = answer(raw, service + name, data, name in STREAMS)
        assert code not in NO_ANSWER - UNREADABLE, code
