'use strict';
// Checks of a server of Google's Bigtable API, by Google's client for Node: `tests/bigtable/run --node`.
//
// They run against `diptych up`, which is started from an empty folder, or against whatever BIGTABLE_TEST_ENDPOINT names. Each check has
// a table of its own, but those of filters, which only read.

const assert = require('node:assert/strict');
const {execFileSync, spawn} = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const readline = require('node:readline');
const {after, before, describe, test} = require('node:test');

const ROOT = path.resolve(__dirname, '../..');
const MIB = 1 << 20;
const CODE = {INVALID_ARGUMENT: 3, NOT_FOUND: 5, ALREADY_EXISTS: 6, FAILED_PRECONDITION: 9, UNIMPLEMENTED: 12};

/** A cluster of processes on this machine, or an endpoint of somebody else's. */
async function started() {
  if (process.env.BIGTABLE_TEST_ENDPOINT) return {endpoint: process.env.BIGTABLE_TEST_ENDPOINT, stop: async () => {}};
  const binary = process.env.DIPTYCH || path.join(ROOT, 'target/debug/diptych');
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'bigtable-node-'));
  const words = ['up', '--data', path.join(folder, 'data'), '--grpc', '127.0.0.1:0', '--http', '127.0.0.1:0'];
  const log = path.join(folder, 'up.log');
  const up = spawn(binary, words, {stdio: ['ignore', 'pipe', fs.openSync(log, 'w')]});
  const ended = new Promise(resolve => up.once('exit', resolve).once('error', resolve));
  async function stop() {
    up.kill('SIGINT');
    const late = setTimeout(() => up.kill('SIGKILL'), 30_000);
    await ended;
    clearTimeout(late);
    fs.rmSync(folder, {recursive: true, force: true});
  }
  for await (const line of readline.createInterface({input: up.stdout})) {
    const [, endpoint] = /^\s*gRPC\s+(\S+)/.exec(line) || [];
    if (endpoint) {
      const command = (...more) => execFileSync(binary, [...more, '--endpoint', endpoint], {encoding: 'utf8', timeout: 60_000});
      return {endpoint, stop, command};
    }
  }
  const said = fs.readFileSync(log, 'utf8');
  await stop();
  throw new Error(`\`diptych up\` ended before it was up: ${said}`);
}

let server, bigtable, instance;
let numbers = 0;

function connected() {
  const {Bigtable} = require('@google-cloud/bigtable');
  return new Bigtable({projectId: 'conformance', metricsEnabled: false});
}

before(async () => {
  server = await started();
  process.env.BIGTABLE_EMULATOR_HOST = server.endpoint;
  process.env.METADATA_SERVER_DETECTION = 'none';
  bigtable = connected();
  instance = bigtable.instance('node');
});

after(async () => {
  await bigtable?.close();
  await server?.stop();
});

const fresh = () => `t${numbers++}-${Date.now().toString(36)}`;

/** A check with a table of the families f and g, which is deleted afterwards. */
function story(name, body, options = {}) {
  test(name, {timeout: 60_000, ...options}, async () => {
    const table = instance.table(fresh());
    await table.create({families: [plain('f'), plain('g')], ...options.table});
    try {
      await body(table);
    } finally {
      await table.delete();
    }
  });
}

/** A family that keeps what these checks write. */
const plain = name => ({name, rule: {versions: 1000}});

const at = (ms, value) => ({value, timestamp: new Date(ms)});
const ids = rows => rows.map(row => row.id);

async function read(table, options) {
  const [rows] = await table.getRows(options);
  return rows;
}

/** The cells of rows as [row, family, qualifier, milliseconds, value, ...labels]. */
function cells(rows) {
  const found = [];
  for (const row of rows)
    for (const [family, columns] of Object.entries(row.data))
      for (const [qualifier, versions] of Object.entries(columns))
        for (const {timestamp, value, labels} of versions) found.push([row.id, family, qualifier, timestamp / 1000, value, ...labels]);
  return found;
}

async function fails(code, promise) {
  const error = await promise.then(
    () => assert.fail(`should have failed with code ${code}`),
    error => error
  );
  assert.equal(error.code, code, error.message);
  assert.ok(error.message, 'an error says what is wrong');
  return error;
}

/** What a stream gives until it ends, or until `enough` says so of what came. */
function drained(stream, enough = () => false) {
  return new Promise((resolve, reject) => {
    const found = [];
    stream
      .on('data', one => {
        found.push(one);
        if (enough(found)) stream.end();
      })
      .on('error', reject)
      .on('end', () => resolve(found));
  });
}

