"""Change streams, by Google's messages: what happened comes once and in order, while tablets split and merge and primaries die."""

import contextlib
import datetime
import json
import os
import signal
import time

import grpc
import pytest
from conftest import PARENT, code, wait_until
from google.cloud import bigtable_admin_v2 as admin
from google.cloud import bigtable_v2 as v2

DATA = "/google.bigtable.v2.Bigtable/"
DAY = datetime.timedelta(days=1)


@pytest.fixture
def stream(tables, table_id, cluster):
    """A table of one tablet with the families f and g and a change stream."""
    families = {"f": admin.ColumnFamily(), "g": admin.ColumnFamily()}
    table = admin.Table(column_families=families, change_stream_config={"retention_period": DAY})
    made = tables.create_table(request={"parent": PARENT, "table_id": f"s{table_id}", "table": table})
    assert made.change_stream_config.retention_period == DAY
    yield Stream(made.name, cluster)
    with contextlib.suppress(Exception):
        tables.delete_table(name=made.name)


class Stream:
    def __init__(self, name, cluster):
        self.name, self.cluster = name, cluster
        self.native = f"conformance.suite.{name.rsplit('/', 1)[1]}"

    def channel(self):
        return grpc.insecure_channel(self.cluster.endpoint, [("grpc.max_receive_message_length", -1)])

    def write(self, row, *mutations):
        request = v2.MutateRowRequest(table_name=self.name, row_key=row, mutations=mutations)
        with self.channel() as channel:
            stub = channel.unary_unary(
                DATA + "MutateRow",
                request_serializer=v2.MutateRowRequest.serialize,
                response_deserializer=v2.MutateRowResponse.deserialize,
            )
            for _ in range(50):
                try:
                    return stub(request, timeout=30)
                except grpc.RpcError as error:
                    if error.code() != grpc.StatusCode.UNAVAILABLE:
                        raise
                    time.sleep(0.2)
        raise AssertionError("not written")

    def put(self, row, value):
        cell = v2.Mutation.SetCell(family_name="f", column_qualifier=b"q", timestamp_micros=-1, value=value)
        self.write(row, v2.Mutation(set_cell=cell))

    def partitions(self):
        request = v2.GenerateInitialChangeStreamPartitionsRequest(table_name=self.name)
        with self.channel() as channel:
            stub = channel.unary_stream(
                DATA + "GenerateInitialChangeStreamPartitions",
                request_serializer=v2.GenerateInitialChangeStreamPartitionsRequest.serialize,
                response_deserializer=v2.GenerateInitialChangeStreamPartitionsResponse.deserialize,
            )
            return [answer.partition for answer in stub(request, timeout=30)]

    def read(self, timeout=30, **request):
        """Records as they come."""
        request.setdefault("heartbeat_duration", datetime.timedelta(seconds=1))
        with self.channel() as channel:
            stub = channel.unary_stream(
                DATA + "ReadChangeStream",
                request_serializer=v2.ReadChangeStreamRequest.serialize,
                response_deserializer=v2.ReadChangeStreamResponse.deserialize,
            )
            yield from stub(v2.ReadChangeStreamRequest(table_name=self.name, **request), timeout=timeout)

    def tablets(self):
        return json.loads(self.cluster.command("tablet", "list", self.native, "--json"))["tablets"]


def ago(**lately):
    return datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(**lately)


def until_silent(records):
    """The changes until the first heartbeat, and that."""
    found = []
    for record in records:
        if record.heartbeat:
            return found, record.heartbeat
        assert not record.close_stream, record
        found.append(record.data_change)
    raise AssertionError("it ended")


def value_of(change):
    return b"".join(chunk.mutation.set_cell.value for chunk in change.chunks)


