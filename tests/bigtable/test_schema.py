"""What a table promises beside its rows: granularity, protection, what its families add up, and that it can come back."""

import threading
import time

import grpc
import pytest
from google.api_core import exceptions
from google.cloud.bigtable.data import SetCell
from google.cloud.bigtable_admin_v2 import types as admin
from google.cloud.bigtable_v2 import types as v2
from google.longrunning import operations_pb2

from conftest import PARENT, code

MILLIS, MICROS = 1, 2  # the second one is newer than the client's message
DATA = "/google.bigtable.v2.Bigtable/"
TABLES = "/google.bigtable.admin.v2.BigtableTableAdmin/"
INT64 = {"int64_type": {"encoding": {"big_endian_bytes": {}}}}


def aggregate(how):
    return admin.ColumnFamily(value_type={"aggregate_type": {"input_type": INT64, how: {}}})


def create(tables, table_id, table=None, **families):
    table = {"column_families": families, **(table or {})}
    return tables.create_table(request={"parent": PARENT, "table_id": table_id, "table": table})


def numbered(message, number, value):
    """The message with a number that the client's own type does not know."""
    return type(message).serialize(message) + bytes([number << 3, value])


def create_micros(raw, table_id):
    table = numbered(admin.Table(column_families={"f": {}}), 4, MICROS)
    request = admin.CreateTableRequest.serialize(admin.CreateTableRequest(parent=PARENT, table_id=table_id))
    return raw(TABLES + "CreateTable", request + bytes([3 << 3 | 2, len(table)]) + table, admin.Table)


def mutate(raw, name, *mutations, row=b"r"):
    return raw(DATA + "MutateRow", v2.MutateRowRequest(table_name=name, row_key=row, mutations=list(mutations)), v2.MutateRowResponse)


def put(timestamp, family="f"):
    return {"set_cell": {"family_name": family, "column_qualifier": b"q", "timestamp_micros": timestamp, "value": b"x"}}


def cells(raw, name, row=b"r"):
    answers = raw(DATA + "ReadRows", v2.ReadRowsRequest(table_name=name, rows={"row_keys": [row]}), v2.ReadRowsResponse, stream=True)
    return [(chunk.timestamp_micros, chunk.value) for answer in answers for chunk in answer.chunks]


def test_timestamps_are_as_fine_as_the_table(raw, tables, table_id):
    millis, micros = create(tables, table_id, f={}).name, create_micros(raw, table_id + "-micros").name
    assert tables.get_table(name=millis).granularity == MILLIS and int(tables.get_table(name=micros).granularity) == MICROS
    assert code(mutate, raw, millis, put(1_001)) == "INVALID_ARGUMENT"
    mutate(raw, micros, put(1_001))
    assert cells(raw, micros) == [(1_001, b"x")]
    mutate(raw, millis, put(-1))
    assert cells(raw, millis)[0][0] % 1_000 == 0
    bound = {"delete_from_column": {"family_name": "f", "column_qualifier": b"q", "time_range": {"start_timestamp_micros": 1_001, "end_timestamp_micros": 1_002}}}
    assert code(mutate, raw, millis, bound) == "INVALID_ARGUMENT"
    mutate(raw, micros, bound)
    assert cells(raw, micros) == []
    for name in (millis, micros):
        tables.delete_table(name=name)


def test_a_protected_table_stays(tables, table_id):
    made = create(tables, table_id, {"deletion_protection": True}, f={})
    assert made.deletion_protection and tables.get_table(name=made.name).deletion_protection
    with pytest.raises(exceptions.FailedPrecondition):
        tables.delete_table(name=made.name)
    with pytest.raises(exceptions.FailedPrecondition):
        tables.modify_column_families(request={"name": made.name, "modifications": [{"id": "f", "drop": True}]})
    operation = tables.update_table(table={"name": made.name, "deletion_protection": False}, update_mask={"paths": ["deletion_protection"]})
    assert operation.done() and not operation.result().deletion_protection
    assert operation.metadata.name == made.name and operation.metadata.end_time >= operation.metadata.start_time
    tables.modify_column_families(request={"name": made.name, "modifications": [{"id": "f", "drop": True}]})
    tables.delete_table(name=made.name)


