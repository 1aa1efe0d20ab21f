// What pg, podman (vfs) and umoci make of layers that are hard to lay over one another (test/layers/cases.ts): a row for each on which they do not agree. skopeo copies blobs and looks
// into none of them. Not a test: what the others do is theirs. `scripts/with-node --no-warnings bench/hostile.ts`, as root.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { openTree } from '../layers/tree.ts';
import { importImage } from '../layers/import.ts';
import { isPgError } from '../mdm/error.ts';
import { openStore } from '../store/store.ts';
import { CASES } from '../test/layers/cases.ts';
import { diskListing, treeListing, writeLayout } from '../test/layers/listing.ts';
import { imageOf, tarBytes } from '../test/layers/tar-builder.ts';

/** A tree, or the words of whoever refused it. */
type Outcome = string[] | { refused: string };

const run = (program: string, ...words: string[]): string =>
  execFileSync(program, words, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });

function outcome(action: () => string[]): Outcome {
  try {
    return action();
  } catch (error) {
    const words = String((error as { stderr?: string }).stderr ?? error).trim();
    return { refused: words.split('\n').at(-1)!.slice(-120) };
  }
}

/** Names, kinds and contents; not who owns them, nor their times and link counts: these are compared with docker's in test/layers/engines.slow.test.ts. */
const short = (listing: string[]): string[] =>
  listing.map((line) => {
    const fields = line.split(' ');
    return [fields[0], Number.parseInt(fields[1]!, 8) >> 12, fields[5], fields[6], fields[7]].join(' ');
  });

// podman takes the path for a name, which must be lower case.
const dir = `/var/tmp/pg-hostile-${process.pid}`;
mkdirSync(dir);
const rows: string[] = [];
let same = 0;
for (const [i, [name, { layers }]] of Object.entries(CASES).entries()) {
  const at = join(dir, String(i));
  mkdirSync(at);
  const source = await writeLayout(join(at, 'layout'), imageOf(...layers.map((entries) => tarBytes(entries))));
  const store = openStore({ data: join(at, 'pg'), run: join(at, 'pg/run'), config: join(at, 'pg/etc') });
  let ours: Outcome;
  try {
    const { image } = await importImage(store, source);
    ours = short(treeListing(store, openTree(store, image.treeRoot)));
  } catch (error) {
    if (!isPgError(error)) throw error;
    ours = { refused: error.code };
  }
  await store.close();
  const podman = ['--root', join(at, 'podman'), '--runroot', join(at, 'run'), '--storage-driver', 'vfs'];
  const theirs: Record<string, Outcome> = {
    podman: outcome(() => {
      const id = run('podman', ...podman, 'pull', '-q', `${source}:latest`).trim();
      const root = run('podman', ...podman, 'image', 'mount', id).trim();
      const listing = short(diskListing(root));
      run('podman', ...podman, 'image', 'umount', id);
      return listing;
    }),
    umoci: outcome(() => {
      run('umoci', 'unpack', '--image', `${join(at, 'layout')}:latest`, join(at, 'bundle'));
      return short(diskListing(join(at, 'bundle/rootfs')));
    }),
  };
  const before = new Set(['layout', 'pg', 'podman', 'run', 'bundle']);
  const outside = readdirSync(at).filter((entry) => !before.has(entry));
  if (existsSync('/evil') || outside.length > 0) rows.push(`| ${name} | **wrote outside** ${outside.join(' ')} | | |`);
  const words = (it: Outcome): string =>
    'refused' in it
      ? `refuses (${it.refused.replaceAll('|', '/').replaceAll(at, '')})`
      : JSON.stringify(it) === JSON.stringify(ours)
        ? 'the same'
        : 'another tree';
  const agree = Object.values(theirs).every((it) =>
    'refused' in it ? 'refused' in ours : JSON.stringify(it) === JSON.stringify(ours),
  );
  if (agree) same++;
  else
    rows.push(
      `| ${name} | ${'refused' in ours ? words(ours) : 'a tree'} | ${words(theirs['podman']!)} | ${words(theirs['umoci']!)} |`,
    );
  try {
    run('sh', '-c', `awk '$2 ~ "^${at}/" {print $2}' /proc/mounts | sort -r | xargs -r umount`);
  } finally {
    rmSync(at, { recursive: true, force: true });
  }
}
rmSync(dir, { recursive: true, force: true });
console.log(
  `| layers | pg | ${run('podman', '--version').trim()} | ${run('umoci', '--version').trim().split('\n')[0]} |\n| --- | --- | --- | --- |`,
);
console.log(rows.join('\n'));
console.log(`\n${same} of ${Object.keys(CASES).length} alike`);
