// What a table has and promises, and how that is changed.
import { ask, post, type Family, type Table } from '../api'
import { toJson, unescaped } from '../bytes'
import { act, type Action, type Line, type Values } from '../parts/action'
import { Figure } from '../parts/small'
import { go, link } from '../route'
import { path } from '../rows'
import { command, count, plural, size } from '../show'

const lines = (text: string): string[] => text.split('\n').map((line) => line.trim()).filter((line) => line !== '')

export function createTable(): Action {
  const body = (values: Values) => ({
    name: values.name!.trim(),
    families: lines(values.families ?? ''),
    partition:
      values.partition === 'range'
        ? { range: lines(values.splits ?? '').map((key) => toJson(unescaped(key))) }
        : { hash: Number(values.tablets) },
    ...(values.replicas === '' ? {} : { replicas: Number(values.replicas) }),
    compaction: values.compaction,
  })
  return {
    title: 'Create a table',
    button: 'Create',
    fields: (_live, typed) => [
      { name: 'name', label: 'Name' },
      { name: 'families', label: 'Families, one a line', rows: 3, hint: 'name, or name:versions=3, name:age=30d, name:versions=3,age=30d' },
      {
        name: 'partition',
        label: 'Cut into tablets by',
        choices: [
          { value: 'hash', label: 'hash: spreads rows evenly' },
          { value: 'range', label: 'range: keeps neighbours together, splits and merges by itself' },
        ],
      },
      typed.partition === 'range'
        ? { name: 'splits', label: 'First keys of further tablets, one a line', rows: 3, hint: 'may stay empty; \\xNN is the byte NN' }
        : { name: 'tablets', label: 'Tablets', initial: '2', hint: 'cannot be changed later' },
      { name: 'replicas', label: 'Replicas', hint: 'empty: as many as the masters give new tables' },
      {
        name: 'compaction',
        label: 'Compaction',
        choices: [
          { value: 'tiered', label: 'tiered: for what is written more than read' },
          { value: 'leveled', label: 'leveled: for what is read more than written' },
        ],
      },
    ],
    refuses: ({ tables }, values) => {
      if (values.name!.trim() === '') return 'Give it a name.'
      if (tables?.some(({ name }) => name === values.name!.trim())) return 'There is a table of that name.'
      if (lines(values.families ?? '').length === 0) return 'A table needs at least one family.'
      return null
    },
    preview: (live, values) => {
      const tablets = values.partition === 'range' ? lines(values.splits ?? '').length + 1 : Number(values.tablets)
      const nodes = live.cluster?.nodes.filter((node) => node.alive && !node.draining).length ?? 0
      return [{ when: 'at once', what: `${plural(tablets || 0, 'tablet')} ${tablets === 1 ? 'is' : 'are'} made on ${plural(nodes, 'living node')}, and can be used.`, tone: 'good' }]
    },
    command: (values) => {
      const words = ['table', 'create', values.name!.trim() || 'NAME']
      for (const family of lines(values.families ?? '')) words.push('--family', family)
      if (values.partition === 'range') {
        words.push('--partition', 'range')
        for (const key of lines(values.splits ?? '')) words.push('--split', key)
      } else words.push('--partition', `hash:${values.tablets}`)
      if (values.replicas !== '') words.push('--replicas', values.replicas!)
      if (values.compaction === 'leveled') words.push('--compaction', 'leveled')
      return command(...words)
    },
    run: async (values) => {
      await post('/v1/tables', body(values))
      return `created ${values.name!.trim()}`
    },
  }
}

const alter = (table: string, change: object) => ask('PATCH', path(table), change)

