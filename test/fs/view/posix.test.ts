import assert from 'node:assert/strict';
import { Fixture, listNames, readWhole, ROOT_CALLER as ROOT } from './fixture.ts';
import { isFsError, type FsErrorCode } from '../../../fs/view/error.ts';
import { openView } from '../../../fs/view/open-view.ts';
import {
  type Attr,
  FALLOC_KEEP_SIZE,
  FALLOC_PUNCH_HOLE,
  FALLOC_ZERO_RANGE,
  RENAME_EXCHANGE,
  RENAME_WHITEOUT,
  type View,
} from '../../../fs/view/view.ts';

const refuses = (code: FsErrorCode, action: () => unknown): void =>
  assert.throws(action, (error) => isFsError(error, code), code);
const ino = (view: View, path: string): number =>
  path
    .split('/')
    .filter(Boolean)
    .reduce((at, name) => view.lookup(at, name).ino, 1);
const mtime = (attr: Attr): number => attr.mtimeSec + attr.mtimeNsec / 1e9;
const ctime = (attr: Attr): number => attr.ctimeSec + attr.ctimeNsec / 1e9;

/** Which times of a file moved, and whether its directory's did. */
const moved = (result: { before: Attr; after: Attr; dir: boolean }): string =>
  [
    mtime(result.after) > mtime(result.before) && 'm',
    ctime(result.after) > ctime(result.before) && 'c',
    result.dir && 'dir',
  ]
    .filter(Boolean)
    .join(' ');