describe('tables', () => {
  test('a table is made, found, listed and deleted', async () => {
    const table = instance.table(fresh());
    assert.deepEqual(await table.exists(), [false]);
    const [made] = await table.create({families: [plain('f')]});
    assert.equal(made.id, table.id);
    assert.deepEqual(await table.exists(), [true]);
    const [listed] = await instance.getTables();
    assert.ok(listed.some(each => each.id === table.id));
    const [others] = await bigtable.instance('another').getTables();
    assert.ok(!others.some(each => each.id === table.id));
    await table.delete();
    assert.deepEqual(await table.exists(), [false]);
  });

  test('a table without families', async () => {
    const table = instance.table(fresh());
    await table.create();
    assert.deepEqual((await table.getFamilies())[0], []);
    await table.createFamily('late', {rule: {versions: 1}});
    await table.insert({key: 'r', data: {late: {q: 'x'}}});
    assert.deepEqual(ids(await read(table)), ['r']);
    await table.delete();
  });

  // Protobuf leaves the empty value of a map's entry out, and this client cannot read such an entry.
  test('families without rules', async () => {
    const table = instance.table(fresh());
    try {
      await table.create({families: ['f', 'g']});
      await table.createFamily('h');
      const [families] = await table.getFamilies();
      assert.deepEqual(families.map(family => family.id).sort(), ['f', 'g', 'h']);
    } finally {
      await table.delete();
    }
  });

  story('a table that is there is not made again', async table => {
    await fails(CODE.ALREADY_EXISTS, table.create({families: [plain('f')]}));
  });

  test('a table that is not there is not found', async () => {
    const table = instance.table('nobody');
    await fails(CODE.NOT_FOUND, table.delete());
    await fails(CODE.NOT_FOUND, table.getMetadata());
    await fails(CODE.NOT_FOUND, table.getRows());
    await fails(CODE.NOT_FOUND, table.sampleRowKeys());
    await fails(CODE.NOT_FOUND, table.insert({key: 'r', data: {f: {q: 'x'}}}));
    await fails(CODE.NOT_FOUND, table.row('r').increment('f:n', 1));
    await fails(CODE.NOT_FOUND, table.row('r').filter([{all: true}], {onMatch: [{method: 'delete'}]}));
  });

  test('a table is made when it is asked for', async () => {
    const table = instance.table(fresh());
    await fails(CODE.NOT_FOUND, table.get());
    await table.get({autoCreate: true});
    assert.deepEqual(await table.exists(), [true]);
    await table.delete();
  });

  test('a bad id is refused', async () => {
    await fails(CODE.INVALID_ARGUMENT, instance.table('a b').create());
    await fails(CODE.INVALID_ARGUMENT, instance.table('t'.repeat(51)).create());
    await fails(CODE.INVALID_ARGUMENT, instance.table(fresh()).create({families: [plain('no good')]}));
  });

  story('its metadata', async table => {
    const [metadata] = await table.getMetadata({view: 'full'});
    assert.equal(metadata.name, table.name);
    assert.deepEqual(Object.keys(metadata.columnFamilies).sort(), ['f', 'g']);
    assert.equal(metadata.granularity, 'MILLIS');
    const [name] = await table.getMetadata({view: 'name'});
    assert.deepEqual(name.columnFamilies, {});
  });

  story('replication', async table => {
    const [states] = await table.getReplicationStates();
    assert.ok(states.size >= 1);
    for (const state of states.values()) assert.match(state.replicationState, /^READY/);
    const [token] = await table.generateConsistencyToken();
    assert.deepEqual(await table.checkConsistency(token), [true]);
    assert.deepEqual(await table.waitForReplication(), [true]);
    await fails(CODE.INVALID_ARGUMENT, table.checkConsistency('made up'));
  });

  story(
    'it is cut where it was told to be',
    async table => {
      const [samples] = await table.sampleRowKeys();
      assert.deepEqual(samples.map(sample => String(sample.key)), ['g', 'p', '']);
      const offsets = samples.map(sample => Number(sample.offset));
      assert.deepEqual(offsets, [...offsets].sort((a, b) => a - b));
      await table.insert(['a', 'g', 'o', 'p', 'z'].map(key => ({key, data: {f: {q: 'x'}}})));
      assert.deepEqual(ids(await read(table)), ['a', 'g', 'o', 'p', 'z']);
      assert.equal((await drained(table.sampleRowKeysStream())).length, 3);
    },
    {table: {splits: [Buffer.from('g'), Buffer.from('p')]}}
  );

  story('rows are dropped by prefix, and all of them', async table => {
    const keys = ['a', 'ab', 'ac', 'b', 'é1', 'é2'];
    await table.insert(keys.map(key => ({key, data: {f: {q: 'x'}}})));
    await table.deleteRows('a');
    assert.deepEqual(ids(await read(table)), ['b', 'é1', 'é2']);
    await table.deleteRows('é');
    assert.deepEqual(ids(await read(table)), ['b']);
    await table.truncate();
    assert.deepEqual(await read(table), []);
    await table.insert({key: 'b', data: {f: {q: 'x'}}});
    assert.deepEqual(ids(await read(table)), ['b']);
  });
});