function addFamily({ name }: Table): Action {
  return {
    title: `Add a family to ${name}`,
    button: 'Add',
    fields: () => [
      { name: 'name', label: 'Name' },
      { name: 'keeps', label: 'Keeps', hint: 'empty: every version; or versions=3, age=30d, versions=3,age=30d' },
    ],
    refuses: (_live, values) => (values.name === '' ? 'Give it a name.' : null),
    preview: () => [{ when: 'at once', what: 'Rows may have cells in it. Rows that are there do not change.', tone: 'good' }],
    command: (values) => command('table', 'alter', name, '--family', rule(values.name || 'NAME', values.keeps!)),
    run: async (values) => {
      await alter(name, { families: [rule(values.name!, values.keeps!)] })
      return `added ${values.name} to ${name}`
    },
  }
}

const rule = (family: string, keeps: string): string => (keeps === '' ? family : `${family}:${keeps}`)

function changeFamily({ name }: Table, family: Family): Action {
  return {
    title: `What ${name} ${family.name} keeps`,
    button: 'Change',
    fields: () => [
      {
        name: 'keeps',
        label: 'Keeps',
        initial: family.keeps === 'keep all' ? '' : family.keeps,
        hint: 'empty: every version; or versions=3, age=30d, versions=3,age=30d',
      },
    ],
    preview: (_live, values): Line[] =>
      values.keeps === ''
        ? [{ when: 'at once', what: 'Every version is kept. What has been thrown away stays away.', tone: 'good' }]
        : [
            { when: 'at once', what: 'Reads do not show versions beyond this rule any more.', tone: 'warn' },
            { when: 'with merges', what: 'Those versions go from disk, and cannot be brought back.', tone: 'warn' },
          ],
    command: (values) => command('table', 'alter', name, '--family', rule(family.name, values.keeps!)),
    run: async (values) => {
      await alter(name, { families: [rule(family.name, values.keeps!)] })
      return `changed ${family.name} of ${name}`
    },
  }
}

function dropFamily({ name }: Table, family: Family): Action {
  return {
    title: `Drop family ${family.name} of ${name}`,
    button: 'Drop the family with its data',
    danger: true,
    confirm: family.name,
    preview: () => [
      { when: 'at once', what: `No row of ${name} has cells in ${family.name} any more.`, tone: 'bad' },
      { when: 'for ever', what: 'They cannot be brought back, but from a checkpoint that was made before.', tone: 'warn' },
    ],
    command: () => command('table', 'alter', name, '--drop-family', family.name),
    run: async () => {
      await alter(name, { drop_families: [family.name] })
      return `dropped ${family.name} of ${name}`
    },
  }
}

function changeCompaction({ name, compaction }: Table): Action {
  const wanted = compaction === 'tiered' ? 'leveled' : 'tiered'
  return {
    title: `Compact ${name} ${wanted}`,
    button: `Make it ${wanted}`,
    preview: () => [
      { when: 'at once', what: 'Reads and writes go on as before.' },
      { when: 'with merges', what: wanted === 'leveled' ? 'Files are merged more often: reads look at fewer, writes cost more.' : 'Files are merged less often: writes cost less, reads look at more.' },
    ],
    command: () => command('table', 'alter', name, '--compaction', wanted),
    run: async () => {
      await alter(name, { compaction: wanted })
      return `${name} is compacted ${wanted}`
    },
  }
}

function protect({ name, protected: is }: Table): Action {
  return {
    title: is ? `Let ${name} be dropped` : `Protect ${name}`,
    button: is ? 'Lift the protection' : 'Protect it',
    preview: () => [{ when: 'at once', what: is ? 'The table and its families can be dropped.' : 'Neither the table nor a family of it can be dropped until the protection is lifted.' }],
    command: () => command('table', 'alter', name, is ? '--unprotect' : '--protect'),
    run: async () => {
      await alter(name, { protected: !is })
      return is ? `${name} can be dropped` : `protected ${name}`
    },
  }
}

