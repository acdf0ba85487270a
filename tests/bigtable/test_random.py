"""Random rows, random mutations, random sets of rows and random filters, against a small model of what the documentation says.

The model is written apart from any server: it knows cells as tuples, and for each filter what comes out of it. Where the documentation
leaves something open (which of two copies of a cell comes first, when a limit takes one of them), the case is left out. What differs is
cut down to the smallest filter that still differs. BIGTABLE_SEED and BIGTABLE_CASES change what is tried.
"""

import itertools
import os
import random
import re

import pytest
from google.api_core import exceptions
from google.cloud.bigtable.data import (
    DeleteAllFromFamily,
    DeleteAllFromRow,
    DeleteRangeFromColumn,
    ReadRowsQuery,
    RowMutationEntry,
    RowRange,
    SetCell,
)
from google.cloud.bigtable.data.row_filters import RowFilter

SEED = int(os.environ.get("BIGTABLE_SEED", "1"))
CASES = int(os.environ.get("BIGTABLE_CASES", "400"))
FAMILIES = ["f", "g", "h-1"]
ATOMS = [b"a", b"b", b"\x00", b"\n", b"\xff", b"."]
MS = 1000


class Refused(Exception):
    """The documentation says that the server answers INVALID_ARGUMENT."""


class Open(Exception):
    """The documentation does not say what comes out."""


# The model of filters. A cell is (family, qualifier, microseconds, value, labels), and a row a list of them in order.


def place(cell):
    return cell[0], cell[1], -cell[2]


def cut(cells, at):
    """Cells before and after a place in their order, unless different copies of a cell lie on both sides."""
    if 0 < at < len(cells) and place(cells[at - 1]) == place(cells[at]):
        if len({cell for cell in cells if place(cell) == place(cells[at])}) > 1:
            raise Open
    return cells[:at], cells[at:]


def matches(pattern, subject):
    """RE2's syntax as far as these cases have it: whole, on bytes."""
    pattern = re.sub(rb"\\Q(.*?)\\E", lambda quoted: re.escape(quoted[1]), pattern, flags=re.S)
    pattern = pattern.replace(b"\\C", b"(?s:.)").replace(b"\\pL", b"[A-Za-z\\xaa\\xb5\\xba\\xc0-\\xd6\\xd8-\\xf6\\xf8-\\xff]")
    return re.fullmatch(pattern, subject) is not None


def within(bounds, name, subject):
    if f"start_{name}_open" in bounds:
        above = subject > bounds[f"start_{name}_open"]
    else:
        above = subject >= bounds.get(f"start_{name}_closed", b"")
    if f"end_{name}_closed" in bounds:
        return above and subject <= bounds[f"end_{name}_closed"]
    if f"end_{name}_open" in bounds:
        return above and subject < bounds[f"end_{name}_open"]
    return above


def labels_in(tree):
    [kind] = tree
    return kind == "apply_label_transformer" or any(labels_in(each) for each in parts(tree))


def parts(tree):
    [(kind, what)] = tree.items()
    if kind in ("chain", "interleave"):
        return what["filters"]
    return list(what.values()) if kind == "condition" else []


def check(tree, sinks=True):
    [(kind, what)] = tree.items()
    if kind == "sink" and not sinks:
        raise Refused("a sink in a condition")
    if kind in ("chain", "interleave") and len(what["filters"]) < 2:
        raise Refused(f"a {kind} of {len(what['filters'])}")
    if kind == "cells_per_row_offset_filter" and what < 0:
        raise Refused("an offset below 0")
    if kind in ("cells_per_row_limit_filter", "cells_per_column_limit_filter") and what < 1:
        raise Refused("a limit below 1")
    for part in parts(tree):
        check(part, sinks and kind != "condition")
    if kind == "chain" and sum(labels_in(part) for part in what["filters"]) > 1:
        raise Refused("several parts of a chain with labels")


