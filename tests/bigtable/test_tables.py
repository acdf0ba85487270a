"""Tables, families, rules and instances, by the classic client and by bare messages."""

import datetime
import time

import grpc
import pytest
from google.api_core import exceptions
from google.cloud.bigtable import column_family as gc
from google.cloud.bigtable.data import ReadRowsQuery, SetCell, row_filters
from google.cloud.bigtable_admin_v2 import BigtableTableAdminClient, types as admin
from google.cloud.bigtable_admin_v2.services.bigtable_table_admin.transports import BigtableTableAdminGrpcTransport
from google.cloud.bigtable_v2 import types as v2

from conftest import PARENT, code

def create(tables, table_id, **families):
    families = {name: admin.ColumnFamily(gc_rule=rule) for name, rule in families.items()}
    return tables.create_table(request={"parent": PARENT, "table_id": table_id, "table": {"column_families": families}})


def test_a_table_is_made_listed_and_deleted(tables, table_id):
    made = create(tables, table_id, f=None)
    assert made.name == f"{PARENT}/tables/{table_id}" and list(made.column_families) == ["f"]
    assert made.granularity == admin.Table.TimestampGranularity.MILLIS
    with pytest.raises(exceptions.AlreadyExists):
        create(tables, table_id, f=None)
    assert made.name in [table.name for table in tables.list_tables(parent=PARENT)]
    assert made.name not in [table.name for table in tables.list_tables(parent="projects/conformance/instances/other")]
    tables.delete_table(name=made.name)
    for call in (tables.get_table, tables.delete_table):
        with pytest.raises(exceptions.NotFound):
            call(name=made.name)


def test_the_same_id_in_two_instances_is_two_tables(tables, table_id):
    create(tables, table_id, f=None)
    other = tables.create_table(request={"parent": "projects/conformance/instances/other", "table_id": table_id, "table": {}})
    assert not other.column_families
    tables.delete_table(name=other.name)
    assert tables.get_table(name=f"{PARENT}/tables/{table_id}").column_families
    tables.delete_table(name=f"{PARENT}/tables/{table_id}")


def test_tables_come_in_pages(tables, table_id):
    names = [create(tables, f"{table_id}-{n}").name for n in range(5)]
    got, token = [], ""
    while True:
        request = admin.ListTablesRequest(parent=PARENT, page_size=2, page_token=token)
        page = tables.list_tables(request=request)._response
        assert len(page.tables) <= 2
        got += [table.name for table in page.tables]
        token = page.next_page_token
        if not token:
            break
    assert [name for name in got if name in names] == names and got == sorted(got)
    for name in names:
        tables.delete_table(name=name)


def test_views_show_what_they_say(tables, table_id):
    name = create(tables, table_id, f=None).name
    View = admin.Table.View
    see = lambda view: tables.get_table(request={"name": name, "view": view})  # noqa: E731
    assert not see(View.NAME_ONLY).column_families
    assert see(View.SCHEMA_VIEW).column_families and see(View.VIEW_UNSPECIFIED).column_families
    states = see(View.REPLICATION_VIEW)
    assert states.cluster_states and not states.column_families
    assert see(View.FULL).column_families and see(View.FULL).cluster_states
    tables.delete_table(name=name)


@pytest.mark.parametrize("table_id", ["", "-t", "a/b", "a b", "t" * 51, "é"])
def test_a_bad_table_id_is_refused(tables, table_id):
    with pytest.raises(exceptions.InvalidArgument):
        create(tables, table_id)