describe('families', () => {
  const day = {seconds: 86_400, nanos: 0};
  const RULES = [
    ['versions', {versions: 2}, {maxNumVersions: 2}],
    ['age', {age: day}, {maxAge: day}],
    ['union', {versions: 1, age: day, union: true}, {union: [{maxAge: day}, {maxNumVersions: 1}]}],
    ['intersection', {versions: 1, age: day}, {intersection: [{maxAge: day}, {maxNumVersions: 1}]}],
    [
      'nested',
      {versions: 2, union: true, rule: {versions: 1, age: day}},
      {union: [{maxNumVersions: 2}, {intersection: [{maxAge: day}, {maxNumVersions: 1}]}]},
    ],
  ];
  const simple = rule => {
    if (rule.union) return {union: rule.union.rules.map(simple)};
    if (rule.intersection) return {intersection: rule.intersection.rules.map(simple)};
    if (rule.maxAge) return {maxAge: {seconds: Number(rule.maxAge.seconds), nanos: rule.maxAge.nanos}};
    return {maxNumVersions: rule.maxNumVersions};
  };

  for (const [name, rule, expected] of RULES)
    story(`a rule is read back as it was written: ${name}`, async table => {
      const [family] = await table.createFamily('ruled', {rule});
      const [metadata] = await family.getMetadata();
      assert.deepEqual(simple(metadata.gcRule), expected);
    });

  story('a family is made, changed and dropped', async table => {
    const family = table.family('h');
    assert.deepEqual(await family.exists(), [false]);
    await family.create({rule: {versions: 1}});
    assert.deepEqual(await family.exists(), [true]);
    await fails(CODE.ALREADY_EXISTS, family.create({rule: {versions: 1}}));
    await family.setMetadata({rule: {versions: 3}});
    assert.equal((await family.getMetadata())[0].gcRule.maxNumVersions, 3);
    await table.insert({key: 'r', data: {f: {q: 'kept'}, h: {q: 'gone'}}});
    await family.delete();
    assert.deepEqual(await family.exists(), [false]);
    await family.create({rule: {versions: 1}});
    assert.deepEqual(Object.keys((await read(table))[0].data), ['f']);
    await fails(CODE.NOT_FOUND, table.family('nobody').delete());
    await fails(CODE.NOT_FOUND, table.family('nobody').setMetadata({rule: {versions: 1}}));
  });

  story('bad rules are refused', async table => {
    await fails(CODE.INVALID_ARGUMENT, table.createFamily('h', {rule: {versions: -1}}));
    await fails(CODE.INVALID_ARGUMENT, table.createFamily('h', {rule: {age: {seconds: 0, nanos: 0}}}));
  });

  story('rules are honoured by reads', async table => {
    await table.createFamily('two', {rule: {versions: 2}});
    await table.createFamily('young', {rule: {age: day}});
    const now = Math.floor(Date.now() / 1000) * 1000;
    for (const days of [0, 2, 3]) {
      const cell = at(now - days * 86_400_000, `${days}`);
      await table.insert({key: 'r', data: {f: {q: cell}, two: {q: cell}, young: {q: cell}}});
    }
    const [row] = await read(table);
    const kept = Object.fromEntries(Object.entries(row.data).map(([family, {q}]) => [family, q.map(cell => cell.value)]));
    assert.deepEqual(kept, {f: ['0', '2', '3'], two: ['0', '2'], young: ['0']});
  });
});