def test_a_table_is_updated_by_a_mask(tables, table_id):
    name = create(tables, table_id, f={}).name
    update = lambda paths, **table: tables.update_table(table={"name": name, **table}, update_mask={"paths": paths})  # noqa: E731
    for paths, error in [
        ([], exceptions.InvalidArgument),
        (["*"], exceptions.InvalidArgument),
        (["name"], exceptions.InvalidArgument),
        (["granularity"], exceptions.InvalidArgument),
        (["column_families"], exceptions.MethodNotImplemented),
    ]:
        with pytest.raises(error):
            update(paths, deletion_protection=True)
    assert not tables.get_table(name=name).deletion_protection
    with pytest.raises(exceptions.NotFound):
        tables.update_table(table={"name": name + "x"}, update_mask={"paths": ["deletion_protection"]})
    tables.delete_table(name=name)


def test_a_deleted_table_comes_back(tables, data, table_id):
    name = create(tables, table_id, f={}).name
    with data.get_table("suite", table_id) as rows:
        rows.mutate_row(b"r", SetCell("f", b"q", b"x", timestamp_micros=0))
        tables.delete_table(name=name)
        with pytest.raises(exceptions.NotFound):
            tables.get_table(name=name)
        assert name not in [table.name for table in tables.list_tables(parent=PARENT)]
        operation = tables.undelete_table(name=name)
        assert operation.done() and list(operation.result().column_families) == ["f"]
        assert rows.read_row(b"r").row_key == b"r"
        with pytest.raises(exceptions.AlreadyExists):
            tables.undelete_table(name=name)
        tables.delete_table(name=name)
        create(tables, table_id, f={})
        assert rows.read_row(b"r") is None, "another table of that name is empty"
        with pytest.raises(exceptions.AlreadyExists):
            tables.undelete_table(name=name)
    tables.delete_table(name=name)
    with pytest.raises(exceptions.NotFound):
        tables.undelete_table(name=name + "x")


def test_operations_are_done(raw, tables, table_id):
    name = create(tables, table_id, f={}).name
    operation = tables.update_table(table={"name": name}, update_mask={"paths": ["deletion_protection"]}).operation
    call = lambda method, request, answer: answer.FromString(  # noqa: E731
        raw("/google.longrunning.Operations/" + method, request.SerializeToString(), None)
    )
    found = call("GetOperation", operations_pb2.GetOperationRequest(name=operation.name), operations_pb2.Operation)
    assert found == operation and found.done
    request = operations_pb2.ListOperationsRequest(name=f"operations/{name}")
    listed = call("ListOperations", request, operations_pb2.ListOperationsResponse)
    assert [found.name for found in listed.operations] == [operation.name]
    call("WaitOperation", operations_pb2.WaitOperationRequest(name=operation.name), operations_pb2.Operation)
    for method, request in (("CancelOperation", operations_pb2.CancelOperationRequest), ("DeleteOperation", operations_pb2.DeleteOperationRequest)):
        raw("/google.longrunning.Operations/" + method, request(name=operation.name).SerializeToString(), None)
    request = operations_pb2.GetOperationRequest(name=operation.name)
    assert code(call, "GetOperation", request, operations_pb2.Operation) == "NOT_FOUND"
    tables.delete_table(name=name)


def test_a_family_is_dropped_and_made_again_at_once(tables, data, table_id):
    name = create(tables, table_id, f={}).name
    with data.get_table("suite", table_id) as rows:
        rows.mutate_row(b"r", SetCell("f", b"q", b"x", timestamp_micros=0))
        again = {"id": "f", "create": aggregate("sum")}
        changed = tables.modify_column_families(request={"name": name, "modifications": [{"id": "f", "drop": True}, again]})
        assert "sum" in changed.column_families["f"].value_type.aggregate_type
        assert rows.read_row(b"r") is None
    tables.delete_table(name=name)


