import { Flags } from '@oclif/core';
import { type Container, listContainers } from '../../runtime/containers.ts';
import { describeAbsence, readOwnership } from '../../runtime/migrate-state.ts';
import { shortId } from '../../runtime/names.ts';
import type { PublishedPort } from '../../runtime/record.ts';
import { PgCommand } from '../base.ts';
import { type Column, humanDuration, listFlags, parseFilters, printList } from '../output.ts';

interface Row extends Container {
  /** In place of the status, for one that is not this node's. */
  absence: string | undefined;
}

const COMMAND_SHOWN = 20;

const COLUMNS: readonly Column<Row>[] = [
  { header: 'CONTAINER ID', key: 'ID', value: ({ record }, noTrunc) => (noTrunc ? record.id : shortId(record.id)) },
  { header: 'IMAGE', key: 'Image', value: ({ record }) => record.image.name },
  { header: 'COMMAND', key: 'Command', value: commandOf },
  {
    header: 'CREATED',
    key: 'CreatedAt',
    value: ({ record }) => `${humanDuration(Date.now() - Date.parse(record.createdAt))} ago`,
  },
  { header: 'STATUS', key: 'Status', value: statusOf },
  { header: 'PORTS', key: 'Ports', value: ({ state }) => (state.network?.ports ?? []).map(portOf).join(', ') },
  { header: 'NAMES', key: 'Names', value: ({ record }) => record.name },
];

/** Only in templates and JSON. */
const MORE: readonly Column<Row>[] = [
  { header: 'STATE', key: 'State', value: ({ state }) => state.status },
  {
    header: 'LABELS',
    key: 'Labels',
    value: ({ record }) =>
      Object.entries(record.config.labels)
        .map(([key, value]) => `${key}=${value}`)
        .join(','),
  },
  { header: 'NETWORKS', key: 'Networks', value: ({ record }) => record.config.network },
];

export default class Ps extends PgCommand {
  static override summary = 'List containers.';
  static override examples = [
    '<%= config.bin %> ps -a',
    "<%= config.bin %> ps --filter status=exited --format '{{.Names}} {{.Status}}'",
  ];
  static override flags = {
    ...listFlags,
    all: Flags.boolean({ char: 'a', description: 'also those that do not run' }),
    last: Flags.integer({ char: 'n', description: 'the last N that were made, running or not' }),
    latest: Flags.boolean({ char: 'l', description: 'the last one that was made' }),
    filter: Flags.string({
      char: 'f',
      description: 'only those with: id, name, status, label, ancestor, exited',
      helpValue: 'KEY=VALUE',
      multiple: true,
      multipleNonGreedy: true,
    }),
  };

  async run(): Promise<void> {
    const { flags } = await this.parse(Ps);
    const filters = parseFilters(flags.filter, ['id', 'name', 'status', 'label', 'ancestor', 'exited']);
    const roots = this.roots(flags);
    const last = flags.latest ? 1 : flags.last;
    const everything = flags.all || last !== undefined || filters.has('status') || filters.has('exited');
    const rows = (await listContainers(roots))
      .filter(({ state }) => everything || state.status === 'running' || state.status === 'restarting')
      .filter((container) =>
        [...filters].every(([key, values]) => values.some((value) => passes(container, key, value))),
      )
      .slice(0, last)
      .map((container) => ({ ...container, absence: describeAbsence(readOwnership(roots, container.record.id)) }));
    const columns = flags.format === undefined || flags.format === 'table' ? COLUMNS : [...COLUMNS, ...MORE];
    printList(rows, columns, ({ record }, noTrunc) => (noTrunc ? record.id : shortId(record.id)), flags);
  }
}

function passes({ record, state }: Container, key: string, value: string): boolean {
  switch (key) {
    case 'id':
      return record.id.startsWith(value);
    case 'name':
      return record.name.includes(value);
    case 'status':
      return state.status === value;
    case 'exited':
      return state.status === 'exited' && state.exitCode === Number(value);
    case 'ancestor':
      return (
        record.image.name === value || record.image.name === `${value}:latest` || record.image.id.startsWith(value)
      );
    default: {
      const at = value.indexOf('=');
      const { labels } = record.config;
      return at < 0 ? value in labels : labels[value.slice(0, at)] === value.slice(at + 1);
    }
  }
}

function commandOf({ record }: Row, noTrunc: boolean): string {
  const words = [...record.config.entrypoint, ...record.config.cmd];
  // As docker has it, the program stands as it is; an argument with a space in it is quoted.
  const text = words
    .map((word, i) => (i > 0 && word.includes(' ') ? `'${word.replaceAll("'", "\\'")}'` : word))
    .join(' ');
  return `"${noTrunc || text.length <= COMMAND_SHOWN ? text : `${text.slice(0, COMMAND_SHOWN - 1)}…`}"`;
}

const since = (time: string): string => humanDuration(Date.now() - Date.parse(time));

function statusOf(row: Row): string {
  return row.state.logDamage === undefined ? conditionOf(row) : `${conditionOf(row)} (log damaged)`;
}

function conditionOf({ state, absence }: Row): string {
  if (absence !== undefined) return absence;
  switch (state.status) {
    case 'running':
      return `Up ${since(state.startedAt)}`;
    case 'restarting':
      return `Restarting (${state.exitCode}) ${since(state.finishedAt)} ago`;
    case 'exited':
      return `Exited (${state.exitCode}) ${since(state.finishedAt)} ago`;
    case 'dead':
      return 'Dead';
    case 'created':
      return 'Created';
  }
}

const portOf = (port: PublishedPort): string =>
  `${port.hostIp || '0.0.0.0'}:${port.hostPort}->${port.containerPort}/${port.protocol}`;