RULES = [
    gc.MaxVersionsGCRule(2),
    gc.MaxAgeGCRule(datetime.timedelta(seconds=90, milliseconds=1)),
    gc.GCRuleUnion([gc.MaxVersionsGCRule(1), gc.MaxAgeGCRule(datetime.timedelta(days=1))]),
    gc.GCRuleIntersection([gc.MaxVersionsGCRule(1), gc.GCRuleUnion([gc.MaxVersionsGCRule(3), gc.MaxAgeGCRule(datetime.timedelta(days=2))])]),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_a_rule_is_read_back_as_it_was_written(classic, table_id, rule):
    table = classic.table(table_id)
    table.create(column_families={"f": rule})
    assert table.list_column_families()["f"].gc_rule == rule
    table.delete()


@pytest.mark.parametrize("rule", [gc.MaxVersionsGCRule(0), gc.MaxVersionsGCRule(-1), gc.MaxAgeGCRule(datetime.timedelta(0))])
def test_a_bad_rule_is_refused(classic, table_id, rule):
    with pytest.raises(exceptions.InvalidArgument):
        classic.table(table_id).create(column_families={"f": rule})


def test_rules_are_honoured_by_reads(classic, data, table_id):
    table = classic.table(table_id)
    day = datetime.timedelta(days=1)
    both = gc.GCRuleIntersection([gc.MaxVersionsGCRule(1), gc.MaxAgeGCRule(day)])
    table.create(column_families={"two": gc.MaxVersionsGCRule(2), "young": gc.MaxAgeGCRule(day), "both": both, "all": None})
    now = int(time.time()) * 1_000_000
    ages = [0, 2, 3]
    with data.get_table("suite", table_id) as rows:
        for family in ("two", "young", "both", "all"):
            for age in ages:
                rows.mutate_row(b"r", SetCell(family, b"q", b"%d" % age, timestamp_micros=now - age * 86_400_000_000))
        row = rows.read_row(b"r")
        kept = {family: [int(c.value) for c in row if c.family == family] for family in ("two", "young", "both", "all")}
    assert kept == {"two": [0, 2], "young": [0], "both": [0], "all": ages}
    table.delete()


def modify(tables, name, *modifications):
    return tables.modify_column_families(request={"name": name, "modifications": list(modifications)})


def test_families_are_modified_all_or_none(tables, data, table_id):
    name = create(tables, table_id, f=None).name
    two = admin.ColumnFamily(gc_rule=admin.GcRule(max_num_versions=2))
    changed = modify(tables, name, {"id": "g", "create": two}, {"id": "f", "update": two})
    assert {k: v.gc_rule.max_num_versions for k, v in changed.column_families.items()} == {"f": 2, "g": 2}
    assert not modify(tables, name, {"id": "f", "update": admin.ColumnFamily()}).column_families["f"].gc_rule
    for wrong, error in [
        ({"id": "g", "create": {}}, exceptions.AlreadyExists),
        ({"id": "nope", "update": {}}, exceptions.NotFound),
        ({"id": "nope", "drop": True}, exceptions.NotFound),
        ({"id": "bad name", "create": {}}, exceptions.InvalidArgument),
        ({"id": "f"}, exceptions.InvalidArgument),
    ]:
        with pytest.raises(error):
            modify(tables, name, {"id": "new", "create": {}}, wrong)
        assert set(tables.get_table(name=name).column_families) == {"f", "g"}
    with data.get_table("suite", table_id) as rows:
        rows.mutate_row(b"r", [SetCell("f", b"q", b"x"), SetCell("g", b"q", b"x")])
        modify(tables, name, {"id": "g", "drop": True})
        modify(tables, name, {"id": "g", "create": {}})
        assert {cell.family for cell in rows.read_row(b"r")} == {"f"}, "a family that was dropped is empty"
    tables.delete_table(name=name)


def test_a_family_made_elsewhere_is_seen_at_once(own, tables, data, table_id):
    """What was written through one process is read through another, whatever that has heard of the table."""
    name = create(tables, table_id, f=None).name
    with data.get_table("suite", table_id) as rows, grpc.insecure_channel(own.nodes()[0]["grpc"]) as channel:
        elsewhere = BigtableTableAdminClient(transport=BigtableTableAdminGrpcTransport(channel=channel))
        write = channel.unary_unary(
            DATA + "MutateRow", request_serializer=v2.MutateRowRequest.serialize, response_deserializer=v2.MutateRowResponse.deserialize
        )
        for n in range(20):
            assert rows.read_row(b"r", row_filter=row_filters.FamilyNameRegexFilter(f"new{n}")) is None
            modify(elsewhere, name, {"id": f"new{n}", "create": {}})
            cell = {"set_cell": {"family_name": f"new{n}", "column_qualifier": b"q%d" % n, "value": b"x"}}
            write(v2.MutateRowRequest(table_name=name, row_key=b"r", mutations=[cell]), timeout=10)
            for row_filter in (row_filters.FamilyNameRegexFilter(f"new{n}"), row_filters.ColumnQualifierRegexFilter(b"q%d" % n)):
                assert [cell.family for cell in rows.read_row(b"r", row_filter=row_filter)] == [f"new{n}"]
    tables.delete_table(name=name)


def test_rows_are_dropped_by_prefix(tables, data, table_id):
    name = create(tables, table_id, f=None).name
    with data.get_table("suite", table_id) as rows:
        for key in (b"a", b"ab", b"ac", b"b", b"\xff\xff", b"\xff\xffz"):
            rows.mutate_row(key, SetCell("f", b"q", b"x", timestamp_micros=0))
        keys = lambda: [row.row_key for row in rows.read_rows(ReadRowsQuery())]  # noqa: E731
        tables.drop_row_range(request={"name": name, "row_key_prefix": b"a"})
        assert keys() == [b"b", b"\xff\xff", b"\xff\xffz"]
        tables.drop_row_range(request={"name": name, "row_key_prefix": b"\xff\xff"})
        assert keys() == [b"b"]
        tables.drop_row_range(request={"name": name, "row_key_prefix": b"nothing"})
        tables.drop_row_range(request={"name": name, "delete_all_data_from_table": True})
        assert keys() == []
        rows.mutate_row(b"b", SetCell("f", b"q", b"x", timestamp_micros=0))
        assert keys() == [b"b"], "what is written afterwards is there"
    for target in ({"row_key_prefix": b""}, {}):
        with pytest.raises(exceptions.InvalidArgument):
            tables.drop_row_range(request={"name": name, **target})
    tables.delete_table(name=name)


def test_a_consistency_token(tables, table_id):
    name = create(tables, table_id, f=None).name
    token = tables.generate_consistency_token(name=name).consistency_token
    assert tables.check_consistency(name=name, consistency_token=token).consistent
    with pytest.raises(exceptions.InvalidArgument):
        tables.check_consistency(name=name, consistency_token="made up")
    tables.delete_table(name=name)


def test_an_instance_is_there_as_soon_as_it_is_named(classic):
    assert classic.exists()
    clusters, failed = classic.list_clusters()
    assert [cluster.cluster_id for cluster in clusters] == ["diptych"] and not failed
    assert [profile.app_profile_id for profile in classic.list_app_profiles()] == ["default"]


DATA = "/google.bigtable.v2.Bigtable/"


def test_what_is_wrong_with_a_request_has_the_right_code(raw, table):
    name = table.name
    set_cell = {"set_cell": {"family_name": "f", "column_qualifier": b"q", "timestamp_micros": 0, "value": b"x"}}

    def mutate(**kwargs):
        return code(raw, DATA + "MutateRow", v2.MutateRowRequest(**kwargs), v2.MutateRowResponse)

    def read(**kwargs):
        return code(raw, DATA + "ReadRows", v2.ReadRowsRequest(**kwargs), v2.ReadRowsResponse, stream=True)

    assert mutate(table_name="nonsense", row_key=b"r", mutations=[set_cell]) == "INVALID_ARGUMENT"
    assert mutate(table_name=name + "x", row_key=b"r", mutations=[set_cell]) == "NOT_FOUND"
    assert mutate(table_name=name, row_key=b"", mutations=[set_cell]) == "INVALID_ARGUMENT"
    assert mutate(table_name=name, row_key=b"k" * 4097, mutations=[set_cell]) == "INVALID_ARGUMENT"
    assert mutate(table_name=name, row_key=b"r") == "INVALID_ARGUMENT"
    assert mutate(table_name=name, row_key=b"r", mutations=[{}]) == "INVALID_ARGUMENT"
    long = {"set_cell": {"family_name": "f", "column_qualifier": b"q" * 16385, "value": b"x"}}
    assert mutate(table_name=name, row_key=b"r", mutations=[long]) == "INVALID_ARGUMENT"
    many = [{"delete_from_row": {}}] * 100_001
    assert mutate(table_name=name, row_key=b"r", mutations=many) == "INVALID_ARGUMENT"
    assert read(table_name=name + "x") == "NOT_FOUND"
    assert read() == "INVALID_ARGUMENT"
    assert read(table_name=name, rows_limit=-1) == "INVALID_ARGUMENT"
    assert read(table_name=name, rows={"row_keys": [b""]}) == "INVALID_ARGUMENT"
    backwards = {"start_key_closed": b"b", "end_key_open": b"a"}
    assert read(table_name=name, rows={"row_ranges": [backwards]}) == "INVALID_ARGUMENT"
    check = v2.CheckAndMutateRowRequest(table_name=name, row_key=b"r")
    assert code(raw, DATA + "CheckAndMutateRow", check, v2.CheckAndMutateRowResponse) == "INVALID_ARGUMENT"
    change = v2.ReadModifyWriteRowRequest(table_name=name, row_key=b"r")
    assert code(raw, DATA + "ReadModifyWriteRow", change, v2.ReadModifyWriteRowResponse) == "INVALID_ARGUMENT"
    rule = {"family_name": "nope", "column_qualifier": b"q", "append_value": b"x"}
    change = v2.ReadModifyWriteRowRequest(table_name=name, row_key=b"r", rules=[rule])
    assert code(raw, DATA + "ReadModifyWriteRow", change, v2.ReadModifyWriteRowResponse) == "NOT_FOUND"
    entries = v2.MutateRowsRequest(table_name=name)
    assert code(raw, DATA + "MutateRows", entries, v2.MutateRowsResponse, stream=True) == "INVALID_ARGUMENT"
    assert code(raw, DATA + "PingAndWarm", v2.PingAndWarmRequest(name="x"), v2.PingAndWarmResponse) == "INVALID_ARGUMENT"


def test_sampled_keys_of_a_range(raw, classic, table_id):
    table = classic.table(table_id)
    table.create(column_families={"f": None}, initial_split_keys=[b"c", b"m"])

    def sampled(row_range):
        # The field is newer than the client's message.
        request = v2.SampleRowKeysRequest.serialize(v2.SampleRowKeysRequest(table_name=table.name))
        inner = v2.RowRange.serialize(v2.RowRange(**row_range))
        answers = raw(DATA + "SampleRowKeys", request + bytes([6 << 3 | 2, len(inner)]) + inner, v2.SampleRowKeysResponse, stream=True)
        return [answer.row_key for answer in answers]

    assert sampled({"start_key_closed": b"b", "end_key_open": b"k"}) == [b"c", b"k"]
    assert sampled({"start_key_closed": b"d"}) == [b"m", b""]
    assert sampled({"end_key_open": b"c"}) == [b"c"]
    table.delete()


def test_nothing_is_added_to_a_plain_family(raw, table):
    def add(family):
        cell = {"family_name": family, "column_qualifier": {"raw_value": b"q"}, "timestamp": {"raw_timestamp_micros": 0}, "input": {"int_value": 1}}
        request = v2.MutateRowRequest(table_name=table.name, row_key=b"r", mutations=[{"add_to_cell": cell}])
        return code(raw, DATA + "MutateRow", request, v2.MutateRowResponse)

    assert (add("f"), add("nope")) == ("INVALID_ARGUMENT", "NOT_FOUND")


def test_a_read_backwards_with_statistics(raw, table):
    entries = [
        {"row_key": b"row%03d" % n, "mutations": [{"set_cell": {"family_name": "f", "column_qualifier": b"q", "value": b"%d" % (n % 2)}}]}
        for n in range(100)
    ]
    request = v2.MutateRowsRequest(table_name=table.name, entries=entries)
    [answer] = raw(DATA + "MutateRows", request, v2.MutateRowsResponse, stream=True)
    assert sorted(entry.index for entry in answer.entries) == list(range(100))
    request = v2.ReadRowsRequest(
        table_name=table.name,
        reversed=True,
        rows={"row_ranges": [{"start_key_open": b"row010", "end_key_closed": b"row020"}, {"start_key_closed": b"row090"}]},
        filter={"value_regex_filter": b"1"},
        rows_limit=7,
        request_stats_view=v2.ReadRowsRequest.RequestStatsView.REQUEST_STATS_FULL,
    )
    answers = raw(DATA + "ReadRows", request, v2.ReadRowsResponse, stream=True)
    keys = [chunk.row_key for answer in answers for chunk in answer.chunks]
    assert keys == [b"row%03d" % n for n in (99, 97, 95, 93, 91, 19, 17)]
    stats = answers[-1].request_stats.full_read_stats_view.read_iteration_stats
    assert (stats.rows_returned_count, stats.cells_returned_count) == (7, 7) and stats.rows_seen_count >= 13


NOT_SERVED = [
    "bigtable.v2.Bigtable/PrepareQuery", "bigtable.v2.Bigtable/ExecuteQuery", "bigtable.v2.Bigtable/GetClientConfiguration",
    "bigtable.v2.Bigtable/OpenTable", "bigtable.v2.Bigtable/OpenAuthorizedView", "bigtable.v2.Bigtable/OpenMaterializedView",
    *("bigtable.admin.v2.BigtableTableAdmin/" + method for method in (
        "CreateTableFromSnapshot",         "SnapshotTable", "GetSnapshot", "ListSnapshots", "DeleteSnapshot",
        "CreateBackup", "GetBackup", "UpdateBackup", "DeleteBackup", "ListBackups", "RestoreTable", "CopyBackup", "GetIamPolicy",
        "SetIamPolicy", "TestIamPermissions", "CreateSchemaBundle", "UpdateSchemaBundle", "GetSchemaBundle", "ListSchemaBundles",
        "DeleteSchemaBundle")),
    *("bigtable.admin.v2.BigtableInstanceAdmin/" + method for method in (
        "CreateCluster",         "DeleteCluster", "GetIamPolicy", "SetIamPolicy",
        "TestIamPermissions", "ListHotTablets", "CreateLogicalView", "GetLogicalView", "ListLogicalViews", "UpdateLogicalView",
        "DeleteLogicalView", "CreateMaterializedView", "GetMaterializedView", "ListMaterializedViews", "UpdateMaterializedView",
        "DeleteMaterializedView", "CreateMemoryLayer")),
]  # fmt: skip


@pytest.mark.parametrize("method", NOT_SERVED)
def test_what_is_not_served_says_so(raw, method):
    assert code(raw, "/google." + method, b"", None) == "UNIMPLEMENTED"


@pytest.mark.parametrize("method", ["TableAdmin/CreateBackup", "TableAdmin/RestoreTable", "TableAdmin/SetIamPolicy", "InstanceAdmin/CreateCluster"])
def test_what_is_not_served_names_another_way(own, raw, method):
    with pytest.raises(grpc.RpcError) as raised:
        raw("/google.bigtable.admin.v2.Bigtable" + method, b"", None)
    assert "`diptych " in raised.value.details()


@pytest.mark.parametrize("method", ["ReadRows", "MutateRow", "MutateRows", "CheckAndMutateRow", "ReadModifyWriteRow", "SampleRowKeys", "PingAndWarm"])
def test_bytes_that_are_no_message_bring_nothing_down(raw, table, method):
    for garbage in (b"\xff" * 40, b"\x0a\xff\xff\xff\xff\x0f", b"\x1a\x02\x08"):
        assert code(raw, DATA + method, garbage, None) in ("INTERNAL", "INVALID_ARGUMENT", "NOT_FOUND")
    assert table.exists()