describe('rows', () => {
  story('a cell is read as it was written', async table => {
    await table.insert({key: 'r', data: {f: {q: at(5, 'välue'), '': at(5, 'no name'), 'a:b': at(5, '')}}});
    assert.deepEqual(cells(await read(table)), [
      ['r', 'f', '', 5, 'no name'],
      ['r', 'f', 'a:b', 5, ''],
      ['r', 'f', 'q', 5, 'välue'],
    ]);
  });

  story('keys and values are bytes', async table => {
    const key = Buffer.from([0, 255, 128, 10]);
    const value = Buffer.from(Array.from({length: 256}, (_, byte) => byte));
    await table.insert({key, data: {f: {q: value}}});
    const [row] = await read(table, {decode: false});
    assert.ok(row.id.equals(key));
    assert.ok(row.data.f.q[0].value.equals(value));
    assert.ok((await read(table, {keys: [key], decode: false}))[0].id.equals(key));
  });

  story('numbers are eight bytes', async table => {
    const numbers = {one: 1, less: -1, zero: 0, cut: 1.5, most: Number.MAX_SAFE_INTEGER, least: Number.MIN_SAFE_INTEGER};
    await table.insert({key: 'r', data: {f: {...numbers, text: '12345678', large: Buffer.from('7fffffffffffffff', 'hex')}}});
    const {f} = (await read(table, {decode: false}))[0].data;
    for (const [name, number] of Object.entries(numbers)) assert.equal(f[name][0].value, Math.trunc(number));
    assert.equal(String(f.text[0].value), '12345678');
    assert.equal(f.large[0].value.toString('hex'), '7fffffffffffffff');
  });

  story('the client gives the time, in whole milliseconds', async table => {
    const early = Date.now();
    await table.insert({key: 'r', data: {f: {q: 'x'}}});
    const [[, , , ms]] = cells(await read(table));
    assert.ok(ms >= early && ms <= Date.now() && Number.isInteger(ms));
  });

  story('the server gives the time when it is asked to, and refuses other parts of a millisecond', async table => {
    await table.insert({key: 'r', data: {f: {q: {value: 'x', timestamp: -1}}}});
    const [[, , , ms]] = cells(await read(table));
    assert.ok(Math.abs(ms - Date.now()) < 60_000 && Number.isInteger(ms));
    for (const timestamp of [1, 999, 1001, -2]) {
      const error = await table.insert({key: 'r', data: {f: {q: {value: 'x', timestamp}}}}).then(assert.fail, error => error);
      assert.equal(error.code ?? error.errors[0].code, CODE.INVALID_ARGUMENT);
    }
    assert.equal(cells(await read(table)).length, 1);
  });

  story('versions come from the newest on, and the same one is replaced', async table => {
    for (const [ms, value] of [[1, 'a'], [3, 'b'], [2, 'c'], [3, 'd']]) await table.row('r').save({f: {q: at(ms, value)}});
    assert.deepEqual(cells(await read(table)).map(([, , , ms, value]) => [ms, value]), [[3, 'd'], [2, 'c'], [1, 'a']]);
  });

  story('families and qualifiers are in order', async table => {
    await table.insert({key: 'r', data: {g: {b: 'x', a: 'x'}, f: {Z: 'x', é: 'x', a: 'x'}}});
    const order = cells(await read(table)).map(([, family, qualifier]) => family + qualifier);
    assert.deepEqual(order, ['fZ', 'fa', 'fé', 'ga', 'gb']);
  });

  story('one row: created, saved, got, found, deleted', async table => {
    const row = table.row('r');
    assert.deepEqual(await row.exists(), [false]);
    await assert.rejects(row.get(), {name: 'RowError', code: 404});
    await row.create({entry: {f: {q: 'x'}}});
    assert.deepEqual(await row.exists(), [true]);
    await row.save({f: {p: 'y'}, g: {q: 'z'}});
    const [found] = await row.get();
    assert.equal(found.data.g.q[0].value, 'z');
    const [some] = await row.get(['f:p', 'g']);
    assert.deepEqual(Object.keys(some).map(family => [family, ...Object.keys(some[family])]), [['f', 'p'], ['g', 'q']]);
    const [one] = await row.get(['f:q']);
    assert.deepEqual(Object.keys(one), ['f']);
    await row.delete();
    assert.deepEqual(await row.exists(), [false]);
  });

  story('cells are deleted by column, family and time', async table => {
    const row = table.row('r');
    for (const ms of [1, 2, 3, 4, 5]) await row.save({f: {q: at(ms, 'x'), p: at(ms, 'x')}, g: {q: at(ms, 'x')}});
    const times = async column => ((await row.get([column]).catch(() => [{}]))[0]?.[column.split(':')[0]]?.[column.split(':')[1]] ?? []).map(cell => cell.timestamp / 1000);
    await table.mutate({key: 'r', method: 'delete', data: [{column: 'f:q', time: {start: new Date(2), end: new Date(4)}}]});
    assert.deepEqual(await times('f:q'), [5, 4, 1]);
    await table.mutate({key: 'r', method: 'delete', data: [{column: 'f:q', time: {start: new Date(4)}}]});
    assert.deepEqual(await times('f:q'), [1]);
    await table.mutate({key: 'r', method: 'delete', data: [{column: 'f:p', time: {end: new Date(3)}}]});
    assert.deepEqual(await times('f:p'), [5, 4, 3]);
    await row.deleteCells(['f:p']);
    assert.deepEqual(await times('f:p'), []);
    await row.deleteCells(['g']);
    assert.deepEqual(cells(await read(table)), [['r', 'f', 'q', 1, 'x']]);
    await row.delete();
    assert.deepEqual(await read(table), []);
  });

  story('many rows in one request, of different kinds', async table => {
    await table.insert([{key: 'a', data: {f: {q: 'x'}}}, {key: 'b', data: {f: {q: 'x'}}}]);
    await table.mutate([
      {key: 'a', method: 'delete'},
      {key: 'b', method: 'insert', data: {f: {p: at(1, 'y')}}},
      {key: 'b', method: 'delete', data: ['f:q']},
      {key: 'c', method: 'insert', data: {g: {q: at(1, 'z')}}},
    ]);
    assert.deepEqual(cells(await read(table)), [['b', 'f', 'p', 1, 'y'], ['c', 'g', 'q', 1, 'z']]);
  });

  story('entries as they go over the wire', async table => {
    const setCell = {familyName: 'f', columnQualifier: Buffer.from('q'), timestampMicros: 7000, value: Buffer.from('x')};
    await table.mutate({rowKey: Buffer.from('r'), mutations: [{setCell}]}, {rawMutation: true});
    assert.deepEqual(cells(await read(table)), [['r', 'f', 'q', 7, 'x']]);
  });

  story('an entry fails on its own', async table => {
    const entries = ['a', 'b', 'c'].map(key => ({key, data: {[key === 'b' ? 'nope' : 'f']: {q: 'x'}}}));
    const error = await table.insert(entries).then(assert.fail, error => error);
    assert.equal(error.name, 'PartialFailureError');
    assert.deepEqual(error.errors.map(each => [each.code, each.entry.key]), [[CODE.NOT_FOUND, 'b']]);
    assert.match(error.errors[0].message, /column family not found/);
    assert.deepEqual(ids(await read(table)), ['a', 'c']);
  });

  story('the codes of what a single row cannot be', async table => {
    const code = async promise => promise.then(assert.fail, error => error.code ?? error.errors[0].code);
    assert.equal(await code(table.row('r').save({nope: {q: 'x'}})), CODE.NOT_FOUND);
    assert.equal(await code(table.row('r').deleteCells(['nope'])), CODE.NOT_FOUND);
    assert.equal(await code(table.row('k'.repeat(4097)).save({f: {q: 'x'}})), CODE.INVALID_ARGUMENT);
    assert.equal(await code(table.row('r').save({f: {['q'.repeat(16_385)]: 'x'}})), CODE.INVALID_ARGUMENT);
    assert.equal(await code(table.row('r').save({})), CODE.INVALID_ARGUMENT);
    assert.deepEqual(await read(table), []);
    await table.row('k'.repeat(4096)).save({f: {['q'.repeat(16_384)]: 'x'}});
    assert.equal((await read(table)).length, 1);
  });

  story('callbacks, as well as promises', async table => {
    await new Promise((resolve, reject) => table.insert({key: 'r', data: {f: {q: 'x'}}}, error => (error ? reject(error) : resolve())));
    const rows = await new Promise((resolve, reject) => table.getRows((error, rows) => (error ? reject(error) : resolve(rows))));
    assert.deepEqual(ids(rows), ['r']);
  });
});

