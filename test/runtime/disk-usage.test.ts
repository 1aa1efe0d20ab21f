import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { linkSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { openLog } from '../../fs/log/log.ts';
import { openView } from '../../fs/view/open-view.ts';
import { diskUsage } from '../../runtime/disk-usage.ts';
import { sampleRecord } from './sample-record.ts';
import { Fixture, ROOT_CALLER } from '../fs/view/fixture.ts';

const MIB = 1 << 20;
const ids = ['1', '2', '3'].map((digit) => digit.repeat(64));

describe('what an installation takes on the disk', () => {
  let fixture: Fixture;
  const data = (): string => join(fixture.dir, 'data');
  before(async () => {
    fixture = new Fixture();
    await fixture.image([{ path: 'a', kind: 'file', mode: 0o644, data: Buffer.alloc(300_000, 'image') }]);
  });
  after(() => fixture.remove());

  /** A container's directory, with a log of which so many MiB are live and so many dead. */
  const container = (id: string, live: number, dead: number): string => {
    const dir = join(data(), 'containers', id);
    mkdirSync(dir, { recursive: true });
    writeFileSync(join(dir, 'container.json'), JSON.stringify(sampleRecord(id, `name of ${id[0]}`)));
    const view = openView(
      fixture.tree,
      fixture.store,
      openLog(join(dir, 'log'), { create: true, base: fixture.treeRoot! }),
    );
    const file = view.mknod(1, 'file', 0o644, 0, ROOT_CALLER).ino;
    for (let i = 0; i < dead; i++) view.write(file, 0, Buffer.alloc(MIB, i), false);
    for (let i = 0; i < live; i++) view.write(file, i * MIB, Buffer.alloc(MIB, i), false);
    view.close();
    return join(dir, 'log');
  };
  /** What du(1) says, in bytes. */
  const du = (path: string): number =>
    Number(execFileSync('du', ['-sx', '--block-size=1', path], { encoding: 'utf8' }).split('\t')[0]);

  it('adds up to what du says, sparse and linked files included', () => {
    const log = container(ids[0]!, 3, 9);
    container(ids[1]!, 2, 0);
    // A clone's link to its parent's log.
    linkSync(join(log, 'log'), join(data(), 'containers', ids[1]!, 'log/base-4194304'));
    const usage = diskUsage({ data: data(), run: join(fixture.dir, 'run'), config: '' }, fixture.store);
    assert.equal(usage.totalBytes, du(data()));
    const { sectorBytes, indexBytes, containerBytes, mountBytes, otherBytes } = usage;
    assert.equal(sectorBytes + indexBytes + containerBytes + mountBytes + otherBytes, usage.totalBytes);
    assert.equal(containerBytes, du(join(data(), 'containers')));
    assert.ok(sectorBytes >= usage.liveSectorBytes && usage.liveSectorBytes > 0);
    assert.deepEqual(usage.mounts, []);
    const [one, two] = usage.containers.toSorted((a, b) => (a.id < b.id ? -1 : 1));
    assert.equal(one!.name, 'name of 1');
    for (const { totalBytes, logBytes, liveBytes, deadBytes, overheadBytes, sharedBytes, uniqueBytes } of [
      one!,
      two!,
    ]) {
      assert.equal(logBytes + overheadBytes, totalBytes);
      assert.equal(liveBytes + deadBytes, logBytes);
      assert.equal(sharedBytes + uniqueBytes, totalBytes);
      assert.ok(sharedBytes >= 12 * MIB, 'both share the one log');
    }
    assert.ok(one!.liveBytes >= 3 * MIB && one!.liveBytes < 4 * MIB, `${one!.liveBytes}`);
    assert.ok(one!.deadBytes >= 8 * MIB);
    assert.ok(two!.uniqueBytes < 3 * MIB);
  });

  it('is smaller by what is given back', () => {
    const dir = container(ids[2]!, 1, 20);
    const roots = { data: data(), run: join(fixture.dir, 'run'), config: '' };
    const before = diskUsage(roots, fixture.store);
    const view = openView(fixture.tree, fixture.store, openLog(dir));
    const { givenBackBytes } = view.clean();
    view.close();
    const after = diskUsage(roots, fixture.store);
    assert.ok(givenBackBytes >= 16 * MIB);
    assert.equal(after.totalBytes, du(data()));
    assert.ok(after.totalBytes < before.totalBytes - 14 * MIB);
  });
});
