import { Args, Flags } from '@oclif/core';
import { addressOf } from '../../layers/address.ts';
import { type ImageRecord, listImages, shortId } from '../../layers/images.ts';
import { familiarRepository, parseReference } from '../../layers/reference.ts';
import { openStore } from '../../store/store.ts';
import { PgCommand } from '../base.ts';
import { type Column, humanDuration, humanSize, listFlags, parseFilters, printList } from '../output.ts';

/** A line of the listing: an image under one of its names. */
interface Row {
  image: ImageRecord;
  repository: string;
  tag: string;
}

const NONE = '<none>';

const COLUMNS: readonly Column<Row>[] = [
  { header: 'REPOSITORY', key: 'Repository', value: (row) => row.repository },
  { header: 'TAG', key: 'Tag', value: (row) => row.tag },
  { header: 'IMAGE ID', key: 'ID', value: (row, noTrunc) => (noTrunc ? row.image.id : shortId(row.image.id)) },
  { header: 'CREATED', key: 'CreatedSince', value: ({ image }) => since(image.created) },
  { header: 'SIZE', key: 'Size', value: ({ image }) => humanSize(image.size) },
];

/** What --digests and templates show besides. */
const MORE: readonly Column<Row>[] = [
  { header: 'DIGEST', key: 'Digest', value: ({ image }) => image.digests[0]?.replace(/^.*@/, '') ?? NONE },
  { header: 'ADDRESS', key: 'Address', value: ({ image }) => addressOf(image.treeRoot) },
];

export default class Images extends PgCommand {
  static override summary = 'List the images in the store.';
  static override examples = [
    '<%= config.bin %> images',
    { description: 'All tags of one repository', command: '<%= config.bin %> images nginx' },
    {
      description: 'Remove what has no name',
      command: '<%= config.bin %> rmi $(<%= config.bin %> images -q --filter dangling=true)',
    },
  ];
  static override flags = {
    ...listFlags,
    digests: Flags.boolean({
      description: "show also the manifests' digests, and the PromiseGrid addresses of what is in the images",
    }),
    filter: Flags.string({
      description: 'only images with: dangling=true|false, label=KEY[=VALUE], reference=PATTERN',
      helpValue: 'KEY=VALUE',
      multiple: true,
      char: 'f',
    }),
  };
  static override args = {
    name: Args.string({ description: 'only this repository, or this name' }),
  };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(Images);
    const filters = parseFilters(flags.filter, ['dangling', 'label', 'reference']);
    const store = openStore(this.roots(flags));
    try {
      const wanted = args.name === undefined ? undefined : parseReference(args.name);
      const rows = listImages(store, warn)
        .flatMap(rowsOf)
        .filter(
          (row) =>
            wanted === undefined ||
            (row.repository === familiarRepository(wanted) && [undefined, row.tag].includes(wanted.tag)),
        )
        .filter((row) => passes(row, filters));
      const listed = flags.quiet ? [...new Map(rows.map((row) => [row.image.id, row])).values()] : rows;
      const template = flags.format !== undefined && !['table', 'json'].includes(flags.format);
      const columns = flags.digests || template ? [...COLUMNS, ...MORE] : COLUMNS;
      printList(listed, columns, (row, noTrunc) => (noTrunc ? row.image.id : shortId(row.image.id)), flags);
    } finally {
      await store.close();
    }
  }
}

function warn(id: string): void {
  process.stderr.write(
    `pg: the record of image ${id} is damaged\n    import it again, or remove it: pg rmi ${shortId(id)}\n`,
  );
}

function rowsOf(image: ImageRecord): Row[] {
  if (image.names.length === 0) return [{ image, repository: NONE, tag: NONE }];
  return image.names.map((name) => {
    const reference = parseReference(name);
    return { image, repository: familiarRepository(reference), tag: reference.tag ?? NONE };
  });
}

function passes(row: Row, filters: Map<string, string[]>): boolean {
  const labels = row.image.config.config?.Labels ?? {};
  const tests: Record<string, (value: string) => boolean> = {
    dangling: (value) => (row.tag === NONE) === (value === 'true'),
    label: (value) => {
      const at = value.indexOf('=');
      return at < 0 ? value in labels : labels[value.slice(0, at)] === value.slice(at + 1);
    },
    reference: (value) => [row.repository, `${row.repository}:${row.tag}`].some((name) => matches(name, value)),
  };
  return [...filters].every(([key, values]) => values.some((value) => tests[key]!(value)));
}

/** Whether a name fits a pattern in which `*` stands for anything but `/`, and `?` for one character. */
function matches(name: string, pattern: string): boolean {
  const source = pattern
    .replace(/[.+^${}()|[\]\\]/g, '\\$&')
    .replaceAll('*', '[^/]*')
    .replaceAll('?', '[^/]');
  return new RegExp(`^${source}$`).test(name);
}

function since(created: string | undefined): string {
  const at = Date.parse(created ?? '');
  return Number.isNaN(at) || at <= 0 ? 'N/A' : `${humanDuration(Date.now() - at)} ago`;
}