describe('scans', () => {
  const KEYS = ['a', 'b', 'ba', 'bb', 'c', 'd', 'é', 'ÿ', 'ÿz'].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
  let table;
  before(async () => {
    table = instance.table(fresh());
    await table.create({families: [plain('f')], splits: [Buffer.from('bb')]});
    await table.insert(KEYS.map(key => ({key, data: {f: {q: 'x'}}})));
  });
  after(() => table.delete());

  const SCANS = [
    ['everything', {}, KEYS],
    ['keys', {keys: ['d', 'a', 'nobody', 'bb']}, ['a', 'bb', 'd']],
    ['keys that are no row', {keys: ['nobody']}, []],
    ['a range', {start: 'b', end: 'c'}, ['b', 'ba', 'bb', 'c']],
    ['a range without its ends', {ranges: [{start: {value: 'b', inclusive: false}, end: {value: 'c', inclusive: false}}]}, ['ba', 'bb']],
    ['from a start on', {start: 'd'}, ['d', 'é', 'ÿ', 'ÿz']],
    ['up to an end', {end: 'b'}, ['a', 'b']],
    ['up to before an end', {end: {value: 'b', inclusive: false}}, ['a']],
    ['one row as a range', {start: 'b', end: 'b'}, ['b']],
    ['ranges and keys that overlap', {keys: ['ba', 'd'], ranges: [{start: 'b', end: 'bb'}, {start: 'ba', end: 'c'}]}, ['b', 'ba', 'bb', 'c', 'd']],
    ['a prefix', {prefix: 'b'}, ['b', 'ba', 'bb']],
    ['prefixes', {prefixes: ['d', 'bb', 'nobody']}, ['bb', 'd']],
    ['a prefix whose last character has no next one, which ends nowhere', {prefix: '\xff'}, ['ÿ', 'ÿz']],
    ['a limit', {limit: 2}, ['a', 'b']],
    ['a limit on a range', {start: 'ba', limit: 3}, ['ba', 'bb', 'c']],
    ['a limit of rows that come through a filter', {limit: 2, filter: {row: 'b.+'}}, ['ba', 'bb']],
    ['a limit above all', {limit: 100}, KEYS],
  ];
  for (const [name, options, expected] of SCANS)
    test(name, async () => assert.deepEqual(ids(await read(table, structuredClone(options))), expected));

  test('backwards, by the message', async () => {
    const reqOpts = {tableName: table.name, reversed: true, rowsLimit: 3, rows: {rowRanges: [{endKeyOpen: Buffer.from('d')}]}};
    const answers = await drained(bigtable.request({client: 'BigtableClient', method: 'readRows', reqOpts}));
    const keys = answers.flatMap(answer => answer.chunks).map(chunk => String(chunk.rowKey));
    assert.deepEqual(keys, ['c', 'bb', 'ba']);
  });

  test('a range from its end to its start is refused', async () => {
    await fails(CODE.INVALID_ARGUMENT, table.getRows({start: 'c', end: 'b'}));
    await fails(CODE.INVALID_ARGUMENT, table.getRows({limit: -1}));
  });
});