# What adds up.


def add(family, value, timestamp=0, qualifier=b"q"):
    value = value if isinstance(value, dict) else {"int_value": value}
    place = {"family_name": family, "column_qualifier": {"raw_value": qualifier}, "timestamp": {"raw_timestamp_micros": timestamp}}
    return {"add_to_cell": {**place, "input": value}}


def merge(family, state, timestamp=0):
    place = {"family_name": family, "column_qualifier": {"raw_value": b"q"}, "timestamp": {"raw_timestamp_micros": timestamp}}
    return {"merge_to_cell": {**place, **({} if state is None else {"input": {"raw_value": state}})}}


def state(number):
    return number.to_bytes(8, "big", signed=True)


@pytest.fixture
def sums(tables, table_id):
    made = create(tables, table_id, f={}, sum=aggregate("sum"), min=aggregate("min"), max=aggregate("max"))
    yield made.name
    tables.delete_table(name=made.name)


def test_the_types_of_families_are_read_back(tables, sums):
    families = tables.get_table(name=sums).column_families
    assert not families["f"].value_type
    for how in ("sum", "min", "max"):
        found = families[how].value_type.aggregate_type
        assert type(found).pb(found).WhichOneof("aggregator").rstrip("_") == how
        assert "big_endian_bytes" in found.input_type.int64_type.encoding and "int64_type" in found.state_type
    for wrong, error in [
        ({"id": "sum", "update": aggregate("max")}, exceptions.InvalidArgument),
        ({"id": "f", "update": aggregate("sum")}, exceptions.InvalidArgument),
        ({"id": "new", "create": {"value_type": INT64}}, exceptions.InvalidArgument),
        ({"id": "new", "create": {"value_type": {"aggregate_type": {"input_type": INT64}}}}, exceptions.InvalidArgument),
        ({"id": "new", "create": aggregate("hllpp_unique_count")}, exceptions.MethodNotImplemented),
    ]:
        with pytest.raises(error):
            tables.modify_column_families(request={"name": sums, "modifications": [wrong]})
    kept = aggregate("sum")
    kept.gc_rule = {"max_num_versions": 1}
    changed = tables.modify_column_families(request={"name": sums, "modifications": [{"id": "sum", "update": kept}]})
    assert changed.column_families["sum"].gc_rule.max_num_versions == 1 and "sum" in changed.column_families["sum"].value_type.aggregate_type


def test_what_is_added_adds_up(raw, sums):
    mutate(raw, sums, add("sum", 5), add("min", 5), add("max", 5))
    mutate(raw, sums, add("sum", -7), add("min", -7), add("max", -7), merge("sum", state(100)), merge("max", state(4)), merge("min", None))
    answers = raw(DATA + "ReadRows", v2.ReadRowsRequest(table_name=sums), v2.ReadRowsResponse, stream=True)
    found = {}
    for chunk in (chunk for answer in answers for chunk in answer.chunks):
        family = chunk.family_name if chunk.family_name is not None else family
        found[family] = int.from_bytes(chunk.value, "big", signed=True)
    assert found == {"sum": 98, "min": -7, "max": 5}
    mutate(raw, sums, {"delete_from_row": {}}, add("sum", 1, timestamp=1_000), add("sum", 2, timestamp=2_000))
    assert cells(raw, sums) == [(2_000, state(2)), (1_000, state(1))], "each timestamp has a sum of its own"
    mutate(raw, sums, {"delete_from_family": {"family_name": "sum"}}, add("sum", 2**63 - 1))
    mutate(raw, sums, add("sum", 1))
    assert cells(raw, sums) == [(0, state(-(2**63)))], "it wraps around"


