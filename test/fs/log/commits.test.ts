import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Accumulator } from '../../../mdm/accumulator.ts';
import { executeBatch } from '../../../mdm/batch.ts';
import { isPgError } from '../../../mdm/error.ts';
import { MemoryHost } from '../../../mdm/memory-file.ts';
import { batchOf, type Commit, CommitList, type RootsFrom } from '../../../fs/log/commits.ts';
import { Entry, FLAG_DATA } from '../../../fs/log/entry.ts';
import { openLog } from '../../../fs/log/log.ts';

describe('the commits of a log', () => {
  let dir: string;
  beforeEach(() => (dir = mkdtempSync('/var/tmp/pg-test-')));
  afterEach(() => rmSync(dir, { recursive: true }));

  /** Appends payloads of these sizes, each a commit of its own; the sizes of the log after each. */
  function write(payloads: readonly number[]): number[] {
    const log = openLog(dir, { create: true });
    const sizes = [log.size];
    for (const [i, bytes] of payloads.entries()) {
      const entry = Object.assign(new Entry(), { type: 16 + (i % 3), flags: FLAG_DATA, sec: 1000 + i, nsec: 7 });
      log.append(entry, Buffer.alloc(bytes, i + 1), false);
      sizes.push(log.flush());
    }
    log.close();
    return sizes;
  }

  const list = (size: number, way: 'oldestFirst' | 'newestFirst', roots: RootsFrom = 'bytes'): Commit[] => {
    const commits = new CommitList(dir, size, roots);
    try {
      return [...commits[way]()];
    } finally {
      commits.close();
    }
  };

  it('have the roots of the bytes before their ends, and are batches of the machine', async () => {
    const sizes = write([100, 5000, 64, 70_000]);
    const bytes = readFileSync(join(dir, 'log'));
    const commits = list(sizes.at(-1)!, 'oldestFirst');
    assert.deepEqual(
      commits.map(({ end }) => end),
      sizes,
    );
    assert.deepEqual(
      commits.map(({ entries }) => [...entries]),
      [[[1, 1]], [[16, 1]], [[17, 1]], [[18, 1]], [[16, 1]]],
    );
    const file = new MemoryHost().createFile();
    for (const commit of commits) {
      const { instructions, cost } = batchOf(commit);
      const result = await executeBatch(file, { initial: file.state, instructions }, [
        undefined,
        bytes.subarray(commit.start, commit.end),
      ]);
      assert.equal(result.outcome, 'committed');
      assert.deepEqual(result.cost, cost);
      assert.deepEqual(Buffer.from(file.state.root), Buffer.from(commit.root));
    }
  });

  it('come newest first however long the log is', () => {
    const sizes = write(Array.from({ length: 30 }, (_, i) => (i % 5 === 4 ? 10 : 1_500_000)));
    assert.ok(sizes.at(-1)! > 32 << 20, 'more than two stretches');
    const forward = list(sizes.at(-1)!, 'oldestFirst');
    assert.deepEqual(list(sizes.at(-1)!, 'newestFirst'), forward.toReversed());
    assert.deepEqual(list(sizes.at(-1)!, 'newestFirst', 'kept'), forward.toReversed(), 'nothing is kept yet');
    const log = openLog(dir);
    log.position();
    log.close();
    assert.ok(existsSync(join(dir, 'roots')));
    for (const way of ['newestFirst', 'oldestFirst'] as const)
      assert.deepEqual(list(sizes.at(-1)!, way, 'kept'), list(sizes.at(-1)!, way, 'bytes'), way);
    const accumulator = new Accumulator();
    accumulator.append(readFileSync(join(dir, 'log')).subarray(0, sizes[20]));
    assert.deepEqual(forward[20]!.root, accumulator.root());
    assert.deepEqual(list(sizes[7]!, 'newestFirst'), forward.slice(0, 8).toReversed(), 'up to a size');
  });

  it('show a byte that is not what was written', () => {
    const sizes = write([100, 200, 300]);
    const path = join(dir, 'log');
    const bytes = readFileSync(path);
    const honest = list(sizes.at(-1)!, 'oldestFirst');
    bytes[sizes[1]! + 70]! ^= 1;
    writeFileSync(path, bytes);
    const rotten = list(sizes.at(-1)!, 'oldestFirst');
    assert.deepEqual(rotten.slice(0, 2), honest.slice(0, 2));
    assert.notDeepEqual(rotten[2]!.root, honest[2]!.root);
    bytes[sizes[1]! + 20]! ^= 1;
    writeFileSync(path, bytes);
    assert.throws(
      () => list(sizes.at(-1)!, 'newestFirst'),
      (error) => isPgError(error, 'LOG_CORRUPT'),
    );
  });
});
