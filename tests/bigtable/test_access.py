"""Access control: each family for those who may see it, and nothing about the others by whatever filter."""

import json
import time

import grpc
import pytest
from google.cloud.bigtable_admin_v2 import types as admin
from google.cloud.bigtable_v2 import types

import conftest

DATA = "/google.bigtable.v2.Bigtable/"
TABLES = "/google.bigtable.admin.v2.BigtableTableAdmin/"
NAME = "projects/p/instances/i/tables/t"
PARENT = "projects/p/instances/i"


class House:
    """A cluster with access control, and calls in the name of who is in it."""

    def __init__(self, cluster, folder):
        self.cluster, self.folder = cluster, folder
        self.channel = grpc.insecure_channel(cluster.endpoint)

    def add(self, name, *grants):
        made = json.loads(self.root("acl", "add", name, "--json"))
        (self.folder / name).write_text(made["token"])
        for right, scope in grants:
            self.root("acl", "grant", name, right, scope)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                self.call(name, TABLES + "ListTables", admin.ListTablesRequest(parent=PARENT), admin.ListTablesResponse)
                # Who it is, but perhaps not yet what it may: each process looks once a second.
                time.sleep(2.5)
                return
            except grpc.RpcError as error:
                # It does not know them yet, or, just started, anybody.
                assert error.code() in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNAVAILABLE), error
                time.sleep(0.1)
        raise AssertionError(f"nobody knows {name}")

    def root(self, *words):
        return self.cluster.command(*words, "--token-file", str(self.folder / "root"))

    def call(self, who, method, request, answer, stream=False):
        token = (self.folder / who).read_text().strip() if who else None
        metadata = [("authorization", f"Bearer {token}")] if token else []
        make = self.channel.unary_stream if stream else self.channel.unary_unary
        stub = make(method, request_serializer=type(request).serialize, response_deserializer=answer.deserialize)
        found = stub(request, metadata=metadata, timeout=30)
        return list(found) if stream else found

    def read(self, who, **filters):
        request = types.ReadRowsRequest(table_name=NAME, **filters)
        answers = self.call(who, DATA + "ReadRows", request, types.ReadRowsResponse, stream=True)
        family, cells = None, []
        for chunk in (chunk for answer in answers for chunk in answer.chunks):
            family = chunk.family_name or family
            cells.append((family, bytes(chunk.value)))
        return cells

    def refused(self, who, method, request, answer, stream=False, code=grpc.StatusCode.PERMISSION_DENIED):
        with pytest.raises(grpc.RpcError) as raised:
            self.call(who, method, request, answer, stream)
        assert raised.value.code() == code, raised.value


def put(family, value=b"1"):
    cell = types.Mutation.SetCell(family_name=family, column_qualifier=b"q", timestamp_micros=1000, value=value)
    return types.Mutation(set_cell=cell)


@pytest.fixture(scope="module")
def house(tmp_path_factory, own):
    folder = tmp_path_factory.mktemp("tokens")
    token = own.command("acl", "token").strip()
    (folder / "root").write_text(token)
    with conftest.started("--access", str(folder / "root")) as cluster:
        house = House(cluster, folder)
        families = {name: admin.ColumnFamily() for name in ("public", "secret")}
        request = admin.CreateTableRequest(parent=PARENT, table_id="t", table=admin.Table(column_families=families))
        house.call("root", TABLES + "CreateTable", request, admin.Table)
        for row, family in ((b"a", "public"), (b"a", "secret"), (b"b", "secret")):
            request = types.MutateRowRequest(table_name=NAME, row_key=row, mutations=[put(family, family.encode())])
            house.call("root", DATA + "MutateRow", request, types.MutateRowResponse)
        house.add("ada", ("read", "p.i.t:public"))
        house.add("bob", ("read", "p.i.t:public"), ("write", "p.i.t:public"))
        yield house


def test_nobody_comes_in_without_a_token(house):
    request = types.ReadRowsRequest(table_name=NAME)
    house.refused("", DATA + "ReadRows", request, types.ReadRowsResponse, True, grpc.StatusCode.UNAUTHENTICATED)


def test_a_read_shows_what_may_be_seen(house):
    assert house.read("ada") == [("public", b"public")]
    assert sorted(house.read("root")) == [("public", b"public"), ("secret", b"secret"), ("secret", b"secret")]


FILTERS = {
    "a family by its name": types.RowFilter(family_name_regex_filter="secret"),
    "families by a pattern": types.RowFilter(family_name_regex_filter="s.*"),
    "a value": types.RowFilter(value_regex_filter=b"secret"),
    "a row that has only secrets": types.RowFilter(row_key_regex_filter=b"b"),
    "a sink": types.RowFilter(
        chain=types.RowFilter.Chain(
            filters=[
                types.RowFilter(
                    interleave=types.RowFilter.Interleave(
                        filters=[
                            types.RowFilter(
                                chain=types.RowFilter.Chain(
                                    filters=[types.RowFilter(value_regex_filter=b"secret"), types.RowFilter(sink=True)]
                                )
                            ),
                            types.RowFilter(block_all_filter=True),
                        ]
                    )
                ),
                types.RowFilter(block_all_filter=True),
            ]
        )
    ),
    "a condition": types.RowFilter(
        condition=types.RowFilter.Condition(
            predicate_filter=types.RowFilter(value_regex_filter=b"secret"),
            true_filter=types.RowFilter(pass_all_filter=True),
            false_filter=types.RowFilter(block_all_filter=True),
        )
    ),
}