def test_what_does_not_add_up_is_refused(raw, sums):
    for mutation in (
        add("f", 1),
        add("sum", 1, timestamp=1),
        add("sum", 1, timestamp=-1),
        add("sum", {"raw_value": b"x"}),
        add("sum", {}),
        merge("sum", b"7 bytes"),
        merge("f", state(1)),
        put(0, "sum"),
        {"add_to_cell": {"family_name": "sum"}},
    ):
        assert code(mutate, raw, sums, mutation) == "INVALID_ARGUMENT", mutation
    assert code(mutate, raw, sums, add("nope", 1)) == "NOT_FOUND"
    rule = {"family_name": "sum", "column_qualifier": b"q", "increment_amount": 1}
    request = v2.ReadModifyWriteRowRequest(table_name=sums, row_key=b"r", rules=[rule])
    assert code(raw, DATA + "ReadModifyWriteRow", request, v2.ReadModifyWriteRowResponse) == "INVALID_ARGUMENT"
    assert cells(raw, sums) == []


def test_sums_in_batches_and_decisions(raw, sums):
    entries = [{"row_key": b"r%d" % (n % 10), "mutations": [add("sum", n)]} for n in range(200)]
    entries.append({"row_key": b"r0", "mutations": [add("f", 1)]})
    [answer] = raw(DATA + "MutateRows", v2.MutateRowsRequest(table_name=sums, entries=entries), v2.MutateRowsResponse, stream=True)
    codes = {entry.index: entry.status.code for entry in answer.entries}
    assert codes.pop(200) == 3 and set(codes.values()) == {0}
    assert [cells(raw, sums, b"r%d" % row) for row in range(10)] == [[(0, state(sum(range(row, 200, 10))))] for row in range(10)]
    check = {"table_name": sums, "row_key": b"r0", "predicate_filter": {"value_regex_filter": b"nothing"}}
    branches = {"true_mutations": [add("sum", 1)], "false_mutations": [add("sum", -1_900), add("sum", 7)]}
    raw(DATA + "CheckAndMutateRow", v2.CheckAndMutateRowRequest(**check, **branches), v2.CheckAndMutateRowResponse)
    assert cells(raw, sums, b"r0") == [(0, state(7))]


@pytest.mark.timeout(240)
def test_sums_are_right_while_a_primary_is_killed(own, sums):
    """32 add to one cell, through two processes; what is not known to be added may have been, but once."""
    table_id = sums.rsplit("/", 1)[1]
    native = f"conformance.suite.{table_id}"
    added, doubtful, lock = [0], [0], threading.Lock()
    end = time.monotonic() + 6

    def adds(endpoint):
        with grpc.insecure_channel(endpoint) as channel:
            write = channel.unary_unary(
                DATA + "MutateRow", request_serializer=v2.MutateRowRequest.serialize, response_deserializer=v2.MutateRowResponse.deserialize
            )
            while time.monotonic() < end:
                request = v2.MutateRowRequest(table_name=sums, row_key=b"r", mutations=[add("sum", 1)])
                try:
                    write(request, timeout=30)
                    count = added
                except grpc.RpcError:
                    count = doubtful
                with lock:
                    count[0] += 1

    import json

    shown = json.loads(own.command("table", "show", native, "--json"))
    primary = shown["tablets"][0]["primary"]
    others = [node["grpc"] for node in own.nodes() if node["id"] != primary]
    threads = [threading.Thread(target=adds, args=(endpoint,)) for endpoint in [own.endpoint, others[0]] * 16]
    for thread in threads:
        thread.start()
    time.sleep(1.5)
    own.command("node", "restart", primary)
    for thread in threads:
        thread.join()
    with grpc.insecure_channel(own.endpoint) as channel:
        read = channel.unary_stream(
            DATA + "ReadRows", request_serializer=v2.ReadRowsRequest.serialize, response_deserializer=v2.ReadRowsResponse.deserialize
        )
        [found] = [chunk.value for answer in read(v2.ReadRowsRequest(table_name=sums), timeout=30) for chunk in answer.chunks]
    total = int.from_bytes(found, "big", signed=True)
    assert added[0] > 100 and added[0] <= total <= added[0] + doubtful[0], (added, doubtful, total)
