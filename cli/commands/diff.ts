import { Args } from '@oclif/core';
import { compareTrees } from '../../layers/compare.ts';
import type { LowerInode } from '../../layers/tree.ts';
import { containerChanges, MADE_BY_RUNTIME } from '../../runtime/containers.ts';
import { changesAt } from '../../runtime/history.ts';
import { sameRuns } from '../../fs/view/same-runs.ts';
import { PgCommand } from '../base.ts';
import { type Files, withFiles, writeOut } from '../image-path.ts';
import { wordOfPath } from '../paths.ts';
import { parseContainerAt } from '../place.ts';

const PIECE_BYTES = 1 << 20;

export default class Diff extends PgCommand {
  static override summary =
    "What a container's writable layer changed against its image, or what two states of containers and images differ in.";
  static override description = `A path a line: A added, C changed, D deleted. CONTAINER@POSITION is a container as it was (pg log shows positions, pg snapshot
gives them names). Of two images or states, only directories that differ are read, however large they are; a directory that is new or gone
stands for all in it; what differs in its time alone is not listed. A name that both an image and a container have is the image's, unless
it has an @: web@latest is the container.`;
  static override examples = [
    '<%= config.bin %> diff web',
    { description: 'What the last hour changed', command: '<%= config.bin %> diff web@-1h web@latest' },
    { description: 'A container against another image', command: '<%= config.bin %> diff web@before nginx:1.27' },
    { description: 'What an upgrade brings', command: '<%= config.bin %> diff nginx:1.26 nginx:1.27' },
  ];
  static override usage = ['diff CONTAINER[@POSITION]', 'diff BEFORE AFTER'];
  static override args = {
    container: Args.string({ description: 'CONTAINER[@POSITION], or the image or state before', required: true }),
    after: Args.string({ description: 'the image, or CONTAINER[@POSITION], after' }),
  };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(Diff);
    const roots = this.roots(flags);
    const before = parseContainerAt(args.container);
    if (args.after === undefined) {
      const changes =
        before.position === undefined
          ? await containerChanges(roots, before.name)
          : await changesAt(roots, before.name, before.position);
      for (const { kind, path } of changes)
        await writeOut(
          Buffer.from(
            `${kind} ${process.stdout.isTTY ? wordOfPath(path) : path}\n`,
            process.stdout.isTTY ? 'utf8' : 'latin1',
          ),
        );
      return;
    }
    const after = parseContainerAt(args.after);
    await withFiles(roots, before, (old) =>
      withFiles(roots, after, async (now) => {
        const hides = old.kind !== now.kind;
        for (const { kind, path } of compareTrees(old.tree, now.tree, (a, b) => holdTheSame(old, a, now, b))) {
          // What every container has to mount on is no difference from an image.
          if (hides && kind !== 'C' && MADE_BY_RUNTIME.has(path)) continue;
          await writeOut(Buffer.from(`${kind} ${wordOfPath(path)}\n`));
        }
      }),
    );
  }
}

/** Whether two files of the same size hold the same bytes: by where these are, else by reading both. */
function holdTheSame(old: Files, a: LowerInode, now: Files, b: LowerInode): boolean {
  if (
    old.at !== undefined &&
    old.at.dir === now.at?.dir &&
    sameRuns(old.at.state.node(a.ino), now.at.state.node(b.ino))
  )
    return true;
  const [left, right] = [Buffer.allocUnsafe(PIECE_BYTES), Buffer.allocUnsafe(PIECE_BYTES)];
  for (let at = 0; at < a.size; at += PIECE_BYTES) {
    const length = Math.min(PIECE_BYTES, a.size - at);
    const [x, y] = [left.subarray(0, length), right.subarray(0, length)];
    old.readAt(a, at, x);
    now.readAt(b, at, y);
    if (!x.equals(y)) return false;
  }
  return true;
}