def test_what_happens_comes_as_it_happened(stream):
    begun = ago(seconds=1)
    stream.put(b"a", b"1")
    column = v2.Mutation.DeleteFromColumn(family_name="f", column_qualifier=b"q")
    cell = v2.Mutation.SetCell(family_name="g", column_qualifier=b"x", timestamp_micros=5000, value=b"2")
    family = v2.Mutation.DeleteFromFamily(family_name="f")
    stream.write(
        b"a", v2.Mutation(delete_from_column=column), v2.Mutation(set_cell=cell), v2.Mutation(delete_from_family=family)
    )
    stream.write(b"a", v2.Mutation(delete_from_row={}))
    [partition] = stream.partitions()
    found, heartbeat = until_silent(stream.read(partition=partition, start_time=begun))
    assert [change.row_key for change in found] == [b"a"] * 3
    assert all(change.type_ == v2.ReadChangeStreamResponse.DataChange.Type.USER for change in found)
    assert all(change.done and change.token and change.source_cluster_id for change in found)
    times = [change.commit_timestamp for change in found]
    assert times == sorted(times) and times[0] >= begun
    mutations = [[chunk.mutation for chunk in change.chunks] for change in found]
    assert mutations[0][0].set_cell.value == b"1" and mutations[0][0].set_cell.timestamp_micros > 0
    assert [m._pb.WhichOneof("mutation") for m in mutations[1]] == ["delete_from_column", "set_cell", "delete_from_family"]
    assert mutations[1][1].set_cell.timestamp_micros == 5000
    assert sorted(m.delete_from_family.family_name for m in mutations[2]) == ["f", "g"], "a row is its families"
    # Whoever goes on in the middle gets the rest; with the heartbeat's token, nothing of it.
    token = {"partition": partition, "token": found[0].token}
    rest, _ = until_silent(stream.read(partition=partition, continuation_tokens={"tokens": [token]}))
    assert [change.token for change in rest] == [change.token for change in found[1:]]
    stream.put(b"b", b"3")
    tokens = {"tokens": [heartbeat.continuation_token]}
    [change], _ = until_silent(stream.read(partition=partition, continuation_tokens=tokens))
    assert (change.row_key, value_of(change)) == (b"b", b"3")


def test_a_stream_from_now_has_no_past_and_ends_when_it_shall(stream):
    stream.put(b"a", b"before")
    reading = stream.read(partition=stream.partitions()[0])
    assert next(reading).heartbeat
    stream.put(b"a", b"after")
    first = next(record.data_change for record in reading if record.data_change)
    assert value_of(first) == b"after"
    records = list(stream.read(partition=stream.partitions()[0], start_time=ago(seconds=60), end_time=ago(seconds=-1)))
    changes = [record.data_change for record in records if record.data_change]
    assert [value_of(change) for change in changes] == [b"before", b"after"]
    close = records[-1].close_stream
    assert "close_stream" in records[-1] and close.status.code == 0 and not close.continuation_tokens and not close.new_partitions


def test_a_large_value_comes_in_pieces(stream):
    value = os.urandom(3 << 20)
    stream.put(b"a", value)
    records, _ = until_silent(stream.read(start_time=ago(seconds=60)))
    assert b"".join(value_of(part) for part in records) == value
    kinds = v2.ReadChangeStreamResponse.DataChange.Type
    assert [part.type_ for part in records] == [kinds.USER] + [kinds.CONTINUATION] * (len(records) - 1)
    assert [part.done for part in records] == [False] * (len(records) - 1) + [True] and len(records) > 2
    infos = [chunk.chunk_info for part in records for chunk in part.chunks]
    assert all(info.chunked_value_size == len(value) for info in infos) and infos[-1].last_chunk


def follow(stream, begun, done, seconds=60):
    """Reads all partitions as Beam does: new ones when a stream is closed, until `done` says so."""
    waiting, found, end = [(p, {"start_time": begun}) for p in stream.partitions()], [], time.monotonic() + seconds
    parts = {}
    while time.monotonic() < end and not done(found):
        partition, start = waiting.pop(0)
        token = None
        try:
            for record in stream.read(partition=partition, timeout=10, **start):
                if record.data_change:
                    found.append((record.data_change.row_key, value_of(record.data_change)))
                    token = {"partition": partition, "token": record.data_change.token}
                elif record.heartbeat:
                    token = record.heartbeat.continuation_token
                    break
                else:
                    close, token = record.close_stream, None
                    assert len(close.continuation_tokens) == len(close.new_partitions) >= 1
                    for its, new in zip(close.continuation_tokens, close.new_partitions):
                        key = (new.row_range.start_key_closed, new.row_range.end_key_open)
                        parts.setdefault(key, (new, []))[1].append(its)
                    break
        except grpc.RpcError as error:
            assert error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED), error
            if token is None:
                waiting.append((partition, start))
        if token is not None:
            waiting.append((partition, {"continuation_tokens": {"tokens": [token]}}))
        # A partition begins when there is a token for all of it.
        for key, (new, tokens) in list(parts.items()):
            ranges = sorted((t.partition.row_range.start_key_closed, t.partition.row_range.end_key_open) for t in tokens)
            joined = all(one[1] == other[0] for one, other in zip(ranges, ranges[1:]))
            if joined and (ranges[0][0], ranges[-1][1]) == key:
                waiting.append((new, {"continuation_tokens": {"tokens": tokens}}))
                del parts[key]
    return found