def filtered(tree, key, cells, sunk):
    """What comes out of a filter; what meets a sink in it goes to `sunk`."""
    [(kind, what)] = tree.items()
    some = lambda keep: [cell for cell in cells if keep(cell)]  # noqa: E731
    if kind == "chain":
        for part in what["filters"]:
            cells = filtered(part, key, cells, sunk)
        return cells
    if kind == "interleave":
        return sorted(itertools.chain(*(filtered(part, key, cells, sunk) for part in what["filters"])), key=place)
    if kind == "condition":
        side = "true_filter" if filtered(what["predicate_filter"], key, cells, sunk) else "false_filter"
        return filtered(what[side], key, cells, sunk) if side in what else []
    if kind == "sink":
        sunk.extend(cells)
        return []
    if kind == "pass_all_filter":
        return cells
    if kind == "block_all_filter":
        return []
    if kind == "row_key_regex_filter":
        return cells if matches(what, key) else []
    if kind == "family_name_regex_filter":
        return some(lambda cell: matches(what.encode(), cell[0].encode()))
    if kind == "column_qualifier_regex_filter":
        return some(lambda cell: matches(what, cell[1]))
    if kind == "value_regex_filter":
        return some(lambda cell: matches(what, cell[3]))
    if kind == "column_range_filter":
        return some(lambda cell: cell[0] == what["family_name"] and within(what, "qualifier", cell[1]))
    if kind == "value_range_filter":
        return some(lambda cell: within(what, "value", cell[3]))
    if kind == "value_bitmask_filter":
        fits = lambda value: len(value) == len(what["mask"]) and all(v & m == m for v, m in zip(value, what["mask"]))  # noqa: E731
        return some(lambda cell: fits(cell[3]))
    if kind == "timestamp_range_filter":
        start, end = what.get("start_timestamp_micros", 0), what.get("end_timestamp_micros", 0)
        return some(lambda cell: start <= cell[2] and (end == 0 or cell[2] < end))
    if kind == "cells_per_row_offset_filter":
        return cut(cells, what)[1]
    if kind == "cells_per_row_limit_filter":
        return cut(cells, what)[0]
    if kind == "cells_per_column_limit_filter":
        columns = itertools.groupby(cells, key=lambda cell: cell[:2])
        return list(itertools.chain(*(cut(list(column), what)[0] for _, column in columns)))
    if kind == "strip_value_transformer":
        return [(*cell[:3], b"", cell[4]) for cell in cells]
    if kind == "apply_label_transformer":
        return [(*cell[:4], (what,)) for cell in cells]
    raise AssertionError(kind)


def comes_out(tree, key, cells):
    """The cells of a row after a filter; copies of a cell in an order of their own, since theirs is left open."""
    if tree is None:
        return cells
    sunk = []
    return sorted(filtered(tree, key, cells, sunk) + sunk, key=lambda cell: (place(cell), cell))


# Random things.


def word(rng, most=3):
    return b"".join(rng.choice(ATOMS) for _ in range(rng.randint(0, most)))


def pattern(rng, depth=2):
    if depth == 0 or rng.random() < 0.3:
        literal = rng.choice([b"a", b"b", b"\\x00", b"\x00", b"\\n", b"\n", b"\xff", b"\\xff", b"\\."])
        return rng.choice([literal, literal, b".", b"\\C", b"[ab]", b"[^a]", b"[\\x80-\\xff]", b"\\pL", b"(?i:A)", b"(?s:.)", b"\\Qa.\\E", b"\\w", b"\\s"])
    inner = pattern(rng, depth - 1)
    shape = rng.randrange(6)
    if shape == 0:
        return b"(" + inner + b"|" + pattern(rng, depth - 1) + b")"
    if shape == 1:
        return inner + b"|" + pattern(rng, depth - 1)
    if shape == 2:
        return b"(?:" + inner + b")" + rng.choice([b"*", b"+", b"?", b"*?", b"{1,2}"])
    return inner + pattern(rng, depth - 1)


def bounds(rng, name):
    """A range of bytes; never one that is empty from the outset, which servers may refuse."""
    low, high = sorted([word(rng, 2), word(rng, 2)])
    kinds = ["closed", "closed"] if low == high else [rng.choice(["open", "closed"]) for _ in range(2)]
    found = {f"start_{name}_{kinds[0]}": low, f"end_{name}_{kinds[1]}": high}
    for side in list(found):
        if rng.random() < 0.25:
            del found[side]
    return found


