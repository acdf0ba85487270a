"""Authorized views: what of a table is seen and written through one."""

import grpc
import pytest
from google.api_core import exceptions
from google.cloud.bigtable.data import DeleteAllFromFamily, DeleteAllFromRow, ReadRowsQuery, RowMutationEntry, SetCell
from google.cloud.bigtable.data.exceptions import MutationsExceptionGroup
from google.cloud.bigtable.data.read_modify_write_rules import IncrementRule
from google.cloud.bigtable.data.row_filters import PassAllFilter
from google.cloud.bigtable_admin_v2 import BigtableTableAdminClient, types as admin
from google.cloud.bigtable_admin_v2.services.bigtable_table_admin.transports import BigtableTableAdminGrpcTransport
from google.cloud.bigtable_v2 import types as v2

from conftest import code

DATA = "/google.bigtable.v2.Bigtable/"
Shown = admin.AuthorizedView.ResponseView


def subset(*prefixes, **families):
    subsets = {name: {"qualifiers": names, "qualifier_prefixes": begin} for name, (names, begin) in families.items()}
    return {"subset_view": {"row_prefixes": prefixes, "family_subsets": subsets}}


# Rows that begin with a; of f the column q and those that begin with x, and all of g.
VIEW = subset(b"a", f=([b"q"], [b"x"]), g=([], [b""]))


def make(tables, table, view_id="v", view=VIEW):
    return tables.create_authorized_view(parent=table.name, authorized_view_id=view_id, authorized_view=view).result()


@pytest.fixture
def view(tables, data, table):
    make(tables, table)
    with data.get_authorized_view("suite", table.table_id, "v") as view:
        yield view


def test_a_view_is_made_listed_changed_and_deleted(tables, table):
    made = make(tables, table)
    assert made.name == table.name + "/authorizedViews/v" and made.etag and list(made.subset_view.row_prefixes) == [b"a"]
    with pytest.raises(exceptions.AlreadyExists):
        make(tables, table)
    assert tables.get_authorized_view(name=made.name) == made
    assert not tables.get_authorized_view(request={"name": made.name, "view": Shown.NAME_ONLY}).etag
    names = [made.name, *(make(tables, table, f"v{n}").name for n in range(4))]
    listed = list(tables.list_authorized_views(request={"parent": table.name, "page_size": 2}))
    assert [view.name for view in listed] == names and not listed[0].subset_view
    assert list(tables.list_authorized_views(request={"parent": table.name, "view": Shown.FULL}))[0] == made
    wish = {"name": made.name, **subset(b"b"), "deletion_protection": True}
    changed = tables.update_authorized_view(authorized_view=wish, update_mask={"paths": ["deletion_protection", "subset_view.row_prefixes"]}).result()
    assert changed.deletion_protection and list(changed.subset_view.row_prefixes) == [b"b"] and set(changed.subset_view.family_subsets) == {"f", "g"}
    assert changed.etag != made.etag
    with pytest.raises(exceptions.Aborted):
        tables.update_authorized_view(authorized_view={**wish, "etag": made.etag}, update_mask={"paths": ["deletion_protection"]})
    with pytest.raises(exceptions.InvalidArgument):
        tables.update_authorized_view(authorized_view=wish, update_mask={"paths": ["name"]})
    with pytest.raises(exceptions.FailedPrecondition):
        tables.delete_authorized_view(name=made.name)
    with pytest.raises(exceptions.FailedPrecondition):
        tables.delete_table(name=table.name)
    tables.update_authorized_view(authorized_view={"name": made.name}, update_mask={"paths": ["deletion_protection"]})
    with pytest.raises(exceptions.Aborted):
        tables.delete_authorized_view(request={"name": made.name, "etag": made.etag})
    tables.delete_authorized_view(name=made.name)
    for call in (tables.get_authorized_view, tables.delete_authorized_view):
        with pytest.raises(exceptions.NotFound):
            call(name=made.name)


@pytest.mark.parametrize("view_id, view", [("", VIEW), ("a b", VIEW), ("v" * 51, VIEW), ("v", {}), ("v", subset(b"k" * 5000)), ("v", subset(b"", **{"no family": ([], [])}))])
def test_a_view_that_makes_no_sense_is_refused(tables, table, view_id, view):
    with pytest.raises(exceptions.InvalidArgument):
        make(tables, table, view_id, view)


def test_only_what_a_view_shows_is_read(rows, view):
    for key in (b"a1", b"a2", b"b1"):
        rows.mutate_row(key, [SetCell(family, q, key, timestamp_micros=0) for family in ("f", "g") for q in (b"", b"q", b"qq", b"xy")])
    rows.mutate_row(b"a0", SetCell("f", b"hidden", b"x", timestamp_micros=0))
    columns = lambda row: [(cell.family, cell.qualifier) for cell in row]  # noqa: E731
    shown = [("f", b"q"), ("f", b"xy"), ("g", b""), ("g", b"q"), ("g", b"qq"), ("g", b"xy")]
    assert [(row.row_key, columns(row)) for row in view.read_rows(ReadRowsQuery())] == [(b"a1", shown), (b"a2", shown)]
    assert [row.row_key for row in view.read_rows(ReadRowsQuery(limit=1))] == [b"a1"]
    for key in (b"b1", b"a0", b"nobody"):
        assert view.read_row(key) is None and not view.row_exists(key)