describe('filters', () => {
  // row, family, qualifier, milliseconds, value; in the order in which they are read
  const CELLS = [
    ['alpha', 'f', 'a', 3, 'new'],
    ['alpha', 'f', 'a', 2, 'old'],
    ['alpha', 'f', 'b', 3, ''],
    ['alpha', 'g', 'a', 1, 'other'],
    ['beta', 'f', 'a', 9, 7],
    ['beta', 'g', 'b-c', 9, 'line\nbreak'],
    ['gamma', 'g', 'é', 5, 'ü'],
    ['gamma', 'g', 'x.y', 5, 'a|b'],
  ];
  // The qualifiers x.y and é are in the order of their bytes.
  const [E, X] = [CELLS.pop(), CELLS.pop()];
  CELLS.push(E, X);
  const ALL = CELLS.map((_, place) => place);
  let table;
  before(async () => {
    table = instance.table(fresh());
    await table.create({families: [plain('f'), plain('g')]});
    await table.insert(CELLS.map(([key, family, qualifier, ms, value]) => ({key, data: {[family]: {[qualifier]: at(ms, value)}}})));
  });
  after(() => table.delete());

  const FILTERS = [
    ['all', [{all: true}], ALL],
    ['none', [{all: false}], []],
    ['family', [{family: 'f'}], [0, 1, 2, 4]],
    ['family, by an expression', [{family: /[^f]/}], [3, 5, 6, 7]],
    ['family that is not there', [{family: 'nope'}], []],
    ['row', [{row: 'alpha'}], [0, 1, 2, 3]],
    ['row, of which only a part matches', [{row: 'alph'}], []],
    ['row, by an expression', [{row: /.*a.*a/}], [0, 1, 2, 3, 6, 7]],
    ['row, one of several', [{row: ['alpha', /be.*/]}], [0, 1, 2, 3, 4, 5]],
    ['cells of a row', [{row: {cellLimit: 1}}], [0, 4, 6]],
    ['cells of a row after some', [{row: {cellOffset: 1}}], [1, 2, 3, 5, 7]],
    ['cells of a row, from and to', [{row: {cellOffset: 1}}, {row: {cellLimit: 1}}], [1, 5, 7]],
    ['a row and how many cells of it', [{row: {key: 'alpha', cellLimit: 2}}], [0, 1]],
    ['samples of nearly all rows', [{row: {sample: 0.999999}}], ALL],
    ['samples of nearly none', [{row: {sample: 0.000001}}], []],
    ['column', [{column: 'a'}], [0, 1, 3, 4]],
    ['column, with characters of expressions in it', [{column: /x\.y/}], [6]],
    ['column, as bytes', [{column: Buffer.from('x.y')}], [6]],
    ['column, as text beyond ASCII', [{column: 'é'}], [7]],
    ['column, one of several', [{column: ['b', 'b-c']}], [2, 5]],
    ['versions of a column', [{column: {cellLimit: 1}}], [0, 2, 3, 4, 5, 6, 7]],
    ['a column and its newest version', [{column: {name: 'a', cellLimit: 1}}], [0, 3, 4]],
    ['columns from and to', [{column: {family: 'f', start: 'a', end: 'b'}}], [0, 1, 2, 4]],
    ['columns from after', [{column: {family: 'f', start: {value: 'a', inclusive: false}}}], [2]],
    ['columns to before', [{column: {family: 'g', end: {value: 'b-c', inclusive: false}}}], [3]],
    ['value', [{value: 'old'}], [1]],
    ['value, by an expression', [{value: /o.*/}], [1, 3]],
    ['value, as bytes', [{value: Buffer.from('a|b')}], [6]],
    ['value, of several', [{value: ['new', 'old']}], [0, 1]],
    ['value of a number, as bytes', [{value: Buffer.from([0, 0, 0, 0, 0, 0, 0, 7])}], [4]],
    ['value with a line in it', [{value: 'line.break'}], []],
    ['value with a line in it, as it was asked for', [{value: '(?s)line.break'}], [5]],
    ['values from and to', [{value: {start: 'new', end: 'old'}}], [0, 1]],
    ['values from after to before', [{value: {start: {value: 'new', inclusive: false}, end: {value: 'other', inclusive: false}}}], [1]],
    ['time from', [{time: {start: new Date(5)}}], [4, 5, 6, 7]],
    ['time to', [{time: {end: new Date(3)}}], [1, 3]],
    ['time from and to', [{time: {start: new Date(2), end: new Date(5)}}], [0, 1, 2]],
    ['one after another', [{family: 'f'}, {column: {cellLimit: 1}}, {value: 'old'}], []],
    ['one after another, the other way', [{value: 'old'}, {column: {cellLimit: 1}}], [1]],
    ['side by side', [{interleave: [[{family: 'g'}], [{value: 'old'}]]}], [1, 3, 5, 6, 7]],
    ['side by side, the same twice', [{interleave: [[{value: 'old'}], [{column: 'a'}]]}], [0, 1, 1, 3, 4]],
    ['if', [{condition: {test: [{value: 'old'}], pass: [{family: 'g'}], fail: [{row: {cellLimit: 1}}]}}], [3, 4, 6]],
    ['if, without else', [{condition: {test: [{value: 'old'}], pass: [{all: true}]}}], [0, 1, 2, 3]],
    ['if not', [{condition: {test: [{value: 'old'}], fail: [{all: true}]}}], [4, 5, 6, 7]],
  ];
  for (const [name, filter, places] of FILTERS)
    test(name, async () => {
      const found = cells(await read(table, {filter}));
      assert.deepEqual(found, places.map(place => CELLS[place]));
    });

  test('values are stripped', async () => {
    const stripped = CELLS.map(cell => [...cell.slice(0, 4), '']);
    assert.deepEqual(cells(await read(table, {filter: [{value: {strip: true}}]})), stripped);
  });

  test('cells are labelled', async () => {
    assert.deepEqual(cells(await read(table, {filter: [{value: 'old'}, {label: 'hot-1'}]})), [[...CELLS[1], 'hot-1']]);
  });

  test('a sink goes past what is around it', async () => {
    const filter = [{row: 'alpha'}, {family: 'f'}, {interleave: [[{all: true}], [{label: 'foo'}, {sink: true}]]}, {column: 'b'}];
    const found = cells(await read(table, {filter}));
    const expected = [...[0, 1, 2].map(place => [...CELLS[place], 'foo']), CELLS[2]];
    assert.deepEqual(found.map(String).sort(), expected.map(String).sort());
  });

  const BAD = [
    ['an expression that is none', [{value: '(a'}]],
    ['an expression that looks back', [{value: '(a)\\1'}]],
    ['no cells', [{row: {cellLimit: 0}}]],
    ['less than no cells', [{row: {cellOffset: -1}}]],
    ['no versions', [{column: {cellLimit: 0}}]],
    ['a label of other characters', [{label: 'NOT ONE'}]],
    ['a sink that is off', [{sink: false}]],
    ['samples of more than all', [{row: {sample: 1.5}}]],
    ['a sink in a condition', [{condition: {test: [{sink: true}], pass: [{all: true}]}}]],
    ['one side only', [{interleave: [[{all: true}]]}]],
    ['values from a later one on', [{value: {start: 'b', end: 'a'}}]],
  ];
  for (const [name, filter] of BAD) test(`refused: ${name}`, () => fails(CODE.INVALID_ARGUMENT, table.getRows({filter})));
});

