import { Args, Flags } from '@oclif/core';
import { repair } from '../../runtime/repair.ts';
import { scrub, type Scrub, withCheckedStore } from '../../runtime/verify.ts';
import { rebuildIndex } from '../../store/index-rebuild.ts';
import { PgCommand } from '../base.ts';
import { humanSize } from '../output.ts';
import { terminalProgress } from '../progress.ts';

export default class Verify extends PgCommand {
  static override summary =
    'Read everything in the store, and the logs of all containers, and check every checksum and root.';
  static override description = `Checks sectors, contents, directories and records of images, and what containers and named mounts wrote; with names, only what these images and
containers reach. What is wrong is said on standard output, a line each, with the files that cannot be read for it, and the exit code is 1. A store
that is whole has a copy of its index kept beside it.

--repair mends what another copy can give: checksums are computed anew where the bytes are right; entries of the index come from the copy that is kept
of it; bytes of images from files of containers that are the same, from the sources given by --from, and from peers (pg peer). Everything is compared
with its root before it replaces anything.

--rebuild makes the index anew when it is damaged as a whole: from the copy that is kept of it, and from the sector files. What was imported since the
copy was made must be imported again. Nothing else may be using the store.`;
  static override examples = [
    '<%= config.bin %> verify',
    { description: 'One image and one container', command: '<%= config.bin %> verify nginx:latest web' },
    {
      description: 'Mend, also with what the archive has that the image was imported from',
      command: '<%= config.bin %> verify --repair --from docker-archive:nginx.tar',
    },
    { description: 'Make a damaged index anew', command: '<%= config.bin %> verify --rebuild' },
  ];
  static override flags = {
    quiet: Flags.boolean({ char: 'q', description: 'show no progress' }),
    repair: Flags.boolean({ description: 'mend what another copy can give' }),
    from: Flags.string({
      description: 'where an image came from, as for pg import: its layers are read again (more than once allowed)',
      helpValue: 'SOURCE',
      multiple: true,
      dependsOn: ['repair'],
    }),
    rebuild: Flags.boolean({ description: 'first make the index anew', exclusive: ['repair'] }),
  };
  static override args = {
    name: Args.string({ description: 'an image, container or named mount (default: everything)' }),
  };
  static override strict = false;

  protected override readonly looksAtIndex = true;

  async run(): Promise<void> {
    const { argv, flags } = await this.parse(Verify);
    const roots = this.roots(flags);
    const names = argv as string[];
    const progress = terminalProgress(flags.quiet);
    const say = (line: string): void => {
      progress.end();
      process.stdout.write(`${line}\n`);
    };
    if (flags.rebuild) {
      const { copiedAt, sectors, damaged, aside } = await rebuildIndex(roots);
      say(
        copiedAt === undefined
          ? 'there was no copy of the index: images must be imported again'
          : `the index is as it was on ${copiedAt.toISOString()}`,
      );
      say(
        `${many(sectors, 'sector')} that it did not have ${sectors === 1 ? 'is' : 'are'} entered; the damaged index is ${aside}`,
      );
      for (const path of damaged) say(`not entered: ${path} is damaged`);
    }
    const isDamaged = await withCheckedStore(roots, async (store) => {
      let found = await scrub(roots, store, names, progress);
      progress.end();
      if (flags.repair && found.findings.length > 0) {
        tell(found, say);
        await repair(roots, store, found, flags.from ?? [], progress, say);
        say('what is left:');
        found = await scrub(roots, store, names, progress);
        progress.end();
      }
      tell(found, say);
      process.stderr.write(`${summary(found)}\n`);
      const isWhole = found.findings.length === 0;
      if (isWhole && names.length === 0) await store.keepIndexCopy();
      return !isWhole;
    });
    if (isDamaged) this.exit(1);
  }
}

function tell({ findings }: Scrub, say: (line: string) => void): void {
  for (const { message, affects } of findings) {
    say(message);
    for (const line of affects) say(`  ${line}`);
  }
}

function summary({ sectors, bytes, contents, nodes, logs, findings }: Scrub): string {
  const counts = [many(sectors, 'sector'), many(contents, 'content'), many(nodes, 'directory'), many(logs, 'log')];
  const read = `${counts.join(', ')} (${humanSize(bytes)})`;
  return findings.length > 0
    ? `pg: ${many(findings.length, 'problem')} in ${read}`
    : `Everything is as it was written: ${read}`;
}

const many = (count: number, noun: string): string => `${count} ${count === 1 ? noun : `${noun.replace(/y$/, 'ie')}s`}`;