def test_only_what_a_view_shows_is_counted(raw, table, rows, view):
    for key in (b"a0", b"a1", b"b1"):
        rows.mutate_row(key, [SetCell("f", b"hidden", b"x", timestamp_micros=0)])
    rows.mutate_row(b"a1", SetCell("f", b"q", b"x", timestamp_micros=0))
    request = v2.ReadRowsRequest(authorized_view_name=table.name + "/authorizedViews/v", request_stats_view=2)
    stats = raw(DATA + "ReadRows", request, v2.ReadRowsResponse, stream=True)[-1].request_stats.full_read_stats_view.read_iteration_stats
    assert (stats.rows_seen_count, stats.cells_seen_count, stats.rows_returned_count) == (1, 1, 1)


def test_nothing_is_written_outside_a_view(rows, view):
    view.mutate_row(b"a", [SetCell("f", b"xyz", b"1", timestamp_micros=0), SetCell("g", b"any", b"2", timestamp_micros=0)])
    rows.mutate_row(b"a", SetCell("f", b"hidden", b"x", timestamp_micros=0))
    outside = [
        (b"b", SetCell("f", b"q", b"x", timestamp_micros=0)),
        (b"a", SetCell("f", b"hidden", b"x", timestamp_micros=0)),
        (b"a", SetCell("nobody", b"q", b"x", timestamp_micros=0)),
        (b"a", DeleteAllFromFamily("f")),
        (b"a", DeleteAllFromRow()),
    ]
    for key, mutation in outside:
        with pytest.raises(exceptions.PermissionDenied):
            view.mutate_row(key, mutation)
        with pytest.raises(exceptions.PermissionDenied):
            view.check_and_mutate_row(key, PassAllFilter(True), true_case_mutations=mutation, false_case_mutations=mutation)
        with pytest.raises(MutationsExceptionGroup) as raised:
            view.bulk_mutate_rows([RowMutationEntry(key, mutation), RowMutationEntry(b"aa", SetCell("f", b"q", b"x", timestamp_micros=0))])
        [failed] = raised.value.exceptions
        assert isinstance(failed.__cause__, exceptions.PermissionDenied) and failed.index == 0
    for key, column in ((b"b", b"q"), (b"a", b"hidden")):
        with pytest.raises(exceptions.PermissionDenied):
            view.read_modify_write_row(key, IncrementRule("f", column, 1))
    view.mutate_row(b"a", DeleteAllFromFamily("g"))
    view.read_modify_write_row(b"a", IncrementRule("f", b"q", 1))
    assert [(cell.family, cell.qualifier) for cell in rows.read_row(b"a")] == [("f", b"hidden"), ("f", b"q"), ("f", b"xyz")]
    assert rows.read_row(b"b") is None


def test_what_is_not_seen_decides_nothing(rows, view):
    rows.mutate_row(b"a", SetCell("f", b"hidden", b"x", timestamp_micros=0))
    mutation = SetCell("f", b"q", b"1", timestamp_micros=0)
    assert not view.check_and_mutate_row(b"a", None, false_case_mutations=mutation)
    assert view.check_and_mutate_row(b"a", None, true_case_mutations=mutation)


def test_sampled_keys_are_those_of_the_view(raw, classic, tables, table_id):
    table = classic.table(table_id)
    table.create(column_families={"f": None}, initial_split_keys=[b"a5", b"c", b"m"])
    for view_id, prefixes in (("a", [b"a"]), ("none", []), ("all", [b""])):
        make(tables, table, view_id, subset(*prefixes, f=([], [b""])))
    sample = lambda view_id: [  # noqa: E731
        answer.row_key
        for answer in raw(
            DATA + "SampleRowKeys",
            v2.SampleRowKeysRequest(authorized_view_name=f"{table.name}/authorizedViews/{view_id}"),
            v2.SampleRowKeysResponse,
            stream=True,
        )
    ]
    assert (sample("a"), sample("none"), sample("all")) == ([b"a5", b""], [b""], [b"a5", b"c", b"m", b""])
    table.delete()


def test_requests_name_a_table_or_a_view(raw, table, view):
    name = table.name + "/authorizedViews/v"
    cell = {"set_cell": {"family_name": "f", "column_qualifier": b"q", "value": b"x"}}
    mutate = lambda **names: raw(DATA + "MutateRow", v2.MutateRowRequest(row_key=b"a", mutations=[cell], **names), v2.MutateRowResponse)  # noqa: E731
    mutate(authorized_view_name=name)
    assert code(mutate, table_name=table.name, authorized_view_name=name) == "INVALID_ARGUMENT"
    assert code(mutate, authorized_view_name=table.name) == "INVALID_ARGUMENT"
    assert code(mutate, authorized_view_name=name + "x") == "NOT_FOUND"
    assert code(mutate, authorized_view_name=table.name + "x/authorizedViews/v") == "NOT_FOUND"


def test_a_view_made_elsewhere_is_seen_at_once(own, tables, data, table, rows):
    rows.mutate_row(b"a", SetCell("f", b"q", b"x", timestamp_micros=0))
    with grpc.insecure_channel(own.nodes()[0]["grpc"]) as channel:
        elsewhere = BigtableTableAdminClient(transport=BigtableTableAdminGrpcTransport(channel=channel))
        for n in range(5):
            make(elsewhere, table, f"v{n}")
            with data.get_authorized_view("suite", table.table_id, f"v{n}") as view:
                assert view.read_row(b"a").row_key == b"a"


def test_views_go_with_their_table(tables, data, table):
    make(tables, table)
    tables.delete_table(name=table.name)
    tables.undelete_table(name=table.name)
    assert tables.get_authorized_view(name=table.name + "/authorizedViews/v").etag
    tables.delete_table(name=table.name)
    table.create(column_families={"f": None})
    assert not list(tables.list_authorized_views(parent=table.name)), "another table of that name has none"
