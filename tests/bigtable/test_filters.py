"""Filters, as the data client builds them, on one table whose rows have cells of all kinds."""

import pytest
from google.api_core import exceptions
from google.cloud.bigtable.data import ReadRowsQuery, RowMutationEntry, SetCell
from google.cloud.bigtable.data import row_filters as f

US = 1_000
# row, family, qualifier, milliseconds, value
CELLS = [
    (b"a\x00b", "f", b"q", 1, b"zero"),
    (b"alpha", "f", b"a", 3, b"new"),
    (b"alpha", "f", b"a", 2, b"old"),
    (b"alpha", "f", b"b", 3, b""),
    (b"alpha", "g", b"a", 1, b"other"),
    (b"beta", "f", b"a", 9, b"\xff\xfe"),
    (b"beta", "g", b"b-c", 9, b"line\nbreak"),
    (b"gamma", "g", "é".encode(), 5, "ü".encode()),
]


@pytest.fixture(scope="module")
def rows(classic, data):
    table = classic.table("filters")
    if table.exists():
        table.delete()
    table.create(column_families={"f": None, "g": None})
    with data.get_table("suite", "filters") as rows:
        rows.bulk_mutate_rows([RowMutationEntry(r, SetCell(fam, q, v, timestamp_micros=t * US)) for r, fam, q, t, v in CELLS])
        yield rows
    table.delete()