@pytest.mark.parametrize("name", FILTERS)
def test_no_filter_tells_of_what_may_not_be_seen(house, name):
    assert house.read("root", filter=FILTERS[name]) != []
    try:
        assert house.read("ada", filter=FILTERS[name]) == []
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.PERMISSION_DENIED


def test_a_condition_that_may_not_be_seen_does_not_hold(house):
    def check(who):
        request = types.CheckAndMutateRowRequest(
            table_name=NAME,
            row_key=b"a",
            predicate_filter=types.RowFilter(value_regex_filter=b"secret"),
            true_mutations=[put("public", b"told")],
        )
        return house.call(who, DATA + "CheckAndMutateRow", request, types.CheckAndMutateRowResponse).predicate_matched

    assert check("bob") is False
    assert house.read("bob") == [("public", b"public")]


def test_writes_need_their_right(house):
    row = types.MutateRowRequest(table_name=NAME, row_key=b"w", mutations=[put("public")])
    house.refused("ada", DATA + "MutateRow", row, types.MutateRowResponse)
    house.call("bob", DATA + "MutateRow", row, types.MutateRowResponse)
    only = types.RowFilter(row_key_regex_filter=b"w")
    assert house.read("bob", filter=only) == [("public", b"1")]
    row = types.MutateRowRequest(table_name=NAME, row_key=b"w", mutations=[put("public"), put("secret")])
    house.refused("bob", DATA + "MutateRow", row, types.MutateRowResponse)
    everything = types.Mutation(delete_from_row=types.Mutation.DeleteFromRow())
    row = types.MutateRowRequest(table_name=NAME, row_key=b"a", mutations=[everything])
    house.refused("bob", DATA + "MutateRow", row, types.MutateRowResponse)
    rule = types.ReadModifyWriteRule(family_name="secret", column_qualifier=b"q", append_value=b"x")
    request = types.ReadModifyWriteRowRequest(table_name=NAME, row_key=b"a", rules=[rule])
    house.refused("bob", DATA + "ReadModifyWriteRow", request, types.ReadModifyWriteRowResponse)
    entries = [
        types.MutateRowsRequest.Entry(row_key=key, mutations=[put(family)])
        for key, family in ((b"m1", "public"), (b"m2", "secret"))
    ]
    request = types.MutateRowsRequest(table_name=NAME, entries=entries)
    answers = house.call("bob", DATA + "MutateRows", request, types.MutateRowsResponse, stream=True)
    codes = {entry.index: entry.status.code for answer in answers for entry in answer.entries}
    assert codes == {0: 0, 1: grpc.StatusCode.PERMISSION_DENIED.value[0]}
    time_range = types.TimestampRange(start_timestamp_micros=0, end_timestamp_micros=9000)
    old = types.Mutation.DeleteFromColumn(family_name="public", column_qualifier=b"q", time_range=time_range)
    row = types.MutateRowRequest(table_name=NAME, row_key=b"w", mutations=[types.Mutation(delete_from_column=old)])
    house.call("bob", DATA + "MutateRow", row, types.MutateRowResponse)
    assert house.read("bob", filter=only) == []


def test_tables_need_theirs(house):
    name = admin.DeleteTableRequest(name=NAME)
    house.refused("bob", TABLES + "DeleteTable", name, types.PingAndWarmResponse)
    change = admin.ModifyColumnFamiliesRequest.Modification(id="more", create=admin.ColumnFamily())
    request = admin.ModifyColumnFamiliesRequest(name=NAME, modifications=[change])
    house.refused("bob", TABLES + "ModifyColumnFamilies", request, admin.Table)
    families = {"f": admin.ColumnFamily()}
    request = admin.CreateTableRequest(parent=PARENT, table_id="mine", table=admin.Table(column_families=families))
    house.refused("bob", TABLES + "CreateTable", request, admin.Table)
    house.add("carl", ("admin", "p.i.mine*"))
    house.call("carl", TABLES + "CreateTable", request, admin.Table)
    listed = house.call("carl", TABLES + "ListTables", admin.ListTablesRequest(parent=PARENT), admin.ListTablesResponse)
    assert [table.name for table in listed.tables] == [f"{PARENT}/tables/mine"]
    drop = admin.DropRowRangeRequest(name=NAME, row_key_prefix=b"a")
    house.refused("bob", TABLES + "DropRowRange", drop, types.PingAndWarmResponse)


def test_samples_are_for_those_who_know_the_table(house):
    request = types.SampleRowKeysRequest(table_name=NAME)
    assert house.call("ada", DATA + "SampleRowKeys", request, types.SampleRowKeysResponse, stream=True)
    house.add("dave")
    house.refused(
        "dave", DATA + "SampleRowKeys", request, types.SampleRowKeysResponse, True, grpc.StatusCode.NOT_FOUND
    )
