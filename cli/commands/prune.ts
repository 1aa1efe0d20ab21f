import { createInterface } from 'node:readline/promises';
import { Flags } from '@oclif/core';
import { pruneImages, type PruneWish } from '../../layers/prune.ts';
import { PgError } from '../../mdm/error.ts';
import { relieveHousekeeper } from '../../runtime/housekeeper.ts';
import { usersOfImage } from '../../runtime/image-users.ts';
import { readSettings } from '../../runtime/settings.ts';
import { tidy } from '../../runtime/tidy.ts';
import { openStore } from '../../store/store.ts';
import { PgCommand } from '../base.ts';
import { humanSize, parseFilters } from '../output.ts';

const DURATION = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)$/;
const MS: Record<string, number> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

export default class Prune extends PgCommand {
  static override aliases = ['system:prune'];
  static override summary = 'Remove images that nobody needs, and give their space back.';
  static override description = `Images without a name that no container uses; with --all also those with names. Pinned images (pg pin) stay. The space of what nothing needs
any more comes back at once, as with pg gc. Containers stay, also those that have ended: what they wrote is in them (pg rm).`;
  static override examples = [
    '<%= config.bin %> prune',
    {
      description: 'All that no container uses and that was made more than ten days ago',
      command: '<%= config.bin %> prune --all --force --filter until=240h',
    },
  ];
  static override flags = {
    all: Flags.boolean({ char: 'a', description: 'also images with names' }),
    force: Flags.boolean({ char: 'f', description: 'do not ask' }),
    filter: Flags.string({
      description: 'only images with: until=TIME or DURATION, label=KEY[=VALUE], label!=KEY[=VALUE]',
      helpValue: 'KEY=VALUE',
      multiple: true,
    }),
  };

  async run(): Promise<void> {
    const { flags } = await this.parse(Prune);
    const roots = this.roots(flags);
    const wish = wishOf(flags.all, flags.filter);
    if (!flags.force && !(await agreed(flags.all))) return;
    const { compress } = await readSettings(roots);
    const lock = await relieveHousekeeper(roots);
    const store = openStore(roots);
    try {
      for (const { untagged, deleted } of pruneImages(store, wish, (image) => usersOfImage(roots, image).length > 0)) {
        for (const name of untagged) process.stdout.write(`untagged: ${name}\n`);
        if (deleted !== undefined) process.stdout.write(`deleted: ${deleted}\n`);
      }
      const { bytes, packed } = await tidy(roots, store, compress !== 'off');
      const saved = packed === null ? 0 : packed.bytesBefore - packed.bytesAfter;
      process.stdout.write(`Total reclaimed space: ${humanSize(bytes + saved)}\n`);
    } finally {
      await store.close();
      lock.release();
    }
  }
}

function wishOf(all: boolean, filter: readonly string[] | undefined): PruneWish {
  const filters = parseFilters(filter, ['until', 'label', 'label!']);
  const untils = (filters.get('until') ?? []).map(momentOf);
  return {
    all,
    ...(untils.length === 0 ? {} : { before: Math.min(...untils) }),
    labels: filters.get('label') ?? [],
    withoutLabels: filters.get('label!') ?? [],
  };
}

/** Docker's `until`: a time (RFC 3339, or seconds since 1970), or how long ago (`10m`, `1h30m`, `240h`). */
function momentOf(text: string): number {
  const parts = text.match(/\d+(?:\.\d+)?(?:ms|s|m|h|d)/g) ?? [];
  if (parts.length > 0 && parts.join('') === text) {
    const ago = parts.map((part) => DURATION.exec(part)!).reduce((sum, [, n, unit]) => sum + Number(n) * MS[unit!]!, 0);
    return Date.now() - ago;
  }
  const at = /^\d+(\.\d+)?$/.test(text) ? Number(text) * 1000 : Date.parse(text);
  if (!Number.isNaN(at)) return at;
  throw new PgError('BAD_FILTER', `until=${text} is no time`, {
    hint: 'a time is 2026-01-31T12:00:00Z or seconds since 1970, or how long ago: 10m, 1h30m, 240h',
  });
}

async function agreed(all: boolean): Promise<boolean> {
  const what = all ? 'all images without at least one container associated to them' : 'all dangling images';
  const lines = createInterface({ input: process.stdin, output: process.stderr });
  try {
    process.stderr.write(`WARNING! This will remove ${what}.\n`);
    return /^y(es)?$/i.test((await lines.question('Are you sure you want to continue? [y/N] ')).trim());
  } finally {
    lines.close();
  }
}