describe('decisions', () => {
  const int64 = value => Number(value.readBigInt64BE());

  story('an increment, from nothing on', async table => {
    const row = table.row('r');
    assert.equal((await row.increment('f:n'))[0], 1);
    assert.equal((await row.increment('f:n', 41))[0], 42);
    assert.equal((await row.increment('f:n', -50))[0], -8);
    assert.equal((await row.increment('f:n', 2 ** 40))[0], 2 ** 40 - 8);
    const [found] = await row.get();
    assert.equal(found.data.f.n[0].value, 2 ** 40 - 8);
  });

  story('an increment by 0, which the client sends as no rule at all', async table => {
    assert.equal((await table.row('r').increment('f:n', 7))[0], 7);
    assert.equal((await table.row('r').increment('f:n', 0))[0], 7);
    assert.equal((await table.row('new').increment('f:n', 0))[0], 0);
  });

  story('only numbers are incremented', async table => {
    for (const value of ['', '1234567', '123456789']) {
      await table.row('r').save({f: {n: at(1, value)}});
      await fails(CODE.FAILED_PRECONDITION, table.row('r').increment('f:n', 1));
      await table.row('r').delete();
    }
    await fails(CODE.NOT_FOUND, table.row('r').increment('nope:n', 1));
    assert.deepEqual(await read(table), []);
  });

  story('rules in order, and what they answer', async table => {
    const rules = [
      {column: 'g:s', append: 'ab'},
      {column: 'f:n', increment: 5},
      {column: 'g:s', append: 'cd'},
      {column: 'f:n', increment: -2},
    ];
    const [answer] = await table.row('r').createRules(rules);
    const families = answer.row.families.map(({name, columns}) => [name, columns.map(({qualifier, cells}) => [String(qualifier), cells.length])]);
    assert.deepEqual(families, [['f', [['n', 1]]], ['g', [['s', 1]]]]);
    assert.equal(int64(Buffer.from(answer.row.families[0].columns[0].cells[0].value)), 3);
    const [found] = await table.row('r').get();
    assert.deepEqual([found.data.f.n[0].value, found.data.g.s[0].value], [3, 'abcd']);
  });

  story('a cell of a time to come is written over', async table => {
    await table.row('r').save({f: {s: at(4_000_000_000_000, 'ab')}});
    await table.row('r').createRules([{column: 'f:s', append: 'cd'}]);
    assert.deepEqual(cells(await read(table)), [['r', 'f', 's', 4_000_000_000_000, 'abcd']]);
  });

  story('a row is changed if a filter matches', async table => {
    const row = table.row('r');
    await row.save({f: {q: at(1, 'yes')}});
    const put = (qualifier) => [{method: 'insert', data: {g: {[qualifier]: at(1, 'x')}}}];
    assert.equal((await row.filter([{value: 'yes'}], {onMatch: put('t'), onNoMatch: put('f')}))[0], true);
    assert.equal((await row.filter([{value: 'no'}], {onMatch: put('t2'), onNoMatch: put('f2')}))[0], false);
    assert.equal((await row.filter([{family: 'g'}, {column: 't'}], {onMatch: [{method: 'delete', data: ['g:t']}]}))[0], true);
    assert.equal((await row.filter([], {onMatch: put('any')}))[0], true);
    assert.equal((await table.row('nobody').filter([], {onMatch: put('any')}))[0], false);
    assert.deepEqual(cells(await read(table)).map(([key, family, qualifier]) => [key, family, qualifier]), [
      ['r', 'f', 'q'],
      ['r', 'g', 'any'],
      ['r', 'g', 'f2'],
    ]);
  });

  story('a decision with nothing to do, or with a bad one, is refused', async table => {
    await table.row('r').save({f: {q: 'x'}});
    await fails(CODE.INVALID_ARGUMENT, table.row('r').filter([{all: true}], {}));
    await fails(CODE.INVALID_ARGUMENT, table.row('r').filter([{value: '(a'}], {onMatch: [{method: 'delete'}]}));
    const both = [{method: 'insert', data: {f: {p: 'x'}}}, {method: 'insert', data: {nope: {p: 'x'}}}];
    await fails(CODE.NOT_FOUND, table.row('r').filter([{all: true}], {onMatch: both}));
    assert.equal(cells(await read(table)).length, 1);
  });

  story('two clients at once lose nothing', async table => {
    const second = connected();
    try {
      const other = second.instance('node').table(table.id);
      const first = [table, other].flatMap(each =>
        Array.from({length: 6}, (_, by) => each.row('won').filter([], {onNoMatch: [{method: 'insert', data: {f: {by: at(1, `${by}`)}}}]}))
      );
      const matched = await Promise.all(first);
      assert.equal(matched.filter(([matched]) => !matched).length, 1, 'one finds no row');
      const adds = [table, other].flatMap(each => Array.from({length: 50}, () => each.row('sum').increment('f:n', 1)));
      const sums = (await Promise.all(adds)).map(([sum]) => sum).sort((a, b) => a - b);
      assert.deepEqual(sums, Array.from({length: 100}, (_, n) => n + 1));
    } finally {
      await second.close();
    }
  });
});