def random_tree(rng, depth, wrong=0.02):
    """A filter; now and then one that is refused."""
    if depth > 0 and rng.random() < 0.75:
        kind = rng.choice(["chain", "chain", "interleave", "interleave", "condition"])
        if kind == "condition":
            names = ["predicate_filter", *(name for name in ("true_filter", "false_filter") if rng.random() < 0.8)]
            return {kind: {name: random_tree(rng, depth - 1, wrong) for name in names}}
        count = 1 if rng.random() < wrong else rng.randint(2, 4)
        return {kind: {"filters": [random_tree(rng, depth - 1, wrong) for _ in range(count)]}}
    count = lambda: rng.randint(-1, 0) if rng.random() < wrong else rng.randint(1, 4)  # noqa: E731
    times = sorted(rng.randrange(7 * MS) for _ in range(2))
    return rng.choice(
        [
            lambda: {"pass_all_filter": True},
            lambda: {"block_all_filter": True},
            lambda: {"sink": True},
            lambda: {"row_key_regex_filter": pattern(rng, 3)},
            lambda: {"family_name_regex_filter": rng.choice(["f", "g", "h-1", "[fg]", "h.*", "f|h-1", "zz", ".*", "[^f]"])},
            lambda: {"column_qualifier_regex_filter": pattern(rng)},
            lambda: {"value_regex_filter": pattern(rng)},
            lambda: {"column_range_filter": {"family_name": rng.choice([*FAMILIES, "zz"]), **bounds(rng, "qualifier")}},
            lambda: {"value_range_filter": bounds(rng, "value")},
            lambda: {"value_bitmask_filter": {"mask": bytes(rng.choice([0, 1, 0x60, 0x61, 0x80]) for _ in range(rng.randint(1, 2)))}},
            lambda: {"timestamp_range_filter": {"start_timestamp_micros": times[0], "end_timestamp_micros": rng.choice([0, times[1] + 1])}},
            lambda: {"cells_per_row_offset_filter": rng.randint(0, 4) if rng.random() > wrong else -1},
            lambda: {"cells_per_row_limit_filter": count()},
            lambda: {"cells_per_column_limit_filter": count()},
            lambda: {"strip_value_transformer": True},
            lambda: {"apply_label_transformer": rng.choice(["x", "y-2"])},
        ]
    )()


def smaller(tree):
    """Filters with a part less."""
    yield from parts(tree)
    [(kind, what)] = tree.items()
    if kind in ("chain", "interleave"):
        inner = what["filters"]
        for at, part in enumerate(inner):
            if len(inner) > 2:
                yield {kind: {"filters": inner[:at] + inner[at + 1 :]}}
            for less in smaller(part):
                yield {kind: {"filters": inner[:at] + [less] + inner[at + 1 :]}}
    if kind == "condition":
        for name, part in what.items():
            if name != "predicate_filter":
                yield {kind: {other: each for other, each in what.items() if other != name}}
            for less in smaller(part):
                yield {kind: {**what, name: less}}


# The model of rows, and the server.


class Rows:
    """Rows as they are to be: {key: {(family, qualifier, microseconds): value}}."""

    def __init__(self):
        self.rows = {}

    def change(self, key, kind, *what):
        row = self.rows.get(key, {})
        if kind == "set":
            family, qualifier, micros, value = what
            row = {**row, (family, qualifier, micros): value}
        elif kind == "range":
            family, qualifier, start, end = what
            row = {c: v for c, v in row.items() if c[:2] != (family, qualifier) or not (start <= c[2] and (end == 0 or c[2] < end))}
        elif kind == "family":
            row = {c: v for c, v in row.items() if c[0] != what[0]}
        else:
            row = {}
        self.rows[key] = row
        if not row:
            del self.rows[key]

    def cells(self, key):
        return sorted(((*c, v, ()) for c, v in self.rows.get(key, {}).items()), key=place)


def random_change(rng):
    family, qualifier = rng.choice(FAMILIES), word(rng, 2)
    kind = rng.choices(["set", "range", "family", "row"], [12, 3, 1, 0.5])[0]
    if kind == "set":
        return kind, family, qualifier, rng.randrange(6) * MS, word(rng)
    if kind == "range":
        start = rng.randrange(5) * MS
        return kind, family, qualifier, start, rng.choice([0, start + rng.randint(1, 3) * MS])
    return (kind, family) if kind == "family" else (kind,)


def as_mutation(kind, *what):
    if kind == "set":
        family, qualifier, micros, value = what
        return SetCell(family, qualifier, value, timestamp_micros=micros)
    if kind == "range":
        family, qualifier, start, end = what
        return DeleteRangeFromColumn(family, qualifier, start_timestamp_micros=start or None, end_timestamp_micros=end or None)
    return DeleteAllFromFamily(*what) if kind == "family" else DeleteAllFromRow()