def test_a_stream_goes_on_through_splits_merges_and_deaths(stream, own):
    begun, written = ago(seconds=1), []

    def write(turn):
        for number in range(10):
            for row in (b"a", b"m", b"z"):
                value = b"%d.%d" % (turn, number)
                stream.put(row, value)
                written.append((row, value))

    def tablet(row):
        covers = lambda rows: rows["start"] <= row and (rows["end"] is None or row < rows["end"])
        return next(tablet for tablet in stream.tablets() if covers(tablet["rows"]))

    def all_there(found):
        return len(set(found)) >= len(written)

    write(0)
    found = follow(stream, begun, all_there)
    assert sorted(found) == sorted(written)
    reading = stream.read(partition=stream.partitions()[0], start_time=begun, timeout=60)
    assert next(reading).data_change
    own.command("tablet", "split", tablet("m")["tablet"], "--at", "m")
    close = next(record.close_stream for record in reading if record.close_stream)
    assert [partition.row_range.start_key_closed for partition in close.new_partitions] == [b"", b"m"]
    write(1)
    primary = tablet("m")["primary"]
    [pid] = [process["pid"] for process in own.nodes() if process["id"] == primary]
    os.kill(pid, signal.SIGKILL)
    try:
        write(2)
        # Two readers, neither of whom the other disturbs.
        for _ in range(2):
            assert per_row(follow(stream, begun, all_there)) == per_row(written)
        reading = stream.read(partition=stream.partitions()[0], start_time=begun, timeout=60)
        assert next(reading).data_change
        own.command("node", "restart", primary)

        def merged():
            if len(stream.tablets()) == 1:
                return True
            own.command("tablet", "merge", tablet("a")["tablet"], "--no-wait", check=False)
            time.sleep(1)

        wait_until(merged, 60)
        close = next(record.close_stream for record in reading if record.close_stream)
        [new], [token] = close.new_partitions, close.continuation_tokens
        assert (new.row_range.end_key_open, token.partition.row_range.end_key_open) == (b"", b"m")
        write(3)
        assert per_row(follow(stream, begun, all_there)) == per_row(written)
    finally:
        own.command("node", "restart", primary, check=False)


def per_row(changes):
    """What was written when an answer was lost was written again: that is one for a reader of values."""
    rows = {}
    for row, value in changes:
        values = rows.setdefault(row, [])
        if values[-1:] != [value]:
            values.append(value)
    return rows


def test_what_is_wrong_is_said(stream, tables, table, cluster):
    def read(of=stream, **request):
        return list(of.read(**request))

    plain = Stream(table.name, cluster)
    assert code(plain.partitions) == "FAILED_PRECONDITION"
    assert code(read, of=plain) == "FAILED_PRECONDITION"
    assert code(read, start_time=ago(days=3)) == "OUT_OF_RANGE"
    assert code(read, heartbeat_duration=datetime.timedelta(seconds=301)) == "INVALID_ARGUMENT"
    _, heartbeat = until_silent(stream.read())
    token = heartbeat.continuation_token
    damaged = {"partition": token.partition, "token": token.token[:-1] + ("1" if token.token[-1] == "0" else "0")}
    part = {"row_range": {"start_key_closed": b"a", "end_key_open": b"b"}}
    assert code(read, continuation_tokens={"tokens": [damaged]}) == "INVALID_ARGUMENT"
    assert code(read, continuation_tokens={"tokens": []}) == "INVALID_ARGUMENT"
    assert code(read, partition=part, continuation_tokens={"tokens": [token]}) == "INVALID_ARGUMENT"
    mask = {"paths": ["change_stream_config"]}
    config = {"retention_period": DAY}
    tables.update_table(table=admin.Table(name=table.name, change_stream_config=config), update_mask=mask).result(30)
    assert tables.get_table(name=table.name).change_stream_config.retention_period == DAY
    wait_until(lambda: can_read(plain))
    assert code(read, of=plain, continuation_tokens={"tokens": [token]}) == "INVALID_ARGUMENT"
    tables.update_table(table=admin.Table(name=table.name), update_mask=mask).result(30)
    assert not tables.get_table(name=table.name).change_stream_config
    with pytest.raises(Exception, match="7 days"):
        wish = admin.Table(change_stream_config={"retention_period": datetime.timedelta(days=8)})
        tables.create_table(request={"parent": PARENT, "table_id": "too-long", "table": wish})


def can_read(of):
    try:
        return until_silent(of.read())
    except grpc.RpcError:
        return False