describe('a view is POSIX where the model does not look', () => {
  let fixture: Fixture;
  let view: View;
  let logs = 0;

  before(async () => {
    fixture = new Fixture();
    await fixture.image([
      { path: 'big', kind: 'file', mode: 0o4755, data: Buffer.alloc(3 << 20, 'big') },
      { path: 'dir', kind: 'dir', mode: 0o755 },
      ...Array.from({ length: 40 }, (_, i) => ({
        path: `dir/f${String(i).padStart(2, '0')}`,
        kind: 'file' as const,
        mode: 0o644,
        data: Buffer.from(`${i}`),
      })),
      { path: 'hard', kind: 'link', to: 'big' },
    ]);
  });
  after(() => fixture.remove());
  beforeEach(() => (view = fixture.view(`log-${logs++}`)));
  afterEach(() => view.close());

  const remount = (): void => {
    view.close();
    view = fixture.view(`log-${logs - 1}`);
  };
  const file = (name: string, data = ''): number => {
    const made = view.mknod(1, name, 0o100644, 0, ROOT).ino;
    if (data !== '') view.write(made, 0, Buffer.from(data), false);
    return made;
  };

  it('keeps an unlinked file until it is closed and forgotten, and not over a remount', () => {
    const gone = file('gone', 'still here');
    view.open(gone, false);
    view.unlink(1, 'gone');
    assert.equal(view.getattr(gone).nlink, 0);
    view.write(gone, 10, Buffer.from('!'), false);
    assert.equal(readWhole(view, gone).toString(), 'still here!');
    view.forget(gone);
    assert.equal(view.getattr(gone).size, 11, 'it is open');
    view.release(gone);
    view.forget(gone);
    refuses('ESTALE', () => view.getattr(gone));
    const other = file('other');
    view.unlink(1, 'other');
    assert.equal(view.stats().orphans, 1);
    remount();
    assert.equal(view.stats().orphans, 0);
    refuses('ESTALE', () => view.getattr(other));
    assert.ok(file('next') > other, 'no number is used twice');
  });

  it('appends about what was written, and metadata only for metadata', () => {
    const big = ino(view, 'big');
    const size = (): number => view.stats().logBytes;
    let before = size();
    view.write(big, 1_000_000, Buffer.alloc(4096, 'x'), false);
    assert.equal(size() - before, 4160);
    before = size();
    view.setattr(big, { mode: 0o600 }, ROOT);
    view.setattr(big, { uid: 7, gid: 8 }, ROOT);
    view.rename(1, 'big', 1, 'moved', 0, ROOT);
    view.rename(1, 'dir', 1, 'renamed', 0, ROOT);
    view.copyFileRange(big, 0, file('copy'), 0, 3 << 20);
    assert.ok(size() - before <= 6 * 128, `${size() - before}`);
    const expected = Buffer.alloc(3 << 20, 'big').fill('x', 1_000_000, 1_004_096);
    assert.ok(readWhole(view, ino(view, 'copy')).equals(expected));
    assert.equal(ino(view, 'hard'), ino(view, 'moved'), 'both names of one file');
    assert.equal(view.lookup(ino(view, 'renamed'), 'f07').size, 1);
  });

  it('finds an inode itself by the name of a dot, as file handles need, while it is there', () => {
    const at = file('f', 'x');
    assert.equal(view.lookup(at, '.').ino, at);
    assert.equal(view.lookup(1, '.').ino, 1);
    refuses('ENOTDIR', () => view.lookup(at, 'x'));
    view.unlink(1, 'f');
    view.forget(at);
    refuses('ESTALE', () => view.lookup(at, '.'));
  });

  it('allocates whole blocks', () => {
    const at = file('f');
    view.fallocate(at, FALLOC_KEEP_SIZE, 2000, 4096);
    assert.equal(view.getattr(at).blocks, 16);
    view.write(at, 2000, Buffer.alloc(4096, 'x'), false);
    assert.equal(view.getattr(at).blocks, 16);
    assert.equal(view.getattr(at).size, 6096);
  });

  it('moves times as POSIX has it', () => {
    const at = file('f', 'x');
    const step = (action: () => unknown): { before: Attr; after: Attr; dir: boolean } => {
      const [before, dirBefore] = [view.getattr(at), view.getattr(1)];
      const start = Date.now();
      while (Date.now() - start < 12);
      action();
      return { before, after: view.getattr(at), dir: mtime(view.getattr(1)) > mtime(dirBefore) };
    };
    assert.equal(moved(step(() => view.write(at, 0, Buffer.from('y'), false))), 'm c');
    assert.equal(moved(step(() => view.write(at, 0, Buffer.alloc(0), false))), '');
    assert.equal(moved(step(() => view.setattr(at, { mode: 0o600 }, ROOT))), 'c');
    assert.equal(moved(step(() => view.setattr(at, { uid: 5 }, ROOT))), 'c');
    assert.equal(moved(step(() => view.setattr(at, { size: 0 }, ROOT))), 'm c');
    assert.equal(moved(step(() => view.link(at, 1, 'g'))), 'c dir');
    assert.equal(moved(step(() => view.rename(1, 'g', 1, 'h', 0, ROOT))), 'c dir');
    assert.equal(moved(step(() => view.unlink(1, 'h'))), 'c dir');
    assert.equal(moved(step(() => view.setxattr(at, 'user.a', Buffer.from('b'), 0))), 'c');
    assert.equal(moved(step(() => view.fallocate(at, 0, 0, 10))), 'm c');
    const { after } = step(() =>
      view.setattr(at, { atimeSec: -5, atimeNsec: 7, mtimeSec: 9, mtimeNsec: 999_999_999 }, ROOT),
    );
    assert.deepEqual([after.atimeSec, after.atimeNsec, after.mtimeSec, after.mtimeNsec], [-5, 7, 9, 999_999_999]);
    const born = view.getattr(at).btimeSec;
    remount();
    assert.deepEqual([view.getattr(at).atimeSec, view.getattr(at).btimeSec], [-5, born]);
  });

  it('access times move as with relatime, and never those of an unchanged file of the image', () => {
    const into = Buffer.alloc(4);
    const before = view.stats().logBytes;
    view.read(ino(view, 'big'), 0, into);
    view.readdir(ino(view, 'dir'), 0, () => true);
    assert.equal(view.stats().logBytes, before);
    const at = file('f', 'data');
    view.setattr(at, { atimeSec: 1000, atimeNsec: 0 }, ROOT);
    view.read(at, 0, into);
    assert.ok(view.getattr(at).atimeSec > 1000);
    const after = view.stats().logBytes;
    view.read(at, 0, into);
    assert.equal(view.stats().logBytes, after, 'once');
  });

  it('takes setuid, setgid and capabilities from what is written or given away', () => {
    const big = ino(view, 'big');
    view.setxattr(big, 'security.capability', Buffer.from('cap'), 0);
    view.write(big, 0, Buffer.from('x'), true);
    assert.equal(view.getattr(big).mode & 0o7777, 0o755);
    refuses('ENODATA', () => view.getxattr(big, 'security.capability'));
    view.setattr(big, { mode: 0o6755 }, ROOT);
    view.write(big, 0, Buffer.from('x'), false);
    assert.equal(view.getattr(big).mode & 0o7777, 0o6755, 'root may');
    view.setattr(big, { uid: 9 }, ROOT);
    assert.equal(view.getattr(big).mode & 0o7777, 0o755);
    view.setattr(big, { mode: 0o2644 }, ROOT);
    view.open(big, true);
    view.setattr(big, { size: 5, killSuid: true }, ROOT);
    assert.equal(view.getattr(big).mode & 0o7777, 0o2644, 'setgid without group execution is no setgid');
    view.release(big);
  });

  it('inherits groups and setgid from a setgid directory', () => {
    const dir = view.mkdir(1, 'shared', 0o775, { ...ROOT, gid: 50 });
    view.setattr(dir.ino, { mode: 0o2775 }, ROOT);
    const made = view.mknod(dir.ino, 'f', 0o100644, 0, { uid: 3, gid: 4, pid: 1 });
    assert.deepEqual([made.uid, made.gid], [3, 50]);
    const below = view.mkdir(dir.ino, 'd', 0o755, { uid: 3, gid: 4, pid: 1 });
    assert.deepEqual([below.gid, below.mode & 0o7777], [50, 0o2755]);
  });

  it('gives default ACLs to what is made, cuts them by the mode, and lets chmod change the mask', () => {
    const caller = { ...ROOT, umask: 0o077 };
    const dir = view.mkdir(1, 'd', 0o777, caller).ino;
    assert.equal(view.getattr(dir).mode & 0o777, 0o700, 'umask without a default ACL');
    const inherited = acl([1, 7], [2, 6, 1000], [4, 5], [16, 7], [32, 0]);
    view.setxattr(dir, 'system.posix_acl_default', inherited, 0);
    const made = view.mknod(dir, 'f', 0o100664, 0, caller);
    assert.equal(made.mode & 0o777, 0o660, 'no umask; other and execution are cut');
    assert.deepEqual(
      Buffer.from(view.getxattr(made.ino, 'system.posix_acl_access')),
      acl([1, 6], [2, 6, 1000], [4, 5], [16, 6], [32, 0]),
    );
    assert.deepEqual(
      Buffer.from(view.getxattr(view.mkdir(dir, 'sub', 0o755, caller).ino, 'system.posix_acl_default')),
      inherited,
    );
    view.setattr(made.ino, { mode: 0o640 }, ROOT);
    assert.deepEqual(
      Buffer.from(view.getxattr(made.ino, 'system.posix_acl_access')),
      acl([1, 6], [2, 6, 1000], [4, 5], [16, 4], [32, 0]),
    );
    view.setxattr(made.ino, 'system.posix_acl_access', acl([1, 7], [4, 4], [32, 1]), 0);
    assert.equal(view.getattr(made.ino).mode & 0o777, 0o741);
    assert.deepEqual(view.listxattr(made.ino), [], 'the mode says it all');
    refuses('EINVAL', () =>
      view.setxattr(made.ino, 'system.posix_acl_access', acl([1, 7], [2, 4, 5], [4, 4], [32, 1]), 0),
    );
    refuses('EACCES', () => view.setxattr(made.ino, 'system.posix_acl_default', inherited, 0));
    view.removexattr(made.ino, 'system.posix_acl_access');
  });

  it('limits names, targets, sizes, links and attributes', () => {
    const at = file('f');
    refuses('ENAMETOOLONG', () => view.lookup(1, 'x'.repeat(256)));
    assert.equal(file('x'.repeat(255)) > 0, true);
    refuses('ENAMETOOLONG', () => view.symlink(1, 's', Buffer.alloc(4096, 'x'), ROOT));
    refuses('EFBIG', () => view.setattr(at, { size: Number.MAX_SAFE_INTEGER }, ROOT));
    refuses('EFBIG', () => view.write(at, Number.MAX_SAFE_INTEGER - 4095, Buffer.from('xx'), false));
    view.write(at, 2 ** 43 - 1, Buffer.from('end'), false);
    assert.equal(view.getattr(at).size, 2 ** 43 + 2);
    assert.ok(view.getattr(at).blocks <= 8, 'eight TiB of holes take no blocks');
    refuses('ERANGE', () => view.setxattr(at, `user.${'x'.repeat(251)}`, Buffer.from('v'), 0));
    refuses('E2BIG', () => view.setxattr(at, 'user.x', Buffer.alloc(65_537), 0));
    refuses('EOPNOTSUPP', () => view.setxattr(at, 'other.x', Buffer.from('v'), 0));
    view.setxattr(at, 'user.x', Buffer.alloc(65_536, 'v'), 0);
    for (let i = 1; i < 65_000; i++) view.link(at, 1, `l${i}`);
    refuses('EMLINK', () => view.link(at, 1, 'more'));
    remount();
    assert.equal(view.getattr(at).nlink, 65_000);
    assert.equal(view.getxattr(at, 'user.x').length, 65_536);
  });

  it('finds data and holes, and punches them', () => {
    const at = file('f');
    view.write(at, 8192, Buffer.alloc(4096, 'x'), false);
    view.setattr(at, { size: 20_000 }, ROOT);
    const seek = (offset: number, whence: 'data' | 'hole'): number => view.lseek(at, offset, whence);
    assert.deepEqual(
      [seek(0, 'data'), seek(0, 'hole'), seek(8192, 'hole'), seek(9000, 'data')],
      [8192, 0, 12_288, 9000],
    );
    refuses('ENXIO', () => seek(12_288, 'data'));
    refuses('ENXIO', () => seek(20_000, 'hole'));
    view.fallocate(at, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, 9000, 1000);
    assert.deepEqual([seek(8192, 'hole'), seek(9000, 'data')], [9000, 10_000]);
    view.fallocate(at, FALLOC_ZERO_RANGE, 11_000, 100_000);
    assert.equal(view.getattr(at).size, 111_000);
    view.fallocate(at, FALLOC_KEEP_SIZE, 0, 200_000);
    assert.equal(view.getattr(at).size, 111_000);
    assert.ok(view.getattr(at).blocks >= 200_000 / 512);
    refuses('EOPNOTSUPP', () => view.fallocate(at, 8, 0, 4096));
    assert.equal(view.lseek(ino(view, 'big'), 5, 'hole'), 3 << 20);
    const big = ino(view, 'big');
    view.fallocate(big, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, 4096, 4096);
    assert.deepEqual([view.lseek(big, 0, 'hole'), view.lseek(big, 4096, 'data')], [4096, 8192]);
  });

  it('lists a directory that changes: what stays is seen once', () => {
    const dir = ino(view, 'dir');
    for (let i = 0; i < 60; i++) view.mknod(dir, `n${i}`, 0o100644, 0, ROOT);
    const seen: string[] = [];
    let cookie = 0;
    for (let round = 0, more = true; more; round++) {
      more = false;
      let left = 7;
      view.readdir(dir, cookie, (name, _ino, _mode, next) => {
        if (left-- === 0) {
          more = true;
          return false;
        }
        seen.push(name);
        cookie = next;
        return true;
      });
      if (round === 1) view.unlink(dir, 'f03');
      if (round === 2) view.rename(dir, 'f30', dir, 'f31', 0, ROOT);
      if (round === 3) view.unlink(dir, 'f20');
      if (round === 8) for (let i = 0; i < 50; i++) if (i % 5 > 0) view.unlink(dir, `n${i}`);
      if (round === 9) view.mknod(dir, 'f20', 0o100644, 0, ROOT);
      if (round === 10) view.rename(dir, 'n59', dir, 'n58', 0, ROOT);
    }
    const count = (name: string): number => seen.filter((other) => other === name).length;
    const stays = ['.', '..', 'f00', 'f31', 'f39', 'n0', 'n5', 'n45', 'n55', 'n58'];
    assert.deepEqual(
      stays.map(count),
      stays.map(() => 1),
    );
    assert.deepEqual(
      seen.filter((name) => count(name) > 1),
      [],
    );
    const late: string[] = [];
    view.readdir(dir, cookie, (name) => late.push(name) > 0);
    assert.deepEqual(late, [], 'the last cookie is the end');
  });

  it('ends a scan that renames all it meets', () => {
    const dir = view.mkdir(1, 'many', 0o755, ROOT).ino;
    for (let i = 0; i < 10; i++) view.mknod(dir, `a${i}`, 0o100644, 0, ROOT);
    let met = 0;
    for (let cookie = 0, more = true; more;) {
      more = false;
      let name = '';
      view.readdir(dir, cookie, (found, _ino, _mode, next) => {
        if (more) return false;
        [name, cookie, more] = [found, next, true];
        return true;
      });
      if (more && !name.startsWith('.')) view.rename(dir, name, dir, `b${met++}`, 0, ROOT);
      assert.ok(met <= 10);
    }
    assert.equal(met, 10);
  });

  it('moves directories of the image with all that is in them, and counts links', () => {
    const [dir, made] = [ino(view, 'dir'), view.mkdir(1, 'new', 0o755, ROOT).ino];
    view.rename(1, 'dir', made, 'dir', 0, ROOT);
    assert.equal(ino(view, 'new/dir'), dir);
    assert.equal(view.lookup(dir, '..').ino, made);
    assert.equal(listNames(view, dir).length, 40);
    assert.deepEqual([view.getattr(1).nlink, view.getattr(made).nlink], [3, 3]);
    refuses('EINVAL', () => view.rename(1, 'new', dir, 'x', 0, ROOT));
    refuses('ENOTEMPTY', () => view.rmdir(made, 'dir'));
    refuses('EINVAL', () => view.rename(made, 'dir', 1, 'new', RENAME_EXCHANGE, ROOT));
    view.rename(made, 'dir', 1, 'big', RENAME_EXCHANGE, ROOT);
    assert.deepEqual([view.getattr(1).nlink, view.getattr(made).nlink], [4, 2]);
    assert.equal(view.lookup(made, 'dir').size, 3 << 20);
    assert.equal(view.lookup(dir, '..').ino, 1);
  });

  it('leaves a whiteout where RENAME_WHITEOUT asks for one', () => {
    const at = ino(view, 'big');
    view.rename(1, 'big', 1, 'away', RENAME_WHITEOUT, ROOT);
    const left = view.lookup(1, 'big');
    assert.deepEqual([left.mode & 0o170000, left.rdev, view.lookup(1, 'away').ino], [0o020000, 0, at]);
  });

  it('says what changed as docker diff does', () => {
    view.unlink(ino(view, 'dir'), 'f05');
    view.write(ino(view, 'dir/f06'), 0, Buffer.from('x'), false);
    const sub = view.mkdir(ino(view, 'dir'), 'sub', 0o755, ROOT).ino;
    view.mknod(sub, 'in', 0o100644, 0, ROOT);
    view.mknod(1, 'temporary', 0o100644, 0, ROOT);
    view.unlink(1, 'temporary');
    const expected = ['C /dir', 'D /dir/f05', 'C /dir/f06', 'A /dir/sub', 'A /dir/sub/in'];
    const changes = (): string[] => [...view.changes()].map(({ kind, path }) => `${kind} ${path}`);
    assert.deepEqual(changes(), expected);
    remount();
    assert.deepEqual(changes(), expected);
    view.rename(1, 'dir', 1, 'moved', 0, ROOT);
    assert.equal(changes().filter((line) => line.startsWith('A /moved')).length, 1 + 39 + 2);
    assert.ok(changes().includes('D /dir'));
  });

  it('is read-only without a log', () => {
    const image = openView(fixture.tree, fixture.store, null);
    assert.equal(listNames(image, 1).length, 3);
    refuses('EROFS', () => image.unlink(1, 'big'));
    refuses('EROFS', () => image.write(ino(image, 'big'), 0, Buffer.from('x'), false));
    refuses('EROFS', () => image.mkdir(1, 'd', 0o755, ROOT));
    refuses('EROFS', () => image.setattr(1, { mode: 0 }, ROOT));
    assert.deepEqual([image.flush(), image.logFd(), image.position().size], [0, -1, 0]);
    image.close();
  });
});

/** An ACL as it is in an extended attribute. */
function acl(...entries: [tag: number, perm: number, id?: number][]): Buffer {
  const value = Buffer.alloc(4 + 8 * entries.length);
  value.writeUInt32LE(2, 0);
  entries.forEach(([tag, perm, id = 0xffffffff], i) => {
    value.writeUInt16LE(tag, 4 + 8 * i);
    value.writeUInt16LE(perm, 6 + 8 * i);
    value.writeUInt32LE(id, 8 + 8 * i);
  });
  return value;
}
