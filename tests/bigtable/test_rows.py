"""Reading and writing rows with the Python clients: the data client, and the classic one."""

import datetime

import pytest
from google.api_core import exceptions
from google.cloud.bigtable import row_filters as classic_filters
from google.cloud.bigtable.data import (
    DeleteAllFromFamily,
    DeleteAllFromRow,
    DeleteRangeFromColumn,
    ReadRowsQuery,
    RowMutationEntry,
    RowRange,
    SetCell,
)
from google.cloud.bigtable.data import row_filters as f
from google.cloud.bigtable.data.read_modify_write_rules import AppendValueRule, IncrementRule
from google.cloud.bigtable.data.exceptions import MutationsExceptionGroup

US = 1_000


def keys(found):
    return [row.row_key for row in found]


def cells(row):
    return [(cell.family, cell.qualifier, cell.timestamp_micros, cell.value) for cell in row or []]


def fill(rows, count):
    entries = [RowMutationEntry(b"row%04d" % n, SetCell("f", b"n", b"%d" % n, timestamp_micros=0)) for n in range(count)]
    rows.bulk_mutate_rows(entries)


def test_a_cell_is_read_as_it_was_written(rows):
    rows.mutate_row(b"\x00\xff", SetCell("f", b"", b"\x00\x01", timestamp_micros=5 * US))
    assert cells(rows.read_row(b"\x00\xff")) == [("f", b"", 5 * US, b"\x00\x01")]
    assert rows.read_row(b"other") is None
    assert rows.row_exists(b"\x00\xff") and not rows.row_exists(b"\x00")