class Tree(RowFilter):
    """A filter as the message has it."""

    def __init__(self, tree):
        self.tree = tree

    def _to_dict(self):
        return self.tree


KEYS = sorted({a + b for a in ATOMS for b in (b"", *ATOMS)})


@pytest.fixture(scope="module")
def both(classic, data):
    """A table and its model, after some random changes."""
    table = classic.table("random")
    if table.exists():
        table.delete()
    table.create(column_families=dict.fromkeys(FAMILIES), initial_split_keys=[b"a\x00", b"b"])
    rng, model = random.Random(SEED), Rows()
    with data.get_table("suite", "random") as rows:
        for key in rng.sample(KEYS, 14):
            for _ in range(rng.randint(1, 6)):
                changes = [random_change(rng) for _ in range(rng.randint(1, 5))]
                if rng.random() < 0.5:
                    rows.mutate_row(key, [as_mutation(*change) for change in changes])
                else:
                    rows.bulk_mutate_rows([RowMutationEntry(key, [as_mutation(*change) for change in changes])])
                for change in changes:
                    model.change(key, *change)
        yield rows, model
    table.delete()


# What is seen of the table through the view `some`: rows, and of each family columns by name and by prefix.
SEEN_ROWS = [b"a", b"b", b"\xff", b"\x00"]
SEEN = {"f": ([b"a", b""], [b"b"]), "g": ([], [b""])}


def seen(key, cells):
    """A row as it is seen through the view, before any filter."""
    if not any(key.startswith(prefix) for prefix in SEEN_ROWS):
        return []

    def is_seen(cell):
        names, prefixes = SEEN.get(cell[0], ([], []))
        return cell[1] in names or any(cell[1].startswith(prefix) for prefix in prefixes)

    return [cell for cell in cells if is_seen(cell)]


def server_says(rows, query):
    try:
        found = rows.read_rows(query, operation_timeout=20)
    except exceptions.InvalidArgument:
        return "refused"
    got = []
    for row in found:
        cells = [(c.family, c.qualifier, c.timestamp_micros, c.value, tuple(c.labels)) for c in row]
        assert [place(cell) for cell in cells] == sorted(place(cell) for cell in cells), f"cells are not in order: {cells}"
        got.append((row.row_key, sorted(cells, key=lambda cell: (place(cell), cell))))
    return got


def model_says(model, tree, keys, limit=None):
    try:
        if tree is not None:
            check(tree)
    except Refused:
        return "refused"
    got = [(key, comes_out(tree, key, model.cells(key))) for key in keys]
    return [(key, cells) for key, cells in got if cells][:limit]


def difference(rows, model, tree):
    """What the server and the model say when they differ, of the first row in which they do."""
    expected = model_says(model, tree, sorted(model.rows))
    got = server_says(rows, ReadRowsQuery(row_filter=Tree(tree)))
    if got == expected:
        return None
    if "refused" in (got, expected):
        return f"model: {expected}\nserver: {got}"
    got, expected = dict(got), dict(expected)
    [key, *_] = [key for key in sorted(model.rows) if got.get(key) != expected.get(key)]
    return f"row {key}: {model.cells(key)}\nmodel: {expected.get(key)}\nserver: {got.get(key)}"


def test_random_mutations_leave_what_the_model_has(both):
    rows, model = both
    assert server_says(rows, ReadRowsQuery()) == model_says(model, None, sorted(model.rows))
    assert len(model.rows) > 5


def test_random_filters_give_what_the_model_gives(both):
    rows, model = both
    rng, found, tried = random.Random(SEED + 1), [], {"cells": 0, "refused": 0}
    while sum(tried.values()) < CASES and len(found) < 5:
        tree = random_tree(rng, rng.randint(0, 4))
        try:
            expected = model_says(model, tree, sorted(model.rows))
            wrong = difference(rows, model, tree)
        except Open:
            continue
        tried["refused" if expected == "refused" else "cells"] += 1
        if wrong is None:
            continue
        again = True
        while again:
            again = False
            for less in smaller(tree):
                try:
                    still = difference(rows, model, less)
                except Open:
                    continue
                if still is not None:
                    tree, wrong, again = less, still, True
                    break
        found.append(f"filter: {tree}\n{wrong}")
    assert not found, f"seed {SEED}:\n" + "\n\n".join(found)
    assert tried["refused"] >= CASES // 100 and tried["cells"] >= CASES // 2, tried


