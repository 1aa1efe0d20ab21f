import assert from 'node:assert/strict';
import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { openLog } from '../../../fs/log/log.ts';
import { LogReader, openReplica, type Replica } from '../../../fs/log/replica.ts';
import { Follower } from '../../../fs/view/follower.ts';
import { openView } from '../../../fs/view/open-view.ts';
import type { View } from '../../../fs/view/view.ts';
import { isPgError } from '../../../mdm/error.ts';
import { dump, Fixture, ROOT_CALLER } from './fixture.ts';

describe('a follower of a copy of a log', () => {
  let fixture: Fixture;
  let source: View;
  let replica: Replica;
  let copy: string;

  beforeEach(async () => {
    fixture = new Fixture();
    await fixture.image([
      { path: 'etc', kind: 'dir', mode: 0o755 },
      { path: 'etc/motd', kind: 'file', mode: 0o644, data: Buffer.from('hello, the image') },
    ]);
    source = fixture.view('source');
    copy = join(fixture.dir, 'copy');
    replica = openReplica(copy, { create: true, epoch: 0 });
  });
  afterEach(async () => {
    source.close();
    replica.close();
    await fixture.remove();
  });

  const write = (name: string, bytes: number): void => {
    const { ino } = source.mknod(1, name, 0o100644, 0, ROOT_CALLER);
    source.open(ino, false);
    for (let at = 0; at < bytes; at += 100_000)
      source.write(ino, at, Buffer.alloc(Math.min(100_000, bytes - at), name), false);
    source.release(ino);
  };
  const ship = (): number => {
    const size = source.flush();
    const bytes = Buffer.alloc(size - replica.size);
    const reader = new LogReader(join(fixture.dir, 'source'));
    reader.readCommitted(replica.size, bytes, size);
    reader.close();
    replica.append(bytes);
    return replica.sync().size;
  };
  const follower = (): Follower => new Follower(copy, fixture.tree, fixture.treeRoot!);
  const mounted = (): { lines: string[]; replays: number } => {
    const log = openLog(copy, { readOnly: true, base: fixture.treeRoot! });
    const replays = log.sinceCheckpoint;
    const view = openView(fixture.tree, fixture.store, log);
    const lines = dump(view, true);
    view.close();
    return { lines, replays };
  };

  it('leaves a checkpoint from which the copy mounts as it does without, whatever follows', () => {
    write('a', 2_000_000);
    const motd = source.lookup(source.lookup(1, 'etc').ino, 'motd').ino;
    source.write(motd, 7, Buffer.from('log'), false);
    // Without a name, but still written to afterwards.
    const orphan = source.mknod(1, 'gone', 0o100644, 0, ROOT_CALLER).ino;
    source.open(orphan, false);
    source.unlink(1, 'gone');
    const first = ship();
    const following = follower();
    following.follow(first);
    following.checkpoint();
    source.write(orphan, 0, Buffer.from('still here'), false);
    source.rename(1, 'a', 1, 'b', 0, ROOT_CALLER);
    write('c', 10_000);
    following.follow(ship());
    following.checkpoint();
    following.close();

    const { lines, replays } = mounted();
    assert.deepEqual(lines, dump(source, true));
    assert.ok(replays > 0 && replays < 20_000, `a mount replays ${replays} bytes`);
    rmSync(join(copy, 'checkpoint'));
    assert.deepEqual(mounted().lines, lines);
  });

  it('goes on from the checkpoint that is there', () => {
    write('a', 2_000_000);
    const first = ship();
    let following = follower();
    following.follow(first);
    following.checkpoint();
    following.close();
    write('b', 2_000_000);
    following = follower();
    const size = ship();
    following.follow(size);
    following.checkpoint();
    following.close();
    const { lines, replays } = mounted();
    assert.equal(replays, 0);
    assert.deepEqual(lines, dump(source, true));
  });

  it('does not pay for a checkpoint of little, and refuses the log of another image', () => {
    write('a', 1000);
    const first = ship();
    const following = follower();
    following.follow(first);
    following.checkpoint();
    following.close();
    assert.equal(existsSync(join(copy, 'checkpoint')), false);
    assert.throws(
      () => new Follower(copy, fixture.tree, Buffer.alloc(32, 1)),
      (error) => isPgError(error, 'LOG_BASE'),
    );
  });
});