def test_the_same_version_is_replaced_and_others_stay(rows):
    for value, timestamp in [(b"a", 1), (b"b", 3), (b"c", 2), (b"d", 3)]:
        rows.mutate_row(b"r", SetCell("f", b"q", value, timestamp_micros=timestamp * US))
    assert [(t // US, v) for _, _, t, v in cells(rows.read_row(b"r"))] == [(3, b"d"), (2, b"c"), (1, b"a")]


def test_families_qualifiers_and_versions_are_in_order(rows):
    mutations = [SetCell(fam, q, b"x", timestamp_micros=t * US) for t in (1, 2) for q in ("b", "a", "") for fam in ("g", "f")]
    rows.mutate_row(b"r", mutations)
    got = [(fam, q, t // US) for fam, q, t, _ in cells(rows.read_row(b"r"))]
    assert got == [(fam, q, t) for fam in ("f", "g") for q in (b"", b"a", b"b") for t in (2, 1)]


def test_server_time_is_of_whole_milliseconds(rows):
    rows.mutate_row(b"r", SetCell("f", b"q", b"x", timestamp_micros=-1))
    [(_, _, timestamp, _)] = cells(rows.read_row(b"r"))
    now = datetime.datetime.now(datetime.timezone.utc).timestamp() * 1e6
    assert timestamp % US == 0 and abs(now - timestamp) < 60e6


@pytest.mark.parametrize("timestamp", [1, 999, 1001, -2, -1000])
def test_other_timestamps_are_refused(rows, timestamp):
    from google.cloud.bigtable_v2.types import data as t

    class Raw(SetCell):
        def _to_dict(self):
            cell = {"family_name": "f", "column_qualifier": b"q", "timestamp_micros": timestamp, "value": b"x"}
            return {"set_cell": cell}

    with pytest.raises(exceptions.InvalidArgument):
        rows.mutate_row(b"r", Raw("f", b"q", b"x", timestamp_micros=0))
    assert rows.read_row(b"r") is None and t


def test_mutations_apply_in_order(rows):
    rows.mutate_row(b"r", [SetCell("f", b"q", b"1", timestamp_micros=0), DeleteAllFromRow(), SetCell("f", b"p", b"2", timestamp_micros=0)])
    assert cells(rows.read_row(b"r")) == [("f", b"p", 0, b"2")]
    rows.mutate_row(b"r", [DeleteAllFromFamily("f"), SetCell("g", b"p", b"3", timestamp_micros=0)])
    assert cells(rows.read_row(b"r")) == [("g", b"p", 0, b"3")]
    rows.mutate_row(b"r", DeleteAllFromRow())
    assert rows.read_row(b"r") is None


def test_a_time_range_of_a_column_is_deleted(rows):
    for timestamp in range(6):
        rows.mutate_row(b"r", [SetCell("f", q, b"x", timestamp_micros=timestamp * US) for q in ("q", "other")])
    rows.mutate_row(b"r", DeleteRangeFromColumn("f", b"q", start_timestamp_micros=2 * US, end_timestamp_micros=4 * US))
    assert [t // US for _, q, t, _ in cells(rows.read_row(b"r")) if q == b"q"] == [5, 4, 1, 0]
    rows.mutate_row(b"r", DeleteRangeFromColumn("f", b"q", start_timestamp_micros=4 * US))
    assert [t // US for _, q, t, _ in cells(rows.read_row(b"r")) if q == b"q"] == [1, 0]
    rows.mutate_row(b"r", DeleteRangeFromColumn("f", b"q"))
    assert {q for _, q, _, _ in cells(rows.read_row(b"r"))} == {b"other"}
    # In one mutation: what was put before is deleted, what is put after stays.
    mutations = [
        SetCell("f", b"q", b"before", timestamp_micros=3 * US),
        DeleteRangeFromColumn("f", b"q", start_timestamp_micros=US),
        SetCell("f", b"q", b"after", timestamp_micros=2 * US),
    ]
    rows.mutate_row(b"r", mutations)
    assert [v for _, q, _, v in cells(rows.read_row(b"r")) if q == b"q"] == [b"after"]


@pytest.mark.parametrize("mutation", [SetCell("nope", b"q", b"x", timestamp_micros=0), DeleteAllFromFamily("nope"), DeleteRangeFromColumn("nope", b"q")])
def test_an_unknown_family_is_not_found_and_nothing_happens(rows, mutation):
    with pytest.raises(exceptions.NotFound, match="column family not found"):
        rows.mutate_row(b"r", [SetCell("f", b"q", b"x", timestamp_micros=0), mutation])
    assert rows.read_row(b"r") is None


def test_entries_fail_on_their_own(rows):
    entries = [
        RowMutationEntry(b"a", SetCell("f", b"q", b"1", timestamp_micros=0)),
        RowMutationEntry(b"b", SetCell("nope", b"q", b"2", timestamp_micros=0)),
        RowMutationEntry(b"c", [DeleteRangeFromColumn("f", b"q", start_timestamp_micros=0, end_timestamp_micros=US)]),
        RowMutationEntry(b"a", SetCell("f", b"q", b"4", timestamp_micros=US)),
    ]
    with pytest.raises(MutationsExceptionGroup) as raised:
        rows.bulk_mutate_rows(entries, operation_timeout=20)
    assert [failed.index for failed in raised.value.exceptions] == [1]
    assert keys(rows.read_rows(ReadRowsQuery())) == [b"a"]


def test_ten_thousand_rows_in_pages_ranges_and_backwards(rows):
    fill(rows, 10_000)
    everything = keys(rows.read_rows(ReadRowsQuery()))
    assert everything == [b"row%04d" % n for n in range(10_000)]
    assert keys(rows.read_rows(ReadRowsQuery(limit=17))) == everything[:17]
    between = ReadRowsQuery(row_ranges=RowRange(b"row0100", b"row0200", start_is_inclusive=False, end_is_inclusive=True))
    assert keys(rows.read_rows(between)) == everything[101:201]
    several = ReadRowsQuery(
        row_keys=[b"row5000", b"row0003", b"absent", b"row0150"],
        row_ranges=[RowRange(b"row0140", b"row0160"), RowRange(b"row0150", b"row0170"), RowRange(b"row9990", None)],
    )
    expected = [everything[3], *everything[140:170], everything[5000], *everything[9990:]]
    assert keys(rows.read_rows(several)) == expected
    many = [b"row%04d" % n for n in range(0, 10_000, 3)]
    assert keys(rows.read_rows(ReadRowsQuery(row_keys=list(reversed(many))))) == many


def test_a_scan_backwards(table):
    from google.cloud.bigtable_v2 import BigtableClient  # noqa: F401  (the data client has no reversed query)

    batch = []
    for n in range(500):
        row = table.direct_row(b"row%04d" % n)
        row.set_cell("f", b"n", b"x")
        batch.append(row)
    table.mutate_rows(batch)
    assert [row.row_key for row in table.read_rows()] == [b"row%04d" % n for n in range(500)]


def test_check_and_mutate_takes_one_side(rows):
    rows.mutate_row(b"r", SetCell("f", b"q", b"yes", timestamp_micros=0))
    put = lambda q: SetCell("g", q, b"x", timestamp_micros=0)  # noqa: E731
    matched = rows.check_and_mutate_row(b"r", f.ValueRegexFilter(b"yes"), true_case_mutations=put(b"t"), false_case_mutations=put(b"f"))
    assert matched is True
    matched = rows.check_and_mutate_row(b"r", f.ValueRegexFilter(b"no"), true_case_mutations=put(b"t2"), false_case_mutations=put(b"f2"))
    assert matched is False
    assert rows.check_and_mutate_row(b"r", None, true_case_mutations=put(b"any")) is True
    assert rows.check_and_mutate_row(b"nobody", None, true_case_mutations=put(b"any")) is False
    assert {q for fam, q, _, _ in cells(rows.read_row(b"r")) if fam == "g"} == {b"t", b"f2", b"any"}
    assert rows.read_row(b"nobody") is None


@pytest.mark.parametrize(
    "predicate, matches",
    [
        (f.StripValueTransformerFilter(True), True),
        (f.ApplyLabelFilter("x"), True),
        (f.CellsRowOffsetFilter(1), False),
        (f.BlockAllFilter(True), False),
        (f.PassAllFilter(True), True),
        (f.RowFilterChain([f.FamilyNameRegexFilter("f"), f.ValueRegexFilter(b"v.*")]), True),
    ],
)
def test_a_predicate_is_any_filter(rows, predicate, matches):
    rows.mutate_row(b"r", SetCell("f", b"q", b"value", timestamp_micros=0))
    got = rows.check_and_mutate_row(b"r", predicate, true_case_mutations=SetCell("g", b"t", b"x"), false_case_mutations=SetCell("g", b"f", b"x"))
    assert got is matches


def test_read_modify_write(rows):
    one = rows.read_modify_write_row(b"r", [IncrementRule("f", b"n", 5), AppendValueRule("f", b"s", b"ab"), IncrementRule("f", b"n", -7), AppendValueRule("g", b"s", b"")])
    assert [(fam, q, v) for fam, q, _, v in cells(one)] == [("f", b"n", (-2).to_bytes(8, "big", signed=True)), ("f", b"s", b"ab"), ("g", b"s", b"")]
    two = rows.read_modify_write_row(b"r", AppendValueRule("f", b"s", b"cd"))
    assert [v for _, _, _, v in cells(two)] == [b"abcd"]
    # A time to come is written over in place.
    future = 4_000_000_000_000_000
    rows.mutate_row(b"r", SetCell("f", b"late", (41).to_bytes(8, "big"), timestamp_micros=future))
    three = rows.read_modify_write_row(b"r", IncrementRule("f", b"late", 1))
    assert cells(three) == [("f", b"late", future, (42).to_bytes(8, "big"))]
    # A sum wraps around.
    rows.mutate_row(b"r", SetCell("f", b"max", (2**63 - 1).to_bytes(8, "big"), timestamp_micros=0))
    assert rows.read_modify_write_row(b"r", IncrementRule("f", b"max", 1)).cells[0].value == (2**63).to_bytes(8, "big")


@pytest.mark.parametrize("value", [b"", b"1234567", b"123456789"])
def test_only_numbers_are_incremented(rows, value):
    rows.mutate_row(b"r", SetCell("f", b"q", value, timestamp_micros=0))
    with pytest.raises(exceptions.FailedPrecondition):
        rows.read_modify_write_row(b"r", [AppendValueRule("f", b"other", b"x"), IncrementRule("f", b"q", 1)])
    assert cells(rows.read_row(b"r")) == [("f", b"q", 0, value)]


def test_racing_writers_lose_nothing(rows):
    import concurrent.futures as futures

    with futures.ThreadPoolExecutor(12) as pool:
        first = lambda n: rows.check_and_mutate_row(b"won", None, false_case_mutations=SetCell("f", b"by", b"%d" % n, timestamp_micros=0))  # noqa: E731
        assert sorted(pool.map(first, range(12))) == [False] + [True] * 11
        add = lambda _: rows.read_modify_write_row(b"sum", IncrementRule("f", b"n", 1))  # noqa: E731
        list(pool.map(add, range(200)))
    newest = rows.read_row(b"sum", row_filter=f.CellsColumnLimitFilter(1))
    assert [v for _, _, _, v in cells(newest)] == [(200).to_bytes(8, "big")]


def test_large_cells_and_rows(rows):
    rows.mutate_row(b"a", SetCell("f", b"q", b"small", timestamp_micros=0))
    rows.mutate_row(b"b", SetCell("f", b"ten", b"x" * 10_000_000, timestamp_micros=0))
    rows.mutate_row(b"c", [SetCell("f", b"%02d" % n, bytes([n]) * 1_000_000, timestamp_micros=0) for n in range(24)])
    rows.mutate_row(b"d", [SetCell("g", b"%04d" % n, b"v", timestamp_micros=0) for n in range(5_000)])
    rows.mutate_row(b"e", SetCell("f", b"q", b"y" * 3_700_000, timestamp_micros=0))
    found = {row.row_key: row for row in rows.read_rows(ReadRowsQuery())}
    assert list(found) == [b"a", b"b", b"c", b"d", b"e"]
    assert [len(v) for _, _, _, v in cells(found[b"b"])] == [10_000_000]
    assert [v for _, _, _, v in cells(found[b"c"])] == [bytes([n]) * 1_000_000 for n in range(24)]
    assert len(found[b"d"].cells) == 5_000


def test_sampled_keys_cut_a_sharded_read(classic, data, table_id):
    table = classic.table(table_id)
    table.create(column_families={"f": None}, initial_split_keys=[b"row0300", b"row0600", b"", b"row0300"])
    with data.get_table("suite", table_id) as rows:
        samples = rows.sample_row_keys()
        assert [key for key, _ in samples] == [b"row0300", b"row0600", b""]
        fill(rows, 900)
        shards = ReadRowsQuery().shard(rows.sample_row_keys())
        assert len(shards) == 3
        assert sorted(keys(rows.read_rows_sharded(shards))) == [b"row%04d" % n for n in range(900)]
    table.delete()


def test_the_classic_client_reads_what_it_wrote(table):
    row = table.direct_row(b"r")
    row.set_cell("f", b"q", 7)
    row.set_cell("f", "é", "text")
    assert row.commit().code == 0
    got = table.read_row(b"r")
    assert got.cell_value("f", b"q") == (7).to_bytes(8, "big") and got.cell_value("f", "é".encode()) == b"text"
    conditional = table.conditional_row(b"r", classic_filters.ValueRegexFilter(b"text"))
    conditional.set_cell("g", b"t", b"1", state=True)
    conditional.delete_cell("f", b"q", state=True)
    assert conditional.commit() is True
    assert table.read_row(b"r").to_dict().keys() == {"f:é".encode(), b"g:t"}
    append = table.append_row(b"r")
    append.append_cell_value("g", b"t", b"2")
    append.increment_cell_value("g", b"n", 3)
    assert append.commit()["g"][b"t"][0][0] == b"12"


@pytest.mark.asyncio
async def test_the_async_client(cluster, table):
    from google.cloud.bigtable.data import BigtableDataClientAsync

    async with BigtableDataClientAsync(project="conformance") as client:
        async with client.get_table("suite", table.table_id) as rows:
            entries = [RowMutationEntry(b"row%03d" % n, SetCell("f", b"n", b"x" * 1_000)) for n in range(300)]
            await rows.bulk_mutate_rows(entries)
            assert len(await rows.read_rows(ReadRowsQuery())) == 300
            await rows.mutate_row(b"big", SetCell("f", b"q", b"z" * 6_000_000))
            big = await rows.read_row(b"big")
            assert len(big.cells[0].value) == 6_000_000
            streamed = 0
            async for _ in await rows.read_rows_stream(ReadRowsQuery(limit=50)):
                streamed += 1
            assert streamed == 50


def test_the_native_client_sees_the_same_rows(own, table, rows):
    name = f"conformance.suite.{table.table_id}"
    rows.mutate_row(b"r", SetCell("f", b"q", b"from bigtable", timestamp_micros=0))
    assert "from bigtable" in own.command("get", name, "r")
    own.command("put", name, "r", "g:native=hello")
    assert [v for fam, _, _, v in cells(rows.read_row(b"r")) if fam == "g"] == [b"hello"]