def got(rows, row_filter):
    found = rows.read_rows(ReadRowsQuery(row_filter=row_filter))
    return [(row.row_key, c.family, c.qualifier, c.timestamp_micros // US, c.value, *c.labels) for row in found for c in row]


def picked(*places):
    return [CELLS[place] for place in places]


SIMPLE = [
    (f.PassAllFilter(True), range(8)),
    (f.BlockAllFilter(True), []),
    (f.RowKeyRegexFilter(b"al.*"), [1, 2, 3, 4]),
    (f.RowKeyRegexFilter(b"al"), []),
    (f.RowKeyRegexFilter(b"a\\x00b"), [0]),
    (f.RowKeyRegexFilter(b"alpha|beta"), [1, 2, 3, 4, 5, 6]),
    (f.FamilyNameRegexFilter("f"), [0, 1, 2, 3, 5]),
    (f.FamilyNameRegexFilter("[^f]"), [4, 6, 7]),
    (f.ColumnQualifierRegexFilter(b"a"), [1, 2, 4, 5]),
    (f.ColumnQualifierRegexFilter(b"b.*"), [3, 6]),
    (f.ColumnQualifierRegexFilter("é".encode()), [7]),
    (f.ColumnQualifierRegexFilter(b"\\C\\C"), [7]),
    (f.ValueRegexFilter(b""), [3]),
    (f.ValueRegexFilter(b"o.*"), [2, 4]),
    (f.ValueRegexFilter(b"line.break"), []),
    (f.ValueRegexFilter(b"(?s)line.break"), [6]),
    (f.ValueRegexFilter(b"\\xff[\\x80-\\xff]"), [5]),
    (f.LiteralValueFilter(b"line\nbreak"), [6]),
    (f.LiteralValueFilter(b"\xff\xfe"), [5]),
    (f.ValueRangeFilter(b"new", b"old", inclusive_end=True), [1, 2]),
    (f.ValueRangeFilter(b"new", None, inclusive_start=False), [0, 2, 4, 5, 7]),
    (f.ColumnRangeFilter("f", b"a", b"b", inclusive_end=False), [1, 2, 5]),
    (f.ColumnRangeFilter("f", b"a", None, inclusive_start=False), [0, 3]),
    (f.ColumnRangeFilter("g"), [4, 6, 7]),
    (f.CellsRowOffsetFilter(1), [2, 3, 4, 6]),
    (f.CellsRowLimitFilter(1), [0, 1, 5, 7]),
    (f.CellsColumnLimitFilter(1), [0, 1, 3, 4, 5, 6, 7]),
    (f.TimestampRangeFilter(), range(8)),
]


@pytest.mark.parametrize("row_filter, places", SIMPLE, ids=lambda it: str(it)[:60])
def test_a_single_filter(rows, row_filter, places):
    assert got(rows, row_filter) == picked(*places)


def chain(*filters):
    return f.RowFilterChain(list(filters))


def union(*filters):
    return f.RowFilterUnion(list(filters))


FAMILY, QUALIFIER, VALUE = f.FamilyNameRegexFilter, f.ColumnQualifierRegexFilter, f.ValueRegexFilter
COMPOSED = [
    (chain(FAMILY("f"), QUALIFIER(b"a")), [1, 2, 5]),
    (chain(FAMILY("f"), f.CellsColumnLimitFilter(1), VALUE(b"old")), []),
    (chain(VALUE(b"old"), f.CellsColumnLimitFilter(1)), [2]),
    (chain(f.CellsRowLimitFilter(1), FAMILY("g")), [7]),
    (chain(FAMILY("g"), f.CellsRowLimitFilter(1)), [4, 6, 7]),
    (chain(f.CellsRowOffsetFilter(1), f.CellsRowLimitFilter(1)), [2, 6]),
    (union(FAMILY("f"), QUALIFIER(b"a")), [0, 1, 1, 2, 2, 3, 4, 5, 5]),
    (chain(union(FAMILY("f"), QUALIFIER(b"a")), f.CellsColumnLimitFilter(2)), [0, 1, 1, 3, 4, 5, 5]),
    (f.ConditionalRowFilter(VALUE(b"old"), FAMILY("g"), f.CellsRowLimitFilter(1)), [0, 4, 5, 7]),
    (f.ConditionalRowFilter(VALUE(b"old"), f.PassAllFilter(True)), [1, 2, 3, 4]),
    (f.ConditionalRowFilter(chain(VALUE(b"old"), f.StripValueTransformerFilter(True)), None, f.PassAllFilter(True)), [0, 5, 6, 7]),
    (chain(f.RowSampleFilter(0.999999), f.PassAllFilter(True)), range(8)),
    (f.RowSampleFilter(0.000001), []),
]


@pytest.mark.parametrize("row_filter, places", COMPOSED, ids=lambda it: str(it)[:60])
def test_filters_of_filters(rows, row_filter, places):
    assert got(rows, row_filter) == picked(*places)


def test_values_are_stripped_and_cells_labelled(rows):
    assert got(rows, f.StripValueTransformerFilter(True)) == [(*cell[:4], b"") for cell in CELLS]
    assert got(rows, chain(f.RowKeyRegexFilter(b"gamma"), f.ApplyLabelFilter("hot-1"))) == [(*CELLS[7], "hot-1")]
    both = union(chain(f.RowKeyRegexFilter(b"gamma"), f.ApplyLabelFilter("x")), f.RowKeyRegexFilter(b"gamma"))
    assert sorted(got(rows, both), key=len) == [CELLS[7], (*CELLS[7], "x")]


def test_a_sink_goes_past_what_is_around_it(rows):
    row_filter = chain(
        f.RowKeyRegexFilter(b"alpha"),
        FAMILY("f"),
        union(f.PassAllFilter(True), chain(f.ApplyLabelFilter("foo"), f.SinkFilter(True))),
        QUALIFIER(b"b"),
    )
    assert sorted(got(rows, row_filter)) == sorted([CELLS[3], *((*CELLS[place], "foo") for place in (1, 2, 3))])


def test_a_limit_counts_rows_that_come_through(rows):
    found = rows.read_rows(ReadRowsQuery(limit=2, row_filter=FAMILY("g")))
    assert [row.row_key for row in found] == [b"alpha", b"beta"]


def test_a_family_that_is_not_there_has_no_cells(rows):
    assert got(rows, FAMILY("nope")) == []


BAD = [
    VALUE(b"(a"),
    VALUE(b"\\1"),
    VALUE(b"(?=a)"),
    f.RowFilterChain([f.PassAllFilter(True)]),
    f.RowFilterUnion([f.PassAllFilter(True)]),
    f.CellsRowLimitFilter(0),
    f.CellsRowLimitFilter(-1),
    f.CellsColumnLimitFilter(0),
    f.CellsRowOffsetFilter(-1),
    f.ApplyLabelFilter("NOT A LABEL"),
    f.PassAllFilter(False),
    f.BlockAllFilter(False),
    f.SinkFilter(False),
    f.RowSampleFilter(1.5),
    f.ConditionalRowFilter(f.SinkFilter(True), f.PassAllFilter(True)),
    chain(f.ApplyLabelFilter("a"), f.ApplyLabelFilter("b")),
    f.ValueRangeFilter(b"b", b"a"),
]


@pytest.mark.parametrize("row_filter", BAD, ids=lambda it: str(it)[:60])
def test_a_bad_filter_is_refused(rows, row_filter):
    with pytest.raises(exceptions.InvalidArgument):
        rows.read_rows(ReadRowsQuery(row_filter=row_filter), operation_timeout=10)


def test_a_chain_has_one_part_with_labels_in_it(rows):
    label = f.ApplyLabelFilter
    assert got(rows, union(label("a"), label("b")))
    with pytest.raises(exceptions.InvalidArgument):
        rows.read_rows(ReadRowsQuery(row_filter=chain(label("a"), union(label("b"), f.PassAllFilter(True)))), operation_timeout=10)


def test_filters_lie_twenty_deep_and_no_deeper(rows):
    def nested(depth):
        inner = f.PassAllFilter(True)
        for _ in range(depth - 1):
            inner = chain(inner, f.PassAllFilter(True))
        return inner

    assert len(got(rows, nested(15))) == len(CELLS)
    with pytest.raises(exceptions.InvalidArgument):
        rows.read_rows(ReadRowsQuery(row_filter=nested(30)), operation_timeout=10)