export function dropTable({ name }: Table): Action {
  return {
    title: `Drop ${name}`,
    button: `Drop ${name}`,
    danger: true,
    confirm: name,
    fields: () => [
      {
        name: 'keep',
        label: 'And then',
        choices: [
          { value: '7d', label: 'it can be brought back for 7 days' },
          { value: '', label: 'its data is deleted at once' },
        ],
      },
    ],
    preview: (live, values) => {
      const tablets = live.cluster?.tablets.filter(({ table }) => table === name).length ?? 0
      const gone = values.keep === ''
      return [
        { when: 'at once', what: `Reads and writes of ${name} fail: there is no such table.`, tone: 'bad' },
        gone
          ? { when: 'at once', what: `${plural(tablets, 'tablet')} and all ${tablets === 1 ? 'its' : 'their'} rows go from disk. Nothing brings them back, but a checkpoint that was made before.`, tone: 'bad' }
          : { when: 'within 7 d', what: 'Restore brings it back with all its rows; its data keeps its room on disk until then.' },
      ]
    },
    command: (values) => command('table', 'drop', name, ...(values.keep === '' ? [] : ['--keep', values.keep!])),
    run: async (values) => {
      await ask('DELETE', path(name) + (values.keep === '' ? '' : `?keep=${values.keep}`))
      go(link('data'))
      return `dropped ${name}`
    },
  }
}

export function SchemaView({ table }: { table: Table }) {
  return (
    <>
      <dl class="figures">
        <Figure label="Replicas" value={count(table.replicas)} />
        <Figure label="Writes need" value={count(table.min_replicas)} unit="replicas" />
        <Figure label="Cut by" value={'hash' in table.partition ? `hash into ${count(table.partition.hash)}` : 'range'} />
        <Figure label="Compaction" value={table.compaction} />
        <Figure label="Versions are" value={table.granularity ?? 'micros'} />
        <Figure label="Protected" value={table.protected ? 'yes' : 'no'} />
        <Figure label="Schema version" value={count(table.version)} />
      </dl>
      <h2>Families</h2>
      <div class="scroll" tabIndex={0} role="region" aria-label="Families">
        <table>
          <thead>
            <tr>
              <th scope="col">Family</th>
              <th scope="col">Keeps</th>
              <th scope="col">Adds up</th>
              <th scope="col">Locality group</th>
              <th scope="col" class="doing">Actions</th>
            </tr>
          </thead>
          <tbody>
            {table.families.map((family) => (
              <tr key={family.name}>
                <th scope="row">{family.name}</th>
                <td>{family.keeps}</td>
                <td>{family.aggregate ?? 'nothing'}</td>
                <td>{family.locality}</td>
                <td>
                  <button type="button" class="small" aria-label={`Change what ${family.name} keeps`} onClick={() => act(changeFamily(table, family))}>Change</button>{' '}
                  <button type="button" class="small danger" aria-label={`Drop ${family.name}`} disabled={table.protected} onClick={() => act(dropFamily(table, family))}>Drop</button>
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      <h2>Locality groups</h2>
      <div class="scroll" tabIndex={0} role="region" aria-label="Locality groups">
        <table>
          <thead>
            <tr>
              <th scope="col">Group</th>
              <th scope="col">Compression</th>
              <th scope="col" class="number">Block</th>
              <th scope="col">Filter</th>
              <th scope="col">In memory</th>
            </tr>
          </thead>
          <tbody>
            {table.localities.map((group) => (
              <tr key={group.name}>
                <th scope="row">{group.name}</th>
                <td>{group.compression}</td>
                <td class="number">{size(group.block_bytes)}</td>
                <td>{group.filter}</td>
                <td>{group.in_memory ? 'yes' : 'no'}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      <p class="buttons apart">
        <button type="button" onClick={() => act(addFamily(table))}>Add a family</button>
        <button type="button" onClick={() => act(changeCompaction(table))}>Compact {table.compaction === 'tiered' ? 'leveled' : 'tiered'}</button>
        <button type="button" onClick={() => act(protect(table))}>{table.protected ? 'Lift the protection' : 'Protect'}</button>
        <button type="button" class="danger" disabled={table.protected} onClick={() => act(dropTable(table))}>Drop the table</button>
      </p>
    </>
  )
}