describe('much', () => {
  story('a cell of 10 MiB', async table => {
    const value = Buffer.alloc(10 * MIB, 'diptych ');
    await table.insert({key: 'r', data: {f: {q: value}}});
    const [row] = await read(table, {decode: false});
    assert.ok(row.data.f.q[0].value.equals(value));
  });

  story('a row of 24 cells of 1 MiB, between small ones', async table => {
    const data = Object.fromEntries(Array.from({length: 24}, (_, n) => [`q${String(n).padStart(2, '0')}`, Buffer.alloc(MIB, n + 1)]));
    await table.insert([{key: 'a', data: {f: {q: 'x'}}}, {key: 'b', data: {f: data}}, {key: 'c', data: {f: {q: 'x'}}}]);
    const rows = await read(table, {decode: false});
    assert.deepEqual(rows.map(row => String(row.id)), ['a', 'b', 'c']);
    const found = rows[1].data.f;
    assert.deepEqual(Object.keys(found), Object.keys(data));
    for (const [qualifier, [{value}]] of Object.entries(found)) assert.ok(value.equals(data[qualifier]), qualifier);
  });

  story('a row of 5,000 columns', async table => {
    const data = Object.fromEntries(Array.from({length: 5000}, (_, n) => [`q${String(n).padStart(4, '0')}`, `${n}`]));
    await table.insert({key: 'r', data: {f: data}});
    const [row] = await read(table);
    assert.deepEqual(Object.keys(row.data.f), Object.keys(data));
    const [{data: newest}] = await table.row('r').get({filter: [{row: {cellOffset: 4998}}]});
    assert.deepEqual(Object.keys(newest.f), ['q4998', 'q4999']);
  });

  story('10,000 rows: at once, in pages, with pauses, cut short, by keys', async table => {
    const keys = Array.from({length: 10_000}, (_, n) => `row${String(n).padStart(4, '0')}`);
    await table.insert(keys.map(key => ({key, data: {f: {q: key}}})));
    const rows = await read(table);
    assert.deepEqual(ids(rows), keys);
    assert.ok(rows.every(row => row.data.f.q[0].value === row.id));

    const paged = [];
    for (let start; ; ) {
      const page = await read(table, {limit: 3000, ...(start && {start: {value: start, inclusive: false}})});
      if (page.length === 0) break;
      paged.push(...ids(page));
      start = paged.at(-1);
    }
    assert.deepEqual(paged, keys);

    const slow = [];
    for await (const row of table.createReadStream()) {
      slow.push(row.id);
      if (slow.length % 2500 === 0) await new Promise(resolve => setTimeout(resolve, 50));
    }
    assert.deepEqual(slow, keys);

    const few = await drained(table.createReadStream(), found => found.length === 10);
    assert.deepEqual(ids(few), keys.slice(0, 10), 'a stream that its reader ends gives no more');
    const thousand = keys.filter((_, n) => n % 10 === 3);
    assert.deepEqual(ids(await read(table, {keys: thousand})), thousand);
  });

  story('50 readers that end early leave the server as it was', async table => {
    await table.insert(Array.from({length: 200}, (_, n) => ({key: `r${String(n).padStart(3, '0')}`, data: {f: {q: Buffer.alloc(20_000, 1)}}})));
    const reads = Array.from({length: 50}, () => drained(table.createReadStream(), found => found.length === 3));
    for (const found of await Promise.all(reads)) assert.equal(found.length, 3);
    assert.equal((await read(table)).length, 200);
  });
});

describe('trouble', () => {
  const ours = process.env.BIGTABLE_TEST_ENDPOINT ? {skip: 'no process of somebody else is hurt'} : {};

  /** Writes and reads until `trouble` is over and some rows more are written; what was written is read. */
  async function goesOn(table, trouble) {
    const written = [];
    let over = false;
    async function write(letter) {
      for (let n = 0; !over; n += 20) {
        const keys = Array.from({length: 20}, (_, at) => `${letter}${String(n + at).padStart(6, '0')}`);
        await table.insert(keys.map(key => ({key, data: {f: {q: key}}})));
        written.push(...keys);
      }
    }
    async function look() {
      while (!over) {
        const before = [...written];
        const found = new Set(ids(await read(table)));
        assert.deepEqual(before.filter(key => !found.has(key)), [], 'what was written is there');
      }
    }
    const all = Promise.all([write('a'), write('z'), look()]);
    const more = async () => {
      const enough = written.length + 400;
      while (written.length < enough) await Promise.race([all, new Promise(resolve => setTimeout(resolve, 20))]);
    };
    await more();
    await trouble(more);
    over = true;
    await all;
    assert.deepEqual(ids(await read(table)), written.sort());
  }

  const tablet = table => {
    const shown = JSON.parse(server.command('table', 'show', `conformance.node.${table.id}`, '--json'));
    return shown.tablets[0];
  };

  story(
    'a node is killed and comes back',
    table =>
      goesOn(table, async more => {
        const {primary} = tablet(table);
        server.command('node', 'kill', String(primary));
        await more();
        server.command('node', 'restart', String(primary));
        await more();
      }),
    {...ours, table: {splits: [Buffer.from('m')]}}
  );

  story(
    'a tablet is split',
    table =>
      goesOn(table, async more => {
        server.command('tablet', 'split', String(tablet(table).tablet), '--at', 'a000100');
        await more();
      }),
    ours
  );
});

describe('instances', () => {
  test('an instance is there as soon as it is named', async () => {
    assert.deepEqual(await instance.exists(), [true]);
    const [metadata] = await instance.getMetadata();
    assert.equal(metadata.name, 'projects/conformance/instances/node');
    assert.equal(metadata.state, 'READY');
    const [, again] = await instance.get();
    assert.equal(again.name, metadata.name);
  });

  story('an instance with a table is listed', async () => {
    const [instances] = await bigtable.getInstances();
    assert.ok(instances.some(each => each.id === 'node'));
  });

  test('an instance is made', async () => {
    const [made, operation] = await bigtable.createInstance('made', {clusters: [{id: 'made-1', location: 'us-central1-c', nodes: 1}]});
    await operation.promise();
    assert.equal(made.id, 'made');
    assert.deepEqual(await made.exists(), [true]);
  });

  test('it has a cluster', async () => {
    const [clusters] = await instance.getClusters();
    assert.ok(clusters.length >= 1);
    assert.deepEqual(await clusters[0].exists(), [true]);
    const [metadata] = await clusters[0].getMetadata();
    assert.equal(metadata.state, 'READY');
    assert.deepEqual(await instance.cluster('nobody').exists(), [false]);
  });

  test('it has a profile, which requests may name', async () => {
    const [profiles] = await instance.getAppProfiles();
    assert.ok(profiles.some(profile => profile.id === 'default'));
    assert.deepEqual(await instance.appProfile('default').exists(), [true]);
    assert.deepEqual(await instance.appProfile('nobody').exists(), [false]);
  });

  story('what is not served says so', async table => {
    const error = await fails(CODE.UNIMPLEMENTED, instance.prepareStatement('SELECT 1'));
    assert.ok(error.message.length > 20, error.message);
    assert.deepEqual(await table.exists(), [true]);
  });
});
