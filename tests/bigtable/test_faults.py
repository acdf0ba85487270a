"""The clients go on while nodes are killed and suspended and while tablets split: their own repetitions see to that."""

import json
import os
import signal
import threading
import time

import pytest
from conftest import wait_until
from google.cloud.bigtable.data import ReadRowsQuery, RowMutationEntry, SetCell
from google.cloud.bigtable.data.read_modify_write_rules import IncrementRule


@pytest.fixture
def load(data, classic, table_id):
    """Writers and readers on a table of two tablets, until the test ends; nothing that was acknowledged may be missing."""
    table = classic.table(table_id)
    name = f"conformance.suite.{table_id}"
    table.create(column_families={"f": None}, initial_split_keys=[b"m"])
    written, errors, over = set(), [], threading.Event()

    def write(letter):
        with data.get_table("suite", table_id) as rows:
            n = 0
            while not over.is_set():
                batch = [letter + b"%06d" % (n + at) for at in range(20)]
                try:
                    rows.bulk_mutate_rows([RowMutationEntry(key, SetCell("f", b"q", key, timestamp_micros=0)) for key in batch])
                    written.update(batch)
                    n += 20
                except Exception as error:  # noqa: BLE001
                    errors.append(error)

    def read():
        with data.get_table("suite", table_id) as rows:
            while not over.is_set():
                before = set(written)
                try:
                    found = {row.row_key for row in rows.read_rows(ReadRowsQuery())}
                except Exception as error:  # noqa: BLE001
                    errors.append(error)
                    continue
                if not before <= found:
                    errors.append(AssertionError(f"{len(before - found)} rows are missing"))

    threads = [threading.Thread(target=write, args=(letter,)) for letter in (b"a", b"z")] + [threading.Thread(target=read)]
    [thread.start() for thread in threads]
    wait_until(lambda: len(written) > 200)
    yield name, written
    over.set()
    [thread.join(60) for thread in threads]
    assert errors == []
    with data.get_table("suite", table_id) as rows:
        assert {row.row_key for row in rows.read_rows(ReadRowsQuery())} >= written
    table.delete()


def goes_on(written, more=200):
    """Writes are answered in both tablets."""
    count = lambda: [sum(key.startswith(letter) for key in set(written)) for letter in (b"a", b"z")]  # noqa: E731
    before = count()
    wait_until(lambda: all(now >= then + more for now, then in zip(count(), before)), 40)


def primary(own, name):
    """The node that orders the writes of the table's first tablet."""
    tablet = json.loads(own.command("table", "show", name, "--json"))["tablets"][0]
    [node] = [node for node in own.nodes() if node["id"] == tablet["primary"]]
    return tablet["tablet"], node


@pytest.mark.timeout(180)
def test_a_primary_is_killed_and_comes_back(own, load):
    name, written = load
    _, node = primary(own, name)
    own.command("node", "kill", node["id"])
    goes_on(written)
    own.command("node", "restart", node["id"])
    goes_on(written)


@pytest.mark.timeout(180)
def test_a_primary_is_suspended_and_resumed(own, load):
    name, written = load
    _, node = primary(own, name)
    os.kill(node["pid"], signal.SIGSTOP)
    try:
        goes_on(written)
    finally:
        os.kill(node["pid"], signal.SIGCONT)
    goes_on(written)


@pytest.mark.timeout(180)
def test_a_primary_is_drained(own, load):
    name, written = load
    _, node = primary(own, name)
    own.command("node", "drain", node["id"])
    goes_on(written)
    own.command("node", "drain", node["id"], "--undo")
    goes_on(written)


@pytest.mark.timeout(180)
def test_tablets_split_underneath(own, load):
    name, written = load
    tablet, _ = primary(own, name)
    own.command("tablet", "split", tablet, "--at", "a000100")
    goes_on(written)


@pytest.mark.timeout(180)
def test_increments_add_up_while_a_node_is_suspended(own, data, classic, table_id):
    table = classic.table(table_id)
    table.create(column_families={"f": None})
    _, node = primary(own, f"conformance.suite.{table_id}")
    with data.get_table("suite", table_id) as rows:
        answered = 0
        for n in range(60):
            if n == 20:
                os.kill(node["pid"], signal.SIGSTOP)
            if n == 40:
                os.kill(node["pid"], signal.SIGCONT)
            try:
                rows.read_modify_write_row(b"r", IncrementRule("f", b"n", 1), operation_timeout=20)
                answered += 1
            except Exception:  # noqa: BLE001  (whether it was carried out is not known then)
                pass
            time.sleep(0.01)
        total = int.from_bytes(rows.read_row(b"r").cells[0].value, "big")
        assert answered <= total <= 60
    table.delete()