def test_random_filters_see_only_what_a_view_lets_through(both, data, tables):
    """A filter on a view gives what it gives on rows that have only what the view shows; and so do predicates."""
    rows, model = both
    table = tables.table_path("conformance", "suite", "random")
    subsets = {family: {"qualifiers": names, "qualifier_prefixes": prefixes} for family, (names, prefixes) in SEEN.items()}
    view = {"subset_view": {"row_prefixes": SEEN_ROWS, "family_subsets": subsets}}
    tables.create_authorized_view(parent=table, authorized_view_id="some", authorized_view=view)
    less = Rows()
    less.rows = {key: found for key, found in ((key, seen(key, model.cells(key))) for key in model.rows) if found}
    less.cells = lambda key: less.rows.get(key, [])
    assert 3 < len(less.rows) < len(model.rows)
    rng, tried = random.Random(SEED + 4), 0
    nothing = DeleteRangeFromColumn("g", b"a column that nobody has")
    with data.get_authorized_view("suite", "random", "some") as some:
        while tried < CASES // 2:
            tree = random_tree(rng, rng.randint(0, 4))
            try:
                expected = model_says(less, tree, sorted(less.rows))
            except Open:
                continue
            tried += 1
            assert server_says(some, ReadRowsQuery(row_filter=Tree(tree))) == expected, f"seed {SEED}: {tree}"
            key = rng.choice(sorted(less.rows))
            try:
                check(tree)
                decided = bool(comes_out(tree, key, less.cells(key)))
                got = some.check_and_mutate_row(key, Tree(tree), true_case_mutations=nothing, false_case_mutations=nothing)
            except Refused:
                continue
            assert got == decided, f"seed {SEED}: {tree} on {key}"
        limited = server_says(some, ReadRowsQuery(limit=2))
        assert limited == model_says(less, None, sorted(less.rows), 2)
    assert server_says(rows, ReadRowsQuery()) == model_says(model, None, sorted(model.rows))


def test_random_sets_of_rows_give_what_the_model_gives(both):
    rows, model = both
    rng = random.Random(SEED + 2)
    for _ in range(CASES // 4):
        keys, ranges, wanted = rng.sample(KEYS, rng.randint(0, 3)), [], set()
        wanted.update(keys)
        for _ in range(rng.randint(0 if keys else 1, 3)):
            low, high = sorted(rng.sample(KEYS, 2))
            start, end = rng.random() < 0.5, rng.random() < 0.5
            low, high = (None if rng.random() < 0.1 else low), (None if rng.random() < 0.1 else high)
            ranges.append(RowRange(low, high, start_is_inclusive=start if low else None, end_is_inclusive=end if high else None))
            above = lambda key: low is None or key > low or (start and key == low)  # noqa: E731
            below = lambda key: high is None or key < high or (end and key == high)  # noqa: E731
            wanted.update(key for key in model.rows if above(key) and below(key))
        tree = rng.choice([None, {"cells_per_row_limit_filter": 1}, {"family_name_regex_filter": "g"}, {"value_regex_filter": b"a.*"}])
        limit = rng.choice([None, 1, 2, 5])
        query = ReadRowsQuery(row_keys=keys, row_ranges=ranges, limit=limit, row_filter=tree and Tree(tree))
        assert server_says(rows, query) == model_says(model, tree, sorted(wanted), limit), f"seed {SEED}: {query} {tree}"


def test_random_predicates_decide_as_the_model_does(both):
    rows, model = both
    rng = random.Random(SEED + 3)
    nothing = DeleteRangeFromColumn("f", b"a column that nobody has")
    for _ in range(CASES // 4):
        tree, key = random_tree(rng, rng.randint(0, 3)), rng.choice(KEYS)
        try:
            check(tree)
            expected = bool(comes_out(tree, key, model.cells(key)))
        except Refused:
            expected = "refused"
        except Open:
            continue
        try:
            got = rows.check_and_mutate_row(key, Tree(tree), true_case_mutations=nothing, false_case_mutations=nothing)
        except exceptions.InvalidArgument:
            got = "refused"
        assert got == expected, f"seed {SEED}: {tree} on {key}: {model.cells(key)}"
    assert server_says(rows, ReadRowsQuery()) == model_says(model, None, sorted(model.rows))
